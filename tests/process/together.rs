//! What each of several processes does that observe the same people at once.

use docent::random::Rng;
use docent::store::{EntityStore, EntityStoreOptions, LiveStore, Store, StoredOutcome};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// People whom all observe.
const PEOPLE: usize = 5;
/// Outcomes that each process observes, unless it is killed.
const OUTCOMES: usize = 200;

/// Observes outcomes of its own, and tells of each that was acknowledged: person, and the item that no other outcome has.
pub fn observe(path: &Path) {
    let process = std::process::id();
    let live = LiveStore::open(&Store::open(path).unwrap(), false).unwrap();
    let entities = EntityStore::new(Arc::new(live), &EntityStoreOptions::default()).unwrap();
    let mut told = File::create(path.with_extension(format!("told-{process}"))).unwrap();
    let mut rng = Rng::new(u64::from(process));
    for n in 0..OUTCOMES {
        let (id, item) = (format!("u{}", rng.below(PEOPLE)), format!("{process}-{n}"));
        entities
            .update(&id, |state| {
                state.outcomes.push(StoredOutcome { item: item.clone(), ..StoredOutcome::default() });
                state.seen += 1;
                Ok(())
            })
            .unwrap();
        told.write_all(format!("{id} {item}\n").as_bytes()).unwrap();
    }
}
