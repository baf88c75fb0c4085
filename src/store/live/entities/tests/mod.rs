//! Tests that need what the public interface does not show: the seam to the disk, and what waits for it.

mod damage;
mod syncs;

use super::*;
use crate::error::ErrorKind;
use crate::store::{Store, StoredEmbedding, StoredItem, StoredOutcome};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

const DAY: i64 = 86_400_000;

fn open(path: &Path, options: &EntityStoreOptions) -> EntityStore {
    open_on(&Store::create(path).unwrap(), options)
}

fn open_on(store: &Store, options: &EntityStoreOptions) -> EntityStore {
    EntityStore::new(Arc::new(LiveStore::open(store, false).unwrap()), options).unwrap()
}

fn within(milliseconds: u64) -> EntityStoreOptions {
    EntityStoreOptions { durability: Durability::Within(Duration::from_millis(milliseconds)), ..Default::default() }
}

fn outcome(n: u64) -> StoredOutcome {
    StoredOutcome {
        id: Some(n.to_string()),
        item: format!("item-{n}"),
        time: Some(n as i64),
        action: Some("view".into()),
        value: Some(0.5),
        fields: vec![("device".into(), "phone".into())],
        labels: vec![("click".into(), 1.0), ("like".into(), 0.0)],
        impression: vec![("position".into(), n as f32), ("hour".into(), -1.5)],
        in_history: n.is_multiple_of(2),
    }
}

/// Observes outcome `n`, of which the last 20 are kept.
fn observe(store: &EntityStore, id: &str, n: u64) -> Result<u64> {
    store.update(id, |state| {
        state.outcomes.push(outcome(n));
        let excess = state.outcomes.len().saturating_sub(20);
        state.outcomes.drain(..excess);
        state.seen += 1;
        state.touched = state.touched.max(Some(n as i64));
        Ok(state.seen)
    })
}

fn adapted(model: u8) -> StoredEmbedding {
    StoredEmbedding {
        model: [model; 32],
        embedding: vec![0.25, -3.5, 1e-20],
        surfaces: vec![("home".into(), vec![0.5, 0.0, -1.0])],
        outcomes: 3,
        made: 9,
    }
}

fn all(store: &EntityStore) -> BTreeMap<String, EntityState> {
    let mut all = BTreeMap::new();
    let mut last = String::new();
    store
        .each(|id, state| {
            assert!(*id > *last, "{id:?} after {last:?}");
            last = id.to_owned();
            all.insert(id.to_owned(), state.clone());
            Ok(())
        })
        .unwrap();
    all
}

fn kind<T: std::fmt::Debug>(outcome: Result<T>) -> ErrorKind {
    outcome.unwrap_err().kind()
}

