//! Publishing, rolling back and pruning beside readers and other publishers.

mod store_fixture;

use docent::ErrorKind;
use docent::store::{GenerationId, LoadMode, OpenOptions, Snapshot, Store};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store_fixture::*;

fn at(store: &Store, generation: u64) -> OpenOptions {
    assert!(store.path().is_dir());
    OpenOptions { generation: Some(GenerationId(generation)), ..full() }
}

fn ids(store: &Store) -> Vec<u64> {
    store.generations().unwrap().iter().map(|g| g.id.0).collect()
}

#[test]
fn generations_are_listed_rolled_back_and_pruned() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    for n in 1..=4 {
        assert_eq!(publish(&store, 10 * n).unwrap(), GenerationId(n));
    }
    let list = store.generations().unwrap();
    assert_eq!(
        list.iter().map(|g| (g.id.0, g.current)).collect::<Vec<_>>(),
        [(1, false), (2, false), (3, false), (4, true)]
    );
    assert_eq!(list[0].created_ms, run_record().created_ms);
    assert_eq!(list[0].validation, content(10).training.validation);
    assert_eq!(list[0].problem, None);

    assert_eq!(store.rollback(None).unwrap(), GenerationId(3));
    assert_eq!(store.rollback(Some(GenerationId(2))).unwrap(), GenerationId(2));
    assert_eq!(number(&store.snapshot(&full()).unwrap()), 20);
    assert_eq!(number(&store.snapshot(&at(&store, 4)).unwrap()), 40);
    assert_eq!(store.rollback(Some(GenerationId(9))).unwrap_err().kind(), ErrorKind::NotFound);

    let open = store.snapshot(&at(&store, 4)).unwrap();
    assert_eq!(store.prune(0).unwrap(), [1, 3, 4].map(GenerationId));
    assert_eq!(ids(&store), [2]);
    assert_eq!(number(&open), 40, "an open snapshot keeps what it mapped");
    // Eight sections in one generation, its manifest, its run record, CURRENT; the empty one has a segment too.
    assert_eq!(files(dir.path()).len(), 8 + 3);
    assert_eq!(number(&store.snapshot(&full()).unwrap()), 20);
    assert_eq!(publish(&store, 50).unwrap(), GenerationId(5), "numbers are not used again");
    assert_eq!(store.prune(2).unwrap(), []);
    assert_eq!(store.rollback(None).unwrap(), GenerationId(2));
    assert_eq!(store.rollback(None).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn unchanged_sections_are_shared_between_generations() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    publish(&store, 1).unwrap();
    let before = files(dir.path()).len();
    publish(&store, 2).unwrap();
    assert_eq!(files(dir.path()).len(), before + 3, "one segment, one manifest, one run record");
}

#[test]
fn a_damaged_current_is_repaired_by_naming_a_generation() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    publish(&store, 1).unwrap();
    publish(&store, 2).unwrap();
    for damage in [Some(&b"\x89DCC\r\n\x1a\n\x01\0\0\0 and then nonsense"[..]), None] {
        match damage {
            Some(bytes) => fs::write(dir.path().join("CURRENT"), bytes).unwrap(),
            None => fs::remove_file(dir.path().join("CURRENT")).unwrap(),
        }
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.snapshot(&full()).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(store.publisher().unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(store.rollback(None).unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(!store.verify(None).unwrap().ok);
        store.rollback(Some(GenerationId(1))).unwrap();
        assert_eq!(number(&store.snapshot(&full()).unwrap()), 1);
    }
    assert_eq!(publish(&store, 3).unwrap(), GenerationId(3));
}

#[test]
fn a_damaged_generation_is_listed_and_not_rolled_back_to() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    publish(&store, 1).unwrap();
    publish(&store, 2).unwrap();
    let manifest = dir.path().join("generations/00000001.manifest");
    fs::remove_file(&manifest).unwrap();
    fs::write(&manifest, "gone").unwrap();
    assert!(store.generations().unwrap()[0].problem.is_some());
    assert!(store.rollback(None).is_err());
    assert!(store.prune(2).is_err(), "its segments are not known, so nothing may be removed");
    assert_eq!(number(&store.snapshot(&full()).unwrap()), 2);
    assert_eq!(store.prune(1).unwrap(), [GenerationId(1)]);
}

#[test]
fn a_publisher_checks_its_calls_and_leaves_nothing_when_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    publish(&store, 1).unwrap();
    let before = files(dir.path());
    let mut publisher = store.publisher().unwrap();
    write(&mut publisher, 2).unwrap();
    let kind = |r: docent::Result<()>| r.unwrap_err().kind();
    assert_eq!(kind(publisher.slice("own", &[1], &[1u8])), ErrorKind::InvalidArgument);
    assert_eq!(kind(publisher.slice("new", &[2], &[1u8])), ErrorKind::InvalidArgument);
    assert_eq!(kind(publisher.slice("../up", &[1], &[1u8])), ErrorKind::InvalidArgument);
    assert_eq!(kind(publisher.slice("new", &[u64::MAX, 3], &[1u8])), ErrorKind::InvalidArgument);
    assert!(files(dir.path()).len() > before.len());
    drop(publisher);
    assert_eq!(files(dir.path()), before);
    let mut publisher = store.publisher().unwrap();
    for n in [7, 8] {
        write(&mut publisher, n).unwrap();
        publisher.publish(&content(n), &run_record()).unwrap();
        assert_eq!(number(&store.snapshot(&full()).unwrap()), n);
    }
}

