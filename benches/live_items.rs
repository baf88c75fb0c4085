//! Items added to a live engine, and what lists cost meanwhile; benches/README.md explains it.
//!
//! `cargo bench --bench live_items --features cli`

#[allow(dead_code, reason = "each benchmark uses its part")]
mod common;

use clap::Parser;
use common::{Result, origin, scratch, table, write_record};
use docent::data::{BuildOptions, DatasetBuilder, Declaration, EventFilter, EventRow, ItemRow, Kind, Protocol, Split};
use docent::options::{Loss, ModelOptions, Negatives, TowerOptions, TrainOptions};
use docent::progress::{Cancel, Silent};
use docent::random::Rng;
use docent::serve::{Engine, EngineOptions, Filter, NewItem, Query, Session};
use docent::store::{RunRecord, Store};
use docent::train::{Trainer, publish};
use docent::{Cell, Event};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const KINDS: [&str; 4] = ["film", "series", "short", "live"];
const START: i64 = 1_700_000_000_000;

/// Measures how long adding an item takes, and lists before, while and after items are added.
#[derive(Debug, Parser)]
struct Arguments {
    /// Items of the publication.
    #[arg(long, default_value_t = 100_000)]
    items: usize,
    /// Items that are added, one by one.
    #[arg(long, default_value_t = 10_000)]
    added: usize,
    /// Events of the history that lists are asked for.
    #[arg(long, default_value_t = 50)]
    history: usize,
    /// Lists that are timed before, and as many after.
    #[arg(long, default_value_t = 5_000)]
    lists: usize,
    /// Where the store is made, and removed first if it is there: the disk whose durability add_item waits for. Default: a
    /// folder under target/.
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
    common::main("live_items", || measure(&Arguments::parse()))
}

/// Metadata of one item.
fn metadata(rng: &mut Rng) -> (&'static str, [String; 3], f32) {
    let genre = |rng: &mut Rng| format!("genre {}", rng.below(40));
    (KINDS[rng.below(4)], [genre(rng), genre(rng), genre(rng)], rng.uniform() as f32 * 100.0)
}

/// A store with a model of the default width and an item tower, trained for a moment: what its weights are does not
/// matter here.
fn make(path: &Path, items: usize) -> Result<()> {
    let mut declaration = Declaration::new("live").with_time();
    declaration.title = true;
    declaration.item_fields =
        vec![("kind".into(), Kind::Categorical), ("genre".into(), Kind::MultiValued), ("price".into(), Kind::Numeric)];
    let kept = EventFilter { keep_unused_items: true, ..EventFilter::default() };
    let mut builder = DatasetBuilder::new(declaration, BuildOptions { filter: kept, ..BuildOptions::default() })?;
    let mut rng = Rng::new(1);
    for i in 0..items {
        let (kind, genres, price) = metadata(&mut rng);
        let genres = genres.each_ref().map(String::as_str);
        let fields = [("kind", Cell::Text(kind)), ("genre", Cell::Texts(&genres)), ("price", Cell::Number(price))];
        let (id, title) = (format!("i{i}"), format!("The {} number {i}", KINDS[i % 4]));
        builder.push_item(&ItemRow { id: &id, title: Some(&title), released: None, fields: &fields })?;
    }
    for person in 0..200 {
        for event in 0..40 {
            let item = format!("i{}", rng.below(items));
            let event = Event { time: Some(START + event * 3_600_000), ..Event::item(&item) };
            builder.push_event(&EventRow::new(&format!("u{person}"), event))?;
        }
    }
    let data = builder.build()?;
    let mut split = Split::new(&data, &Protocol::Everything)?;
    split.validation.clear();
    let model = ModelOptions { tower: Some(TowerOptions::default()), ..ModelOptions::default() };
    let loss = Some(Loss::Sampled(Negatives::uniform(256)));
    let options = TrainOptions { epochs: 1, loss, threads: 2, ..TrainOptions::default() };
    let trained = Trainer::new(&data, &split).model(model).options(options).run(&mut Silent, &Cancel::new())?;
    let mut publisher = Store::create(path)?.publisher()?;
    publish(&mut publisher, &data, &split, &trained, &RunRecord::default())?;
    Ok(())
}

/// Percentiles of durations, in microseconds.
struct Times {
    count: usize,
    p50: f64,
    p99: f64,
    most: f64,
}

impl Times {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        let at = |share: f64| all.get(((all.len() as f64 - 1.0) * share) as usize).map_or(f64::NAN, micros);
        Self { count: all.len(), p50: at(0.5), p99: at(0.99), most: at(1.0) }
    }

    fn row(&self, name: &str) -> Vec<String> {
        let number = |v: f64| format!("{v:.0}");
        vec![name.to_owned(), self.count.to_string(), number(self.p50), number(self.p99), number(self.most)]
    }

    fn json(&self) -> serde_json::Value {
        json!({"count": self.count, "p50_us": self.p50, "p99_us": self.p99, "max_us": self.most})
    }
}

