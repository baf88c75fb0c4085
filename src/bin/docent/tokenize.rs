//! `docent tokenize`: how runs of actions become tokens, on a whole dataset and in one history.

use crate::command_line::{Data, id, refused};
use crate::interrupt;
use crate::output::{Output, columns, moment};
use crate::progress::Progress;
use docent::data::{Dataset, Protocol, Split};
use docent::model::History;
use docent::options::{DEFAULT_GAP, TokenizerOptions};
use docent::progress::{ProgressEvent, ProgressSink};
use docent::tokenizer::{CodedEvent, Pushed, Stream, Token, Tokenizer};
use docent::train::{TrainConfig, TrainFile, tokenizer};
use docent::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Show how runs of actions become tokens: how much shorter histories get, which merges are learned, and one history
/// before and after.
///
/// Merges are learned from the training events of the split, as docent train does under the same configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  docent tokenize --dataset dataset.toml --config train.toml --show u42")]
pub(crate) struct Arguments {
    #[command(flatten)]
    data: Data,
    /// The train.toml whose [tokenizer] is shown [default: gaps up to 30 minutes, every action but the most frequent one
    /// terminal].
    #[arg(long, value_name = "FILE", visible_alias = "train-config")]
    config: Option<PathBuf>,
    /// How to split [default: the dataset's, or leave-one-out].
    #[arg(long, value_name = "P", value_parser = |s: &str| Protocol::parse(s).map_err(refused))]
    protocol: Option<Protocol>,
    /// The entity whose history is shown before and after.
    #[arg(long, value_name = "ENTITY", value_parser = id)]
    show: Option<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let cancel = interrupt::cancel_on_ctrl_c()?;
    let mut progress = Progress::new(output);
    let file = arguments.config.as_deref().map(TrainFile::read).transpose()?;
    let warnings = file.iter().flat_map(TrainFile::warnings);
    warnings.for_each(|w| progress.on_event(&ProgressEvent::Warning(w.clone())));
    let (data, declared) = arguments.data.files(None).read(&mut progress, &cancel)?;
    let options = match &file {
        Some(file) => file.over(TrainConfig::default())?.tokenizer,
        None => suggested(&data),
    };
    if !options.is_on() {
        let message = "the configuration switches the tokenizer off; set max_gap in its table [tokenizer]";
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    let protocol = arguments.protocol.clone().or(declared.protocol).unwrap_or(Protocol::LeaveOneOut);
    let split = Split::new(&data, &protocol)?;
    let tokenizer = tokenizer(&data, &split, &options)?;
    let events = docent::train::encode(&data);
    let summary = Summary::new(&data, &tokenizer, &events);
    let shown = match &arguments.show {
        Some(id) => Some(Shown::new(&data, &tokenizer, &events, id)?),
        None => None,
    };
    output.result(
        || report(&summary, &tokenizer, shown.as_ref(), &data),
        || text(&summary, &tokenizer, shown.as_ref(), &data),
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Options for a dataset that nobody chose any for.
fn suggested(data: &Dataset) -> TokenizerOptions {
    // The most frequent action is what the others stand out from.
    let mut counts = vec![0u64; data.schema.actions.len()];
    for action in &data.events.action {
        if let Some(count) = counts.get_mut(usize::from(*action)) {
            *count += 1;
        }
    }
    let most = counts.iter().max().copied().unwrap_or(0);
    let actions = data.schema.actions.iter().zip(&counts);
    let terminal = actions.filter(|(_, count)| **count < most).map(|(name, _)| name.clone()).collect();
    TokenizerOptions { max_gap: DEFAULT_GAP, terminal, ..TokenizerOptions::default() }
}

/// What merging does to all histories.
struct Summary {
    events: usize,
    tokens: usize,
    entities: usize,
    longest: [usize; 2],
    /// How many tokens hold 1, 2, 3, 4 and more events.
    sizes: [usize; 5],
}

impl Summary {
    fn new(data: &Dataset, tokenizer: &Tokenizer, events: &History) -> Self {
        let mut summary = Self { events: 0, tokens: 0, entities: 0, longest: [0; 2], sizes: [0; 5] };
        for entity in 0..data.entities.len() as u32 {
            let own = data.range(entity);
            let mut count = 0;
            let length = own.len();
            for token in tokens(tokenizer, events, own) {
                count += 1;
                let size = (token.count as usize).clamp(1, 5) - 1;
                if let Some(sizes) = summary.sizes.get_mut(size) {
                    *sizes += 1;
                }
            }
            summary.entities += usize::from(length > 0);
            (summary.events, summary.tokens) = (summary.events + length, summary.tokens + count);
            let [before, after] = summary.longest;
            summary.longest = [before.max(length), after.max(count)];
        }
        summary
    }

    /// The share by which sequences are shorter.
    fn shorter(&self) -> f64 {
        1.0 - self.tokens as f64 / self.events.max(1) as f64
    }
}

/// The tokens of events, made one by one.
fn tokens(tokenizer: &Tokenizer, events: &History, own: std::ops::Range<usize>) -> Vec<Token> {
    let mut stream = Stream::new(tokenizer);
    let mut tokens = Vec::new();
    for i in own {
        let Some(&item) = events.items.get(i) else { break };
        let event = CodedEvent {
            item,
            time: events.time.get(i).copied(),
            action: events.action.get(i).copied().unwrap_or(History::NO_ACTION),
            value: events.value.get(i).copied().unwrap_or(f32::NAN),
            fields: events.fields.iter().map(|c| c.get(i).copied().unwrap_or(0)).collect(),
        };
        if let Pushed::Opened(Some(closed)) = stream.push(event) {
            tokens.push(closed);
        }
    }
    tokens.extend(stream.close());
    tokens
}

/// One history before and after.
struct Shown {
    entity: String,
    /// Time, item row and action of each event.
    events: Vec<(Option<i64>, u32, String)>,
    tokens: Vec<Token>,
}

impl Shown {
    fn new(data: &Dataset, tokenizer: &Tokenizer, events: &History, entity: &str) -> Result<Self> {
        let Some(row) = data.entities.row(entity) else {
            let message =
                format!("entity {entity:?} is not in dataset {:?}; name one of its events' entities", data.schema.name);
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        let own = data.range(row);
        let before = own.clone().map(|i| {
            let action = events.action.get(i).and_then(|a| data.schema.actions.get(usize::from(*a)));
            let item = events.items.get(i).copied().unwrap_or(u32::MAX);
            (events.time.get(i).copied(), item, action.cloned().unwrap_or_default())
        });
        Ok(Self { entity: entity.to_owned(), events: before.collect(), tokens: tokens(tokenizer, events, own) })
    }
}

/// The names of the actions in a set.
fn names(actions: u64, data: &Dataset) -> Vec<&str> {
    let named = data.schema.actions.iter().enumerate();
    named.filter(|(a, _)| *a < 64 && actions >> a & 1 == 1).map(|(_, name)| name.as_str()).collect()
}

fn report(summary: &Summary, tokenizer: &Tokenizer, shown: Option<&Shown>, data: &Dataset) -> Value {
    let options = tokenizer.options();
    let first = data.schema.actions.len() as u64;
    let merges = (first..).zip(&tokenizer.vocabulary().merges);
    let merges = merges.map(|(symbol, merge)| json!({"symbol": tokenizer.symbol(symbol as u16), "count": merge.count}));
    let value = |v: f64| if v.is_nan() { Value::Null } else { json!(v) };
    let shown = shown.map(|s| {
        let events = s
            .events
            .iter()
            .map(|(time, item, action)| json!({"item": data.items.id(*item), "time": time, "action": action}));
        let tokens = s.tokens.iter().map(|t| {
            json!({
                "item": data.items.id(t.item),
                "first": t.first,
                "last": t.last,
                "symbol": tokenizer.symbol(t.symbol),
                "actions": names(t.actions, data),
                "count": t.count,
                "value": value(t.value),
            })
        });
        json!({"entity": s.entity, "events": events.collect::<Value>(), "tokens": tokens.collect::<Value>()})
    });
    json!({
        "dataset": data.schema.name,
        "version": tokenizer.vocabulary().version,
        "options": {
            "max_gap": options.max_gap,
            "surface": options.surface,
            "terminal": options.terminal,
            "merges": options.merges,
            "budget": options.budget,
        },
        "entities": summary.entities,
        "events": summary.events,
        "tokens": summary.tokens,
        "shorter": summary.shorter(),
        "longest": {"events": summary.longest[0], "tokens": summary.longest[1]},
        "token_sizes": {
            "1": summary.sizes[0], "2": summary.sizes[1], "3": summary.sizes[2], "4": summary.sizes[3],
            "5+": summary.sizes[4],
        },
        "merges": merges.collect::<Value>(),
        "shown": shown,
    })
}

fn text(summary: &Summary, tokenizer: &Tokenizer, shown: Option<&Shown>, data: &Dataset) -> String {
    let (o, s) = (tokenizer.options(), summary);
    let mut text = String::new();
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let surface = if o.surface.is_empty() { "none" } else { &o.surface };
    let mean = |n: usize| n as f64 / s.entities.max(1) as f64;
    let [one, two, three, four, more] = s.sizes;
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "rule      same item, gaps up to {} s, surface {surface}, {} tokens a run; terminal: {}",
        o.max_gap,
        if o.budget == 0 { "any number of".to_owned() } else { format!("at most {}", o.budget) },
        list(&o.terminal)
    );
    let _ = writeln!(
        text,
        "events    {}, {:.1} per history, at most {}\ntokens    {}, {:.1} per history, at most {}: {:.1} % shorter\n\
         events per token: 1 in {one}, 2 in {two}, 3 in {three}, 4 in {four}, more in {more}",
        s.events,
        mean(s.events),
        s.longest[0],
        s.tokens,
        mean(s.tokens),
        s.longest[1],
        100.0 * s.shorter()
    );
    let merges = &tokenizer.vocabulary().merges;
    if !merges.is_empty() {
        let _ =
            writeln!(text, "\n{} learned merges, and how often each pair stood in the training events", merges.len());
        let symbols = (data.schema.actions.len() as u64..).zip(merges);
        let lines: Vec<Vec<String>> = symbols
            .map(|(symbol, merge)| vec![tokenizer.symbol(symbol as u16).to_owned(), merge.count.to_string()])
            .collect();
        text += &columns(&lines);
    }
    let Some(shown) = shown else { return text };
    let when = |time: Option<i64>| time.map_or_else(String::new, |t| moment(t.max(0) as u64));
    let _ = writeln!(text, "\n{}, before: {} events", shown.entity, shown.events.len());
    let events = shown.events.iter();
    let lines: Vec<Vec<String>> =
        events.map(|(time, item, action)| vec![when(*time), data.items.id(*item).to_owned(), action.clone()]).collect();
    text += &columns(&lines);
    let _ = writeln!(text, "\n{}, after: {} tokens", shown.entity, shown.tokens.len());
    let line = |t: &Token| {
        let symbol = tokenizer.symbol(t.symbol).to_owned();
        let set = names(t.actions, data).join(", ");
        let span = match (t.first, t.last) {
            (Some(a), Some(b)) => format!("{} s", b.saturating_sub(a) / 1000),
            _ => String::new(),
        };
        let value = if t.value.is_nan() { String::new() } else { format!("sum {}", t.value) };
        let item = data.items.id(t.item).to_owned();
        vec![when(t.first), span, item, format!("{} events", t.count), symbol, format!("{{{set}}}"), value]
    };
    text += &columns(&shown.tokens.iter().map(line).collect::<Vec<_>>());
    text
}
