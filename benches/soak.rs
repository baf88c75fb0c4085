//! Whether an engine that works for a long time stays as it is: memory, files, threads, mappings; benches/README.md explains it.
//!
//! `cargo bench --bench soak --features cli`

#[allow(dead_code, reason = "each benchmark uses its part")]
mod common;
#[path = "common/world.rs"]
mod world;

use clap::Parser;
use common::{Result, origin, root, scratch};
use docent::Event;
use docent::adapt::BatchAdapter;
use docent::data::{SyntheticOptions, World};
use docent::options::{ModelOptions, TowerOptions};
use docent::progress::{Cancel, Silent};
use docent::random::Rng;
use docent::serve::{AdaptPolicy, Engine, EngineOptions, Filter, NewItem, Outcome, PersonalOptions, Query, Session};
use docent::store::RunRecord;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use world::publish_world;

/// Most that memory may grow in the last third, in MiB a minute.
const SLOPE: f64 = 0.1;
const START: i64 = 1_760_000_000_000;

/// Asks, observes, adapts, adds and removes items, publishes and reloads, and looks at the process meanwhile. Fails where its memory still
/// grows in the last third, or it has more files, threads or mappings than at its beginning.
#[derive(Debug, Parser)]
struct Arguments {
    /// Minutes.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// People who are asked for and observed.
    #[arg(long, default_value_t = 2_000)]
    people: u64,
    /// Threads that ask.
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Where the store is made. Default: a folder under target/.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Write what was seen to benches/records/NAME.csv.
    #[arg(long, value_name = "NAME", value_parser = common::record_name)]
    record: Option<String>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    common::main("soak", || measure(&Arguments::parse()))
}

/// What the process has at a moment.
struct Seen {
    seconds: f64,
    /// KiB.
    resident: u64,
    files: usize,
    threads: usize,
    maps: usize,
    requests: u64,
}

impl Seen {
    fn now(begun: Instant, requests: u64) -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
        Ok(Self {
            seconds: begun.elapsed().as_secs_f64(),
            resident: resident.ok_or("the system does not tell the resident memory")?,
            files: fs::read_dir("/proc/self/fd")?.count(),
            threads: fs::read_dir("/proc/self/task")?.count(),
            // Of files: what the allocator maps comes and goes with it.
            maps: fs::read_to_string("/proc/self/maps")?
                .lines()
                .filter(|line| line.contains(".docent") || line.contains("segments"))
                .count(),
            requests,
        })
    }
}

/// KiB a second by least squares.
fn slope(seen: &[Seen]) -> f64 {
    let n = seen.len() as f64;
    let mean = |of: &dyn Fn(&Seen) -> f64| seen.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(&|s| s.seconds), mean(&|s| s.resident as f64));
    let both: f64 = seen.iter().map(|s| (s.seconds - x) * (s.resident as f64 - y)).sum();
    both / seen.iter().map(|s| (s.seconds - x).powi(2)).sum::<f64>()
}

