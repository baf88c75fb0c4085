//! What commands share: where the data is, threads, the words of this very command.

use crate::output::note;
use docent::pipeline::Files;
use docent::serve::Generation;
use docent::{Error, Result};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// The data of a command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Data {
    /// The dataset's description.
    #[arg(long, value_name = "FILE")]
    pub(crate) dataset: PathBuf,
    /// Where its relative paths start from [default: its own folder].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

/// Where outcomes come from.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Outcomes {
    /// The description of a log of labelled outcomes, such as what was shown and whether it was clicked; its people and items are
    /// matched by id, its times say what was known before [default: the labelled events of the dataset].
    #[arg(long, value_name = "FILE")]
    pub(crate) outcomes: Option<PathBuf>,
}

impl Data {
    /// The files, with the log of outcomes where one is named.
    pub(crate) fn files(&self, outcomes: Option<&Outcomes>) -> Files {
        let outcomes = outcomes.and_then(|o| o.outcomes.clone());
        Files { dataset: self.dataset.clone(), folder: self.data.clone(), outcomes }
    }
}

/// What the library says in general words, with the flags of this command line.
const FLAGS: [(&str, &str); 3] = [
    ("bring a log of outcomes", "bring a log with --outcomes"),
    ("train under protocol", "train with --protocol"),
    ("keep this one in another way", "keep this one with --json"),
];

/// An error's message with the flags that do what it asks for.
pub(crate) fn with_flags(message: &str) -> String {
    FLAGS.iter().fold(message.to_owned(), |message, (words, flag)| message.replace(words, flag))
}

/// The cores that this process may use.
pub(crate) fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// A number of threads as options have it.
pub(crate) fn threads(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A count of at least 1.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("give a whole number from 1 on".into()),
        Ok(n) => Ok(n),
    }
}

/// A number of minutes above 0.
pub(crate) fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(m) if m > 0.0 && m < 1e7 => Ok(m),
        _ => Err("give a number of minutes above 0".into()),
    }
}

/// An id: any text but the empty one.
pub(crate) fn id(text: &str) -> Result<String, String> {
    match text {
        "" => Err("an id is missing; name it".into()),
        _ => Ok(text.to_owned()),
    }
}

/// Items as one flag names them: an id, ids between commas, or a JSON array of ids, which may hold anything.
#[derive(Debug, Clone)]
pub(crate) struct Ids {
    text: String,
    parts: Vec<String>,
}

impl std::str::FromStr for Ids {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = match serde_json::from_str(text) {
            Ok(parts) => parts,
            Err(_) => text.split(',').map(str::to_owned).collect::<Vec<_>>(),
        };
        match parts.is_empty() || parts.iter().any(String::is_empty) {
            true => {
                Err("an id is missing; separate ids by single commas, or write a JSON array such as [\"a,b\", \"c\"]"
                    .into())
            }
            false => Ok(Self { text: text.to_owned(), parts }),
        }
    }
}

impl Ids {
    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The ids of `--deny` in their order; tells which of them name nothing.
    pub(crate) fn denied(flags: &[Self], generation: &Generation) -> Result<Vec<String>> {
        let ids = Self::of(flags, generation)?;
        for id in &ids {
            if generation.find_item(id)?.is_none() {
                note(format_args!("--deny names {id:?}, which is no item of generation {}", generation.id()));
            }
        }
        Ok(ids)
    }

    /// The ids of several flags in their order. A text that is the id of an item as a whole is that item, whatever it holds.
    pub(crate) fn of(flags: &[Self], generation: &Generation) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for flag in flags {
            match flag.parts.first() != Some(&flag.text) && generation.find_item(&flag.text)?.is_some() {
                true => ids.push(flag.text.clone()),
                false => ids.extend_from_slice(&flag.parts),
            }
        }
        Ok(ids)
    }
}

/// A time as Unix milliseconds: written so, or as a date with or without a time of the day, UTC where it names no zone.
pub(crate) fn time(text: &str) -> Result<i64, String> {
    let utc = |local: jiff::civil::DateTime| local.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|t| t.timestamp());
    let found = text.parse::<i64>().ok();
    let found = found.or_else(|| text.parse::<jiff::Timestamp>().ok().map(|t| t.as_millisecond()));
    found
        .or_else(|| text.parse().ok().and_then(utc).map(|t| t.as_millisecond()))
        .ok_or_else(|| format!("{text:?} is no time; write Unix milliseconds, or such as 2024-01-31T12:00:00Z"))
}

/// What clap prints for a value that the library refuses.
pub(crate) fn refused(e: Error) -> String {
    e.message().to_owned()
}

/// This command as it could be typed again.
pub(crate) fn typed() -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+@%".contains(c);
    let quote = |word: String| match !word.is_empty() && word.chars().all(plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', "'\\''")),
    };
    let words = std::env::args_os().skip(1).map(|w| quote(w.to_string_lossy().into_owned()));
    std::iter::once("docent".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// A word of a command that a person is told to type.
pub(crate) fn word(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    if text.contains(char::is_whitespace) { format!("'{}'", text.replace('\'', "'\\''")) } else { text }
}
