//! What requests cost: time at the median and the 99th percentile, and allocations, by kind of request.
//!
//! `cargo bench --bench serving --features cli -- --store DIR [--rival PATH] [--json]`. With `--rival`, the path of a binary of the
//! same benchmark built from other sources, rounds of the two alternate.

#[path = "../tests/counting/mod.rs"]
mod counting;

use clap::Parser;
use counting::{Counting, allocated};
use docent::Event;
use docent::serve::{AdaptPolicy, Engine, EngineOptions, Filter, Outcome, PersonalOptions, Query, Ranking, Session};
use docent::store::{Durability, EntityStoreOptions};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Items asked for, and candidates of scores and probabilities.
const K: usize = 10;
const CANDIDATES: usize = 20;
/// Outcomes that are observed of an entity: as many as an engine keeps.
const OBSERVED: usize = 256;
/// Entities that are observed.
const WATCHED: usize = 8;

/// Times requests for entities of a store.
#[derive(Debug, Parser)]
struct Arguments {
    /// The store. What is observed goes to a copy of it.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Entities that are asked for.
    #[arg(long, default_value_t = 500)]
    entities: usize,
    /// Requests of each kind in a round.
    #[arg(long, default_value_t = 2_000)]
    requests: usize,
    /// Rounds, each in a process of its own.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A binary of this benchmark to compare with.
    #[arg(long, value_name = "PATH")]
    rival: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// One round in this process.
    #[arg(long, hide = true)]
    round: bool,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = if arguments.round { round(&arguments) } else { compare(&arguments) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("serving: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Microseconds at the median and the 99th percentile, and the allocations of a request and their bytes, on average.
fn measure(requests: usize, mut call: impl FnMut(usize) -> Result<()>) -> Result<[f64; 4]> {
    for n in 0..requests {
        call(n)?;
    }
    let mut failed = None;
    let (count, bytes) = allocated(|| failed = (0..requests).find_map(|n| call(n).err()));
    if let Some(error) = failed {
        return Err(error);
    }
    let mut times = Vec::with_capacity(requests);
    for n in 0..requests {
        let start = Instant::now();
        call(n)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    Ok([at(0.5), at(0.99), count as f64 / requests as f64, bytes as f64 / requests as f64])
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, to) = (entry?, to.to_owned());
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true if entry.file_name() == "training" => {}
            true => copy(&path, &to)?,
            false => _ = fs::copy(&path, &to)?,
        }
    }
    Ok(())
}

/// Every kind of request by name.
fn round(arguments: &Arguments) -> Result<()> {
    let n = arguments.requests;
    let engine = Engine::open(&arguments.store, &EngineOptions::default())?;
    let generation = engine.current();
    let step = (generation.entities() / arguments.entities).max(1);
    let rows = (0..generation.entities() as u32).step_by(step).take(arguments.entities);
    let ids = rows.map(|row| generation.entity_id(row).map(str::to_owned)).collect::<docent::Result<Vec<String>>>()?;
    let item = |n: usize| generation.item_id((n * 37 % generation.published_items()) as u32);
    let candidates = (0..CANDIDATES).map(item).collect::<docent::Result<Vec<&str>>>()?;
    let (mut session, mut rows, mut scores) = (Session::new(), [0u32; K], [0f32; K]);
    let mut list = |engine: &Engine, id: &str, ranking: Ranking<'_>| -> Result<()> {
        let query = Query::entity(id).ranked_by(ranking);
        engine.recommend_into(&mut session, &query, &Filter::default(), &mut rows, &mut scores)?;
        Ok(())
    };
    let id = |n: usize| ids[n % ids.len()].as_str();
    let ranked = generation.ranker().is_some();
    let mut found: Vec<(&str, [f64; 4])> = Vec::new();
    found.push(("recommend_into, retrieved", measure(n, |i| list(&engine, id(i), Ranking::Retrieval))?));
    if ranked {
        found.push(("recommend_into, ranked", measure(n, |i| list(&engine, id(i), Ranking::Auto))?));
        let ask = |i: usize| -> Result<()> { Ok(_ = engine.probabilities(&Query::entity(id(i)), &candidates)?) };
        found.push(("probabilities of 20", measure(n, ask)?));
    }
    found.push(("score of 20", measure(n, |i| Ok(_ = engine.score(&Query::entity(id(i)), &candidates)?))?));
    found.push(("similar", measure(n, |i| Ok(_ = engine.similar(item(i)?, &Filter::default(), K)?))?));

