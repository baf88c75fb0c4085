//! Lines of an import of states: what is taken comes out as it came in, and can be served.

use super::checks::{ask, sound};
use super::golden::{self, personal};
use super::live_db::put_live;
use crate::entities::{Line, export, import};
use docent::serve::Engine;
use docent::store::{EntityState, EntityStore, EntityStoreOptions, LiveStore, Store};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// People of an input whom something is asked for, so that none takes long.
const ASKED: usize = 4;

struct Base {
    folder: tempfile::TempDir,
    store: PathBuf,
    live: Vec<u8>,
}

thread_local! {
    static BASE: Base = {
        let folder = tempfile::tempdir().unwrap();
        let store = golden::copy("ranker", folder.path());
        let [live, _] = golden::live_files(&store, false);
        Base { folder, store, live }
    };
}

/// Imports `bytes`.
pub fn entity_import(bytes: &[u8]) {
    BASE.with(|base| run(bytes, base));
}

fn run(bytes: &[u8], base: &Base) {
    put_live(&base.store, [&base.live, &[]]);
    let [from, to] = ["import.jsonl", "export.jsonl"].map(|name| base.folder.path().join(name));
    fs::write(&from, bytes).unwrap();
    let entities = open(&base.store);
    let before = states(&entities);
    let count = sound(import(&entities, &from));
    let after = states(&entities);
    let Some(count) = count else {
        assert_eq!(before, after, "an import that fails changes nothing");
        return;
    };
    // The last line of an id counts.
    let mut expected = before;
    let text = std::str::from_utf8(bytes).unwrap();
    let lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len() as u64, count);
    let asked: Vec<String> = lines.iter().take(ASKED).map(|line| line.entity.clone()).collect();
    expected.extend(lines.into_iter().map(|line| (line.entity, line.state)));
    assert_eq!(expected, after, "what was taken is there");

    let _ = fs::remove_file(&to);
    export(&entities, &to).unwrap();
    entities.each(|id, _| entities_check(id)).unwrap();
    let all: Vec<String> = after.keys().cloned().collect();
    all.iter().for_each(|id| assert!(entities.forget(id).unwrap()));
    assert!(entities.is_empty().unwrap());
    import(&entities, &to).unwrap();
    assert_eq!(after, states(&entities), "an export that is imported is the same");
    drop(entities);

    let engine = Engine::open(&base.store, &personal()).unwrap();
    ask(&engine, &asked.iter().map(String::as_str).collect::<Vec<_>>());
    asked.iter().for_each(|id| drop(sound(engine.adapt(id))));
    sound(engine.adapt_stale());
}

fn entities_check(id: &str) -> docent::Result<()> {
    assert!(!id.is_empty());
    Ok(())
}

fn open(store: &Path) -> EntityStore {
    let file = LiveStore::open(&Store::open(store).unwrap(), false).unwrap();
    EntityStore::new(Arc::new(file), &EntityStoreOptions::default()).unwrap()
}

fn states(entities: &EntityStore) -> BTreeMap<String, EntityState> {
    let mut states = BTreeMap::new();
    entities
        .each(|id, state| {
            states.insert(id.to_owned(), state.clone());
            Ok(())
        })
        .unwrap();
    states
}
