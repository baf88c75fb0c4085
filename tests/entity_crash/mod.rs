//! An entity store in a process that is killed, and what must be left of it. Shared by the everyday test and the benchmark.
//!
//! The child observes on several threads and tells of each acknowledged outcome in a file of each thread; the parent kills it,
//! opens the store, and compares.

use docent::Result;
use docent::random::Rng;
use docent::store::{Durability, EntityStore, EntityStoreOptions, LiveStore, Store, StoredOutcome};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Where the child finds its [`Plan`].
pub const ORDER: &str = "DOCENT_TEST_OBSERVE";
/// Outcomes that are kept of each entity.
const KEPT: usize = 8;
/// Bytes of a line in what a thread tells: entity and number of its outcome, the time in microseconds.
const LINE: usize = 16;

/// What a child does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The store's directory. What the child tells lies beside it.
    pub store: PathBuf,
    /// Milliseconds of [`Durability::Within`]; 0 is [`Durability::OnDisk`].
    pub within: u64,
    /// Threads that observe, each its own entities.
    pub threads: u32,
    /// Entities of each thread.
    pub entities: u32,
    /// Whether another thread compacts without end.
    pub compact: bool,
}

impl Plan {
    fn text(&self) -> String {
        let (path, compact) = (self.store.display(), self.compact);
        format!("{}|{}|{}|{compact}|{path}", self.within, self.threads, self.entities)
    }

    /// The plan that this process was started with, if it is a child.
    pub fn ordered() -> Option<Self> {
        let text = std::env::var(ORDER).ok()?;
        let parts: Vec<&str> = text.splitn(5, '|').collect();
        let number = |n: usize| parts[n].parse().unwrap();
        Some(Self {
            within: number(0) as u64,
            threads: number(1),
            entities: number(2),
            compact: parts[3] == "true",
            store: parts[4].into(),
        })
    }

    fn options(&self) -> EntityStoreOptions {
        let durability = match self.within {
            0 => Durability::OnDisk,
            ms => Durability::Within(Duration::from_millis(ms)),
        };
        EntityStoreOptions { durability, ..EntityStoreOptions::default() }
    }

    fn told(&self, thread: u32) -> PathBuf {
        self.store.with_extension(format!("told-{thread}"))
    }
}

/// An entity store on a directory that is made where there is none.
pub fn open(path: &Path, full: bool, options: &EntityStoreOptions) -> Result<EntityStore> {
    EntityStore::new(Arc::new(LiveStore::open(&Store::create(path)?, full)?), options)
}

/// The clock that parent and child share.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64
}

fn id(thread: u32, entity: u32) -> String {
    format!("person-{thread}-{entity}")
}

