//! The stores that are damaged: copies of those of version 1 that are kept in `tests/fixtures/v1`.

use super::checks::sound;
use docent::Cell;
use docent::serve::{Engine, EngineOptions, NewItem, Outcome, PersonalOptions};
use std::fs;
use std::path::{Path, PathBuf};

/// The stores, and the generation of each that is current.
pub const STORES: [(&str, u64); 2] = [("ranker", 2), ("tokenizer", 1)];

/// The folder of this repository.
fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().find(|folder| folder.join("tests/fixtures/v1").is_dir()).expect("the fixtures are there")
}

/// A writable copy of a store in `to`.
pub fn copy(store: &str, to: &Path) -> PathBuf {
    let to = to.join(store);
    copy_folder(&root().join("tests/fixtures/v1").join(store), &to);
    to
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => fs::write(target, fs::read(entry.path()).unwrap()).unwrap(),
        }
    }
}

/// How an engine serves live items and states.
pub fn personal() -> EngineOptions {
    EngineOptions { live: true, personal: Some(PersonalOptions::default()), ..EngineOptions::default() }
}

/// The files `live.db` and `live.db-wal` of a store in which something has happened; the second is empty where `log` is not wanted.
pub fn live_files(store: &Path, log: bool) -> [Vec<u8>; 2] {
    let read = |name: &str| fs::read(store.join(name)).unwrap_or_default();
    let happen = |engine: &Engine, n: i64| {
        let (labels, fields) = ([("label", (n % 2) as f32)], [("device", Cell::Text("phone"))]);
        let item = format!("i{:04}", 1 + n % 40);
        let event = docent::Event { time: Some(1_800_000_000_000 + n), fields: &fields, ..docent::Event::item(&item) };
        sound(engine.observe(&format!("p{:04}", n % 7), &Outcome::labelled(event, &labels))).expect("it is observed");
    };
    // What version 1 kept is taken over.
    let engine = Engine::open(store, &personal()).unwrap();
    (0..10).for_each(|n| happen(&engine, n));
    let fields = [("tags", Cell::Texts(&["t0", "t1"])), ("minutes", Cell::Number(7.0))];
    engine
        .add_item(&NewItem { id: "newer", title: Some("A newer one"), fields: &fields, ..NewItem::default() })
        .unwrap();
    drop(engine);
    let whole = read("live.db");
    if !log {
        return [whole, Vec::new()];
    }
    let engine = Engine::open(store, &personal()).unwrap();
    (10..14).for_each(|n| happen(&engine, n));
    let files = [read("live.db"), read("live.db-wal")];
    drop(engine);
    files
}