#[test]
fn states_are_changed_kept_listed_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    for options in [EntityStoreOptions::default(), within(10)] {
        let path = dir.path().join(format!("{options:?}").replace(|c: char| !c.is_alphanumeric(), ""));
        let store = open(&path, &options);
        assert!(store.is_empty().unwrap() && store.get("u1").unwrap().is_none() && !store.forget("u1").unwrap());
        assert_eq!((store.purge_idle(i64::MAX).unwrap(), all(&store).len()), (0, 0));
        for n in 1..=30 {
            assert_eq!(observe(&store, "u1", n).unwrap(), n);
            observe(&store, &format!("v{}", n % 7), n * 10).unwrap();
        }
        store
            .update("u1", |state| {
                state.adapted = Some(adapted(3));
                Ok(())
            })
            .unwrap();
        let one = store.get("u1").unwrap().unwrap();
        assert_eq!((one.seen, one.touched, one.outcomes.len()), (30, Some(30), 20));
        assert_eq!((&one.outcomes[0], &one.outcomes[19]), (&outcome(11), &outcome(30)));
        assert_eq!(one.embedding("u1", &[3; 32]).unwrap(), Some(&adapted(3)));
        assert_eq!(kind(one.embedding("u1", &[4; 32])), ErrorKind::StateMismatch);
        let look = |state: StateView<'_>| {
            let embedding = state.adapted().map(|a| a.embedding().collect::<Vec<_>>());
            let items: Vec<String> = state.outcomes().rev().map(|o| o.item().to_owned()).collect();
            Ok((state.seen(), embedding, items))
        };
        let (seen, embedding, items) = store.read("u1", look).unwrap().unwrap();
        assert_eq!((seen, embedding, items.len()), (30, Some(adapted(3).embedding), 20));
        assert_eq!((items[0].as_str(), store.read("nobody", look).unwrap()), ("item-30", None));
        let all_of = |s: StateView<'_>| {
            let outcomes = s.outcomes().map(|o| {
                let fields: Vec<(String, String)> = o.fields().map(|(n, t)| (n.to_owned(), t.to_owned())).collect();
                let numbers: Vec<_> = o.labels().chain(o.impression()).map(|(n, x)| (n.to_owned(), x)).collect();
                let action = o.action().map(str::to_owned);
                (o.item().to_owned(), o.time(), action, o.value(), fields, numbers, o.in_history())
            });
            let own = s.adapted().map(|a| {
                let surfaces: Vec<_> = a.surfaces().map(|(n, x)| (n.to_owned(), x.collect::<Vec<_>>())).collect();
                (a.model(), a.embedding().collect::<Vec<_>>(), surfaces, a.outcomes(), a.made())
            });
            Ok(format!("{:?} {:?}", (s.seen(), s.touched(), own), outcomes.collect::<Vec<_>>()))
        };
        assert_eq!(store.read("u1", all_of).unwrap().unwrap(), all_of(StateView::from(&one)).unwrap());
        assert_eq!(store.read("", look).unwrap(), None);
        assert_eq!(store.get("v1").unwrap().unwrap().embedding("v1", &[4; 32]).unwrap(), None);
        let before = all(&store);
        assert_eq!((before.len(), store.len().unwrap()), (8, 8));
        assert_eq!(before["u1"], one);
        store.put("w", &one).unwrap();
        assert!(store.forget("v3").unwrap() && !store.forget("v3").unwrap());
        assert_eq!(store.get("v3").unwrap(), None);
        drop(store);
        let store = open(&path, &options);
        let after = all(&store);
        assert_eq!(
            after.keys().map(String::as_str).collect::<Vec<_>>(),
            ["u1", "v0", "v1", "v2", "v4", "v5", "v6", "w"]
        );
        assert!(after["w"] == one && before.iter().all(|(id, state)| id == "v3" || after[id] == *state));
        // Touched at 30, 270, 280, 290, 300 and so on: those before 280 go.
        assert_eq!(store.purge_idle(280).unwrap(), 5);
        assert_eq!(all(&store).keys().collect::<Vec<_>>(), ["v0", "v1", "v2"]);
        observe(&store, "u1", 1).unwrap();
        assert_eq!(store.get("u1").unwrap().unwrap().seen, 1, "it begins anew");
    }
}

