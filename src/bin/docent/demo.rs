//! `docent demo`: the whole journey on a made-up world.

use crate::command_line::{cores, threads, typed, word};
use crate::output::{Output, columns, items_text, to_json};
use crate::progress::Progress;
use crate::{evaluate, interrupt, recommend};
use docent::data::{Column, Dataset, SyntheticOptions, World};
use docent::evaluate::{Evaluation, OutcomePart};
use docent::options::{ModelOptions, TowerOptions, TrainOptions};
use docent::pipeline::{
    self, AdaptJob, AdaptReport, EvaluateJob, Files, HELD_OUT, Judgement, Measure, Settings, Source, TrainJob,
};
use docent::serve::{Engine, EngineOptions, Filter, Outcome, PersonalOptions, Query, Ranking, Recommendations};
use docent::train::TrainConfig;
use docent::train::ranker::Impressions;
use docent::{Error, ErrorKind, Event, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Says that a folder belongs to the demo.
const MARK: &str = "docent-demo.txt";
const MARK_TEXT: &[u8] =
    b"This folder was written by `docent demo`, which replaces `data` and `store` in it when it runs again.\n";

/// The whole journey on a made-up world: write, train, publish, open, recommend, evaluate.
///
/// People and works are made up, and so is the way they meet; that is why the best possible recommender is known, too.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  docent demo --out demo --seed 7")]
pub(crate) struct Arguments {
    /// The folder for the world's files and the store; a demo that is there already is replaced.
    #[arg(long, value_name = "DIR", default_value = "docent-demo")]
    out: PathBuf,
    /// Seed of the world and of the training.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// The world, small enough to be learned in two minutes on two cores.
fn world_options(seed: u64) -> SyntheticOptions {
    SyntheticOptions { seed, ..SyntheticOptions::default() }
}

fn config(seed: u64) -> TrainConfig {
    let model = ModelOptions {
        width: 48,
        blocks: 1,
        heads: 2,
        hidden: 96,
        max_length: 50,
        field_width: 8,
        tower: Some(TowerOptions::default()),
        ..ModelOptions::default()
    };
    let train = TrainOptions {
        seed,
        threads: threads(cores().get()),
        epochs: 12,
        batch: 16,
        learning_rate: 3e-3,
        warmup: 50,
        dropout: 0.1,
        patience: 3,
        max_seconds: 100,
        ..TrainOptions::default()
    };
    TrainConfig { model, train, ..TrainConfig::default() }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let start = Instant::now();
    let cancel = interrupt::cancel_on_ctrl_c()?;
    let mut progress = Progress::new(output);
    let out = &arguments.out;
    let _lock = prepare(out)?;
    let (folder, store) = (out.join("data"), out.join("store"));

    output.say(format_args!("1. A made-up world, written as the files that you would bring: {}", folder.display()));
    let world = World::new(&world_options(arguments.seed), cores().get())?;
    world.write(&folder)?;

    output.say(format_args!("2. Read back as its dataset.toml describes"));
    let description = folder.join("dataset.toml");
    let described = |dataset: &str| Files { dataset: folder.join(dataset), ..Files::default() };
    let (data, declared) = described("dataset.toml").read(&mut progress, &cancel)?;
    let (shown, _) = described("impressions.toml").read(&mut progress, &cancel)?;
    let clicks = Impressions::from_log(&data, &shown)?.holding_out(HELD_OUT)?;
    drop(shown);
    let source = Source::Memory { data: &data, outcomes: Some(&clicks) };

    output.say(format_args!(
        "3. A model is trained on all events but each person's last two, a ranker on what slates showed and who clicked, and \
         both are published: {}",
        store.display()
    ));
    let settings = Settings { config: Some(config(arguments.seed)), ..Settings::default() };
    let job = TrainJob { settings, protocol: declared.protocol, command: typed(), ..TrainJob::default() };
    let trained = pipeline::train(source.clone(), &store, &job, &mut progress, &cancel)?;
    progress.end();
    if trained.generation.is_none() {
        return Err(Error::new(ErrorKind::Cancelled, "the demo was stopped; run it again to see the rest"));
    }

    output.say(format_args!("4. The store is opened, mapped, and asked"));
    let engine = Engine::open(&store, &EngineOptions::default())?;
    let person = somebody(&data)?;
    let id = data.entities.id(person);
    let retrieved = Query::entity(id).ranked_by(Ranking::Retrieval);
    let list = engine.recommend(&retrieved, &Filter::default(), 10)?;
    let liked = data.history(person).last().map_or("", |row| data.items.id(*row));
    let similar = engine.similar(liked, &Filter::default(), 3)?;

    output.say(format_args!("5. The last event of everybody, which training never saw, is asked for"));
    let cores = cores().get();
    let job = EvaluateJob { threads: cores, world: Some(&world), ..EvaluateJob::default() };
    let judged = pipeline::evaluate(source.clone(), &[&store], &job, &mut progress, &cancel)?;
    progress.end();
    let evaluation = judged.lists().ok_or_else(unmeasured)?;

    output.say(format_args!(
        "6. The ranker is adapted to each person's clicks, and then to what a person does while it serves"
    ));
    let job = AdaptJob { threads: cores, command: typed() };
    let adapted = pipeline::adapt(source.clone(), &store, &job, &mut progress, &cancel)?;
    let job = EvaluateJob { threads: cores, measure: Measure::Ctr, ..EvaluateJob::default() };
    let lift = pipeline::evaluate(source, &[&store], &job, &mut progress, &cancel)?;
    progress.end();
    let Judgement::Ctr(lift) = &lift.judgement else { return Err(unmeasured()) };
    let story = story(&store, &data, person)?;
    let seconds = start.elapsed().as_secs_f64();
    output.result(
        || {
            json!({
                "store": store.display().to_string(),
                "dataset": description.display().to_string(),
                "seed": arguments.seed,
                "seconds": seconds,
                "train": to_json(&trained),
                "evaluate": evaluate::json(&judged),
                "recommend": recommend::list_json(Some(id), &list),
                "adapt": adapt_json(&adapted, &story, lift),
            })
        },
        || text(&data, person, &list, &similar, evaluation) + &story.text() + &lift_text(lift),
    )?;
    let (store, description) = (word(&store), word(&description));
    output.say(format_args!(
        "Done in {seconds:.0} s. Try next:\n  docent recommend --store {store} --entity {id} --steps 3\n  docent similar --store \
         {store} --item {liked}\n  docent inspect --store {store}\n  docent train --dataset {description} --store my.store\n\
         and write a dataset.toml for your own files like {description}."
    ));
    Ok(ExitCode::SUCCESS)
}

fn unmeasured() -> Error {
    Error::new(ErrorKind::Internal, "the demo was not measured; this is a defect in docent, please report it")
}

/// What a person gets before and after some outcomes.
struct Story {
    person: String,
    category: String,
    before: Recommendations,
    /// Title, and the probability of a click before and after.
    shown: Vec<String>,
    after: Recommendations,
    /// Items of the category in the list before and after.
    counts: [usize; 2],
}

/// Outcomes that the story observes.
const STORY: usize = 5;

/// Shows the person works of one category, none of which is clicked, and asks again.
fn story(store: &Path, data: &Dataset, person: u32) -> Result<Story> {
    let options = EngineOptions { personal: Some(PersonalOptions::default()), ..EngineOptions::default() };
    let engine = Engine::open(store, &options)?;
    let id = data.entities.id(person);
    // By the expected click alone, whatever weight it has in the order of lists.
    let query = Query::entity(id).ranked_by(Ranking::Head("label"));
    let before = engine.recommend(&query, &Filter::default(), 10)?;
    let category = |row: u32| -> String {
        let field = data.schema.item_fields.iter().position(|f| f.name == "category");
        let code = match field.and_then(|f| data.item_columns.get(f)) {
            Some(Column::Codes(codes)) => codes.get(row as usize).copied().unwrap_or(0),
            _ => 0,
        };
        let kind = field.and_then(|f| data.schema.item_fields.get(f)).map(|f| &f.kind);
        kind.and_then(|k| k.text(code)).unwrap_or_default().to_owned()
    };
    // What the list has most of.
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    before.items.iter().for_each(|i| *counts.entry(category(i.row)).or_default() += 1);
    let most = counts.iter().max_by_key(|(_, n)| **n).map(|(c, _)| c.clone()).unwrap_or_default();
    let now = data.events.time.iter().max().copied().unwrap_or_default();
    let mut shown = Vec::new();
    for (n, item) in (1..).zip(before.items.iter().filter(|i| category(i.row) == most).take(STORY)) {
        let event = Event { time: Some(now + n * 1000), ..Event::item(&item.id) };
        engine.observe(id, &Outcome::labelled(event, &[("label", 0.0)]))?;
        shown.push(item.title.clone().unwrap_or_else(|| item.id.clone()));
    }
    let after = engine.recommend(&query, &Filter::default(), 10)?;
    let of = |list: &Recommendations| list.items.iter().filter(|i| category(i.row) == most).count();
    let counts = [of(&before), of(&after)];
    Ok(Story { person: id.to_owned(), category: most, before, shown, after, counts })
}

impl Story {
    fn text(&self) -> String {
        format!(
            "\nRanked by the expected click, {} gets\n{}and passes over {} of {}:\n{}then gets ({} of 10 from {} before, {} now)\n{}",
            self.person,
            items_text(&self.before.items),
            self.shown.len(),
            self.category,
            self.shown.iter().map(|t| format!("      {t}\n")).collect::<String>(),
            self.counts[0],
            self.category,
            self.counts[1],
            items_text(&self.after.items)
        )
    }
}

fn lift_text(lift: &[OutcomePart]) -> String {
    let Some(part) = lift.first() else { return String::new() };
    let judged = &part.judged;
    let mut lines = vec![["method", "auc", "docent's lead", "95 % interval"].map(String::from).to_vec()];
    for row in &judged.rows {
        let name = match row.name.as_str() {
            "docent" => "adapted to each person",
            "learned" => "the same, not adapted",
            _ => "person and item bias",
        };
        let lead = judged.differences.iter().find(|d| d.versus == row.name);
        let interval = lead.and_then(|d| d.interval);
        lines.push(vec![
            name.into(),
            row.metric("auc").map_or_else(|| "-".into(), |auc| format!("{auc:.4}")),
            lead.map_or_else(String::new, |d| format!("{:+.4}", d.mean)),
            interval.map_or_else(String::new, |[low, high]| format!("{low:+.4} .. {high:+.4}")),
        ]);
    }
    format!(
        "\nAre clicks told from passes, on the last fifth of what everybody was shown? {} outcomes of {} people\n{}",
        judged.targets,
        judged.entities,
        columns(&lines)
    )
}

fn adapt_json(adapted: &AdaptReport, story: &Story, lift: &[OutcomePart]) -> serde_json::Value {
    let auc = |name: &str| {
        let row = lift.first().and_then(|p| p.judged.rows.iter().find(|r| r.name == name));
        row.and_then(|r| r.metric("auc"))
    };
    let difference = lift.first().and_then(|p| p.judged.differences.first());
    json!({
        "batch": to_json(adapted),
        "entity": story.person,
        "observed": story.shown.len(),
        "before": recommend::list_json(Some(&story.person), &story.before),
        "after": recommend::list_json(Some(&story.person), &story.after),
        "category": story.category,
        "of_category": story.counts,
        "auc": {
            "adapted": auc("docent"),
            "learned": auc("learned"),
            "bias": auc("bias"),
            "lift": difference.map(|d| d.mean),
            "interval": difference.and_then(|d| d.interval),
            "outcomes": lift.first().map(|p| p.judged.targets),
            "people": lift.first().map(|p| p.judged.entities),
        },
    })
}

/// Makes the folder, or empties that of an earlier demo; the file that is given back locks it.
fn prepare(out: &Path) -> Result<File> {
    std::fs::create_dir_all(out).map_err(|e| Error::io("cannot make the folder", out, e))?;
    let mark = out.join(MARK);
    let ours = mark.is_file();
    let mut entries = std::fs::read_dir(out).map_err(|e| Error::io("cannot list", out, e))?;
    if !ours && entries.next().is_some() {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{} has other files than a demo's; name a new folder with --out", out.display()),
        ));
    }
    let open = File::options().write(true).create(true).truncate(false).open(&mark);
    let mut file = open.map_err(|e| Error::io("cannot open", &mark, e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let message =
                format!("another demo runs in {}; wait for it, or name another folder with --out", out.display());
            return Err(Error::new(ErrorKind::Locked, message));
        }
        Err(TryLockError::Error(e)) => return Err(Error::io("cannot lock", &mark, e)),
    }
    file.write_all(MARK_TEXT).map_err(|e| Error::io("cannot write", &mark, e))?;
    for part in ["data", "store"] {
        let path = out.join(part);
        match std::fs::remove_dir_all(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("cannot remove the earlier demo's", &path, e));
            }
            _ => {}
        }
    }
    Ok(file)
}

