//! Mapped files, in a process of their own: what a map costs while it is read, and what befalls it when somebody cuts the file.

#[path = "../store_fixture/mod.rs"]
mod store_fixture;

use docent::store::{OpenOptions, Store};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};
use store_fixture::*;

/// The signal of a page that the file does not have any more.
const SIGBUS: i32 = 7;
/// Numbers of the table that is read.
const NUMBERS: u64 = 4 << 20;

fn child(task: &str, store: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_docent-test-child")).arg(task).arg(store).spawn().unwrap()
}

fn wait_for(file: &Path) {
    let start = Instant::now();
    while !file.exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "the child does not come up");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A store with a table of 16 MiB; gives the table's file.
fn store_with_a_table(path: &Path) -> PathBuf {
    let store = Store::create(path).unwrap();
    let mut publisher = store.publisher().unwrap();
    write(&mut publisher, 3).unwrap();
    let table: Vec<f32> = (0..NUMBERS).map(|n| n as f32).collect();
    publisher.slice("table", &[NUMBERS], &table).unwrap();
    publisher.publish(&content(3), &run_record()).unwrap();
    drop(publisher);
    let segments = fs::read_dir(path.join("segments")).unwrap().map(|e| e.unwrap().path());
    segments.max_by_key(|p| p.metadata().unwrap().len()).unwrap()
}

/// How a child ends that reads the table after somebody has cut its file.
fn read_after_a_cut(task: &str) -> ExitStatus {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let table = store_with_a_table(&path);
    let mut child = child(task, &path);
    wait_for(&path.join("opened.tmp"));
    fs::set_permissions(&table, Permissions::from_mode(0o644)).unwrap();
    File::options().write(true).open(&table).unwrap().set_len(4096).unwrap();
    // Whoever looks is told before anybody reads.
    let store = Store::open(&path).unwrap();
    assert!(!store.verify(None).unwrap().ok);
    assert!(store.snapshot(&OpenOptions::default()).is_err());
    fs::write(path.join("cut.tmp"), "").unwrap();
    child.wait().unwrap()
}

#[test]
fn a_file_that_is_cut_under_a_map_ends_its_reader_and_under_a_copy_nothing_happens() {
    // What the documents say of a map, and why they name the copy.
    assert_eq!(read_after_a_cut("read-a-map-after-a-cut").signal(), Some(SIGBUS));
    assert!(read_after_a_cut("read-a-copy-after-a-cut").success());
}

#[test]
fn what_was_read_in_before_is_not_waited_for() {
    // A folder of this build: a system's folder for temporary files may be in memory, where nothing is ever read in.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("store");
    let table = store_with_a_table(&path);
    let faults = |task: &str| -> u64 {
        // Takes the file out of the system's cache.
        let of = format!("if={}", table.display());
        let dropped = Command::new("dd").args([&of, "iflag=nocache", "count=0", "status=none"]).status().unwrap();
        assert!(dropped.success());
        assert!(child(task, &path).wait().unwrap().success());
        fs::read_to_string(path.join("faults.tmp")).unwrap().parse().unwrap()
    };
    let without = faults("count-faults");
    if without == 0 {
        println!("SKIPPED: this file system keeps its files in memory");
        return;
    }
    assert_eq!(faults("count-faults-after-prefault"), 0, "{without} without");
}
