//! What a child does to a store while every call to its disk is written down (disk.c).

use docent::ErrorKind;
use docent::store::{Durability, EntityStore, EntityStoreOptions, LiveStore, Store, StoredOutcome};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn open(path: &Path, durability: Durability) -> EntityStore {
    let live = Arc::new(LiveStore::open(&Store::open(path).unwrap(), false).unwrap());
    EntityStore::new(live, &EntityStoreOptions { durability, ..EntityStoreOptions::default() }).unwrap()
}

/// Observes outcome `n`, of which the last 20 are kept.
fn observe(entities: &EntityStore, id: &str, n: u64) -> docent::Result<()> {
    entities.update(id, |state| {
        state.outcomes.push(StoredOutcome { item: format!("i{n}"), time: Some(n as i64), ..StoredOutcome::default() });
        let over = state.outcomes.len().saturating_sub(20);
        state.outcomes.drain(..over);
        state.seen += 1;
        Ok(())
    })
}

/// Where what is acknowledged is told: "ID N", and N is 0 where the entity is forgotten.
fn told(path: &Path) -> impl FnMut(&str, u64) {
    let mut file = File::create(path.join("told")).unwrap();
    move |id, n| file.write_all(format!("{id} {n}\n").as_bytes()).unwrap()
}

/// Updates, removals and compactions under both durabilities.
pub fn observe_and_tell(path: &Path) {
    let mut tell = told(path);
    let mut n = 0;
    for round in 0..3 {
        let durability = if round == 1 { Durability::Within(Duration::from_secs(3600)) } else { Durability::OnDisk };
        let entities = open(path, durability);
        for k in 0..12 {
            let id = format!("u{}", k * 5 % 7);
            n += 1;
            observe(&entities, &id, n).unwrap();
            // Within a time nothing is promised until the flush.
            if round != 1 {
                tell(&id, n);
            }
            if k == 6 {
                entities.compact().unwrap();
            }
            if k == 9 {
                entities.forget("u0").unwrap();
                tell("u0", 0);
            }
        }
        n += 1;
        observe(&entities, "round", n).unwrap();
        entities.flush().unwrap();
        tell("round", n);
    }
}

/// Opens a store that an earlier version wrote.
pub fn take_over(path: &Path) {
    let live = LiveStore::open(&Store::open(path).unwrap(), false).unwrap();
    assert!(live.migrated().is_some());
}

/// Observes while the disk is full for a while; ends with 3 where it is not known what is on disk.
pub fn observe_on_a_full_disk(path: &Path) {
    let (mut tell, entities) = (told(path), open(path, Durability::OnDisk));
    observe(&entities, "before", 1).unwrap();
    tell("before", 1);
    File::create(path.join("fault")).unwrap();
    let mut failed = 0;
    for n in 2..60 {
        let id = format!("u{}", n % 5);
        match observe(&entities, &id, n) {
            Ok(()) => tell(&id, n),
            Err(e) if e.kind() == ErrorKind::NoSpace => failed += 1,
            Err(e) if e.kind() == ErrorKind::Poisoned => std::process::exit(3),
            Err(e) => panic!("{e:?}"),
        }
        // Whatever became of writing, reading goes on.
        assert_eq!(entities.get("before").unwrap().unwrap().seen, 1);
        assert!(entities.get("nobody").unwrap().is_none());
    }
    // The same object writes again when there is space, which is so after 31 calls.
    let written = (0..40).find_map(|_| match observe(&entities, "after", 60) {
        Ok(()) => Some(()),
        Err(e) if e.kind() == ErrorKind::NoSpace => None,
        Err(e) if e.kind() == ErrorKind::Poisoned => std::process::exit(3),
        Err(e) => panic!("{e:?}"),
    });
    written.expect("there is space again");
    tell("after", 60);
    File::create(path.join("failed")).unwrap().write_all(format!("{failed}").as_bytes()).unwrap();
}
