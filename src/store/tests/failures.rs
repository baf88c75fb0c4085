//! Every input or output call of publishing fails once.

use super::disks::{Failing, Fault};
use super::{content, create, files, number, publish, write};
use crate::ErrorKind;
use crate::store::{RunRecord, Store};
use std::path::Path;

const EIO: i32 = 5;
const EINTR: i32 = 4;
const EACCES: i32 = 13;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

fn open_files(below: &Path) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    links.filter_map(|fd| std::fs::read_link(fd.path()).ok()).filter(|to| to.starts_with(below)).count()
}

/// Publishes generation 2 over generation 1 with the `n`-th call going wrong. Whether there was an `n`-th call.
fn run(n: u64, fault: Fault) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let disk = Failing::default();
    let store = create(&dir, disk.clone()).unwrap();
    publish(&store, 1).unwrap();
    let before = files(&dir);

    disk.arm(n, fault);
    let mut publisher = match store.publisher() {
        Ok(publisher) => Some(publisher),
        Err(e) => {
            assert_ne!(e.kind(), ErrorKind::Internal);
            None
        }
    };
    let result = publisher.as_mut().map(|p| write(p, 2).and_then(|()| p.publish(&content(2), &RunRecord::default())));
    let hit = disk.disarm();
    let real = Store::open(&dir).unwrap();
    match (&result, hit) {
        (Some(Ok(id)), _) => {
            // Harmless: a short or interrupted read or write, or a read of what was not there anyway.
            assert_eq!(id.0, 2);
            assert_eq!(number(&real).unwrap(), 2, "{hit:?}");
            if let Some(call) = hit {
                let shared = call == "open" || call == "read" || call == "write";
                assert!(shared, "{call} failed with {fault:?} and nobody noticed");
            }
        }
        (Some(Err(e)), Some(call)) => {
            match fault {
                Fault::Errno(ENOSPC | EDQUOT) => assert_eq!(e.kind(), ErrorKind::NoSpace, "{call}: {e}"),
                Fault::Errno(EACCES) => assert_eq!(e.kind(), ErrorKind::PermissionDenied, "{call}: {e}"),
                _ => assert_eq!(e.kind(), ErrorKind::Io, "{call}: {e}"),
            }
            let publisher = publisher.as_mut().unwrap();
            let again = write(publisher, 3);
            if call == "sync" || call == "sync_dir" {
                assert_eq!(again.unwrap_err().kind(), ErrorKind::Poisoned, "{call}");
            }
        }
        (None, Some(_)) => {}
        (result, hit) => panic!("{result:?} with {hit:?}"),
    }
    let served = number(&real).unwrap();
    drop(publisher);
    assert_eq!(number(&real).unwrap(), served, "dropping the publisher took files away");
    let after = files(&dir);
    assert!(after.iter().all(|f| !f.ends_with(".tmp")), "{hit:?}: {after:?}");
    if served == 1 {
        assert_eq!(after, before, "{hit:?} left something behind");
    }
    assert_eq!(open_files(&dir), 0, "{hit:?} left files open");
    publish(&store, 4).unwrap();
    assert_eq!(number(&real).unwrap(), 4, "the next publisher works");
    hit.is_some()
}

#[test]
fn every_call_fails_once_for_every_reason() {
    for fault in [Fault::Errno(EIO), Fault::Errno(ENOSPC), Fault::Errno(EDQUOT), Fault::Errno(EACCES)] {
        let calls = (0..).take_while(|n| run(*n, fault)).count();
        assert!(calls > 40, "only {calls} calls were seen");
    }
}

#[test]
fn short_and_interrupted_transfers_are_continued() {
    for fault in [Fault::Short, Fault::Errno(EINTR)] {
        let calls = (0..).take_while(|n| run(*n, fault)).count();
        assert!(calls > 40, "only {calls} calls were seen");
    }
}

#[test]
fn giving_up_after_a_failure_takes_nothing_from_other_generations() {
    let mut hits = Vec::new();
    for n in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let disk = Failing::default();
        let store = create(dir.path(), disk.clone()).unwrap();
        publish(&store, 1).unwrap();
        let before = files(dir.path());
        disk.arm(n, Fault::Errno(EIO));
        let mut publisher = store.publisher();
        if let Ok(publisher) = &mut publisher {
            // The outcome does not matter: the publisher is dropped without publishing.
            let _ = write(publisher, 2);
        }
        let hit = disk.disarm();
        drop(publisher);
        let Some(call) = hit else { break };
        hits.push(call);
        assert_eq!(files(dir.path()), before, "{call}");
        assert_eq!(number(&store).unwrap(), 1, "{call}");
    }
    assert!(hits.contains(&"open") && hits.contains(&"read"), "{hits:?}");
}

#[test]
fn making_a_store_survives_every_failure() {
    let mut n = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let disk = Failing::default();
        disk.arm(n, Fault::Errno(EIO));
        let made = create(&path, disk.clone());
        let hit = disk.disarm();
        assert_eq!(made.is_ok(), hit.is_none(), "{hit:?}");
        let store = create(&path, Failing::default()).unwrap();
        publish(&store, 1).unwrap();
        assert_eq!(number(&store).unwrap(), 1);
        if hit.is_none() {
            break;
        }
        n += 1;
    }
    assert!(n > 10);
}
