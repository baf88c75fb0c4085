//! New people and new items on MovieLens-1M, in the partition of MeLU (Lee et al. 2019); benches/README.md explains it.
//!
//! `cargo bench --bench melu --features cli -- --data DIR`

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each benchmark uses its part")]
mod common;
mod three_parameters;

use clap::Parser;
use common::{Result, origin, scratch, table, write_record};
use docent::data::{Case, Dataset, DatasetFile, Protocol, Split};
use docent::evaluate::peak_rss_bytes;
use docent::model::{Inference, Weights, sections};
use docent::options::{ItemKind, RankerOptions, RankerTrainOptions, TowerOptions};
use docent::progress::{Cancel, ProgressEvent, Silent};
use docent::random::Rng;
use docent::ranker::Ranker;
use docent::serve::{Engine, EngineOptions, Generation};
use docent::store::{RunRecord, Store};
use docent::train::ranker::{FoundationModel, Impressions, Plan, Predictor, RankerTrainer, Task, TaskSet};
use docent::train::{Trainer, defaults, publish};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use three_parameters::ThreeParameters;

/// Ratings of a person in a state that are asked for; all others of the state are known.
const ASKED: usize = 10;
/// The fewest ratings of a person in a state, as in the paper.
const FEWEST: usize = 13;
/// The most, as in the paper, in the rows that say so.
const MOST: usize = 100;
/// Stars above the lowest, each a head: "two or more" to "five".
const HEADS: usize = 4;

/// Trains on ratings of known people and old items, and judges ratings of new people, of new items, and of both.
#[derive(Debug, Parser)]
struct Arguments {
    /// The folder of ratings.tsv, users.dat, movies_extrainfos.dat and melu_partition.tsv.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Draws of what is asked for, from 1; each trains a ranker of its own.
    #[arg(long, default_value_t = 5)]
    draws: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Keep the foundation model in this store, and use the one that is there.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Most epochs of the foundation model.
    #[arg(long, default_value_t = 12)]
    epochs: u32,
    /// Epochs of the ranker.
    #[arg(long, default_value_t = 4)]
    ranker_epochs: u32,
    /// Share of the items whose outcomes are withheld in a step, so that the ranker learns of new ones.
    #[arg(long, default_value_t = RankerTrainOptions::default().cold_items)]
    cold_items: f32,
    /// The second meta block: off, item, or field:NAME.
    #[arg(long, default_value = "off")]
    items: String,
    /// Write the result to benches/records/NAME.md and .json.
    #[arg(long, value_name = "NAME", value_parser = common::record_name)]
    record: Option<String>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    common::main("melu", || measure(&Arguments::parse()))
}

/// What the partition says of a rating.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Training,
    NewPeople,
    NewItems,
    Both,
}

/// The states that are judged, and the floors that were set for them: error of the three-parameter bias model, and MeLU's own.
const STATES: [(Part, &str, &str, &str); 3] = [
    (Part::NewPeople, "new people", "0.7275", "0.7854"),
    (Part::NewItems, "new items", "0.8959", "0.9275"),
    (Part::Both, "both new", "0.8749", "0.9235"),
];

#[derive(Debug, Clone, Copy)]
struct Rating {
    user: u32,
    item: u32,
    stars: u8,
    place: u32,
    part: Part,
}

/// A person of a dataset of one draw: trained on `known`, then `support` is known, then `asked` is.
#[derive(Debug, Default, Clone)]
struct Person {
    known: Vec<Rating>,
    support: Vec<Rating>,
    asked: Vec<Rating>,
}

/// The dataset of a draw: people by id, those of a state named after it.
type People = BTreeMap<Key, Person>;

/// A person in a part of the partition: those who are trained on are in [`Part::Training`], also where they are asked for new items.
type Key = (Part, u32);

/// People with their rows in a dataset.
type Rows = Vec<(Key, u32)>;

/// How the files are read. Ratings are written anew, in the order of a draw.
const DESCRIPTION: &str = r#"name = "ml-1m-melu"

[events]
files = "ratings.tsv"
delimiter = "\t"
columns = ["person", "item", "place"]
header = false
entity = "person"
item = "item"
order = "place"

