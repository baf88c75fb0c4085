//! The file, its items, and files of the version before.

use super::frame::{frame, hash};
use super::migrate::Migration;
use super::schema::LAYOUT_VERSION;
use super::{AddedItem, LiveStore};
use crate::error::ErrorKind;
use crate::store::format::LIVE;
use crate::store::tests::before;
use crate::store::wire::{codec, v1};
use crate::store::{
    EntityState, EntityStore, EntityStoreOptions, Store, StoredEmbedding, StoredItem, StoredOutcome, StoredValue,
};
use redb::{Database, TableDefinition};
use rusqlite::Connection;
use std::sync::Arc;

fn item(id: &str) -> StoredItem {
    let fields =
        vec![("price".into(), StoredValue::Number(2.5)), ("tags".into(), StoredValue::Texts(vec!["a".into()]))];
    StoredItem { id: id.into(), title: Some("One".into()), added: Some(7), fields, ..StoredItem::default() }
}

/// Writes into the file beside docent.
fn raw(store: &Store, write: impl FnOnce(&Connection)) {
    write(&Connection::open(store.path().join(LIVE)).unwrap());
}

#[test]
fn records_are_kept_in_their_order_until_they_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("store")).unwrap();
    let live = LiveStore::open(&store, false).unwrap();
    assert_eq!(live.items().unwrap(), Default::default());
    for (n, id) in ["z", "a", "m", "a"].into_iter().enumerate() {
        assert_eq!(live.add_item(&item(id)).unwrap(), AddedItem { sequence: [1, 2, 3, 2][n], changes: n as u64 + 1 });
    }
    assert!(live.remove_item("z").unwrap().0 && live.remove_item("never added").unwrap().0);
    assert!(!live.remove_item("z").unwrap().0);
    // Whoever else has it open sees the same.
    let other = LiveStore::open(&store, true).unwrap();
    assert_eq!(other.items().unwrap(), live.items().unwrap());
    let changes = other.item_changes().unwrap();
    drop(live);
    let live = LiveStore::open(&store, true).unwrap();
    let items = live.items().unwrap();
    assert_eq!(items.changes, changes);
    let added: Vec<_> = items.added.iter().map(|i| (i.sequence, i.id.as_str())).collect();
    assert_eq!((added, items.removed), (vec![(2, "a"), (3, "m")], vec!["never added".to_owned(), "z".into()]));
    assert_eq!(items.added[0], StoredItem { sequence: 2, ..item("a") });
    assert!(live.is_removed("z").unwrap() && !live.is_removed("a").unwrap() && live.is_added("a").unwrap());
    live.add_item(&item("z")).unwrap();
    assert!(!live.is_removed("z").unwrap() && !other.is_removed("z").unwrap());
    assert_eq!(other.item_changes().unwrap(), changes + 1);
    let long = StoredItem { title: Some("x".repeat(2 << 20)), ..item("long") };
    assert_eq!(live.add_item(&long).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(live.items().unwrap().added.len(), 3);
}

#[test]
fn newer_layouts_and_changed_records_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("store")).unwrap();
    let live = LiveStore::open(&store, false).unwrap();
    live.add_item(&item("a")).unwrap();
    let framed = frame("b", v1::VERSION, b"not an archive").unwrap();
    drop(live);
    for record in [&b"short"[..], &[0; 64], &framed] {
        raw(&store, |c| _ = c.execute("INSERT OR REPLACE INTO added VALUES ('b', ?1)", [record]).unwrap());
        let error = LiveStore::open(&store, false).unwrap().items().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains("live.db") && error.message().contains("\"b\""), "{error}");
    }
    let mut later = frame("b", v1::VERSION, &[]).unwrap();
    later[16] = 9;
    let sum = hash("b", &later[16..]);
    later[..16].copy_from_slice(&sum);
    raw(&store, |c| _ = c.execute("INSERT OR REPLACE INTO added VALUES ('b', ?1)", [later]).unwrap());
    let error = LiveStore::open(&store, false).unwrap().items().unwrap_err();
    assert!(error.kind() == ErrorKind::UpgradeRequired && error.message().contains("version 9"), "{error}");
    // A column that holds something else, a stranger's trigger, another program's file, a later version.
    let refused = |change: &str, kind: ErrorKind| {
        raw(&store, |c| c.execute_batch(change).unwrap());
        let error = LiveStore::open(&store, false).and_then(|live| live.items()).unwrap_err();
        assert!(error.kind() == kind && error.message().contains("live.db"), "{change}: {error}");
    };
    refused("UPDATE added SET record = 7 WHERE id = 'b'", ErrorKind::Corrupt);
    refused("CREATE TRIGGER t AFTER INSERT ON entities BEGIN DELETE FROM added; END", ErrorKind::Corrupt);
    refused("DROP TRIGGER t; PRAGMA application_id = 7", ErrorKind::Corrupt);
    let later = LAYOUT_VERSION + 1;
    refused(&format!("PRAGMA application_id = 0x446f636e; PRAGMA user_version = {later}"), ErrorKind::UpgradeRequired);
}