#[test]
fn what_cannot_be_stored_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &EntityStoreOptions::default());
    observe(&store, "u", 1).unwrap();
    let before = all(&store);
    let good = before["u"].clone();
    for id in ["", &"x".repeat((64 << 10) + 1)] {
        assert_eq!(store.get(id).unwrap(), None);
        assert_eq!(kind(store.forget(id)), ErrorKind::InvalidArgument);
        assert_eq!(kind(store.put(id, &good)), ErrorKind::InvalidArgument);
        assert_eq!(kind(store.update(id, |_| Ok(()))), ErrorKind::InvalidArgument);
    }
    let with = |change: &dyn Fn(&mut StoredOutcome)| {
        let mut state = good.clone();
        change(&mut state.outcomes[0]);
        state
    };
    let mut wrong = vec![
        with(&|o| o.item.clear()),
        with(&|o| o.value = Some(f32::NAN)),
        with(&|o| o.impression.push(("position".into(), f32::INFINITY))),
        with(&|o| o.labels[0].1 = 1.5),
        with(&|o| o.labels[0].1 = f32::NAN),
        with(&|o| o.item = "x".repeat(2 << 20)),
    ];
    let embedding = StoredEmbedding { embedding: vec![f32::NAN], ..adapted(1) };
    wrong.push(EntityState { adapted: Some(embedding), ..good.clone() });
    for state in wrong {
        assert_eq!(kind(store.put("u", &state)), ErrorKind::InvalidArgument);
        let updated = store.update("u", |it| {
            *it = state.clone();
            Ok(())
        });
        assert_eq!(kind(updated), ErrorKind::InvalidArgument);
    }
    let failed = store.update("u", |state| {
        state.seen = 99;
        Err::<(), _>(err!(Cancelled, "the caller thought better of it"))
    });
    assert_eq!(kind(failed), ErrorKind::Cancelled);
    let panicked = catch_unwind(AssertUnwindSafe(|| store.update("u", |_| -> Result<()> { panic!("the caller's") })));
    assert!(panicked.is_err());
    let panicked = catch_unwind(AssertUnwindSafe(|| store.each(|_, _| panic!("the caller's"))));
    assert!(panicked.is_err());
    assert_eq!(kind(store.each(|_, _| Err(err!(Cancelled, "enough")))), ErrorKind::Cancelled);
    assert_eq!(all(&store), before);
    // A state of the greatest length and an id of the greatest length are well.
    let long = "u".repeat(64 << 10);
    let big = EntityState { outcomes: vec![with(&|o| o.item = "x".repeat(1_000_000)).outcomes[0].clone()], ..good };
    store.put(&long, &big).unwrap();
    assert_eq!(store.get(&long).unwrap().unwrap(), big);
    let zero = EntityStoreOptions { durability: Durability::Within(Duration::ZERO), ..Default::default() };
    let live = Arc::clone(&store.live);
    live.compact().unwrap();
    assert_eq!(kind(EntityStore::new(Arc::clone(&live), &zero)), ErrorKind::InvalidArgument);
    assert_eq!(kind(EntityStore::new(Arc::clone(&live), &within(5))), ErrorKind::Busy);
    drop(store);
    EntityStore::new(live, &within(5)).unwrap();
}

#[test]
fn a_change_within_a_change_is_refused_instead_of_waiting_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &EntityStoreOptions::default());
    observe(&store, "u", 1).unwrap();
    store
        .update("u", |state| {
            assert_eq!(store.get("u")?.unwrap(), *state, "reading is allowed");
            for id in ["u", "v"] {
                assert_eq!(kind(store.update(id, |_| Ok(()))), ErrorKind::Busy);
                assert_eq!(kind(store.forget(id)), ErrorKind::Busy);
                assert_eq!(kind(store.put(id, state)), ErrorKind::Busy);
            }
            let others = [store.compact(), store.purge_idle(1).map(|_| ()), store.live.remove_item("i").map(|_| ())];
            assert!(others.into_iter().all(|other| kind(other) == ErrorKind::Busy));
            store.flush()
        })
        .unwrap();
    store
        .each(|id, _| {
            store.update(id, |state| {
                state.seen += 1;
                Ok(())
            })
        })
        .unwrap();
    assert_eq!(store.get("u").unwrap().unwrap().seen, 2);
}

/// While others add people and forget them, whoever reads finds them or not, and the file is sound.
#[test]
fn people_who_come_and_go_are_there_or_not() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let [writer, reader] = [(); 2].map(|()| open(dir.path(), &within(1000)));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..1500 {
                observe(&writer, &format!("u{}", n % 3), n).unwrap();
                writer.forget(&format!("u{}", (n + 1) % 3)).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let mut found = [0u64; 2];
        while !done.load(Ordering::Acquire) {
            for id in ["u0", "u1", "u2"] {
                found[usize::from(reader.get(id).unwrap().is_some())] += 1;
            }
        }
        assert!(found.iter().all(|n| *n > 10), "{found:?}");
    });
}