[items]
files = "movies_extrainfos.dat"
delimiter = "::"
columns = ["movie", "title", "year", "rated", "released", "genres", "director", "writers", "actors", "plot", "poster"]
id = "movie"
released = { column = "year", format = "year" }
categorical = ["rated"]
multi = [
    { column = "genres", separator = ", " },
    { column = "director", separator = ", " },
    { column = "actors", separator = ", " },
]

[entities]
files = "users.dat"
delimiter = "::"
columns = ["user", "gender", "age", "occupation", "zip"]
id = "user"
profile = ["gender", "age", "occupation"]

[filter]
keep_unused_items = true

# People of one or two films would stand for these films.
[limits]
vocabulary = 600
"#;

fn read_ratings(folder: &Path) -> Result<Vec<Rating>> {
    let open = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))
    };
    let (ratings, partition) = (open("ratings.tsv")?, open("melu_partition.tsv")?);
    let mut parts = BTreeMap::new();
    for line in partition.lines().skip(1) {
        let mut cells = line.split('\t');
        let (Some(user), Some(item), Some(part)) = (cells.next(), cells.next(), cells.next()) else {
            return Err(format!("melu_partition.tsv: {line:?} has no three columns").into());
        };
        let part = match part {
            "meta_training" => Part::Training,
            "user_cold_testing" => Part::NewPeople,
            "item_cold_testing" => Part::NewItems,
            "user_and_item_cold_testing" => Part::Both,
            // Known people and old items, held out: not judged here.
            "warm_up" => continue,
            other => return Err(format!("melu_partition.tsv: {other:?} is no part of the partition").into()),
        };
        parts.insert((user.parse::<u32>()?, item.parse::<u32>()?), part);
    }
    let mut found = Vec::with_capacity(parts.len());
    for line in ratings.lines().skip(1) {
        let cells: Vec<&str> = line.split('\t').collect();
        let [user, item, stars, place, ..] = cells[..] else {
            return Err(format!("ratings.tsv: {line:?} has no four columns").into());
        };
        let (user, item) = (user.parse()?, item.parse()?);
        if let Some(part) = parts.get(&(user, item)) {
            found.push(Rating { user, item, stars: stars.parse()?, place: place.parse()?, part: *part });
        }
    }
    found.sort_by_key(|r| (r.user, r.place));
    Ok(found)
}

/// TaskSet is there, without what only the test knows.
fn trained_people(ratings: &[Rating]) -> People {
    let mut people = People::new();
    for r in ratings.iter().filter(|r| r.part == Part::Training) {
        people.entry((Part::Training, r.user)).or_default().known.push(*r);
    }
    people
}

/// Draws what is asked for of every person in every state. Those who are trained on and asked for new items are one person, those
/// who are new are one in each state.
fn draw(ratings: &[Rating], seed: u64) -> People {
    let mut people = trained_people(ratings);
    let mut states: BTreeMap<(Part, u32), Vec<Rating>> = BTreeMap::new();
    for r in ratings.iter().filter(|r| r.part != Part::Training) {
        states.entry((r.part, r.user)).or_default().push(*r);
    }
    for ((part, user), mut own) in states {
        if own.len() < FEWEST {
            continue;
        }
        let mut rng = Rng::for_stream(seed, u64::from(user) * 4 + part as u64);
        rng.shuffle(&mut own);
        let asked = own.split_off(own.len() - ASKED);
        own.sort_by_key(|r| r.place);
        let key = if part == Part::NewItems { (Part::Training, user) } else { (part, user) };
        let person = people.entry(key).or_default();
        (person.support, person.asked) = (own, asked);
    }
    people
}

/// Items and stars.
fn rated(ratings: &[Rating]) -> Vec<(u32, f64)> {
    ratings.iter().map(|r| (r.item, f64::from(r.stars))).collect()
}

fn name((part, user): Key) -> String {
    match part {
        Part::NewPeople => format!("{user}-new"),
        Part::Both => format!("{user}-both"),
        _ => user.to_string(),
    }
}

