//! Stores in other processes: publishers that are killed or hold the lock, hostile files, the same bytes everywhere.

#[path = "../store_fixture/mod.rs"]
mod store_fixture;

use docent::ErrorKind;
use docent::store::{GenerationId, Store};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use store_fixture::*;

fn child(task: &str, store: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_docent-test-child"));
    command.arg(task).arg(store).stdout(Stdio::null());
    command
}

#[test]
fn a_second_publisher_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    publish(&store, 1).unwrap();
    let first = store.publisher().unwrap();
    let start = Instant::now();
    assert_eq!(store.publisher().unwrap_err().kind(), ErrorKind::Locked);
    assert_eq!(store.rollback(None).unwrap_err().kind(), ErrorKind::Locked);
    assert_eq!(store.prune(1).unwrap_err().kind(), ErrorKind::Locked);
    assert!(start.elapsed() < Duration::from_secs(1));
    drop(first);

    let mut child = child("hold-the-lock", dir.path()).spawn().unwrap();
    let start = Instant::now();
    while !dir.path().join("segments/held.tmp").exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "the child does not come up");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(store.publisher().unwrap_err().kind(), ErrorKind::Locked);
    assert_eq!(number(&store.snapshot(&full()).unwrap()), 1, "readers need no lock");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(publish(&store, 3).unwrap(), GenerationId(2));
    assert!(!dir.path().join("segments/held.tmp").exists());
}

#[test]
fn killing_the_publisher_at_any_time_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (mut last, mut with_debris) = (0, 0);
    for round in 0..500u64 {
        let mut child = child("publish-until-killed", &path).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(2_000 + round.wrapping_mul(7_919) % 40_000));
        assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        if !path.join("CURRENT").exists() {
            continue;
        }
        let store = Store::open(&path).unwrap();
        with_debris += u64::from(path.join("CURRENT.tmp").exists() || files(&path).iter().any(|f| f.ends_with("tmp")));
        if let Some(current) = store.current().unwrap() {
            number(&store.snapshot(&full()).unwrap());
            assert!(store.generations().unwrap().iter().all(|g| g.problem.is_none()));
            last = last.max(current.0);
        }
        let id = publish(&store, round).unwrap();
        assert!(id.0 > last, "number {id} was used before");
        assert_eq!(number(&store.snapshot(&full()).unwrap()), round);
        assert!(files(&path).iter().all(|f| f.extension().is_none_or(|e| e != "tmp")));
        last = id.0;
    }
    assert!(last > 500, "the children published too little: {last}, {with_debris} left debris");
}

#[test]
fn a_hostile_manifest_gets_little_memory_and_time() {
    let dir = tempfile::tempdir().unwrap();
    publish(&Store::create(dir.path()).unwrap(), 1).unwrap();
    let path = files(dir.path()).into_iter().find(|f| f.extension().is_some_and(|e| e == "manifest")).unwrap();
    let original = fs::read(&path).unwrap();
    // What the header claims, and how long the (sparse) file is.
    let gib = 1u64 << 30;
    for (claim, length) in [(u64::MAX, 4096), (4 * gib, 64 + 4 * gib), (32 << 20, 64 + (32 << 20)), (gib, 100)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(0).unwrap();
        file.write_all_at(&original, 0).unwrap();
        file.write_all_at(&claim.to_le_bytes(), 24).unwrap();
        file.set_len(length).unwrap();
        let output = child("open-hostile-store", dir.path()).output().unwrap();
        assert!(output.status.success(), "claim {claim}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_same_content_gives_the_same_bytes_in_every_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = None;
    for run in 0..5 {
        let path = dir.path().join(run.to_string());
        assert!(child("publish-once", &path).output().unwrap().status.success());
        let found: Vec<_> =
            files(&path).iter().map(|f| (f.strip_prefix(&path).unwrap().to_owned(), fs::read(f).unwrap())).collect();
        assert!(found.len() > 5);
        assert_eq!(&found, first.get_or_insert(found.clone()), "run {run}");
    }
}