#[test]
fn threads_on_one_entity_give_a_serial_result_and_on_many_do_not_mix() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    for (n, options) in [EntityStoreOptions::default(), within(3)].iter().enumerate() {
        let path = dir.path().join(n.to_string());
        let store = open(&path, options);
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (store, done) = (&store, &done);
                scope.spawn(move || {
                    let mut last = 0;
                    for n in 0..200 {
                        // Two of the threads share an entity, and all of them one.
                        let seen = observe(store, &format!("pair-{}", thread / 2), thread * 1000 + n).unwrap();
                        assert!(seen > last, "a change that was acknowledged is lost");
                        last = seen;
                        if n % 10 == 0 {
                            store
                                .update("all", |state| {
                                    state.seen = state.seen * 2 % 1_000_003 + thread;
                                    Ok(())
                                })
                                .unwrap();
                        }
                        let own = format!("own-{thread}");
                        assert_eq!(observe(store, &own, n).unwrap(), n + 1);
                        assert_eq!(store.get(&own).unwrap().unwrap().outcomes.last(), Some(&outcome(n)));
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) < 8 {
                    store.compact().unwrap();
                    store.len().unwrap();
                }
            });
        });
        drop(store);
        let store = open(&path, options);
        let states = all(&store);
        assert_eq!(states.len(), 4 + 8 + 1);
        for pair in 0..4 {
            let state = &states[&format!("pair-{pair}")];
            assert_eq!((state.seen, state.outcomes.len()), (400, 20));
            // The order of each thread's own is kept.
            for thread in [pair * 2, pair * 2 + 1] {
                let own: Vec<i64> =
                    state.outcomes.iter().filter_map(|o| o.time).filter(|t| *t / 1000 == thread).collect();
                assert!(own.is_sorted());
            }
        }
        assert!((0..8).all(|thread| states[&format!("own-{thread}")].seen == 200));
    }
}

/// Every order of two threads' changes that keeps each thread's own order.
#[test]
fn changes_of_one_entity_equal_some_serial_order() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let store = open(dir.path(), &within(1));
    fn orders(a: &[u64], b: &[u64], so_far: u64, found: &mut Vec<u64>) {
        match (a.split_first(), b.split_first()) {
            (None, None) => found.push(so_far),
            (x, y) => {
                if let Some((first, rest)) = x {
                    orders(rest, b, so_far * 10 + first, found);
                }
                if let Some((first, rest)) = y {
                    orders(a, rest, so_far * 10 + first, found);
                }
            }
        }
    }
    let mut serial = Vec::new();
    orders(&[1, 2, 3], &[4, 5, 6], 0, &mut serial);
    assert_eq!(serial.len(), 20);
    let mut different = std::collections::BTreeSet::new();
    for round in 0..300 {
        let id = format!("u{round}");
        std::thread::scope(|scope| {
            for own in [[1, 2, 3], [4, 5, 6]] {
                let (store, id) = (&store, &id);
                scope.spawn(move || {
                    for digit in own {
                        store
                            .update(id, |state| {
                                state.seen = state.seen * 10 + digit;
                                Ok(())
                            })
                            .unwrap();
                        std::thread::yield_now();
                    }
                });
            }
        });
        let result = store.get(&id).unwrap().unwrap().seen;
        assert!(serial.contains(&result), "{result} is no serial order");
        different.insert(result);
    }
    assert!(different.len() > 1, "the threads did not meet: {different:?}");
}

/// Names of this process's threads.
fn writers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.filter(|t| std::fs::read_to_string(t.path().join("comm")).is_ok_and(|n| n == "docent-entities\n")).count()
}

