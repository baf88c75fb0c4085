//! A `live.db` that is damaged, or says something else in records whose hashes are right: opened, asked, written to.

use super::checks::{ask, sound};
use super::forge;
use super::golden::{self, personal};
use super::script::Script;
use docent::serve::{Engine, EngineOptions, NewItem, Outcome};
use docent::store::{EntityStore, EntityStoreOptions, LiveStore, Store, Verify};
use docent::{Event, Result};
use rusqlite::Connection;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Steps that are taken, so that no input takes long.
const STEPS: usize = 32;

/// What a stranger may have done to the file with SQLite's own means.
const STRANGER: [&str; 16] = [
    "UPDATE entities SET record = zeroblob(5000000) WHERE id = 'p0002'",
    "UPDATE entities SET record = 'text' WHERE id = 'p0002'",
    "UPDATE entities SET id = x'ff00' WHERE id = 'p0001'",
    "UPDATE entities SET place = place + 1 WHERE id = 'p0002'",
    "DELETE FROM entities WHERE id = 'p0003'",
    "INSERT INTO entities SELECT place + 3, id || 'x', touched, record FROM entities",
    "UPDATE added SET record = x'', id = ''",
    "UPDATE added SET id = 'i0001'",
    "INSERT INTO removed SELECT id, record FROM added",
    "DELETE FROM facts",
    "CREATE TRIGGER t AFTER INSERT ON entities BEGIN DELETE FROM added; END",
    "CREATE VIEW v AS SELECT * FROM entities",
    "DROP INDEX entities_by_id",
    "PRAGMA user_version = 4",
    "PRAGMA application_id = 7",
    "PRAGMA journal_mode = DELETE",
];

/// Numbers of the table `facts`.
const FACTS: [&str; 5] = ["items.next", "items.changes", "added.count", "removed.count", "entities.count"];

