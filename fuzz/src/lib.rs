//! The functions of tests/fuzz with what they use of the command line, compiled once for all targets.

#[allow(dead_code)]
#[path = "../../src/bin/docent/command_line.rs"]
mod command_line;
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
