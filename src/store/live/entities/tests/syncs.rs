//! When changes are on disk, and what becomes of callers when they cannot be brought there.

use super::*;
use crate::store::fsio::{Disk, Output, RealDisk};
use std::fs::File;
use std::io;

#[derive(Debug, Default)]
struct Counted {
    syncs: u64,
    /// How long a sync takes.
    delay: Duration,
    /// The code that the next one fails with.
    fault: Option<i32>,
}

/// Passes everything through but the syncs of the log, which it counts, delays, and fails when asked to.
#[derive(Debug, Clone, Default)]
struct Counting(Arc<Mutex<Counted>>);

impl Disk for Counting {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        RealDisk.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<File> {
        RealDisk.open(path)
    }
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        RealDisk.read_at(file, bytes, offset)
    }
    fn protect(&self, path: &Path) -> io::Result<()> {
        RealDisk.protect(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }
    fn sync_data(&self, _: &File) -> io::Result<()> {
        let delay = self.0.lock().delay;
        std::thread::sleep(delay);
        let mut counted = self.0.lock();
        counted.syncs += 1;
        counted.fault.take().map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }
}

/// A store whose syncs are counted.
fn counted(path: &Path) -> (Store, Counting) {
    let disk = Counting::default();
    (Store::create_on(path, Arc::new(disk.clone())).unwrap(), disk)
}

#[test]
fn callers_share_a_sync() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let (store, disk) = counted(dir.path());
    let entities = open_on(&store, &EntityStoreOptions::default());
    disk.0.lock().delay = Duration::from_millis(4);
    let before = disk.0.lock().syncs;
    observe(&entities, "alone", 1).unwrap();
    let alone = disk.0.lock().syncs - before;
    assert_eq!(alone, 1, "an update alone costs one sync");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let entities = &entities;
            scope.spawn(move || {
                for n in 0..25 {
                    observe(entities, &format!("u{thread}"), n).unwrap();
                }
            });
        }
    });
    let syncs = disk.0.lock().syncs - before - alone;
    assert!((25..=100).contains(&syncs), "{syncs} syncs for 200 updates of 8 threads");
}

#[test]
fn within_a_time_updates_do_not_wait_and_are_on_disk_in_time() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let (store, disk) = counted(dir.path());
    let entities = open_on(&store, &within(400));
    observe(&entities, "u", 1).unwrap();
    entities.flush().unwrap();
    let (before, begun) = (disk.0.lock().syncs, Instant::now());
    for n in 0..200 {
        observe(&entities, &format!("u{}", n % 10), n).unwrap();
    }
    let (during, took) = (disk.0.lock().syncs - before, begun.elapsed());
    assert!(during == 0 || took > Duration::from_millis(200), "{during} syncs in {took:?}");
    while disk.0.lock().syncs == before && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let after = begun.elapsed();
    assert!(after >= Duration::from_millis(199) && after < Duration::from_millis(1500), "synced after {after:?}");
    // A disk that falls behind slows updates down to its own pace.
    disk.0.lock().delay = Duration::from_millis(900);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(700) {
        observe(&entities, "u", 5).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(begun.elapsed() > Duration::from_millis(850), "it waited: {:?}", begun.elapsed());
    disk.0.lock().delay = Duration::ZERO;
}

/// What the system did not bring to disk may be gone: nobody is told that it is there, nothing more is written, and reading goes on.
#[test]
fn a_failed_sync_is_told_to_everyone_who_waits_and_ends_writing() {
    for (code, options) in [(5, EntityStoreOptions::default()), (28, EntityStoreOptions::default()), (5, within(1))] {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let (store, disk) = counted(dir.path());
        let entities = open_on(&store, &options);
        observe(&entities, "before", 1).unwrap();
        entities.flush().unwrap();
        disk.0.lock().fault = Some(code);
        let told: Vec<Option<ErrorKind>> = std::thread::scope(|scope| {
            let observe = |thread| {
                let entities = &entities;
                move || (1..200).find_map(|n| observe(entities, &format!("u{thread}"), n).err().map(|e| e.kind()))
            };
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(observe(thread))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(told, [Some(ErrorKind::Poisoned); 4], "it may be there or not");
        let refused = [
            kind(observe(&entities, "u0", 9)),
            kind(entities.flush()),
            kind(entities.forget("before")),
            kind(entities.compact()),
            kind(entities.purge_idle(5)),
        ];
        assert_eq!(refused, [ErrorKind::Poisoned; 5]);
        assert_eq!(entities.get("before").unwrap().unwrap().seen, 1);
        assert!(entities.get("nobody").unwrap().is_none() && entities.len().unwrap() >= 1);
        drop(entities);
        let entities = open(dir.path(), &EntityStoreOptions::default());
        assert_eq!(entities.get("before").unwrap().unwrap().seen, 1);
        observe(&entities, "before", 2).unwrap();
    }
}