/// A process that is being started has all files of its parent open for a moment, the lock among them.
#[test]
fn starting_processes_does_not_hold_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::process::Command::new("true").status().unwrap();
            }
        });
        let taken = (0..2000).try_for_each(|_| store.publisher().map(drop));
        stop.store(true, Ordering::Relaxed);
        taken.unwrap();
    });
}

#[test]
fn stale_temporary_files_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    publish(&store, 1).unwrap();
    let before = files(dir.path());
    for name in ["CURRENT.tmp", "segments/x.segment.tmp", "generations/00000002.manifest.tmp"] {
        fs::write(dir.path().join(name), "half").unwrap();
    }
    assert_eq!(number(&store.snapshot(&full()).unwrap()), 1);
    drop(store.publisher().unwrap());
    assert_eq!(files(dir.path()), before);
    assert!(!dir.path().join("CURRENT.tmp").exists());
}

/// Inode, modification time and mode of published files.
fn identity(path: &Path) -> BTreeMap<PathBuf, (u64, i64, i64, u32)> {
    let published = files(path).into_iter().filter(|f| !f.ends_with("CURRENT"));
    published
        .map(|f| {
            let m = fs::metadata(&f).unwrap();
            (f, (m.ino(), m.mtime(), m.mtime_nsec(), m.permissions().mode() & 0o7777))
        })
        .collect()
}

#[test]
fn published_files_are_read_only_and_never_touched_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    publish(&store, 1).unwrap();
    let before = identity(dir.path());
    assert!(before.values().all(|(.., mode)| *mode == 0o444), "{before:?}");
    publish(&store, 2).unwrap();
    store.rollback(None).unwrap();
    store.snapshot(&full()).unwrap();
    store.verify(None).unwrap();
    publish(&store, 1).unwrap();
    store.prune(5).unwrap();
    let after = identity(dir.path());
    for (path, identity) in before {
        assert_eq!(after.get(&path), Some(&identity), "{path:?}");
    }
}

fn digest(snapshot: &Snapshot) -> u64 {
    let mut sum = number(snapshot);
    for name in snapshot.section_names() {
        sum = snapshot.bytes(name).unwrap().iter().fold(sum, |s, b| s.wrapping_mul(31).wrapping_add(u64::from(*b)));
    }
    sum
}

#[test]
fn readers_do_not_notice_that_files_are_replaced_or_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    publish(&store, 1).unwrap();
    let snapshot = store.snapshot(&full()).unwrap();
    let expected = digest(&snapshot);
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(digest(&snapshot), expected);
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for path in files(dir.path()) {
            let other = path.with_extension("other");
            fs::write(&other, vec![0x55; fs::metadata(&path).unwrap().len() as usize]).unwrap();
            fs::rename(&other, &path).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        for path in files(dir.path()) {
            fs::remove_file(path).unwrap();
        }
        let seen = rounds.load(Ordering::Relaxed);
        while rounds.load(Ordering::Relaxed) < seen + 10 {
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(snapshot.verify().unwrap().is_empty());
}

#[test]
fn copies_do_not_care_what_happens_to_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    publish(&store, 1).unwrap();
    let snapshot = store.snapshot(&OpenOptions { load: LoadMode::Copy, ..full() }).unwrap();
    let expected = digest(&snapshot);
    for path in files(dir.path()) {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0xaa; 64], 0).unwrap();
        file.set_len(1).unwrap();
    }
    assert_eq!(digest(&snapshot), expected);
    assert!(snapshot.verify().unwrap().is_empty());
}

#[test]
fn readers_always_find_a_generation_while_others_publish_and_prune() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    publish(&store, 1).unwrap();
    let (stop, opened) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let now = number(&store.snapshot(&full()).unwrap());
                    assert!(now >= last);
                    last = now;
                    opened.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let published = (2..60).try_for_each(|n| publish(&store, n).and_then(|_| store.prune(1)).map(|_| ()));
        stop.store(true, Ordering::Relaxed);
        published.unwrap();
    });
    assert!(opened.load(Ordering::Relaxed) > 10);
}

fn mappings(below: &Path) -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|l| l.contains(below.to_str().unwrap())).count()
}

#[test]
fn the_last_reader_to_go_takes_the_mapping_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    let store = Store::create(&path).unwrap();
    publish(&store, 1).unwrap();
    let one = std::sync::Arc::new(store.snapshot(&full()).unwrap());
    let two = one.clone();
    publish(&store, 2).unwrap();
    store.prune(1).unwrap();
    drop(one);
    assert!(mappings(&path) >= 8);
    assert_eq!(number(&two), 1);
    drop(two);
    let start = Instant::now();
    while mappings(&path) > 0 {
        assert!(start.elapsed() < Duration::from_secs(1), "still mapped");
        std::thread::sleep(Duration::from_millis(1));
    }
}