/// One thread: nine requests in ten, one observation, now and then an adaptation or an item that comes and goes.
fn work(engine: &Engine, people: u64, thread: u64, done: &AtomicBool, count: &AtomicU64) -> docent::Result<()> {
    let (mut rng, mut session, mut clock) = (Rng::new(thread + 1), Session::new(), START);
    let (mut rows, mut scores) = ([0u32; 20], [0f32; 20]);
    while !done.load(Ordering::Relaxed) {
        let person = format!("p{:04}", rng.below(people as usize));
        let draw = rng.below(1000);
        clock += 1;
        if draw < 900 {
            engine.recommend_into(&mut session, &Query::entity(&person), &Filter::default(), &mut rows, &mut scores)?;
        } else if draw < 990 {
            let item = format!("i{:04}", rng.below(300));
            let event = Event { time: Some(clock), ..Event::item(&item) };
            let label = f32::from(u8::from(rng.below(5) == 0));
            engine.observe(&person, &Outcome::labelled(event, &[("label", label)]))?;
        } else if draw < 995 {
            engine.adapt(&person)?;
        } else {
            let id = format!("new-{thread}-{}", rng.below(20));
            engine.add_item(&NewItem { id: &id, now: Some(clock), ..NewItem::default() })?;
            engine.remove_item(&id)?;
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<()> {
    let folder = tempfile::tempdir_in(scratch())?;
    let path = arguments.store.clone().unwrap_or_else(|| folder.path().join("store"));
    let world = World::new(&SyntheticOptions { entities: 400, items: 300, ..SyntheticOptions::default() }, 2)?;
    let model = ModelOptions { max_length: 50, tower: Some(TowerOptions::default()), ..ModelOptions::default() };
    let (data, outcomes) = publish_world(&path, &world, model)?;
    let personal = PersonalOptions { policy: AdaptPolicy::Every(4), ..PersonalOptions::default() };
    let options = EngineOptions { live: true, personal: Some(personal), ..EngineOptions::default() };
    let engine = Engine::open(&path, &options)?;
    let (done, count, begun) = (AtomicBool::new(false), AtomicU64::new(0), Instant::now());
    let (every, end) = (Duration::from_secs(5), Duration::from_secs_f64(60.0 * arguments.minutes));
    let mut seen = Vec::new();
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..arguments.threads)
            .map(|thread| {
                let (engine, done, count) = (&engine, &done, &count);
                scope.spawn(move || work(engine, arguments.people, thread, done, count))
            })
            .collect();
        let watched = (|| -> Result<()> {
            while begun.elapsed() < end {
                std::thread::sleep(every);
                seen.push(Seen::now(begun, count.load(Ordering::Relaxed))?);
                if seen.len().is_multiple_of(12) {
                    // A batch adaptation each minute, and those before it pruned.
                    let adapter = BatchAdapter::new(engine.current(), &data, &outcomes)?;
                    let adapted = adapter.run(&mut Silent, &Cancel::new())?.ok_or("it was not stopped")?;
                    let mut publisher = engine.store().publisher()?;
                    adapter.publish(&mut publisher, &adapted, &RunRecord::default())?;
                    drop((publisher, adapter));
                    engine.reload()?;
                    engine.store().prune(2)?;
                }
                if workers.iter().any(|worker| worker.is_finished()) {
                    break;
                }
            }
            Ok(())
        })();
        done.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().map_err(|_| "a thread panicked")??;
        }
        watched
    })?;
    judge(arguments, &seen)
}

fn judge(arguments: &Arguments, seen: &[Seen]) -> Result<()> {
    let mut csv = String::from("seconds,resident_kib,files,threads,maps,requests\n");
    for s in seen {
        let Seen { seconds, resident, files, threads, maps, requests } = s;
        writeln!(csv, "{seconds:.0},{resident},{files},{threads},{maps},{requests}")?;
    }
    if let Some(name) = &arguments.record {
        let head = format!("# {}\n", origin("cargo bench --bench soak --features cli -- --record NAME"));
        fs::write(root().join("benches/records").join(format!("{name}.csv")), head + &csv)?;
    }
    // What is after the first third is compared: pools have filled by then.
    let (middle, last) = (seen.get(seen.len() / 3..).unwrap_or(&[]), seen.get(seen.len() * 2 / 3..).unwrap_or(&[]));
    let minute = slope(last) * 60.0 / 1024.0;
    let range = |of: fn(&Seen) -> usize| (middle.iter().map(of).min(), middle.iter().map(of).max());
    let (files, threads, maps) = (range(|s| s.files), range(|s| s.threads), range(|s| s.maps));
    let requests = seen.last().map_or(0, |s| s.requests);
    let mib = |s: Option<&Seen>| s.map_or(0.0, |s| s.resident as f64 / 1024.0);
    println!(
        "{requests} calls in {:.0} s: {:.1} MiB resident after a third, {:.1} MiB at the end, {minute:+.3} MiB a minute in the last third; \
         files {files:?}, threads {threads:?}, mapped segments {maps:?} (least, most)",
        seen.last().map_or(0.0, |s| s.seconds),
        mib(middle.first()),
        mib(seen.last()),
    );
    // A batch adaptation and a reader of the live file each open some files for a moment.
    let steady = |(least, most): (Option<usize>, Option<usize>), slack: usize| {
        most.zip(least).is_some_and(|(m, l)| m - l <= slack)
    };
    match minute < SLOPE && steady(files, 16) && steady(threads, 0) {
        true => Ok(()),
        false => Err(format!("it is not flat: at most {SLOPE} MiB a minute, and the same files and threads").into()),
    }
}