/// Writes the files of a dataset and reads them.
fn dataset(source: &Path, folder: &Path, rated: &[Rating], people: &People) -> Result<Dataset> {
    fs::create_dir_all(folder)?;
    let mut films = fs::read_to_string(source.join("movies_extrainfos.dat"))?;
    // Films of which nothing is known have a row too: items keep their places from dataset to dataset.
    let known: BTreeSet<&str> = films.lines().filter_map(|l| l.split_once("::")).map(|(id, _)| id).collect();
    let missing: BTreeSet<u32> = rated.iter().map(|r| r.item).filter(|i| !known.contains(&*i.to_string())).collect();
    missing.iter().for_each(|id| films += &format!("{id}{}\n", "::".repeat(10)));
    fs::write(folder.join("movies_extrainfos.dat"), films)?;
    let users = fs::read_to_string(source.join("users.dat"))?;
    let profiles: BTreeMap<&str, &str> = users.lines().filter_map(|l| l.split_once("::")).collect();
    let (mut events, mut entities) = (String::new(), String::new());
    for (key, person) in people {
        let (name, profile) = (name(*key), profiles.get(key.1.to_string().as_str()).ok_or("a person has no profile")?);
        writeln!(entities, "{name}::{profile}")?;
        for (place, r) in person.known.iter().chain(&person.support).chain(&person.asked).enumerate() {
            writeln!(events, "{name}\t{}\t{place}", r.item)?;
        }
    }
    fs::write(folder.join("ratings.tsv"), events)?;
    fs::write(folder.join("users.dat"), entities)?;
    fs::write(folder.join("dataset.toml"), DESCRIPTION)?;
    Ok(DatasetFile::open(&folder.join("dataset.toml"), None)?.read(&mut Silent, &Cancel::new())?)
}

/// Whether a rating is at least 2, 3, 4, and 5 stars: ordinal regression by cumulative heads.
fn labels(stars: u8) -> [f32; HEADS] {
    std::array::from_fn(|k| f32::from(usize::from(stars) >= k + 2))
}

/// The ratings as outcomes of `data`, and where each person's parts begin.
fn outcomes(data: &Dataset, people: &People) -> Result<(Impressions, Rows)> {
    let heads = (2..=5).map(|k| format!("{k} stars or more")).collect();
    let mut found = Impressions { offsets: vec![0], heads, ..Impressions::default() };
    let mut rows: Rows = Vec::new();
    for key in people.keys() {
        rows.push((*key, data.entities.row(&name(*key)).ok_or("a person was not read")?));
    }
    rows.sort_by_key(|(_, row)| *row);
    for (key, row) in &rows {
        let person = &people[key];
        for (place, r) in person.known.iter().chain(&person.support).chain(&person.asked).enumerate() {
            found.item.push(data.items.row(&r.item.to_string()).ok_or("an item was not read")?);
            found.before.push(place as u32);
            found.labels.extend(labels(r.stars));
        }
        assert_eq!(found.offsets.len(), *row as usize + 1, "rows follow one another");
        found.offsets.push(found.item.len());
    }
    Ok((found, rows))
}

/// Predictions of one method in one state: expected and median stars by outcome.
#[derive(Debug, Clone, Default)]
struct Answers {
    mean: Vec<f64>,
    median: Vec<f64>,
}

impl Answers {
    fn push_stars(&mut self, stars: f64) {
        self.mean.push(stars.clamp(1.0, 5.0));
        self.median.push(stars.clamp(1.0, 5.0).round());
    }
}

/// Trains the foundation model on what is trained on.
fn foundation(arguments: &Arguments, folder: &Path, ratings: &[Rating]) -> Result<Arc<Generation>> {
    let store = arguments.store.clone().unwrap_or_else(|| folder.join("store"));
    if store.is_dir() {
        return Ok(Engine::open(&store, &EngineOptions::default())?.current());
    }
    let data = dataset(&arguments.data, &folder.join("trained"), ratings, &trained_people(ratings))?;
    let split = Split::new(&data, &Protocol::Everything)?;
    let rule = defaults(&data, &split)?;
    let (mut model, mut train) = (rule.model, rule.train);
    (train.seed, train.threads, train.epochs) = (1, arguments.threads, arguments.epochs);
    model.tower = Some(TowerOptions::default());
    let mut watch = |event: &ProgressEvent| {
        if let ProgressEvent::Validation(v) = event {
            eprintln!("foundation model: epoch {}, validation {:.4}", v.epoch + 1, v.best);
        }
    };
    let trained = Trainer::new(&data, &split).model(model).options(train).run(&mut watch, &Cancel::new())?;
    eprintln!("foundation model: {:.0} s", trained.seconds);
    publish(&mut Store::create(&store)?.publisher()?, &data, &split, &trained, &RunRecord::default())?;
    Ok(Engine::open(&store, &EngineOptions::default())?.current())
}