#[test]
fn only_within_takes_a_thread_and_it_ends_after_a_last_commit() {
    // In a process of its own, where no other test has entity stores.
    if std::env::var_os("DOCENT_TEST_THREADS").is_none() {
        let name = "store::entities::tests::only_within_takes_a_thread_and_it_ends_after_a_last_commit";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--test-threads=1"])
            .env("DOCENT_TEST_THREADS", "1")
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let count = || std::fs::read_dir("/proc/self/task").unwrap().count();
    // A thread takes a moment to take its name, and the system one to clear away what has ended.
    let soon = |threads: (usize, usize)| {
        let begun = Instant::now();
        while (count(), writers()) != threads {
            assert!(begun.elapsed() < Duration::from_secs(10), "{} threads, {} of ours", count(), writers());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let before = count();
    let store = open(dir.path(), &EntityStoreOptions::default());
    observe(&store, "u", 1).unwrap();
    assert_eq!(count(), before);
    drop(store);
    let store = open(dir.path(), &within(60_000));
    observe(&store, "u", 2).unwrap();
    soon((before + 1, 1));
    let begun = Instant::now();
    drop(store);
    assert!(begun.elapsed() < Duration::from_secs(10), "dropping waits for the time");
    soon((before, 0));
    let store = open(dir.path(), &EntityStoreOptions::default());
    assert_eq!(store.get("u").unwrap().unwrap().seen, 2);
}

#[test]
fn what_waits_for_the_disk_is_bounded() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let options = EntityStoreOptions { pending_bytes: 100_000, ..within(3_600_000) };
    let store = open(dir.path(), &options);
    let record = encode("u", EntityState { outcomes: (0..20).map(outcome).collect(), ..Default::default() });
    let record = record.unwrap().bytes.len();
    let (mut most, mut waited) = (0, 0);
    for n in 0..20_000u64 {
        observe(&store, &format!("u{}", n % 500), n).unwrap();
        let bytes = store.live.syncs.pending();
        waited += u64::from(bytes == 0);
        most = most.max(bytes);
    }
    assert!(most <= 100_000 && most > 80_000, "{most} bytes waited");
    let least = 500 * record as u64 / 100_000;
    assert!(waited > least && waited < 2000, "{waited} callers committed");
    assert_eq!(store.purge_idle(i64::MAX).unwrap(), 500);
    assert_eq!((store.len().unwrap(), store.live.syncs.pending()), (0, 0));
}

#[test]
fn a_purge_goes_through_more_than_one_step_and_spares_the_busy() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let store = open(dir.path(), &within(1000));
    let entities = PURGE_STEP * 2 + 10;
    for n in 0..entities {
        store
            .put(&format!("u{n}"), &EntityState { touched: (n > 0).then_some(n * DAY), ..Default::default() })
            .unwrap();
    }
    // Touched while it waits for the disk.
    store.flush().unwrap();
    store
        .update("u3", |state| {
            state.touched = Some(entities * DAY);
            Ok(())
        })
        .unwrap();
    // The first has no time, and is never idle.
    assert_eq!(store.purge_idle(5000 * DAY).unwrap(), 4998);
    assert_eq!(store.len().unwrap() as i64, entities - 4998);
    assert!(store.get("u0").unwrap().is_some());
    assert!(store.get("u3").unwrap().is_some() && store.get("u4").unwrap().is_none());
    assert!(store.get("u4999").unwrap().is_none() && store.get("u5000").unwrap().is_some());
}

/// Every file of a store, by name.
fn files(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push((entry.path().display().to_string(), std::fs::read(entry.path()).unwrap())),
        }
    }
    found
}

