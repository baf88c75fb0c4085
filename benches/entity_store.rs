//! States of entities under load, and what is left of them after `kill -9`; benches/README.md explains it.
//!
//! `cargo bench --bench entity_store --features cli`

#[allow(dead_code, reason = "each benchmark uses its part")]
mod common;
#[path = "../tests/entity_crash/mod.rs"]
mod entity_crash;

use clap::Parser;
use common::{Result, origin, scratch, table, write_record};
use docent::evaluate::peak_rss_bytes;
use docent::random::Rng;
use docent::store::{Durability, EntityState, EntityStore, EntityStoreOptions, Store, StoredEmbedding, StoredOutcome};
use entity_crash::{ORDER, Plan, live_and_die, observe_until_killed, open};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const START: i64 = 1_700_000_000_000;
/// The states and the log of what changed last.
const FILES: [&str; 2] = ["live.db", "live.db-wal"];
/// Width of the adapted embeddings.
const WIDTH: usize = 64;
/// Milliseconds of `Durability::Within`.
const WITHIN: u64 = 100;

/// Measures updates and reads of entity states, memory with very many of them, and kills a process that observes.
#[derive(Debug, Parser)]
struct Arguments {
    /// Entities for memory, opening and compaction.
    #[arg(long, default_value_t = 1_000_000)]
    entities: u64,
    /// Outcomes of each of these.
    #[arg(long, default_value_t = 10)]
    outcomes: u64,
    /// Entities for reads and updates.
    #[arg(long, default_value_t = 100_000)]
    people: u64,
    /// Outcomes of each of these, the most that are kept.
    #[arg(long, default_value_t = 50)]
    history: u64,
    /// Seconds of each measurement of updates.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Outcomes that are observed by processes that are killed, under each durability.
    #[arg(long, default_value_t = 1_000_000)]
    observes: u64,
    /// Where the stores are made, and removed first if they are there: the disk whose durability updates wait for. Default: a
    /// folder under target/.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Write the result to benches/records/NAME.md and .json.
    #[arg(long, value_name = "NAME", value_parser = common::record_name)]
    record: Option<String>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
    /// Whether this is the process that is killed.
    #[arg(long, hide = true)]
    side: bool,
}

fn main() -> ExitCode {
    common::main("entity_store", || match Plan::ordered() {
        Some(plan) => {
            observe_until_killed(&plan);
            Ok(())
        }
        None => measure(&Arguments::parse()),
    })
}

fn outcome(rng: &mut Rng) -> StoredOutcome {
    let clicked = rng.below(4) == 0;
    StoredOutcome {
        id: None,
        item: format!("item-{}", rng.below(100_000)),
        time: Some(START + rng.below(1 << 30) as i64),
        action: Some("view".into()),
        value: None,
        fields: vec![("device".into(), "phone".into())],
        labels: vec![("click".into(), f32::from(u8::from(clicked)))],
        impression: Vec::new(),
        in_history: clicked,
    }
}

fn embedding(rng: &mut Rng) -> StoredEmbedding {
    let embedding = (0..WIDTH).map(|_| rng.normal() as f32).collect();
    StoredEmbedding { model: [7; 32], embedding, outcomes: 1, made: START, ..StoredEmbedding::default() }
}

fn state(rng: &mut Rng, outcomes: u64) -> EntityState {
    let outcomes: Vec<_> = (0..outcomes).map(|_| outcome(rng)).collect();
    let touched = Some(START + rng.below(1000) as i64);
    EntityState {
        seen: outcomes.len() as u64,
        outcomes,
        touched,
        adapted: Some(embedding(rng)),
        ..EntityState::default()
    }
}

fn id(n: u64) -> String {
    format!("entity-{n:08}")
}

/// Puts so many entities, in an order that has nothing to do with their ids.
fn fill(store: &EntityStore, entities: u64, outcomes: u64) -> Result<Duration> {
    let (mut rng, begun) = (Rng::new(3), Instant::now());
    let mut order: Vec<u64> = (0..entities).collect();
    rng.shuffle(&mut order);
    for n in order {
        store.put(&id(n), &state(&mut rng, outcomes))?;
    }
    store.flush()?;
    Ok(begun.elapsed())
}

