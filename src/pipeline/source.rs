//! Where the data of a run comes from: memory, or the files that descriptions name.

#[cfg(feature = "files")]
use crate::data::DatasetFile;
use crate::data::{Dataset, Protocol, Split};
use crate::error::Result;
use crate::options::{Seen, TokenizerOptions};
use crate::progress::{Cancel, ProgressEvent, ProgressSink};
use crate::train::ranker::Impressions;
use std::borrow::Cow;
#[cfg(feature = "files")]
use std::path::{Path, PathBuf};

/// The share of each entity's outcomes that a training leaves for the test, where its protocol keeps no labelled events back.
pub const HELD_OUT: f32 = 0.2;

/// What a training under `protocol` leaves.
pub(super) fn held_out(protocol: &Protocol) -> f32 {
    match protocol {
        Protocol::Everything | Protocol::Ctr { .. } => 0.0,
        _ => HELD_OUT,
    }
}

/// What a description says of how its dataset is split; `None` where it leaves that open.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Declared {
    /// The protocol.
    pub protocol: Option<Protocol>,
    /// Whether seen items may be in lists.
    pub seen: Option<Seen>,
}

/// The split with its rule for seen items: `asked`, or measured by what is trained on, which `tokenizer` may merge. Tells `progress`.
pub(super) fn with_seen(
    split: Split,
    data: &Dataset,
    tokenizer: &TokenizerOptions,
    asked: Option<Seen>,
    progress: &mut dyn ProgressSink,
) -> Result<Split> {
    let measured = split.merging(data, tokenizer)?;
    let split = Split { seen: asked.unwrap_or(measured.seen), ..measured };
    let (seen, share) = (split.seen, 100.0 * split.repeated);
    let why = if asked.is_some() { ", as was asked for" } else { "" };
    let note =
        format!("seen items are {seen}{why}: {share:.1} % of the training events repeat an item of their entity");
    progress.on_event(&ProgressEvent::Note(note));
    Ok(split)
}

/// The data of a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Source<'a> {
    /// A dataset in memory.
    Memory {
        /// The dataset.
        data: &'a Dataset,
        /// Its labelled outcomes, as they are: what they hold out is kept from training. `None`: its labelled events, where it
        /// has any.
        outcomes: Option<&'a Impressions>,
    },
    /// Files.
    #[cfg(feature = "files")]
    Files(Files),
}

impl<'a> From<&'a Dataset> for Source<'a> {
    fn from(data: &'a Dataset) -> Self {
        Self::Memory { data, outcomes: None }
    }
}

#[cfg(feature = "files")]
impl From<Files> for Source<'_> {
    fn from(files: Files) -> Self {
        Self::Files(files)
    }
}

/// The data of a run in files.
#[cfg(feature = "files")]
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Files {
    /// The description of the dataset.
    pub dataset: PathBuf,
    /// Where the relative paths of descriptions start from; `None` is each one's own folder.
    #[serde(rename = "data")]
    pub folder: Option<PathBuf>,
    /// The description of a log of labelled outcomes, such as what was shown and whether it was clicked; `None`: the labelled
    /// events of the dataset.
    #[serde(default)]
    pub outcomes: Option<PathBuf>,
}

#[cfg(feature = "files")]
impl Files {
    /// Reads the dataset, and gives what its description says of the split.
    ///
    /// # Errors
    /// Those of [`DatasetFile::open`] and [`DatasetFile::read`].
    pub fn read(&self, progress: &mut dyn ProgressSink, cancel: &Cancel) -> Result<(Dataset, Declared)> {
        read(&self.dataset, self.folder.as_deref(), progress, cancel)
    }

    /// The same with paths that hold in any folder.
    pub(super) fn absolute(&self) -> Result<Self> {
        let absolute = |path: &Path| std::path::absolute(path).map_err(|e| crate::Error::io("cannot find", path, e));
        Ok(Self {
            dataset: absolute(&self.dataset)?,
            folder: self.folder.as_deref().map(absolute).transpose()?,
            outcomes: self.outcomes.as_deref().map(absolute).transpose()?,
        })
    }
}

#[cfg(feature = "files")]
fn read(
    description: &Path,
    folder: Option<&Path>,
    progress: &mut dyn ProgressSink,
    cancel: &Cancel,
) -> Result<(Dataset, Declared)> {
    let file = DatasetFile::open(description, folder)?;
    let data = file.read(progress, cancel)?;
    progress.on_event(&ProgressEvent::Note(format!(
        "dataset {}: {} entities, {} items, {} events",
        data.schema.name,
        data.entities.len(),
        data.items.len(),
        data.events.len()
    )));
    Ok((data, Declared { protocol: file.protocol().cloned(), seen: file.seen() }))
}

impl<'a> Source<'a> {
    /// The dataset, and what its description says of the split.
    #[cfg_attr(not(feature = "files"), expect(unused_variables, reason = "what is in memory is not read"))]
    pub(super) fn dataset(
        &self,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<(Cow<'a, Dataset>, Declared)> {
        match self {
            Self::Memory { data, .. } => Ok((Cow::Borrowed(*data), Declared::default())),
            #[cfg(feature = "files")]
            Self::Files(files) => files.read(progress, cancel).map(|(data, declared)| (Cow::Owned(data), declared)),
        }
    }

    /// The labelled outcomes beside `data`, `None` where there are none. A share of those that are not given as they are is
    /// held out.
    #[cfg_attr(not(feature = "files"), expect(unused_variables, reason = "what is in memory is not read"))]
    pub(super) fn outcomes(
        &self,
        data: &Dataset,
        held_out: f32,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Option<Cow<'a, Impressions>>> {
        let found = match self {
            Self::Memory { outcomes: Some(outcomes), .. } => {
                return outcomes.check(data).map(|()| Some(Cow::Borrowed(*outcomes)));
            }
            #[cfg(feature = "files")]
            Self::Files(Files { outcomes: Some(log), folder, .. }) => {
                Impressions::from_log(data, &read(log, folder.as_deref(), progress, cancel)?.0)?
            }
            _ if data.events.label.iter().any(|l| !l.is_nan()) => Impressions::from_labels(data)?,
            _ => return Ok(None),
        };
        // Before hours of training, not after them.
        found.check(data)?;
        progress.on_event(&ProgressEvent::Note(format!("outcomes: {} of {} entities", found.len(), found.entities())));
        found.holding_out(held_out).map(|found| Some(Cow::Owned(found)))
    }
}