/// The work of a child: ends when it is killed.
pub fn observe_until_killed(plan: &Plan) {
    let store = open(&plan.store, false, &plan.options()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..plan.threads {
            let store = &store;
            scope.spawn(move || {
                let mut told = File::options().append(true).create(true).open(plan.told(thread)).unwrap();
                let mut rng = Rng::new(now() ^ u64::from(thread));
                loop {
                    let entity = rng.below(plan.entities as usize) as u32;
                    let observed = store.update(&id(thread, entity), |state| {
                        state.seen += 1;
                        let n = state.seen;
                        let item = format!("item-{}", n % 1000);
                        let labels = vec![("click".to_owned(), (n % 2) as f32)];
                        let time = Some(n as i64);
                        let impression = vec![("position".to_owned(), n as f32)];
                        let outcome = StoredOutcome { item, time, labels, impression, ..StoredOutcome::default() };
                        state.outcomes.push(outcome);
                        if state.outcomes.len() > KEPT {
                            state.outcomes.remove(0);
                        }
                        state.touched = Some(n as i64);
                        Ok(n)
                    });
                    let mut line = [0; LINE];
                    line[..4].copy_from_slice(&entity.to_le_bytes());
                    line[4..8].copy_from_slice(&(observed.unwrap() as u32).to_le_bytes());
                    line[8..].copy_from_slice(&now().to_le_bytes());
                    told.write_all(&line).unwrap();
                }
            });
        }
        if plan.compact {
            scope.spawn(|| {
                loop {
                    store.compact().unwrap();
                    // Observers want a turn, too.
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
    });
}

/// Kills the child when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What one life of a child came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Life {
    /// Outcomes that were acknowledged.
    pub acknowledged: u64,
    /// Acknowledged ones that had to be there, and were.
    pub kept: u64,
    /// Acknowledged ones that were not there, all of them younger than the time promised.
    pub young: u64,
    /// How long opening took.
    pub open: Duration,
}

/// Runs `child` for so long after it has begun to observe, kills it, and checks what is left: everything that was acknowledged
/// (longer ago than promised), nothing that was not asked for, every record whole. `full` also checks every page.
pub fn live_and_die(plan: &Plan, child: &mut Command, life: Duration, full: bool) -> Life {
    (0..plan.threads).for_each(|thread| drop(fs::remove_file(plan.told(thread))));
    // What is there from the lives before.
    let before = numbers(plan, false).1;
    let mut running = Running(child.env(ORDER, plan.text()).spawn().unwrap());
    let begun = Instant::now();
    let told = |thread| fs::metadata(plan.told(thread)).map_or(0, |m| m.len());
    while (0..plan.threads).map(told).sum::<u64>() < LINE as u64 * 3 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the child does not come up");
        std::thread::sleep(Duration::from_micros(300));
    }
    std::thread::sleep(life);
    assert!(running.0.try_wait().unwrap().is_none(), "the child ended by itself");
    let killed = now();
    drop(running);
    let (open, after) = numbers(plan, full);
    let mut result = Life { open, ..Life::default() };
    for thread in 0..plan.threads {
        let bytes = fs::read(plan.told(thread)).unwrap_or_default();
        let (lines, _) = bytes.as_chunks::<LINE>();
        let (mut last, mut safe) = (before[thread as usize].clone(), before[thread as usize].clone());
        for line in lines {
            let [entity, n] = [0, 4].map(|at| u32::from_le_bytes(line[at..at + 4].try_into().unwrap()));
            let time = u64::from_le_bytes(line[8..].try_into().unwrap());
            let entity = entity as usize;
            assert_eq!(u64::from(n), last[entity] + 1, "numbers follow one another");
            last[entity] += 1;
            if plan.within == 0 || time + plan.within * 1000 < killed {
                safe[entity] += 1;
            }
        }
        let mut ahead = 0;
        for (entity, now) in after[thread as usize].iter().enumerate() {
            let (last, safe, id) = (last[entity], safe[entity], id(thread, entity as u32));
            assert!(*now >= safe, "{id}: {safe} outcomes were acknowledged and safe, {now} are left");
            ahead += now.saturating_sub(last);
            result.kept += safe - before[thread as usize][entity];
            result.young += last.saturating_sub(*now);
        }
        // One may have been written and not told.
        assert!(ahead <= 1, "thread {thread}: {ahead} outcomes came from nowhere");
        result.acknowledged += lines.len() as u64;
    }
    result
}

/// How long the store took to open, and how many outcomes it has of every entity.
fn numbers(plan: &Plan, full: bool) -> (Duration, Vec<Vec<u64>>) {
    let begun = Instant::now();
    let store = open(&plan.store, full, &EntityStoreOptions::default()).unwrap();
    let open = begun.elapsed();
    let mut numbers = vec![vec![0; plan.entities as usize]; plan.threads as usize];
    store
        .each(|name, state| {
            let (thread, entity) = name.trim_start_matches("person-").split_once('-').unwrap();
            let [thread, entity] = [thread, entity].map(|n| n.parse::<usize>().unwrap());
            let times: Vec<i64> = state.outcomes.iter().filter_map(|o| o.time).collect();
            let newest = state.seen as i64;
            assert_eq!(times, (newest - newest.min(KEPT as i64) + 1..=newest).collect::<Vec<_>>(), "{name}");
            numbers[thread][entity] = state.seen;
            Ok(())
        })
        .unwrap();
    (open, numbers)
}