/// Percentiles of durations, in microseconds.
struct Times {
    count: usize,
    p50: f64,
    p99: f64,
    most: f64,
    per_second: f64,
}

impl Times {
    fn of(mut all: Vec<Duration>, took: Duration) -> Self {
        all.sort_unstable();
        let at = |share: f64| {
            let place = ((all.len() as f64 - 1.0) * share) as usize;
            all.get(place).map_or(f64::NAN, |d| d.as_secs_f64() * 1e6)
        };
        let per_second = all.len() as f64 / took.as_secs_f64();
        Self { count: all.len(), p50: at(0.5), p99: at(0.99), most: at(1.0), per_second }
    }

    fn row(&self, name: &str) -> Vec<String> {
        let numbers = [format!("{:.1}", self.p50), format!("{:.1}", self.p99), format!("{:.0}", self.most)];
        let mut row = vec![name.to_owned(), self.count.to_string()];
        row.extend(numbers);
        row.push(format!("{:.0}", self.per_second));
        row
    }

    fn json(&self) -> Value {
        let (count, per_second) = (self.count, self.per_second);
        json!({"count": count, "p50_us": self.p50, "p99_us": self.p99, "max_us": self.most, "per_second": per_second})
    }
}

/// Times `work`, which is given a number of its own each time.
fn time(count: usize, mut work: impl FnMut(&mut Rng) -> docent::Result<()>) -> Result<Times> {
    let (mut rng, begun) = (Rng::new(9), Instant::now());
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        work(&mut rng)?;
        times.push(begun.elapsed());
    }
    Ok(Times::of(times, begun.elapsed()))
}

/// Observes on so many threads for so long.
fn update(store: &EntityStore, arguments: &Arguments, threads: u64) -> Result<Times> {
    let (done, begun) = (AtomicBool::new(false), Instant::now());
    let all = std::thread::scope(|scope| {
        let observers: Vec<_> = (0..threads)
            .map(|thread| {
                let done = &done;
                scope.spawn(move || -> docent::Result<Vec<Duration>> {
                    let (mut rng, mut times) = (Rng::for_stream(4, thread), Vec::new());
                    while !done.load(Ordering::Relaxed) {
                        let (who, new) = (id(rng.below(arguments.people as usize) as u64), outcome(&mut rng));
                        let begun = Instant::now();
                        store.update(&who, |state| {
                            state.outcomes.push(new.clone());
                            let excess = state.outcomes.len().saturating_sub(arguments.history as usize);
                            state.outcomes.drain(..excess);
                            state.seen += 1;
                            Ok(())
                        })?;
                        times.push(begun.elapsed());
                    }
                    Ok(times)
                })
            })
            .collect();
        std::thread::sleep(Duration::from_secs(arguments.seconds));
        done.store(true, Ordering::Relaxed);
        let times: Vec<_> = observers.into_iter().map(|o| o.join().map_err(|_| "an observer panicked")).collect();
        let mut all = Vec::new();
        for times in times {
            all.extend(times??);
        }
        Result::Ok(all)
    })?;
    Ok(Times::of(all, begun.elapsed()))
}

