//! `docent recommend`: the best items for somebody.

use crate::command_line::{Ids, id, positive, refused, time};
use crate::history::History;
use crate::output::{Output, items_json, items_text, note};
use docent::options::Seen;
use docent::serve::{
    AsOf, Because, Engine, EngineOptions, Explanation, Filter, MAX_EVENTS, Query, Ranking, Recommendations, Sampler,
    Source,
};
use docent::{Cell, Error, ErrorKind, FieldValue, Result};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Past events that an explanation names, and of those the ones that are shown as text.
const BECAUSE: usize = 10;
const BECAUSE_SHOWN: usize = 3;

/// The best items for a person, or after a history.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  docent recommend --store shop.store --history i17,i4 -k 5 --sample temperature=0.8,top-p=0.9,seed=7"
)]
#[command(group = clap::ArgGroup::new("who").required(true).multiple(true).args(["entity", "history", "profile"]))]
pub(crate) struct Arguments {
    /// The store.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// For this person, after everything that the store knows of them. Somebody unknown gets the popular items.
    #[arg(long, value_name = "ID", value_parser = id, allow_hyphen_values = true)]
    entity: Option<String>,
    /// For this person as they stood then: after N events, oldest first, or at a time (Unix milliseconds, or such as
    /// 2024-01-31T12:00:00Z), when the list is then asked for. What happened later does not count.
    #[arg(long, value_name = "N|TIME", value_parser = as_of, requires = "entity")]
    as_of: Option<AsOf>,
    /// Asked for at this time (Unix milliseconds, or such as 2024-01-31T12:00:00Z) [default: time does not matter].
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<i64>,
    /// For somebody who has had these items, oldest first; repeat it for further ones. An id that holds a comma stands alone, or in a
    /// JSON array such as ["a,b","c"]. Or for somebody who did what a file whose name ends in .jsonl says, or standard input (-): a
    /// line for each event, oldest first, {"item": ID, "time": TIME, "action": NAME, "value": NUMBER, "fields": {NAME: VALUE}}, of
    /// which only the item must be there.
    #[arg(long, value_name = "ID,ID,...|FILE", allow_hyphen_values = true, conflicts_with = "entity")]
    history: Option<Vec<Ids>>,
    /// For somebody with this profile; it counts where no event is known. Repeat it for further fields.
    #[arg(long, value_name = "FIELD=VALUE", value_parser = field_value)]
    profile: Vec<(String, String)>,
    /// With this request-time field, such as the device, or where the list will be shown. Repeat it for further fields.
    #[arg(long, value_name = "FIELD=VALUE", value_parser = field_value)]
    field: Vec<(String, String)>,
    /// How many items.
    #[arg(short, long = "count", value_name = "K", default_value = "10", value_parser = positive)]
    k: usize,
    /// Leave these items out; written as for --history.
    #[arg(long, value_name = "ID,ID,...", allow_hyphen_values = true)]
    deny: Vec<Ids>,
    /// Only these items; written as for --history.
    #[arg(long, value_name = "ID,ID,...", allow_hyphen_values = true)]
    allow: Option<Vec<Ids>>,
    /// Whether items that the person has had may be in the list: excluded or allowed [default: as the store was trained,
    /// see `docent inspect`].
    #[arg(long, value_name = "RULE", value_parser = |s: &str| s.parse::<Seen>().map_err(refused))]
    seen: Option<Seen>,
    /// The same as --seen allowed.
    #[arg(long, conflicts_with = "seen")]
    include_seen: bool,
    /// Say of each item which past events its score came from and, where items are known by metadata, how much of it came
    /// from the item's ID and how much from its metadata. Of a ranked list this explains the score that it was retrieved by.
    #[arg(long, conflicts_with = "steps")]
    explain: bool,
    /// Also recommend items that were added since the publication, and none that was removed.
    #[arg(long)]
    live: bool,
    /// The list as it was retrieved: by the foundation model's scores, where a ranker would put it in order.
    #[arg(long)]
    retrieval: bool,
    /// What comes next, and after that: N lists as they are retrieved, each as if the first item of the one before had happened.
    #[arg(long, value_name = "N", value_parser = positive)]
    steps: Option<usize>,
    /// Draw the items by chance, by the scores that they are retrieved by: temperature=T (0: no chance), top-p=P, top-k=K, seed=N, in any order.
    #[arg(long, value_name = "KEY=VALUE,...", value_parser = sampler)]
    sample: Option<Sampler>,
}

fn field_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((field, value)) if !field.is_empty() => Ok((field.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not FIELD=VALUE, such as country=nl")),
    }
}

/// The most that is a number of events, not a time in Unix milliseconds.
const MOST_EVENTS: i64 = MAX_EVENTS as i64;

fn as_of(text: &str) -> Result<AsOf, String> {
    match text.parse::<i64>() {
        Ok(count @ 0..=MOST_EVENTS) => Ok(AsOf::Events(count as usize)),
        _ => time(text).map(AsOf::Time),
    }
}

fn sampler(text: &str) -> Result<Sampler, String> {
    text.parse().map_err(|e: Error| e.message().to_owned())
}

