//! The file, its items, and files of the version before.

use super::LiveStore;
use super::frame::{ADDED, COUNTERS, ENTITIES, FACTS, LAYOUT, REMOVED, frame, hash};
use super::migrate::{LAYOUT_VERSION, Migration};
use crate::error::ErrorKind;
use crate::store::format::LIVE;
use crate::store::tests::before;
use crate::store::{
    EntityState, EntityStore, EntityStoreOptions, Store, StoredEmbedding, StoredItem, StoredOutcome, StoredValue,
};
use redb::{Database, TableDefinition};
use std::sync::Arc;

fn item(id: &str) -> StoredItem {
    let fields =
        vec![("price".into(), StoredValue::Number(2.5)), ("tags".into(), StoredValue::Texts(vec!["a".into()]))];
    StoredItem { id: id.into(), title: Some("One".into()), added: Some(7), fields, ..StoredItem::default() }
}

fn raw(store: &Store, write: impl FnOnce(&redb::WriteTransaction)) {
    let database = Database::open(store.path().join(LIVE)).unwrap();
    let transaction = database.begin_write().unwrap();
    write(&transaction);
    transaction.commit().unwrap();
}

#[test]
fn records_are_kept_in_their_order_until_they_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("store")).unwrap();
    let live = LiveStore::open(&store, false).unwrap();
    assert_eq!(live.items().unwrap(), Default::default());
    for (n, id) in ["z", "a", "m", "a"].into_iter().enumerate() {
        assert_eq!(live.add_item(&item(id)).unwrap(), [1, 2, 3, 2][n]);
    }
    assert!(live.remove_item("z").unwrap() && live.remove_item("never added").unwrap());
    assert!(!live.remove_item("z").unwrap());
    assert_eq!(LiveStore::open(&store, false).unwrap_err().kind(), ErrorKind::Locked);
    drop(live);
    let live = LiveStore::open(&store, true).unwrap();
    let items = live.items().unwrap();
    let added: Vec<_> = items.added.iter().map(|i| (i.sequence, i.id.as_str())).collect();
    assert_eq!((added, items.removed), (vec![(2, "a"), (3, "m")], vec!["never added".to_owned(), "z".into()]));
    assert_eq!(items.added[0], StoredItem { sequence: 2, ..item("a") });
    assert!(live.is_removed("z").unwrap() && !live.is_removed("a").unwrap() && live.is_added("a").unwrap());
    live.add_item(&item("z")).unwrap();
    assert!(!live.is_removed("z").unwrap());
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
    let framed = frame("b", b"not an archive").unwrap();
    drop(live);
    let table = TableDefinition::<&str, &[u8]>::new("items.added");
    for record in [&b"short"[..], &[0; 64], &framed] {
        raw(&store, |t| {
            t.open_table(table).unwrap().insert("b", record).unwrap();
        });
        let error = LiveStore::open(&store, false).unwrap().items().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains("live.redb") && error.message().contains("\"b\""), "{error}");
    }
    let mut later = frame("b", &[]).unwrap();
    later[16] = 9;
    let sum = hash("b", &later[16..]);
    later[..16].copy_from_slice(&sum);
    raw(&store, |t| {
        t.open_table(table).unwrap().insert("b", later.as_slice()).unwrap();
    });
    let error = LiveStore::open(&store, false).unwrap().items().unwrap_err();
    assert!(error.kind() == ErrorKind::UpgradeRequired && error.message().contains("version 9"), "{error}");
    raw(&store, |t| {
        t.open_table(FACTS).unwrap().insert(LAYOUT, LAYOUT_VERSION + 1).unwrap();
    });
    assert_eq!(LiveStore::open(&store, false).unwrap_err().kind(), ErrorKind::UpgradeRequired);
}

fn file_of_before(store: &Store, damage: bool) {
    drop(LiveStore::open(store, false).unwrap());
    raw(store, |t| {
        t.open_table(FACTS).unwrap().insert(LAYOUT, 1).unwrap();
        t.open_table(COUNTERS).unwrap().insert("items.next", 2).unwrap();
        for (table, key, mut record) in before().into_iter().filter(|(table, ..)| *table != "ckpt") {
            let table = [ADDED, REMOVED, ENTITIES].into_iter().find(|t| redb::TableHandle::name(t) == table).unwrap();
            if damage && key == "u1" {
                record[40] ^= 1;
            }
            t.open_table(table).unwrap().insert(key, record.as_slice()).unwrap();
        }
    });
}

#[test]
fn a_file_of_the_version_before_is_migrated_once_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("store")).unwrap();
    file_of_before(&store, false);
    let live = LiveStore::open(&store, true).unwrap();
    assert_eq!(live.migrated(), Some(Migration { from: 1, to: LAYOUT_VERSION, items: 2, entities: 1, damaged: 0 }));
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
    assert_eq!(live.add_item(&item("next")).unwrap(), 2);
    let entities = EntityStore::new(Arc::new(live), &EntityStoreOptions::default()).unwrap();
    let outcome = StoredOutcome {
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
    let state = EntityState { outcomes, seen: 2, touched: 9, adapted: Some(adapted) };
    assert_eq!(entities.get("u1").unwrap(), Some(state));
    drop(entities);
    assert_eq!(LiveStore::open(&store, true).unwrap().migrated(), None);
}

#[test]
fn a_migration_that_meets_damage_takes_over_the_rest_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("store")).unwrap();
    file_of_before(&store, true);
    let live = LiveStore::open(&store, false).unwrap();
    let migration = live.migrated().unwrap();
    assert_eq!((migration.items, migration.entities, migration.damaged), (2, 0, 1));
    assert!(migration.to_string().contains("1 damaged"), "{migration}");
    assert_eq!(live.items().unwrap().added.len(), 1);
    let entities = EntityStore::new(Arc::new(live), &EntityStoreOptions::default()).unwrap();
    let error = entities.get("u1").unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.message().contains("u1"), "{error}");
    assert_eq!(entities.get("u2").unwrap(), None);
}