/// Figures of one method in one state and draw.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    people: usize,
    mae: f64,
    median_mae: f64,
    /// Expected stars less true ones.
    bias: f64,
    /// With the gain of the paper, 2 to the power of the stars less one.
    ndcg: f64,
    /// With the stars as gain.
    linear: f64,
}

/// Judges answers, [`ASKED`] a person, means over people.
fn judge(stars: &[f64], answers: &Answers, keep: &[bool]) -> Figures {
    let mut found = Figures::default();
    let people =
        stars.chunks_exact(ASKED).zip(answers.mean.chunks_exact(ASKED)).zip(answers.median.chunks_exact(ASKED));
    for (((truth, mean), median), _) in people.zip(keep).filter(|(_, keep)| **keep) {
        let error = |found: &[f64]| truth.iter().zip(found).map(|(a, b)| (a - b).abs()).sum::<f64>() / ASKED as f64;
        found.mae += error(mean);
        found.median_mae += error(median);
        found.bias += mean.iter().zip(truth).map(|(a, b)| a - b).sum::<f64>() / ASKED as f64;
        let gain = |order: &[usize], of: fn(f64) -> f64| -> f64 {
            order.iter().take(3).enumerate().map(|(at, i)| of(truth[*i]) / (at as f64 + 2.0).log2()).sum()
        };
        let sorted = |by: &[f64]| {
            let mut order: Vec<usize> = (0..ASKED).collect();
            order.sort_by(|a, b| by[*b].total_cmp(&by[*a]));
            order
        };
        let (order, ideal) = (sorted(mean), sorted(truth));
        found.ndcg += gain(&order, |s| s.exp2() - 1.0) / gain(&ideal, |s| s.exp2() - 1.0);
        found.linear += gain(&order, |s| s) / gain(&ideal, |s| s);
        found.people += 1;
    }
    let n = found.people.max(1) as f64;
    let of = |sum: f64| sum / n;
    let (ndcg, linear, bias) = (of(found.ndcg), of(found.linear), of(found.bias));
    Figures { people: found.people, mae: of(found.mae), median_mae: of(found.median_mae), bias, ndcg, linear }
}

/// What a method says in each state.
type Said = BTreeMap<(&'static str, &'static str), Answers>;

struct Draw {
    people: People,
    said: Said,
    /// By state: the true stars, and whose person has at most [`MOST`] ratings.
    truth: BTreeMap<&'static str, (Vec<f64>, Vec<bool>)>,
}

/// The bias model of what the state gives alone.
const BIAS: &str = "bias, the state's ratings";
/// The same of all that is known of a person.
const BIAS_KNOWN: &str = "bias, all that is known";

/// How much of what is known of a person an adaptation reads.
const READ: [(&str, bool); 2] = [("adapted to all that is known", true), ("adapted to the state's ratings", false)];

/// The ranker's shape and training.
fn options(arguments: &Arguments, seed: u64) -> Result<(RankerOptions, RankerTrainOptions)> {
    let model = RankerOptions { items: ItemKind::parse(&arguments.items)?, ..RankerOptions::default() };
    let train = RankerTrainOptions {
        seed,
        threads: arguments.threads,
        epochs: arguments.ranker_epochs,
        cold_items: arguments.cold_items,
        ..RankerTrainOptions::default()
    };
    Ok((model, train))
}