/// The file of an earlier version, as redb writes it.
fn file_of_before(store: &Store, damage: bool) {
    let database = Database::create(store.path().join("live.redb")).unwrap();
    let t = database.begin_write().unwrap();
    let numbers = |name| TableDefinition::<&str, u64>::new(name);
    t.open_table(numbers("facts")).unwrap().insert("layout", 1).unwrap();
    t.open_table(numbers("counters")).unwrap().insert("items.next", 2).unwrap();
    for (table, key, mut record) in before().into_iter().filter(|(table, ..)| *table != "ckpt") {
        if damage && key == "u1" {
            record[40] ^= 1;
        }
        t.open_table(TableDefinition::<&str, &[u8]>::new(table)).unwrap().insert(key, record.as_slice()).unwrap();
    }
    t.commit().unwrap();
}

#[test]
fn a_file_of_the_version_before_is_migrated_once_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("store")).unwrap();
    file_of_before(&store, false);
    let live = LiveStore::open(&store, true).unwrap();
    assert_eq!(
        live.migrated(),
        Some(Migration { from: 1, to: LAYOUT_VERSION as u64, items: 2, entities: 1, damaged: 0 })
    );
    let items = live.items().unwrap();
    let fields = vec![
        ("genre".to_owned(), StoredValue::Text("drama".into())),
        ("tags".into(), StoredValue::Texts(vec!["a".into(), "a longer tag".into()])),
        ("price".into(), StoredValue::Number(2.5)),
        ("look".into(), StoredValue::Vector(vec![0.5, -1.0])),
    ];
    let (title, released, added) = (Some("One".into()), Some(5), Some(7));
    assert_eq!(items.added, [StoredItem { sequence: 1, id: "i1".into(), title, released, added, fields }]);
    assert_eq!(items.removed, ["gone"]);
    assert_eq!(live.add_item(&item("next")).unwrap().sequence, 2);
    let entities = EntityStore::new(Arc::new(live), &EntityStoreOptions::default()).unwrap();
    let outcome = StoredOutcome {
        id: None,
        item: "item-1".into(),
        time: Some(1),
        action: Some("view".into()),
        value: Some(0.5),
        fields: vec![("device".into(), "phone".into())],
        labels: vec![("click".into(), 1.0), ("like".into(), 0.0)],
        impression: vec![("position".into(), 1.0), ("hour".into(), -1.5)],
        in_history: false,
    };
    let adapted = StoredEmbedding {
        model: [3; 32],
        embedding: vec![0.25, -3.5, 1e-20],
        surfaces: vec![("home".into(), vec![0.5, 0.0, -1.0])],
        outcomes: 3,
        made: 9,
    };
    let outcomes = vec![outcome, StoredOutcome { item: "x".into(), ..StoredOutcome::default() }];
    let state = EntityState { outcomes, seen: 2, touched: Some(9), past_items: Vec::new(), adapted: Some(adapted) };
    assert_eq!(entities.get("u1").unwrap(), Some(state));
    drop(entities);
    assert_eq!(LiveStore::open(&store, true).unwrap().migrated(), None);
    assert!(!store.path().join("live.redb").exists());
    // Another file of that name is not what was taken over.
    file_of_before(&store, true);
    let error = LiveStore::open(&store, true).unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidArgument && error.message().contains("live.redb"), "{error}");
}