/// What the disk itself takes to make a page durable.
fn sync(path: &Path) -> Result<Vec<Duration>> {
    let mut file = std::fs::File::create(path)?;
    let mut times = Vec::new();
    for _ in 0..1_000 {
        let begun = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    std::fs::remove_file(path)?;
    Ok(times)
}

fn micros(d: &Duration) -> f64 {
    d.as_secs_f64() * 1e6
}

/// Asks for lists until `enough`.
fn ask(engine: &Engine, history: &[String], enough: impl Fn(usize) -> bool) -> Result<Times> {
    let (mut session, mut times) = (Session::new(), Vec::new());
    let (mut rows, mut scores) = ([0; 10], [0.0; 10]);
    let ids: Vec<&str> = history.iter().map(String::as_str).collect();
    let query = Query::items(&ids);
    while !enough(times.len()) {
        let begun = Instant::now();
        engine.recommend_into(&mut session, &query, &Filter::default(), &mut rows, &mut scores)?;
        times.push(begun.elapsed());
    }
    Ok(Times::of(times))
}

fn measure(arguments: &Arguments) -> Result<()> {
    let (items, added) = (arguments.items, arguments.added);
    let path = arguments.store.clone().unwrap_or_else(|| scratch().join("live-items.store"));
    let _ = std::fs::remove_dir_all(&path);
    eprintln!("making a store of {items} items in {}", path.display());
    make(&path, items)?;
    let options = EngineOptions { live: true, prefault: true, ..EngineOptions::default() };
    let engine = Engine::open(&path, &options)?;
    let history: Vec<String> = (0..arguments.history).map(|i| format!("i{}", (i * 7919) % items)).collect();
    let mut rng = Rng::new(2);
    let mut add = |n: usize| -> Result<Duration> {
        let (kind, genres, price) = metadata(&mut rng);
        let genres = genres.each_ref().map(String::as_str);
        let fields = [("kind", Cell::Text(kind)), ("genre", Cell::Texts(&genres)), ("price", Cell::Number(price))];
        let (id, title) = (format!("new-{n}"), format!("A new {kind} number {n}"));
        let item = NewItem { id: &id, title: Some(&title), released: Some(START), now: Some(START), fields: &fields };
        let begun = Instant::now();
        engine.add_item(&item)?;
        Ok(begun.elapsed())
    };
    ask(&engine, &history, |n| n >= arguments.lists / 10)?;
    eprintln!("{} lists of the publication", arguments.lists);
    let before = ask(&engine, &history, |n| n >= arguments.lists)?;
    eprintln!("adding {added} items while another thread asks for lists");
    let done = AtomicBool::new(false);
    let (adds, during) = std::thread::scope(|scope| -> Result<(Vec<Duration>, Times)> {
        let reader =
            scope.spawn(|| ask(&engine, &history, |_| done.load(Ordering::Relaxed)).map_err(|e| e.to_string()));
        let adds = (0..added).map(&mut add).collect::<Result<Vec<_>>>();
        done.store(true, Ordering::Relaxed);
        let during = reader.join().map_err(|_| "the reader panicked")??;
        Ok((adds?, during))
    })?;
    eprintln!("{} lists with {added} items added", arguments.lists);
    let after = ask(&engine, &history, |n| n >= arguments.lists)?;
    eprintln!("1,000 further items, nothing beside");
    let alone = Times::of((added..added + 1_000).map(&mut add).collect::<Result<_>>()?);
    let syncs = Times::of(sync(&path.with_extension("sync"))?);
    let last = format!("new-{}", added + 999);
    assert!(engine.score(&Query::items(&["i1"]), &[&last])?[0].is_finite(), "an added item is rankable");
    drop(engine);
    let begun = Instant::now();
    let engine = Engine::open(&path, &options)?;
    let opened = begun.elapsed();
    if engine.added_items()?.len() != added + 1_000 {
        return Err("items were lost".into());
    }
    let adds = Times::of(adds);
    let header = ["microseconds", "count", "p50", "p99", "max"].map(str::to_owned).to_vec();
    let rows = [
        header,
        alone.row("add_item, alone"),
        syncs.row("4 KiB written and synced, alone"),
        adds.row("add_item, while lists are asked for"),
        before.row("recommend, as published"),
        during.row("recommend, while items are added"),
        after.row(&format!("recommend, with {added} items added")),
    ];
    let mut text = table(&rows);
    text += &format!("p99 of recommend with {added} items added: {:.2} times that before\n", after.p99 / before.p99);
    text += &format!("opening with {} items added: {:.1} ms\n", added + 1_000, opened.as_secs_f64() * 1e3);
    print!("{text}");
    if let Some(name) = &arguments.record {
        let command = format!(
            "cargo bench --bench live_items --features cli -- --items {items} --added {added} --history {} --lists {}",
            arguments.history, arguments.lists
        );
        let facts =
            [("catalogue".to_owned(), format!("{items} items, width 64, two blocks, an item tower; made from a seed"))];
        let result = json!({"add_alone": alone.json(), "sync": syncs.json(), "add": adds.json(), "before": before.json(), "during": during.json(),
            "after": after.json(), "open_ms": opened.as_secs_f64() * 1e3});
        write_record(name, "Items added to a live engine", &origin(&command), &facts, &text, &result)?;
    }
    Ok(())
}
