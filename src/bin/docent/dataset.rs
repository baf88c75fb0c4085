//! The dataset that a command works on.

use crate::progress::Progress;
use docent::Result;
use docent::data::{Dataset, DatasetFile, Protocol};
use docent::progress::Cancel;
use std::path::Path;

/// Reads the dataset that `description` describes. Gives the protocol of its `[split]`, too.
pub(crate) fn read(
    description: &Path,
    data: Option<&Path>,
    progress: &mut Progress,
    cancel: &Cancel,
) -> Result<(Dataset, Option<Protocol>)> {
    let file = DatasetFile::open(description, data)?;
    let data = file.read(progress, cancel)?;
    progress.end();
    progress.say(format_args!(
        "dataset {}: {} entities, {} items, {} events",
        data.schema.name,
        data.entities.len(),
        data.items.len(),
        data.events.len()
    ));
    Ok((data, file.protocol().cloned()))
}