#[test]
fn what_was_forgotten_leaves_no_byte_after_a_compaction() {
    let dir = tempfile::tempdir().unwrap();
    for options in [EntityStoreOptions::default(), within(2)] {
        let path = dir.path().join(format!("{options:?}").replace(|c: char| !c.is_alphanumeric(), ""));
        let store = open(&path, &options);
        store.live.add_item(&StoredItem { id: "kept".into(), ..StoredItem::default() }).unwrap();
        store.live.remove_item("taken-out").unwrap();
        let embedding: Vec<f32> = (0..64).map(|n| 1.0 + (n as f32) * 0.0137).collect();
        for n in 0..300 {
            observe(&store, &format!("u{}", n % 40), n).unwrap();
            if n % 3 == 0 {
                store
                    .update("the-forgotten-one", |state| {
                        let own = StoredOutcome { item: "an-item-of-its-own".into(), ..outcome(n) };
                        state.outcomes.push(own);
                        let changed = embedding.iter().map(|x| x + n as f32).collect();
                        state.adapted = Some(StoredEmbedding { embedding: changed, ..adapted(1) });
                        Ok(())
                    })
                    .unwrap();
            }
        }
        // Every embedding that it ever had, four numbers at a time.
        let pieces: Vec<Vec<u8>> = (0..300u64)
            .step_by(3)
            .flat_map(|n| embedding.chunks(4).map(move |c| (n, c)).collect::<Vec<_>>())
            .map(|(n, c)| c.iter().flat_map(|x| (x + n as f32).to_le_bytes()).collect())
            .collect();
        let needles = || {
            let texts = ["the-forgotten-one", "an-item-of-its-own"].map(|t| t.as_bytes().to_vec());
            texts.into_iter().chain(pieces.iter().cloned())
        };
        let found = |needle: &[u8]| -> usize {
            let holds = |file: &[u8]| {
                let starts = file.iter().enumerate().filter(|(_, b)| **b == needle[0]);
                starts.filter(|(at, _)| file[*at..].starts_with(needle)).count()
            };
            files(&path).iter().map(|(_, bytes)| holds(bytes)).sum()
        };
        store.flush().unwrap();
        let before = all(&store);
        assert!(needles().map(|n| found(&n)).filter(|n| *n > 0).count() > 3, "the search finds what is there");
        assert!(store.forget("the-forgotten-one").unwrap());
        assert!(found(b"the-forgotten-one") > 0, "forgetting alone leaves bytes, or this test shows nothing");
        store.compact().unwrap();
        for needle in needles() {
            assert_eq!(found(&needle), 0, "{:?} is left", String::from_utf8_lossy(&needle));
        }
        // Everything else is as before, now and when it is opened again, and closing writes nothing of it either.
        let rest: BTreeMap<_, _> = before.into_iter().filter(|(id, _)| id != "the-forgotten-one").collect();
        assert_eq!(all(&store), rest);
        observe(&store, "u1", 1000).unwrap();
        drop(store);
        assert!(needles().all(|n| found(&n) == 0));
        let live = Arc::new(LiveStore::open(&Store::open(&path).unwrap(), true).unwrap());
        let items = live.items().unwrap();
        assert_eq!((items.added.len(), items.added[0].sequence, items.removed), (1, 1, vec!["taken-out".to_owned()]));
        assert_eq!(live.add_item(&StoredItem { id: "next".into(), ..StoredItem::default() }).unwrap().sequence, 2);
        let store = EntityStore::new(live, &options).unwrap();
        assert_eq!(store.get("u1").unwrap().unwrap().seen, rest["u1"].seen + 1);
        assert_eq!(store.get("u2").unwrap().as_ref(), Some(&rest["u2"]));
    }
}

#[cfg(feature = "files")]
#[test]
fn states_go_through_json_unchanged() {
    let state = EntityState {
        outcomes: (0..50).map(|n| StoredOutcome { value: Some(0.1 + n as f32 / 7.0), ..outcome(n) }).collect(),
        seen: u64::MAX,
        touched: Some(i64::MIN),
        past_items: vec!["a".into()],
        adapted: Some(StoredEmbedding { embedding: vec![f32::MIN_POSITIVE, 1.0 / 3.0, -0.0, 3.4e38], ..adapted(255) }),
    };
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<EntityState>(&text).unwrap(), state);
    // As earlier builds exported who has no time.
    let before = r#"{"outcomes":[],"seen":3,"touched":0,"adapted":null}"#;
    let read: EntityState = serde_json::from_str(before).unwrap();
    assert_eq!((read.seen, read.touched), (3, None));
}
