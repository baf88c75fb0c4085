//! A host in Rust that forks with an engine open: the child is told, and what the parent keeps is untouched.

#[path = "../../tests/serve_engine/world.rs"]
#[allow(dead_code, reason = "shared with the tests of the engine")]
mod world;

extern crate docent_api as docent;

use docent::serve::{Engine, EngineOptions, Filter, Outcome, PersonalOptions, Query};
use docent::store::{Durability, EntityStore, EntityStoreOptions, LiveStore, Store};
use docent::{ErrorKind, Event};
use std::sync::Arc;
use std::time::Duration;
use world::{Shop, entity};

unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(process: i32, status: *mut i32, options: i32) -> i32;
    fn _exit(code: i32) -> !;
}

/// Runs `work` in a child of a fork; gives what it returned.
fn in_child(work: impl FnOnce() -> u8) -> i32 {
    // SAFETY: fork has no preconditions; the child calls what a host would call and ends without running anything of the parent's.
    let child = unsafe { fork() };
    if child == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(99);
        // SAFETY: ends the child at once.
        unsafe { _exit(i32::from(code)) };
    }
    let mut status = 0;
    // SAFETY: `status` is a place for a number, and `child` is our own.
    assert_eq!(unsafe { waitpid(child, &mut status, 0) }, child);
    assert_eq!(status & 0x7f, 0, "the child ended by a signal");
    status >> 8
}

fn forked<T>(result: docent::Result<T>) -> bool {
    result.is_err_and(|e| e.kind() == ErrorKind::Forked)
}

#[test]
fn a_child_is_told_and_the_parents_outcomes_stay() {
    for durability in [Durability::OnDisk, Durability::Within(Duration::from_millis(5))] {
        let shop = Shop::new();
        let store = EntityStoreOptions { durability, ..Default::default() };
        let personal = Some(PersonalOptions { store, ..PersonalOptions::default() });
        let options = EngineOptions { personal, ..EngineOptions::default() };
        let engine = Engine::open(shop.path(), &options).unwrap();
        let item = engine.recommend(&Query::entity(&entity(1)), &Filter::default(), 1).unwrap().items[0].id.to_string();
        let observe = |engine: &Engine, n: usize| {
            (0..n).try_for_each(|i| engine.observe(&format!("new {i}"), &Outcome::event(Event::item(&item))).map(drop))
        };
        observe(&engine, 300).unwrap();
        for _ in 0..4 {
            let code = in_child(|| {
                let list = engine.recommend(&Query::entity(&entity(1)), &Filter::default(), 3);
                if !forked(list) || !forked(observe(&engine, 1)) {
                    return 1;
                }
                // What SQLite holds of the parent's would be taken for the child's own.
                let files = Store::open(shop.path()).unwrap();
                if !forked(LiveStore::open(&files, false))
                    || Engine::open(shop.path(), &EngineOptions::default()).is_err()
                {
                    return 2;
                }
                // SAFETY: a child drops what it has from its parent; nothing uses it after this.
                drop(unsafe { std::ptr::read(&engine) });
                0
            });
            assert_eq!(code, 0, "{durability:?}");
        }
        let files = Store::open(shop.path()).unwrap();
        observe(&engine, 350).unwrap();
        drop(engine);
        // With none open, a child may open its own.
        assert_eq!(in_child(|| u8::from(LiveStore::open(&files, false).is_err())), 0);
        let live = Arc::new(LiveStore::open(&files, true).unwrap());
        assert_eq!(EntityStore::new(live, &EntityStoreOptions::default()).unwrap().len().unwrap(), 350);
    }
}