/// A field as the engine takes it: numbers may be texts.
fn text_field((field, value): &(String, String)) -> FieldValue<'_> {
    (field, Cell::Text(value))
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let engine = Engine::open(&arguments.store, &EngineOptions { live: arguments.live, ..EngineOptions::default() })?;
    let generation = engine.current();
    let named = |flags: &Option<Vec<Ids>>| flags.as_ref().map(|flags| Ids::of(flags, &generation)).transpose();
    let (deny, allow) = (Ids::denied(&arguments.deny, &generation)?, named(&arguments.allow)?);
    let file = arguments.history.as_deref().map(History::file).transpose()?.flatten();
    let had = if file.is_some() { None } else { named(&arguments.history)? };
    let history = file.unwrap_or_else(|| History::of_ids(had.as_deref().unwrap_or_default()));
    let history_fields = history.fields();
    let events = history.events(&history_fields);
    let query = match &arguments.entity {
        Some(entity) => Query::entity(entity),
        None => Query::history(&events),
    };
    let query = Query { as_of: arguments.as_of, time: arguments.at, ..query };
    let profile: Vec<FieldValue<'_>> = arguments.profile.iter().map(text_field).collect();
    let ranking = if arguments.retrieval { Ranking::Retrieval } else { Ranking::Auto };
    let fields: Vec<FieldValue<'_>> = arguments.field.iter().map(text_field).collect();
    let query = query.profile(&profile).with(&fields).ranked_by(ranking);
    let deny: Vec<&str> = deny.iter().map(String::as_str).collect();
    let allow: Option<Vec<&str>> = allow.as_ref().map(|ids| ids.iter().map(String::as_str).collect());
    let seen = arguments.seen.or(arguments.include_seen.then_some(Seen::Allowed));
    let filter = Filter { seen, deny: &deny, allow: allow.as_deref(), ..Filter::default() };
    let lists = match (arguments.steps, &arguments.sample) {
        (None, None) => vec![engine.recommend(&query, &filter, arguments.k)?],
        (steps, sampler) => engine.steps(&query, &filter, arguments.k, steps.unwrap_or(1), sampler.as_ref())?,
    };
    let first = lists.first().ok_or_else(|| {
        Error::new(ErrorKind::Internal, "the engine gave no list; this is a defect in docent, please report it")
    })?;
    if let (Source::Popularity, Some(entity)) = (first.source, &arguments.entity) {
        note(format_args!(
            "no event of {entity:?} is known in generation {}: these are the popular items",
            first.generation
        ));
    }
    if first.items.len() < arguments.k {
        let excluded = seen.unwrap_or(generation.serve().seen) == Seen::Excluded;
        let seen = match excluded && first.source != Source::Popularity {
            true => "; what was had is left out, --seen allowed lets it in",
            false => "",
        };
        note(format_args!("{} items were asked for, {} are left to recommend{seen}", arguments.k, first.items.len()));
    }
    let why = match arguments.explain {
        true => {
            let ids: Vec<&str> = first.items.iter().map(|i| i.id.as_str()).collect();
            Some(engine.explain(&query, &ids, BECAUSE)?)
        }
        false => None,
    };
    output.result(
        || report(arguments, had.as_deref(), first, &lists, why.as_deref()),
        || text(arguments, &lists, why.as_deref()),
    )?;
    Ok(ExitCode::SUCCESS)
}

/// The keys of the command line's contract.
pub(crate) fn list_json(entity: Option<&str>, list: &Recommendations) -> Value {
    json!({
        "generation": list.generation.0,
        "entity": entity,
        "source": list.source.to_string(),
        "items": items_json(&list.items),
    })
}

fn report(
    arguments: &Arguments,
    history: Option<&[String]>,
    first: &Recommendations,
    lists: &[Recommendations],
    why: Option<&[Explanation]>,
) -> Value {
    let mut report = list_json(arguments.entity.as_deref(), first);
    for (item, why) in
        report.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().zip(why.unwrap_or(&[]))
    {
        let Some(item) = item.as_object_mut() else { continue };
        let because = |b: &Because| json!({"id": b.id, "weight": f64::from(b.weight), "title": b.title});
        item.insert("because".into(), why.because.iter().map(because).collect());
        item.insert("base".into(), json!(f64::from(why.base)));
        if let Some(parts) = why.parts {
            item.insert("parts".into(), json!({"id": f64::from(parts.id), "metadata": f64::from(parts.metadata)}));
        }
    }
    if let Some(report) = report.as_object_mut() {
        if let Some(history) = history {
            report.insert("history".into(), json!(history));
        }
        match arguments.as_of {
            Some(AsOf::Events(count)) => _ = report.insert("as_of".into(), json!({"events": count})),
            Some(AsOf::Time(time)) => _ = report.insert("as_of".into(), json!({"time": time})),
            _ => {}
        }
        if arguments.steps.is_some() {
            let steps: Vec<Value> = lists.iter().map(|l| items_json(&l.items)).collect();
            report.insert("steps".into(), Value::Array(steps));
        }
    }
    report
}

fn text(arguments: &Arguments, lists: &[Recommendations], why: Option<&[Explanation]>) -> String {
    if let (Some(why), Some(list)) = (why, lists.first()) {
        return items_text(&list.items)
            .lines()
            .zip(why)
            .map(|(line, why)| format!("{line}\n{}", because(why)))
            .collect();
    }
    if arguments.steps.is_none() {
        return lists.iter().map(|list| items_text(&list.items)).collect();
    }
    (1..).zip(lists).map(|(step, list)| format!("step {step}\n{}", items_text(&list.items))).collect()
}

/// The reasons of one item, below its line.
fn because(why: &Explanation) -> String {
    let mut text = String::new();
    for event in why.because.iter().take(BECAUSE_SHOWN) {
        let title = event.title.as_deref().unwrap_or(&event.id);
        text += &format!("      {:>+9.4}  {title}\n", event.weight);
    }
    if let Some(parts) = why.parts {
        text +=
            &format!("      {:>+9.4} by what people did with it, {:+.4} by its metadata\n", parts.id, parts.metadata);
    }
    text
}
