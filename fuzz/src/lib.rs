//! The functions of tests/fuzz with what they use of the command line, compiled once for all targets.

#[allow(dead_code)]
#[path = "../../src/bin/docent/command_line.rs"]
mod command_line;
#[path = "../../tests/counting/mod.rs"]
mod counting;
#[allow(dead_code)]
#[path = "../../src/bin/docent/entities.rs"]
mod entities;
#[path = "../../tests/fuzz/mod.rs"]
pub mod fuzz;
#[allow(dead_code)]
#[path = "../../src/bin/docent/history.rs"]
mod history;
#[path = "../../src/bin/docent/lines.rs"]
mod lines;
#[allow(dead_code)]
#[path = "../../src/bin/docent/output.rs"]
mod output;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// The most memory that an input may ask for, all in all, as in `tests/fuzz_corpus.rs`.
const MEMORY: usize = 256 << 20;

/// Calls a target.
pub fn run(target: fn(&[u8]), bytes: &[u8]) {
    let (_, memory) = counting::allocated(|| target(bytes));
    assert!(memory < MEMORY, "{memory} bytes of memory");
}
