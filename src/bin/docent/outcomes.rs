//! The labelled outcomes that a ranker learns from and is adapted to.

use crate::dataset;
use crate::progress::Progress;
use docent::Result;
use docent::data::Dataset;
use docent::observe::Cancel;
use docent::train::meta::Impressions;
use std::path::{Path, PathBuf};

/// Where outcomes come from.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Source {
    /// The description of a log of labelled outcomes, such as what was shown and whether it was clicked; its people and items are
    /// matched by id, its times say what was known before [default: the labelled events of the dataset].
    #[arg(long, value_name = "FILE")]
    pub(crate) outcomes: Option<PathBuf>,
}

/// Reads the outcomes of `source` beside `data`; `None` where there are none.
pub(crate) fn read(
    source: &Source,
    folder: Option<&Path>,
    data: &Dataset,
    progress: &mut Progress,
    cancel: &Cancel,
) -> Result<Option<Impressions>> {
    let found = match &source.outcomes {
        Some(file) => {
            let (log, _) = dataset::read(file, folder, progress, cancel)?;
            Some(Impressions::from_log(data, &log)?)
        }
        None if data.events.label.iter().any(|l| !l.is_nan()) => Some(Impressions::from_labels(data)?),
        None => None,
    };
    if let Some(found) = &found {
        progress.say(format_args!("outcomes: {} of {} entities", found.len(), found.entities()));
    }
    Ok(found)
}