fn one(arguments: &Arguments, folder: &Path, ratings: &[Rating], generation: &Generation, seed: u64) -> Result<Draw> {
    let people = draw(ratings, seed);
    let data = dataset(&arguments.data, &folder.join(format!("draw-{seed}")), ratings, &people)?;
    let (impressions, rows) = outcomes(&data, &people)?;
    let snapshot = generation.snapshot();
    let inference = Inference::new(generation.schema(), generation.model())?;
    let weights = Weights {
        items: snapshot.f32s(sections::ITEM_VECTORS)?,
        dense: snapshot.f32s(sections::WEIGHTS)?,
        features: snapshot.f32s(sections::FEATURES)?,
        more: &(),
    };
    let features = FoundationModel { inference: &inference, weights };
    // New people have nothing to train on; of the others, what the partition gives.
    let mut split = Split::new(&data, &Protocol::Everything)?;
    split.validation.clear();
    for (key, row) in &rows {
        let (range, known) = (data.range(*row), people[key].known.len());
        let history = range.start..range.start + known;
        if history.end < range.end {
            split.test.push(Case { entity: *row, history: history.clone(), target: history.end, at: None });
        }
        split.train[*row as usize] = history;
    }
    let threads = arguments.threads as usize;
    let (model, train) = options(arguments, seed)?;
    let plan = Plan::new(&data, &impressions, &split, features, train.validation, seed, threads)?;
    let mut said = Said::new();
    let mut truth = BTreeMap::new();
    let mut asked: BTreeMap<&'static str, Rows> = BTreeMap::new();
    for (part, state, ..) in STATES {
        let whose = if part == Part::NewItems { Part::Training } else { part };
        let own: Vec<_> =
            rows.iter().filter(|(key, _)| key.0 == whose && !people[key].asked.is_empty()).copied().collect();
        let stars = own.iter().flat_map(|(key, _)| people[key].asked.iter().map(|r| f64::from(r.stars))).collect();
        let few = own.iter().map(|(key, _)| people[key].support.len() + ASKED <= MOST).collect();
        truth.insert(state, (stars, few));
        asked.insert(state, own);
    }
    let floor = ThreeParameters::fit(people.values().map(|p| rated(&p.known)).collect());
    for (state, own) in &asked {
        for (key, _) in own {
            let person = &people[key];
            let all: Vec<Rating> = person.known.iter().chain(&person.support).copied().collect();
            for r in &person.asked {
                said.entry((BIAS, state)).or_default().push_stars(floor.predict(&rated(&person.support), r.item));
                said.entry((BIAS_KNOWN, state)).or_default().push_stars(floor.predict(&rated(&all), r.item));
            }
        }
    }
    let begun = Instant::now();
    let mut ask = |method: &'static str, ranker: &Ranker, steps: usize, all: bool| -> Result<()> {
        for (state, own) in &asked {
            let tasks = own.iter().map(|(key, row)| {
                let (range, person) = (impressions.range(*row), &people[key]);
                let query = range.end - person.asked.len();
                let start = if all { range.start } else { range.start + person.known.len() };
                Task { entity: *row, support: start..query, query: query..range.end }
            });
            let asking = plan.asking(tasks.collect(), features, threads)?;
            let logits = Predictor::new(&asking, ranker, threads)?.predict(TaskSet::Hidden, &[steps])?.swap_remove(0);
            let answers = said.entry((method, state)).or_default();
            for logits in logits.chunks_exact(HEADS) {
                let at_least: [f64; HEADS] =
                    std::array::from_fn(|head| f64::from(ranker.view().probability(head, logits[head])));
                answers.mean.push(1.0 + at_least.iter().sum::<f64>());
                answers.median.push(1.0 + at_least.iter().filter(|p| **p > 0.5).count() as f64);
            }
        }
        Ok(())
    };
    let mut watch = |event: &ProgressEvent| {
        if let ProgressEvent::Validation(v) = event {
            let metrics: Vec<String> = v.metrics.iter().map(|(n, x)| format!("{n} {x:.4}")).collect();
            let seconds = begun.elapsed().as_secs_f64();
            eprintln!("draw {seed}: {seconds:.0} s, epoch {}, {}", v.epoch + 1, metrics.join(", "));
        }
    };
    let trained = RankerTrainer::new(&plan).model(model.clone()).options(train).run(&mut watch, &Cancel::new())?;
    let steps = model.steps as usize;
    for (method, all) in READ {
        ask(method, &trained.ranker, steps, all)?;
    }
    ask("without inner steps", &trained.ranker, 0, true)?;
    Ok(Draw { people, said, truth })
}

/// Mean over draws, and its 95 % interval by Student's t.
fn over_draws(values: &[f64]) -> (f64, f64) {
    const T: [f64; 10] = [f64::NAN, 12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0);
    let t = T.get(values.len() - 1).copied().unwrap_or(1.96);
    (mean, t * (variance / n).sqrt())
}