    let folder = tempfile::tempdir()?;
    let copied = folder.path().join("store");
    copy(&arguments.store, &copied)?;
    let store = EntityStoreOptions { durability: Durability::Within(Duration::from_millis(50)), ..Default::default() };
    let personal = PersonalOptions { store, policy: AdaptPolicy::OnDemand, ..PersonalOptions::default() };
    let engine = Engine::open(&copied, &EngineOptions { personal: Some(personal), ..EngineOptions::default() })?;
    let head = generation.ranker().map(|r| r.heads[0].clone());
    let watched = ids.iter().take(WATCHED).map(String::as_str).collect::<Vec<_>>();
    for id in &watched {
        for o in 0..OBSERVED {
            let event = Event { time: Some(1_800_000_000_000 + 1000 * o as i64), ..Event::item(item(3 * o)?) };
            let label = [(head.as_deref().unwrap_or_default(), f32::from(u8::from(o % 3 == 0)))];
            let outcome = match head {
                Some(_) => Outcome { in_history: true, ..Outcome::labelled(event, &label) },
                None => Outcome::event(event),
            };
            engine.observe(id, &outcome)?;
        }
        if ranked {
            engine.adapt(id)?;
        }
    }
    engine.entities()?.flush()?;
    let id = |n: usize| watched[n % watched.len()];
    found.push(("recommend_into, 256 observed", measure(n, |i| list(&engine, id(i), Ranking::Auto))?));
    found.push((
        "score of 20, 256 observed",
        measure(n, |i| Ok(_ = engine.score(&Query::entity(id(i)), &candidates)?))?,
    ));
    let found: Vec<Value> = found
        .iter()
        .map(|(what, [p50, p99, count, bytes])| {
            json!({"what": what, "p50_us": p50, "p99_us": p99, "allocations": count, "bytes": bytes})
        })
        .collect();
    println!("{}", json!(found));
    Ok(())
}

/// Rounds of this binary and its rival, one after another.
fn compare(arguments: &Arguments) -> Result<()> {
    let own = std::env::current_exe()?;
    let sides: Vec<(&str, &Path)> = std::iter::once(("here", own.as_path()))
        .chain(arguments.rival.iter().map(|r| ("rival", r.as_path())))
        .collect();
    let mut results: Vec<Vec<Value>> = vec![Vec::new(); sides.len()];
    for _ in 0..arguments.rounds {
        for ((name, binary), results) in sides.iter().zip(&mut results) {
            let mut command = Command::new(binary);
            command.arg("--round").arg("--store").arg(&arguments.store);
            command.args([
                "--entities",
                &arguments.entities.to_string(),
                "--requests",
                &arguments.requests.to_string(),
            ]);
            let answer = command.output()?;
            if !answer.status.success() {
                return Err(format!("{name}: {}", String::from_utf8_lossy(&answer.stderr)).into());
            }
            results.push(serde_json::from_slice(&answer.stdout)?);
        }
    }
    let median = |rounds: &[Value], at: usize, key: &str| -> f64 {
        let mut all: Vec<f64> = rounds.iter().filter_map(|r| r[at][key].as_f64()).collect();
        all.sort_unstable_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let mut rows = Vec::new();
    for ((name, _), rounds) in sides.iter().zip(&results) {
        for (at, one) in rounds.first().and_then(Value::as_array).into_iter().flatten().enumerate() {
            let mut row = json!({"side": name, "what": one["what"]});
            for key in ["p50_us", "p99_us", "allocations", "bytes"] {
                row[key] = json!(median(rounds, at, key));
            }
            rows.push(row);
        }
    }
    if arguments.json {
        println!("{}", json!(rows));
        return Ok(());
    }
    println!("{:<8}{:<32}{:>10}{:>10}{:>14}{:>12}", "", "", "p50, us", "p99, us", "allocations", "bytes");
    for row in &rows {
        let number = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
        println!(
            "{:<8}{:<32}{:>10.1}{:>10.1}{:>14.1}{:>12.0}",
            row["side"].as_str().unwrap_or_default(),
            row["what"].as_str().unwrap_or_default(),
            number("p50_us"),
            number("p99_us"),
            number("allocations"),
            number("bytes")
        );
    }
    Ok(())
}
