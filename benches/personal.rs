//! What a person's outcomes cost while serving: ranked lists, observations, batch adaptation; benches/README.md explains it.
//!
//! `cargo bench --bench personal --features cli`

#[allow(dead_code, reason = "each benchmark uses its part")]
mod common;
#[path = "common/world.rs"]
mod world;

use clap::Parser;
use common::{Result, origin, scratch, table, write_record};
use docent::Event;
use docent::adapt::BatchAdapter;
use docent::data::{SyntheticOptions, World};
use docent::options::ModelOptions;
use docent::progress::{Cancel, Silent};
use docent::serve::{Engine, EngineOptions, Filter, Outcome, PersonalOptions, Query, Ranking, Session};
use docent::store::{Durability, EntityStoreOptions, RunRecord, Store};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use world::publish_world;

/// Measures lists, observations and batch adaptation on the synthetic world.
#[derive(Debug, Parser)]
struct Arguments {
    /// Requests that are timed of each kind.
    #[arg(long, default_value_t = 4_000)]
    requests: usize,
    /// Where the store is made: the disk whose durability observations wait for. Default: a folder under target/.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Write the result to benches/records/NAME.md and .json.
    #[arg(long, value_name = "NAME", value_parser = common::record_name)]
    record: Option<String>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    common::main("personal", || measure(&Arguments::parse()))
}

/// Times `requests` calls; microseconds at the median and the 99th percentile.
fn time(requests: usize, mut call: impl FnMut(usize) -> Result<()>) -> Result<[f64; 2]> {
    for n in 0..requests / 10 {
        call(n)?;
    }
    let mut times = Vec::with_capacity(requests);
    for n in 0..requests {
        let start = Instant::now();
        call(n)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    Ok([at(0.5), at(0.99)])
}

fn measure(arguments: &Arguments) -> Result<()> {
    let folder = tempfile::tempdir_in(scratch())?;
    let path = arguments.store.clone().unwrap_or_else(|| folder.path().join("store"));
    let world = World::new(&SyntheticOptions::default(), 2)?;
    let (data, outcomes) = publish_world(&path, &world, ModelOptions { max_length: 50, ..ModelOptions::default() })?;
    let n = arguments.requests;
    let id = |i: usize| data.entities.id((i * 7 % data.entities.len()) as u32);
    let item = |i: usize| data.items.id((i * 13 % data.items.len()) as u32);
    let (mut lines, mut rows): (Vec<(String, [f64; 2])>, Vec<Value>) = (Vec::new(), Vec::new());
    let mut note = |what: &str, times: [f64; 2]| {
        rows.push(json!({"what": what, "p50_us": times[0], "p99_us": times[1]}));
        lines.push((what.to_owned(), times));
    };

    let generation = Engine::open(&path, &EngineOptions::default())?.current();
    let begun = Instant::now();
    let adapter = BatchAdapter::new(generation, &data, &outcomes)?.threads(2);
    let adapted = adapter.run(&mut Silent, &Cancel::new())?.ok_or("it was not stopped")?;
    let rate = data.entities.len() as f64 / begun.elapsed().as_secs_f64();
    let mut publisher = Store::open(&path)?.publisher()?;
    adapter.publish(&mut publisher, &adapted, &RunRecord::default())?;
    drop(publisher);

    let durable = |durability: Durability| {
        let store = EntityStoreOptions { durability, ..EntityStoreOptions::default() };
        EngineOptions { personal: Some(PersonalOptions { store, ..PersonalOptions::default() }), ..Default::default() }
    };
    let (mut ids, mut scores, mut session) = ([0u32; 10], [0f32; 10], Session::new());
    let mut list = |engine: &Engine, i: usize, ranking: Ranking<'_>| -> Result<()> {
        let query = Query::entity(id(i)).ranked_by(ranking);
        engine.recommend_into(&mut session, &query, &Filter::default(), &mut ids, &mut scores)?;
        Ok(())
    };
    let engine = Engine::open(&path, &EngineOptions::default())?;
    note("10 of 600 items, as retrieved", time(n, |i| list(&engine, i, Ranking::Retrieval))?);
    note("the same, 200 retrieved and ranked under the table", time(n, |i| list(&engine, i, Ranking::Auto))?);
    drop(engine);
    let mut clock = 1_800_000_000_000i64;
    let mut observe = |engine: &Engine, i: usize| -> Result<()> {
        clock += 1;
        let event = Event { time: Some(clock), ..Event::item(item(i)) };
        engine.observe(id(i), &Outcome::labelled(event, &[("label", f32::from(u8::from(i.is_multiple_of(5))))]))?;
        Ok(())
    };
    let engine = Engine::open(&path, &durable(Durability::OnDisk))?;
    note("one outcome observed, adapted to, and on disk", time(n, |i| observe(&engine, i))?);
    note("a list under what was observed", time(n, |i| list(&engine, i, Ranking::Auto))?);
    drop(engine);
    let engine = Engine::open(&path, &durable(Durability::Within(Duration::from_millis(10))))?;
    note("one outcome observed and adapted to, on disk within 10 ms", time(n, |i| observe(&engine, i))?);
    drop(engine);

    let outcomes_each = outcomes.len() as f64 / data.entities.len() as f64;
    let mut cells = vec![["", "p50, us", "p99, us"].map(str::to_owned).to_vec()];
    cells.extend(lines.iter().map(|(what, [p50, p99])| vec![what.clone(), format!("{p50:.1}"), format!("{p99:.1}")]));
    let text = format!(
        "{}\nbatch adaptation: {rate:.0} people a second on 2 threads, user vectors included; {outcomes_each:.0} outcomes each\n",
        table(&cells)
    );
    print!("{text}");
    if let Some(name) = &arguments.record {
        let command = format!("cargo bench --bench personal --features cli -- --requests {n} --record {name}");
        let json = json!({"rows": rows, "people_per_second": rate, "outcomes_each": outcomes_each});
        write_record(name, "What a person's outcomes cost while serving", &origin(&command), &[], &text, &json)?;
    }
    Ok(())
}