/// Somebody who has met enough works for the list to be of interest.
fn somebody(data: &Dataset) -> Result<u32> {
    let met = |u: &u32| data.history(*u).len();
    let all = 0..data.entities.len() as u32;
    let found = all.clone().find(|u| (20..=60).contains(&met(u))).or_else(|| all.max_by_key(met));
    found.ok_or_else(|| {
        Error::new(ErrorKind::Internal, "the made-up world is empty; this is a defect, please report it")
    })
}

fn text(
    data: &Dataset,
    person: u32,
    list: &Recommendations,
    similar: &Recommendations,
    evaluation: &Evaluation,
) -> String {
    let title = |row: &u32| data.titles.get(*row as usize).map_or("", String::as_str).to_owned();
    let mut text = format!("\n{} met lately\n", data.entities.id(person));
    let history = data.history(person);
    for row in history.iter().rev().take(5).rev() {
        text += &format!("      {}\n", title(row));
    }
    text += &format!("and is recommended (generation {})\n{}", list.generation, items_text(&list.items));
    text += &format!("\nMost like {}\n{}", history.last().map(title).unwrap_or_default(), items_text(&similar.items));
    text += &format!(
        "\nHow often was the next work found, among {} works? {} questions ({})\n",
        evaluation.catalogue, evaluation.targets, evaluation.protocol
    );
    let best = evaluation.row("optimum").and_then(|r| r.metric("ndcg@10")).filter(|b| *b > 0.0);
    let mut lines = vec![["method", "hr@10", "ndcg@10", "95 % interval", "of the optimum"].map(String::from).to_vec()];
    for row in &evaluation.rows {
        let metric = |key: &str| row.metric(key).map_or_else(|| "-".to_owned(), |v| format!("{v:.4}"));
        let share = row.metric("ndcg@10").zip(best).map(|(v, b)| format!("{:.0} %", 100.0 * v / b));
        lines.push(vec![
            row.name.clone(),
            metric("hr@10"),
            metric("ndcg@10"),
            row.interval.map_or_else(|| "-".into(), |i| format!("{:.4} .. {:.4}", i.ndcg_10[0], i.ndcg_10[1])),
            share.unwrap_or_else(|| "-".into()),
        ]);
    }
    text + &columns(&lines)
}