fn measure(arguments: &Arguments) -> Result<()> {
    let begun = Instant::now();
    let folder = tempfile::tempdir_in(scratch())?;
    let ratings = read_ratings(&arguments.data)?;
    let generation = foundation(arguments, folder.path(), &ratings)?;
    let mut draws = Vec::new();
    for seed in 1..=arguments.draws {
        draws.push(one(arguments, folder.path(), &ratings, &generation, seed)?);
    }
    let (mut text, mut results) = (String::new(), Vec::new());
    for few in [false, true] {
        for (_, state, floor, melu) in STATES {
            let mut rows = vec![
                [
                    "",
                    "MAE",
                    "95 %",
                    "of the median",
                    "95 %",
                    "too high",
                    "95 %",
                    "nDCG@3",
                    "95 %",
                    "stars as gain",
                    "95 %",
                ]
                .map(str::to_owned)
                .to_vec(),
            ];
            let mut people = 0;
            let methods: Vec<&str> =
                draws[0].said.keys().filter(|(_, of)| *of == state).map(|(method, _)| *method).collect();
            let judged = |method: &str| -> Vec<Figures> {
                let one = |d: &Draw| {
                    let (stars, small) = &d.truth[state];
                    let keep: Vec<bool> = small.iter().map(|s| *s || !few).collect();
                    let said = d.said.iter().find(|((m, of), _)| *m == method && *of == state);
                    said.map_or_else(Figures::default, |(_, answers)| judge(stars, answers, &keep))
                };
                draws.iter().map(one).collect()
            };
            for method in methods {
                let figures = judged(method);
                people = figures[0].people;
                let of = |value: fn(&Figures) -> f64| over_draws(&figures.iter().map(value).collect::<Vec<_>>());
                let found = [of(|f| f.mae), of(|f| f.median_mae), of(|f| f.bias), of(|f| f.ndcg), of(|f| f.linear)];
                let mut row = vec![method.to_owned()];
                row.extend(found.iter().flat_map(|(mean, half)| [format!("{mean:.4}"), format!("{half:.4}")]));
                rows.push(row);
                let json = |f: fn(&Figures) -> f64| figures.iter().map(f).collect::<Vec<f64>>();
                results.push(json!({"state": state, "at_most_100": few, "method": method, "people": people,
                    "mae": json(|f| f.mae), "mae_of_the_median": json(|f| f.median_mae), "ndcg@3": json(|f| f.ndcg), "ndcg@3_of_stars": json(|f| f.linear)}));
            }
            let mut against = String::new();
            for (ours, bias) in [(READ[0].0, BIAS_KNOWN), (READ[1].0, BIAS)] {
                let (ours_found, bias_found) = (judged(ours), judged(bias));
                let errors: [fn(&Figures) -> f64; 2] = [|f| f.mae, |f| f.median_mae];
                for (what, of) in ["MAE", "MAE of the median"].iter().zip(errors) {
                    let each: Vec<f64> = ours_found.iter().zip(&bias_found).map(|(a, b)| of(a) - of(b)).collect();
                    let (mean, half) = over_draws(&each);
                    let (low, high) = (mean - half, mean + half);
                    against += &format!("{what} of {ours} - {bias}: {mean:+.4} [{low:+.4}, {high:+.4}]\n");
                }
            }
            let who = if few { format!("{FEWEST} to {MOST} ratings") } else { format!("{FEWEST} ratings or more") };
            text += &format!(
                "{state}, {people} people of {who} (published: bias {floor}, MeLU {melu})\n{}{against}\n",
                table(&rows)
            );
        }
    }
    print!("{text}");
    if let Some(name) = &arguments.record {
        let command = format!(
            "cargo bench --bench melu --features cli -- --data DIR --draws {} --threads {} --epochs {} --ranker-epochs {} --cold-items {} --items {} --record {name}",
            arguments.draws,
            arguments.threads,
            arguments.epochs,
            arguments.ranker_epochs,
            arguments.cold_items,
            arguments.items
        );
        let (model, train) = options(arguments, 1)?;
        let people = draws.first().map_or(0, |d| d.people.len());
        let facts = vec![
            ("ratings".to_owned(), format!("{} of {people} people in a draw", ratings.len())),
            ("ranker".to_owned(), format!("{model:?}")),
            ("training, draw 1".to_owned(), format!("{train:?}")),
            ("duration".to_owned(), format!("{:.1} min", begun.elapsed().as_secs_f64() / 60.0)),
            ("peak memory".to_owned(), format!("{} MiB", peak_rss_bytes() >> 20)),
        ];
        write_record(
            name,
            "Ratings of new people and new items",
            &origin(&command),
            &facts,
            &text,
            &Value::from(results),
        )?;
    }
    Ok(())
}