struct Base {
    store: PathBuf,
    /// Without and with a log: the file, the log, and the ids and records in it by table.
    files: [[Vec<u8>; 2]; 2],
    records: Vec<(&'static str, String, Vec<u8>)>,
}

thread_local! {
    static BASE: (tempfile::TempDir, Base) = {
        let folder = tempfile::tempdir().unwrap();
        let base = Base::new(folder.path());
        (folder, base)
    };
}

/// What `bytes` say becomes of a live file.
pub fn live_db(bytes: &[u8]) {
    BASE.with(|(_, base)| run(&mut Script::new(bytes), base));
}

fn run(script: &mut Script<'_>, base: &Base) {
    let flags = script.byte();
    let [mut file, mut log] = base.files[usize::from(flags & 1)].clone();
    put_live(&base.store, [&file, &log]);
    // First what needs a sound file, then the bytes of the files.
    let path = base.store.join("live.db");
    let mut forged = false;
    for _ in 0..script.byte() % 8 {
        let connection = Connection::open(&path).unwrap();
        // What a step cannot do is left out.
        let _ = forge(script, &connection, &base.records);
        forged = true;
    }
    if forged {
        [file, log] = ["live.db", "live.db-wal"].map(|name| fs::read(base.store.join(name)).unwrap_or_default());
    }
    for _ in 0..STEPS {
        if script.is_done() {
            break;
        }
        let which = script.byte();
        let edited = if which & 1 == 0 || log.is_empty() { &mut file } else { &mut log };
        match which {
            254 | 255 => edited.truncate(script.below(edited.len())),
            _ => script.edit(edited),
        }
        if which & 2 != 0 {
            seal(&mut log);
        }
    }
    put_live(&base.store, [&file, &log]);
    let verify = if flags & 2 == 0 { Verify::Header } else { Verify::Full };
    if let Some(engine) = sound(Engine::open(&base.store, &EngineOptions { verify, ..personal() })) {
        use_it(&engine, flags & 4 != 0);
        drop(engine);
        // What has been written to is still a file that opens, or one that is told.
        sound(again(&base.store));
    }
}

/// Changes what is in the tables.
fn forge(
    script: &mut Script<'_>,
    connection: &Connection,
    records: &[(&'static str, String, Vec<u8>)],
) -> rusqlite::Result<usize> {
    let kind = script.byte();
    match kind % 4 {
        0 => connection.execute_batch(STRANGER[script.below(STRANGER.len())]).map(|()| 0),
        1 => {
            let (fact, number) = (FACTS[script.below(FACTS.len())], script.number() as i64);
            connection.execute("INSERT OR REPLACE INTO facts VALUES (?1, ?2)", (fact, number))
        }
        _ => {
            let (table, id, record) = &records[script.below(records.len())];
            let mut record = record.clone();
            match kind & 4 {
                0 => script.edit(record.get_mut(20..).unwrap_or_default()),
                _ => script.edit(record.get_mut(16..).unwrap_or_default()),
            }
            if kind & 8 != 0 {
                record.truncate(16 + script.below(record.len()));
            }
            if kind & 16 == 0 {
                forge::record(id, &mut record);
            }
            connection.execute(&format!("UPDATE {table} SET record = ?1 WHERE id = ?2"), (record, id))
        }
    }
}

/// Makes the checksums of SQLite's log those of its content, so that it is read to its end.
fn seal(log: &mut [u8]) {
    if log.len() < 32 {
        return;
    }
    let big = log[3] & 1 == 1;
    let sum = |mut sums: [u32; 2], bytes: &[u8]| {
        for pair in bytes.chunks_exact(8) {
            let word = |at: usize| {
                let word = *pair[at..].first_chunk().unwrap();
                if big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
            };
            sums[0] = sums[0].wrapping_add(word(0)).wrapping_add(sums[1]);
            sums[1] = sums[1].wrapping_add(word(4)).wrapping_add(sums[0]);
        }
        sums
    };
    let write = |to: &mut [u8], sums: [u32; 2]| {
        to[..4].copy_from_slice(&sums[0].to_be_bytes());
        to[4..8].copy_from_slice(&sums[1].to_be_bytes());
    };
    let (header, frames) = log.split_at_mut(32);
    let mut sums = sum([0, 0], &header[..24]);
    write(&mut header[24..], sums);
    for frame in frames.chunks_exact_mut(24 + 4096) {
        frame[8..16].copy_from_slice(&header[16..24]);
        sums = sum(sum(sums, &frame[..8]), &frame[24..]);
        write(&mut frame[16..24], sums);
    }
}

/// Every request, then every change; writing the file anew takes its time.
fn use_it(engine: &Engine, compact: bool) {
    ask(engine, &["p0001", "p0002", "p0005", "a stranger"]);
    sound(engine.added_items());
    sound(engine.removed_items());
    let entities = engine.entities().unwrap();
    sound(entities.len());
    sound(entities.each(|id, _| {
        assert!(!id.is_empty());
        Ok(())
    }));
    let event = Event { time: Some(1_900_000_000_000), ..Event::item("i0007") };
    let outcome = Outcome::labelled(event, &[("label", 1.0)]);
    for entity in ["p0002", "p0003", "a stranger"] {
        if let Some(observed) = sound(engine.observe(entity, &outcome)) {
            let numbers = observed.adapted.iter().flat_map(|adapted| &adapted.vector);
            assert!(numbers.into_iter().all(|x| x.is_finite()), "{observed:?}");
            let state = entities.get(entity).unwrap().expect("what was acknowledged is there");
            assert!(state.outcomes.last().is_some_and(|last| last.item == "i0007"), "{state:?}");
        }
        sound(engine.adapt(entity));
        sound(engine.meta_embedding(entity));
    }
    sound(engine.adapt_stale());
    if sound(engine.add_item(&NewItem { id: "the newest", ..NewItem::default() })).is_some() {
        sound(engine.remove_item("the newest"));
    }
    sound(engine.remove_item("newer"));
    ask(engine, &["p0002"]);
    if sound(entities.forget("p0002")).is_some() {
        assert_eq!(sound(entities.get("p0002")).flatten(), None, "who was forgotten is gone");
    }
    sound(entities.purge_idle(1_800_000_000_005));
    if compact {
        sound(entities.compact());
    }
}

/// Opens the file alone, with every page checked, and reads every state.
fn again(store: &Path) -> Result<()> {
    let file = LiveStore::open(&Store::open(store)?, true)?;
    file.items()?;
    EntityStore::new(Arc::new(file), &EntityStoreOptions::default())?.each(|_, _| Ok(()))
}

/// Puts files in the place of those that are there.
pub fn put_live(store: &Path, [file, log]: [&[u8]; 2]) {
    for name in ["live.redb", "live.db-shm", "live.db-journal", "live.db-wal"] {
        let _ = fs::remove_file(store.join(name));
    }
    fs::write(store.join("live.db"), file).unwrap();
    if !log.is_empty() {
        fs::write(store.join("live.db-wal"), log).unwrap();
    }
}

impl Base {
    fn new(folder: &Path) -> Self {
        let store = golden::copy("ranker", folder);
        let files = [false, true].map(|log| golden::live_files(&store, log));
        let connection = Connection::open(store.join("live.db")).unwrap();
        let mut records = Vec::new();
        for table in ["entities", "added", "removed"] {
            let mut statement = connection.prepare(&format!("SELECT id, record FROM {table} ORDER BY id")).unwrap();
            let rows = statement.query_map([], |row| Ok((table, row.get(0)?, row.get(1)?))).unwrap();
            records.extend(rows.map(|row| row.unwrap()));
        }
        assert!(records.len() > 7 && !files[1][1].is_empty(), "there is something to damage");
        Self { store, files, records }
    }
}