fn within() -> EntityStoreOptions {
    let durability = Durability::Within(Duration::from_millis(WITHIN));
    EntityStoreOptions { durability, ..EntityStoreOptions::default() }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn file(path: &Path) -> Result<u64> {
    let lengths = FILES.iter().filter_map(|name| std::fs::metadata(path.join(name)).ok());
    Ok(lengths.map(|m| m.len()).sum())
}

/// Very many entities: memory, opening, purging, compaction.
fn many(path: &Path, arguments: &Arguments) -> Result<(String, Value)> {
    let entities = arguments.entities;
    let before = peak_rss_bytes();
    let store = open(path, false, &within())?;
    eprintln!("{entities} entities with {} outcomes each", arguments.outcomes);
    let filled = fill(&store, entities, arguments.outcomes)?;
    let reads = time(50_000, |rng| store.get(&id(rng.below(entities as usize) as u64)).map(|_| ()))?;
    let people = Arguments { people: entities, history: arguments.outcomes, folder: None, record: None, ..*arguments };
    let updates = update(&store, &people, 8)?;
    store.flush()?;
    let (peak, full) = (peak_rss_bytes(), file(path)?);
    // The file of a store that is open is what a crash leaves.
    let copy = path.with_extension("copy.store");
    let _ = std::fs::remove_dir_all(&copy);
    Store::create(&copy)?;
    for name in FILES {
        std::fs::copy(path.join(name), copy.join(name))?;
    }
    let begun = Instant::now();
    let store_after = open(&copy, false, &within())?;
    let repaired = begun.elapsed();
    drop(store_after);
    std::fs::remove_dir_all(&copy)?;
    drop(store);
    let begun = Instant::now();
    let store = open(path, false, &within())?;
    let opened = begun.elapsed();
    eprintln!("purging a half, and compacting");
    let begun = Instant::now();
    let purged = store.purge_idle(START + 500)?;
    let purge = begun.elapsed();
    let begun = Instant::now();
    store.compact()?;
    let (compaction, compacted) = (begun.elapsed(), file(path)?);
    let left = store.len()?;
    if purged + left != entities {
        return Err(format!("{purged} purged and {left} left are not {entities}").into());
    }
    let all = peak_rss_bytes();
    drop(store);
    let mut text = table(&[
        ["microseconds", "count", "p50", "p99", "max", "per second"].map(str::to_owned).to_vec(),
        reads.row("get, any of them"),
        updates.row(&format!("update of any, 8 threads, within {WITHIN} ms")),
    ]);
    let per = full as f64 / entities as f64;
    text += &format!(
        "put: {:.0} a second; file: {:.0} MiB, {per:.0} bytes an entity; opening after a clean end: {:.1} ms, after a crash: {:.2} s\n\
         memory: {:.0} MiB at most while filling, reading and updating ({:.0} MiB before), {:.0} MiB in all\n\
         purging {purged}: {:.1} s; compacting the {left} left: {:.1} s, to {:.0} MiB\n",
        entities as f64 / filled.as_secs_f64(),
        mib(full),
        opened.as_secs_f64() * 1e3,
        repaired.as_secs_f64(),
        mib(peak),
        mib(before),
        mib(all),
        purge.as_secs_f64(),
        compaction.as_secs_f64(),
        mib(compacted),
    );
    let result = json!({"fill_s": filled.as_secs_f64(), "get": reads.json(), "update": updates.json(), "file_bytes": full,
        "open_ms": opened.as_secs_f64() * 1e3, "open_after_crash_s": repaired.as_secs_f64(), "peak_bytes": peak, "peak_bytes_before": before, "peak_bytes_in_all": all,
        "purged": purged, "purge_s": purge.as_secs_f64(), "compact_s": compaction.as_secs_f64(), "compacted_bytes": compacted});
    Ok((text, result))
}

/// Reads and updates of longer states, one by one and by several threads.
fn load(path: &Path, arguments: &Arguments) -> Result<(String, Value)> {
    eprintln!("{} entities with {} outcomes each", arguments.people, arguments.history);
    let store = open(path, false, &within())?;
    fill(&store, arguments.people, arguments.history)?;
    let people = arguments.people as usize;
    let mut rows = vec![["microseconds", "count", "p50", "p99", "max", "per second"].map(str::to_owned).to_vec()];
    let mut result = serde_json::Map::new();
    let mut note = |name: &str, times: Times| {
        rows.push(times.row(name));
        result.insert(name.to_owned(), times.json());
    };
    let get = |who: u64| store.get(&id(who)).map(|_| ());
    note("get, any", time(100_000, |rng| get(rng.below(people) as u64))?);
    note("get, one of 1,000", time(100_000, |rng| get(rng.below(1000) as u64))?);
    // What a request needs: the embedding, and the items of the history.
    let look = |rng: &mut Rng| {
        store.read(&id(rng.below(people) as u64), |state| {
            let embedding: f32 = state.adapted().map_or(0.0, |a| a.embedding().sum());
            std::hint::black_box((embedding, state.outcomes().map(|o| o.item().len()).sum::<usize>()));
            Ok(())
        })
    };
    note("read in place, any", time(100_000, |rng| look(rng).map(|_| ()))?);
    note("get, not there", time(100_000, |rng| get((people + rng.below(people)) as u64))?);
    for threads in [1, 8] {
        note(&format!("update within {WITHIN} ms, {threads} threads"), update(&store, arguments, threads)?);
    }
    drop(store);
    let store = open(path, false, &EntityStoreOptions::default())?;
    for threads in [1, 2, 8, 32] {
        note(&format!("update on disk, {threads} threads"), update(&store, arguments, threads)?);
    }
    let forgotten = time(500, |rng| store.forget(&id(rng.below(people) as u64)).map(|_| ()))?;
    note("forget", forgotten);
    Ok((table(&rows), Value::Object(result)))
}

/// Processes that observe and are killed, until enough was observed.
fn kills(folder: &Path, arguments: &Arguments) -> Result<(String, Value)> {
    let mut rows = vec![
        ["killed", "kills", "acknowledged", "safe", "lost", "young and lost", "open, longest"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut result = serde_json::Map::new();
    for (name, within, compact) in
        [("on disk", 0, false), ("within 100 ms", WITHIN, false), ("on disk, compacting", 0, true)]
    {
        let store = folder.join(format!("entity-kill-{within}-{compact}.store"));
        let _ = std::fs::remove_dir_all(&store);
        let plan = Plan { store, within, threads: 32, entities: 320, compact };
        // Compaction without end is slow work beside: it shows that nothing is lost, not how much is done.
        let observes = if compact { arguments.observes / 100 } else { arguments.observes };
        let (mut lives, mut acknowledged, mut kept, mut young) = (0u64, 0, 0, 0);
        let mut longest = Duration::ZERO;
        let mut rng = Rng::new(11);
        while acknowledged < observes {
            let mut child = Command::new(std::env::current_exe()?);
            child.args(["--bench", "--side"]).env_remove(ORDER).stdout(Stdio::null());
            let time = Duration::from_micros(rng.below(1_500_000) as u64);
            let life = live_and_die(&plan, &mut child, time, lives.is_multiple_of(10));
            (lives, acknowledged, kept, young) =
                (lives + 1, acknowledged + life.acknowledged, kept + life.kept, young + life.young);
            longest = longest.max(life.open);
            eprintln!("{name}: {lives} kills, {acknowledged} outcomes");
        }
        let numbers = [lives, acknowledged, kept, 0, young].map(|n| n.to_string());
        let mut row = vec![name.to_owned()];
        row.extend(numbers);
        row.push(format!("{:.0} ms", longest.as_secs_f64() * 1e3));
        rows.push(row);
        let longest = longest.as_secs_f64() * 1e3;
        result.insert(
            name.into(),
            json!({"kills": lives, "acknowledged": acknowledged, "safe_and_there": kept,
            "safe_and_lost": 0, "young_and_lost": young, "open_longest_ms": longest}),
        );
    }
    Ok((table(&rows), Value::Object(result)))
}

fn measure(arguments: &Arguments) -> Result<()> {
    let folder = arguments.folder.clone().unwrap_or_else(|| scratch().to_path_buf());
    std::fs::create_dir_all(&folder)?;
    let [many_path, load_path] = ["entity-many.store", "entity-load.store"].map(|name| folder.join(name));
    for path in [&many_path, &load_path] {
        let _ = std::fs::remove_dir_all(path);
    }
    let many = many(&many_path, arguments)?;
    println!("{}", many.0);
    std::fs::remove_dir_all(&many_path)?;
    let load = load(&load_path, arguments)?;
    println!("{}", load.0);
    std::fs::remove_dir_all(&load_path)?;
    let kills = kills(&folder, arguments)?;
    print!("{}", kills.0);
    if let Some(name) = &arguments.record {
        let command = format!(
            "cargo bench --bench entity_store --features cli -- --entities {} --outcomes {} --people {} --history {} --seconds {} \
             --observes {}",
            arguments.entities,
            arguments.outcomes,
            arguments.people,
            arguments.history,
            arguments.seconds,
            arguments.observes
        );
        let text = format!(
            "{} entities of {} outcomes\n{}\n{} entities of {} outcomes\n{}\n{}",
            arguments.entities, arguments.outcomes, many.0, arguments.people, arguments.history, load.0, kills.0
        );
        let states =
            format!("outcomes with an item, time, action, a field and a label each, and an embedding of {WIDTH}");
        let result = json!({"many": many.1, "load": load.1, "kills": kills.1});
        write_record(name, "States of entities", &origin(&command), &[("states".to_owned(), states)], &text, &result)?;
    }
    Ok(())
}