#[test]
fn a_file_of_before_that_nothing_was_written_to_is_taken_over_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("store")).unwrap();
    let path = store.path().join("live.redb");
    drop(Database::create(&path).unwrap());
    for _ in 0..2 {
        assert!(LiveStore::open(&store, true).unwrap().migrated().is_none());
        assert!(!path.exists());
    }
    // A log without its file is damage: the file would be taken for an empty one, and the log be thrown away.
    for (name, bytes) in [("live.db", &[][..]), ("live.db-wal", &[1; 5000])] {
        std::fs::write(store.path().join(name), bytes).unwrap();
    }
    assert_eq!(LiveStore::open(&store, false).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_large_file_of_before_is_taken_over_whole_and_a_damaged_one_is_told() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let store = Store::create(dir.path().join("store")).unwrap();
    let path = store.path().join("live.redb");
    let entities = TableDefinition::<&str, &[u8]>::new("entities");
    let record = |n: usize| {
        let id = format!("u{n}");
        let long = v1::Outcome {
            item: "x".repeat(n % 7 * 900),
            time: None,
            action: None,
            value: None,
            fields: Vec::new(),
            labels: Vec::new(),
            impression: Vec::new(),
            in_history: false,
        };
        let outcomes = if n.is_multiple_of(7) { vec![] } else { vec![long] };
        let state = v1::State { outcomes, seen: n as u64, touched: n as i64, adapted: None };
        let record = frame(&id, v1::VERSION, &codec::archive(&state).unwrap()).unwrap();
        (id, record)
    };
    let database = Database::create(&path).unwrap();
    for part in 0..4 {
        let t = database.begin_write().unwrap();
        t.open_table(TableDefinition::<&str, u64>::new("facts")).unwrap().insert("layout", 2).unwrap();
        for n in (0..1000).filter(|n| n % 4 == part) {
            let (id, record) = record(n);
            t.open_table(entities).unwrap().insert(id.as_str(), record.as_slice()).unwrap();
            if n % 5 == 0 {
                t.open_table(entities).unwrap().remove(id.as_str()).unwrap();
            }
        }
        t.commit().unwrap();
    }
    // As a crash leaves it, and as it is closed.
    let unclean = std::fs::read(&path).unwrap();
    drop(database);
    let sound = std::fs::read(&path).unwrap();
    assert!(unclean[9] & 2 != 0 && sound[9] & 2 == 0);
    let open = |bytes: &[u8]| {
        for name in ["live.db", "live.db-wal", "live.db-shm"] {
            let _ = std::fs::remove_file(store.path().join(name));
        }
        std::fs::write(&path, bytes).unwrap();
        LiveStore::open(&store, false)
    };
    let check = |live: LiveStore| {
        let entities = EntityStore::new(Arc::new(live), &EntityStoreOptions::default()).unwrap();
        assert_eq!(entities.len().unwrap(), 800);
        for n in 0..1000 {
            let found = entities.get(&format!("u{n}")).unwrap().map(|s| (s.seen, s.outcomes.len()));
            assert_eq!(found, (n % 5 != 0).then_some((n as u64, usize::from(n % 7 != 0))));
        }
        assert_eq!(entities.purge_idle(500).unwrap(), 400, "times are taken over");
    };
    check(open(&unclean).unwrap());
    check(open(&sound).unwrap());
    // What a damaged byte leads to is told, without more memory than the file is long; what it does not lead to is of no matter.
    let mut told = 0;
    for (n, at) in (0..320).chain((4096..sound.len()).step_by(sound.len() / 150)).enumerate() {
        let mut bytes = sound.clone();
        bytes[at] ^= [1, 0x80, 0xff][n % 3];
        match open(&bytes) {
            Ok(live) => check(live),
            Err(e) => {
                assert!([ErrorKind::Corrupt, ErrorKind::UpgradeRequired].contains(&e.kind()), "byte {at}: {e:?}");
                assert!(path.exists(), "nothing is lost");
                told += 1;
            }
        }
    }
    assert!(told > 100, "{told} were told");
    for cut in [1, 100, 4095, 5000, sound.len() / 2] {
        assert_eq!(open(&sound[..cut]).unwrap_err().kind(), ErrorKind::Corrupt, "cut at {cut}");
    }
    assert!(open(&[]).unwrap().migrated().is_none());
}

#[test]
fn a_migration_that_meets_damage_takes_over_the_rest_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("store")).unwrap();
    file_of_before(&store, true);
    let live = LiveStore::open(&store, false).unwrap();
    let migration = live.migrated().unwrap();
    assert_eq!((migration.items, migration.entities, migration.damaged), (2, 1, 1));
    assert!(migration.to_string().contains("1 damaged"), "{migration}");
    assert_eq!(live.items().unwrap().added.len(), 1);
    let entities = EntityStore::new(Arc::new(live), &EntityStoreOptions::default()).unwrap();
    let error = entities.get("u1").unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.message().contains("u1"), "{error}");
    assert_eq!(entities.get("u2").unwrap(), None);
}
