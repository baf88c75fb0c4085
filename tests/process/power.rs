//! What a power cut at any point leaves of the live file, and a disk that is full for a while.
//!
//! `kill -9` shows what the file holds when the process is gone; the operating system still has everything that was written. So here a
//! child's every call to the disk is written down (`disk.c`, preloaded), and the disk is put together as it may be after each: what was synced, and
//! any part of the rest.

use docent::random::Rng;
use docent::store::{EntityState, EntityStore, EntityStoreOptions, LiveStore, Store, StoredOutcome};
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;

/// The least that a disk writes whole.
const SECTOR: usize = 512;

/// What was done to the disk.
#[derive(Debug, Clone)]
enum Call {
    Create(String, usize),
    Length(usize, u64),
    Write(usize, u64, Vec<u8>),
    Sync(usize),
    Remove(String),
    SyncDirectory,
    /// Entity, and the outcome of it that is acknowledged from here on; 0 where it is forgotten.
    Acknowledged(String, u64),
}

/// Directory of a test, on a disk that is memory where there is one.
fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Runs a task of the child on the store in `folder`; gives what was done to its disk.
fn run(folder: &Path, task: &str, fault: &str) -> (ExitStatus, Vec<Call>) {
    let (library, log) = (folder.join("disk.so"), folder.join("log"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/disk.c");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
    assert!(made.is_ok_and(|status| status.success()), "this test needs a C compiler");
    let store = fs::canonicalize(folder.join("store")).unwrap();
    // What was there before, by the number of the file.
    let mut files: BTreeMap<u64, usize> = BTreeMap::new();
    let mut calls = Vec::new();
    for entry in fs::read_dir(&store).unwrap().flatten().filter(|e| e.file_type().unwrap().is_file()) {
        let name = entry.file_name().into_string().unwrap();
        files.insert(std::os::unix::fs::DirEntryExt::ino(&entry), files.len());
        calls.push(Call::Create(name, files.len() - 1));
        calls.push(Call::Write(files.len() - 1, 0, fs::read(entry.path()).unwrap()));
        calls.push(Call::Sync(files.len() - 1));
    }
    calls.push(Call::SyncDirectory);
    let status = Command::new(env!("CARGO_BIN_EXE_docent-test-child"))
        .arg(task)
        .arg(&store)
        .env("LD_PRELOAD", &library)
        .env("DOCENT_DISK_DIR", &store)
        .env("DOCENT_DISK_LOG", &log)
        .env("DOCENT_DISK_FAULT", fault)
        .status()
        .unwrap();
    let bytes = fs::read(&log).unwrap();
    fs::remove_file(&log).unwrap();
    calls.extend(parse(&bytes, &mut files));
    (status, calls)
}

fn parse(mut bytes: &[u8], files: &mut BTreeMap<u64, usize>) -> Vec<Call> {
    let (mut calls, mut told, mut count) = (Vec::new(), None, files.len());
    while let Some((head, rest)) = bytes.split_at_checked(21) {
        let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
        let length = u32::from_le_bytes(head[17..].try_into().unwrap()) as usize;
        let (content, rest) = rest.split_at(length);
        bytes = rest;
        let file = number(1);
        match head[0] {
            b'c' => {
                let name = String::from_utf8(content.to_vec()).unwrap();
                if name == "told" {
                    told = Some(file);
                    continue;
                }
                // A number may come again after its file was removed.
                files.insert(file, count);
                calls.push(Call::Create(name, count));
                count += 1;
            }
            b'w' if told == Some(file) => {
                let text = String::from_utf8(content.to_vec()).unwrap();
                let (id, n) = text.trim_end().split_once(' ').unwrap();
                calls.push(Call::Acknowledged(id.into(), n.parse().unwrap()));
            }
            b'w' => calls.push(Call::Write(files[&file], number(9), content.to_vec())),
            b't' => calls.push(Call::Length(files[&file], number(9))),
            b's' => calls.push(Call::Sync(files[&file])),
            b'd' => calls.push(Call::SyncDirectory),
            b'r' => calls.push(Call::Remove(String::from_utf8(content.to_vec()).unwrap())),
            other => panic!("{other} is no call"),
        }
    }
    calls
}

/// The files as they may be found after the power went out behind the first `cut` calls.
fn found(calls: &[Call], cut: usize, rng: &mut Rng) -> BTreeMap<String, Vec<u8>> {
    let calls = &calls[..cut];
    let mut contents: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let synced = |file: usize| calls.iter().rposition(|c| matches!(c, Call::Sync(f) if *f == file)).unwrap_or(0);
    // Changes of the directory reach the disk in their order, some of the last not at all.
    let directory = calls.iter().rposition(|c| matches!(c, Call::SyncDirectory)).unwrap_or(0);
    let until = directory + rng.below(cut - directory + 1);
    // The file system writes either much or little of what it need not.
    let odds = [0.0, 0.5, 0.95][rng.below(3)];
    for (at, call) in calls.iter().enumerate() {
        match call {
            Call::Create(name, file) if at <= until => drop(names.insert(name.clone(), *file)),
            Call::Remove(name) if at <= until => drop(names.remove(name)),
            Call::Length(file, length) if at <= synced(*file) || rng.uniform() < odds => {
                contents.entry(*file).or_default().resize(*length as usize, 0);
            }
            Call::Write(file, offset, bytes) => {
                let content = contents.entry(*file).or_default();
                for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                    let start = *offset as usize + n * SECTOR;
                    if at <= synced(*file) || rng.uniform() < odds {
                        // Writing behind the end makes the file longer.
                        content.resize(content.len().max(start + sector.len()), 0);
                        content[start..start + sector.len()].copy_from_slice(sector);
                    }
                }
            }
            _ => {}
        }
    }
    names.into_iter().map(|(name, file)| (name, contents.remove(&file).unwrap_or_default())).collect()
}

fn open(path: &Path, full: bool) -> docent::Result<EntityStore> {
    let live = LiveStore::open(&Store::open(path)?, full)?;
    EntityStore::new(Arc::new(live), &EntityStoreOptions::default())
}

fn all(entities: &EntityStore) -> BTreeMap<String, EntityState> {
    let mut all = BTreeMap::new();
    entities
        .each(|id, state| {
            all.insert(id.to_owned(), state.clone());
            Ok(())
        })
        .unwrap();
    all
}

/// The disk that a power cut behind the first `cut` calls leaves.
fn image(folder: &Path, calls: &[Call], cut: usize, rng: &mut Rng) -> PathBuf {
    let image = folder.join("image");
    let _ = fs::remove_dir_all(&image);
    Store::create(&image).unwrap();
    for (name, content) in found(calls, cut, rng) {
        fs::write(image.join(name), content).unwrap();
    }
    image
}

/// Opens what a power cut behind the first `cut` calls leaves, and tells how many promises it keeps.
///
/// # Errors
/// What is wrong with it.
fn kept(folder: &Path, calls: &[Call], cut: usize, rng: &mut Rng) -> Result<usize, String> {
    let image = image(folder, calls, cut, rng);
    let mut promised: BTreeMap<&str, u64> = BTreeMap::new();
    for call in &calls[..cut] {
        if let Call::Acknowledged(id, n) = call {
            promised.insert(id, *n);
        }
    }
    let entities = open(&image, cut.is_multiple_of(4)).map_err(|e| e.to_string())?;
    let states = all(&entities);
    for (id, newest) in &promised {
        let time = states.get(*id).and_then(|s| s.outcomes.iter().filter_map(|o| o.time).max()).unwrap_or(0);
        // More may have reached the disk than was promised, also that it is forgotten.
        let later = calls[cut..].iter().any(|c| matches!(c, Call::Acknowledged(other, 0) if other == id));
        if time < *newest as i64 && !later {
            return Err(format!("{id} lost {newest}, it has {time}"));
        }
    }
    entities.put("after", &EntityState::default()).map_err(|e| e.to_string())?;
    if cut.is_multiple_of(5) {
        entities.compact().map_err(|e| e.to_string())?;
    }
    Ok(promised.len())
}

/// Updates, removals and compactions, and what was done to the disk meanwhile.
fn script(folder: &Path) -> Vec<Call> {
    Store::create(folder.join("store")).unwrap();
    let (status, calls) = run(folder, "observe-and-tell", "");
    assert!(status.success());
    calls
}

#[test]
fn a_power_cut_at_any_point_loses_nothing_that_was_acknowledged() {
    let folder = temporary();
    let calls = script(folder.path());
    let (mut rng, mut images, mut promises) = (Rng::new(5), 0, 0);
    let step = calls.len() / 200 + 1;
    let special = |c: &Call| !matches!(c, Call::Write(..));
    for cut in (1..=calls.len()).filter(|cut| cut % step == 0 || *cut < 60 || special(&calls[cut - 1])) {
        promises += kept(folder.path(), &calls, cut, &mut rng).unwrap_or_else(|e| panic!("cut {cut}: {e}"));
        images += 1;
    }
    assert!(images > 200 && promises > 1000, "{promises} promises in {images} images");
}

#[test]
fn the_model_shows_a_sync_that_is_missing() {
    let folder = temporary();
    let mut calls = script(folder.path());
    calls.retain(|call| !matches!(call, Call::Sync(_)));
    let mut rng = Rng::new(5);
    let lost = (1..=calls.len()).step_by(23).filter(|cut| {
        let kept = catch_unwind(AssertUnwindSafe(|| kept(folder.path(), &calls, *cut, &mut rng)));
        !matches!(kept, Ok(Ok(_)))
    });
    assert!(lost.count() > 5, "a disk that is never synced keeps everything");
}

#[test]
fn a_power_cut_while_an_earlier_file_is_taken_over_leaves_that_or_the_new_one() {
    let folder = temporary();
    let store = folder.path().join("store");
    // What is to be there in the end.
    let entities = {
        Store::create(&store).unwrap();
        open(&store, false).unwrap()
    };
    for n in 0..60u32 {
        let outcome = StoredOutcome { item: format!("i{n}"), ..StoredOutcome::default() };
        let state = EntityState { outcomes: vec![outcome; 5], seen: u64::from(n), ..EntityState::default() };
        entities.put(&format!("u{n}"), &state).unwrap();
    }
    let expected = all(&entities);
    drop(entities);
    // The same as an earlier version wrote it.
    let records = raw(&store);
    fs::remove_dir_all(&store).unwrap();
    Store::create(&store).unwrap();
    let database = redb::Database::create(store.join("live.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let facts = redb::TableDefinition::<&str, u64>::new("facts");
    transaction.open_table(facts).unwrap().insert("layout", 2).unwrap();
    let table = redb::TableDefinition::<&str, &[u8]>::new("entities");
    for (id, record) in &records {
        transaction.open_table(table).unwrap().insert(id.as_str(), record.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let (status, calls) = run(folder.path(), "take-over", "");
    assert!(status.success());
    let begun = calls.iter().position(|c| matches!(c, Call::SyncDirectory)).unwrap() + 1;
    let (mut rng, mut seen) = (Rng::new(5), [0, 0]);
    for cut in begun..=calls.len() {
        for n in 0..4 {
            let image = image(folder.path(), &calls, cut, &mut rng);
            let live =
                LiveStore::open(&Store::open(&image).unwrap(), n == 0).unwrap_or_else(|e| panic!("cut {cut}: {e}"));
            seen[usize::from(live.migrated().is_none())] += 1;
            let entities = EntityStore::new(Arc::new(live), &EntityStoreOptions::default()).unwrap();
            assert_eq!(all(&entities), expected, "cut {cut}");
            assert!(!image.join("live.redb").exists());
        }
    }
    assert!(seen[0] > 3 && seen[1] > 3, "{seen:?}");
}

/// The records of a store's entities.
fn raw(store: &Path) -> Vec<(String, Vec<u8>)> {
    let database = rusqlite::Connection::open(store.join("live.db")).unwrap();
    let mut statement = database.prepare("SELECT id, record FROM entities").unwrap();
    let records = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    records.map(Result::unwrap).collect()
}

/// Every write of many fails, then those after it for a while: what was acknowledged is there and once, reading goes on, and so does writing when
/// there is space again.
#[test]
fn a_full_disk_is_told_and_overcome_without_a_restart() {
    let (mut failures, mut unknown) = (0, 0);
    for first in (0..40).chain((40..400).step_by(23)) {
        let folder = temporary();
        let store = folder.path().join("store");
        Store::create(&store).unwrap();
        let (status, calls) =
            run(folder.path(), "observe-on-a-full-disk", &format!("{first}:28:{}", first + [0, 3, 30][first % 3]));
        match status.code() {
            Some(0) => failures += fs::read_to_string(store.join("failed")).unwrap().parse::<u64>().unwrap(),
            Some(3) => unknown += 1,
            other => panic!("fault {first}: {other:?}"),
        }
        let mut told: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for call in calls {
            if let Call::Acknowledged(id, n) = call {
                told.entry(id).or_default().push(n as i64);
            }
        }
        let entities = open(&store, true).unwrap();
        for (id, times) in told {
            let state = entities.get(&id).unwrap().unwrap();
            let found: Vec<i64> = state.outcomes.iter().filter_map(|o| o.time).collect();
            assert!(found.windows(2).all(|w| w[0] < w[1]), "fault {first}: {id} has {found:?}");
            let extra = found.iter().filter(|time| !times.contains(time)).count();
            assert!(
                times.iter().all(|time| found.contains(time)),
                "fault {first}: {id} was told {times:?} and has {found:?}"
            );
            // What could not be synced may be there.
            assert!(
                extra <= usize::from(status.code() == Some(3)),
                "fault {first}: {id} was told {times:?} and has {found:?}"
            );
        }
    }
    assert!(failures > 20 && unknown > 3, "{failures} updates failed, {unknown} ended in doubt");
}
