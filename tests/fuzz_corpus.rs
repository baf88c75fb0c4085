//! Every input that fuzzing has kept, and every one that something was wrong with once, as a test.
#![cfg(feature = "cli")]

#[allow(dead_code, reason = "the command line uses the rest")]
#[path = "../src/bin/docent/command_line.rs"]
mod command_line;
mod counting;
#[allow(dead_code, reason = "as above")]
#[path = "../src/bin/docent/entities.rs"]
mod entities;
mod fuzz;
#[allow(dead_code, reason = "as above")]
#[path = "../src/bin/docent/history.rs"]
mod history;
#[path = "../src/bin/docent/lines.rs"]
mod lines;
#[allow(dead_code, reason = "as above")]
#[path = "../src/bin/docent/output.rs"]
mod output;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// What one input may take.
const LONGEST: Duration = Duration::from_secs(10);
const MEMORY: usize = 256 << 20;

/// What is fuzzed, by the name of its folders and of its target in `fuzz/fuzz_targets`.
type Target = (&'static str, fn(&[u8]));
const TARGETS: [Target; 7] = [
    ("open_store", fuzz::open_store),
    ("live_db", fuzz::live_db),
    ("entity_import", fuzz::entity_import),
    ("dataset_toml", fuzz::dataset_toml),
    ("csv", fuzz::csv),
    ("json", fuzz::json),
    ("train_toml", fuzz::train_toml),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The files of a folder in their order; none where there is no folder.
fn inputs(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).map(|all| all.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default();
    found.sort();
    found
}

fn replay(name: &str) {
    let (_, target) = TARGETS.iter().find(|(own, _)| *own == name).unwrap();
    let corpus = inputs(&root().join("corpus").join(name));
    assert!(corpus.len() >= 5, "fuzz/corpus/{name} has {} files", corpus.len());
    // Stores are made, and tables of the process filled, once.
    target(&[]);
    for path in corpus.into_iter().chain(inputs(&root().join("crashes").join(name))) {
        let bytes = fs::read(&path).unwrap();
        println!("{}", path.display());
        let begun = Instant::now();
        let (_, memory) = counting::allocated(|| target(&bytes));
        let took = begun.elapsed();
        assert!(took < LONGEST, "{} took {took:?}", path.display());
        assert!(memory < MEMORY, "{} took {memory} bytes of memory", path.display());
    }
}

#[test]
fn stores_that_lie_under_valid_checksums_are_told_or_served() {
    replay("open_store");
}

#[test]
fn live_files_that_are_damaged_or_lie_are_told_or_served() {
    replay("live_db");
}

#[test]
fn states_that_are_imported_come_out_the_same_and_can_be_served() {
    replay("entity_import");
}

#[test]
fn descriptions_of_datasets_are_read_or_refused() {
    replay("dataset_toml");
}

#[test]
fn tables_of_any_bytes_are_read_or_refused() {
    replay("csv");
}

#[test]
fn json_of_any_bytes_is_read_or_refused() {
    replay("json");
}

#[test]
fn configurations_of_any_bytes_are_refused_or_come_back_the_same() {
    replay("train_toml");
}

/// Folders and targets are those that are replayed.
#[test]
fn every_target_is_replayed() {
    let mut names: Vec<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort();
    let named = |folder: &str| -> Vec<String> {
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        inputs(&root().join(folder)).into_iter().map(stem).collect()
    };
    assert_eq!(named("corpus"), names);
    assert_eq!(named("fuzz_targets"), names);
    assert!(named("crashes").iter().all(|name| names.contains(name)), "a folder of crashes without a target");
}
