//! A `dataset.toml` and the files that it describes: opened, checked, then read into a [`Dataset`].

use super::builder::{BuildOptions, EventFilter};
use super::column::Limits;
use super::describe::Description;
use super::moment::TimeFormat;
use super::{Dataset, Protocol, read};
use crate::error::{Error, Result, err};
use crate::options::Seen;
use crate::progress::{Cancel, ProgressEvent, ProgressSink};
use std::path::{Path, PathBuf};

/// An opened dataset description: what is in which file, and how it is to be split.
#[derive(Debug)]
pub struct DatasetFile {
    description: Description,
    protocol: Option<Protocol>,
    base: PathBuf,
}

impl DatasetFile {
    /// Opens the description at `path`. Relative file names in it start from `data`, or else from its own folder.
    ///
    /// # Errors
    /// `NotFound` or another input error for `path`; `InvalidConfig` naming the key that is wrong.
    pub fn open(path: &Path, data: Option<&Path>) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io("reading", path, e))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| err!(InvalidConfig, "{} is not UTF-8; is it a dataset.toml?", path.display()))?;
        let base = data.or_else(|| path.parent()).unwrap_or(Path::new(""));
        let base = if base.as_os_str().is_empty() { Path::new(".") } else { base };
        let mut file = Self::parse(&text, base)
            .map_err(|e| Error::new(e.kind(), format!("{}: {}", path.display(), e.message())))?;
        file.description.renamed.iter_mut().for_each(|what| *what = format!("{}: {what}", path.display()));
        Ok(file)
    }

    /// Takes the text of a description. Relative file names in it start from `base`.
    ///
    /// # Errors
    /// `InvalidConfig` naming the key that is wrong.
    pub fn parse(text: &str, base: &Path) -> Result<Self> {
        let description = Description::parse(text)?;
        let protocol = description.split.as_ref().map(|s| s.protocol()).transpose()?.flatten();
        Ok(Self { description, protocol, base: base.to_owned() })
    }

    /// The dataset's name.
    pub fn name(&self) -> &str {
        &self.description.name
    }

    /// The protocol of `[split]`; `None` where the file names none.
    pub fn protocol(&self) -> Option<&Protocol> {
        self.protocol.as_ref()
    }

    /// What `[split]` says of seen items; `None` where it is to be measured.
    pub fn seen(&self) -> Option<Seen> {
        self.description.split.as_ref().and_then(|s| s.seen)
    }

    /// Reads the described files. `observer` hears of each file (stages in bytes), of keys under old names, and of what was
    /// skipped or does not match (warnings).
    ///
    /// # Errors
    /// - `InvalidConfig` where the description does not fit a file: a missing column (those present are listed), a
    ///   wrong delimiter, an unknown encoding or format.
    /// - `NotFound` and other input errors naming the file.
    /// - `InvalidData` for an empty file, or for more malformed rows than `tolerance`, naming file, line, column and
    ///   reason of the first few.
    /// - `Cancelled` if `cancel` was used.
    pub fn read(&self, observer: &mut dyn ProgressSink, cancel: &Cancel) -> Result<Dataset> {
        for what in &self.description.renamed {
            observer.on_event(&ProgressEvent::Warning(what.clone()));
        }
        read::read(&self.description, &self.base, self.options()?, observer, cancel)
    }

    fn options(&self) -> Result<BuildOptions> {
        let (filter, limits) = (&self.description.filter, &self.description.limits);
        let bound = |key: &str, text: &Option<String>| {
            let Some(text) = text else { return Ok(None) };
            let invalid = |e| err!(InvalidConfig, "[filter] {key}: {e}; write for example \"2016-01-01\"");
            TimeFormat::Iso.read(text).map_err(invalid).map(|at| at.map(|at| at.millis))
        };
        Ok(BuildOptions {
            filter: EventFilter {
                from: bound("from", &filter.from)?,
                to: bound("to", &filter.to)?,
                duplicates: filter.duplicates,
                min_item_events: filter.min_item_events,
                min_entity_events: filter.min_entity_events,
                iterate: filter.iterate,
                keep_unused_items: filter.keep_unused_items,
            },
            limits: Limits {
                vocabulary: limits.vocabulary.unwrap_or(Limits::default().vocabulary),
                buckets: limits.buckets.unwrap_or(Limits::default().buckets),
            },
        })
    }
}
