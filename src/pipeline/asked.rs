//! What a training was asked for: kept beside its checkpoint, so that resuming needs the store alone.

use super::source::Files;
use super::workplace::training_folder;
use crate::error::{Error, Result, err};
use serde::{Deserialize, Serialize};
use std::path::Path;

const FILE: &str = "asked.json";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Asked {
    #[serde(flatten)]
    pub(super) files: Files,
    /// The configuration with every key.
    pub(super) config: String,
    pub(super) device: String,
    pub(super) protocol: String,
    #[serde(default)]
    pub(super) questions: Option<String>,
    #[serde(default)]
    pub(super) seen: Option<String>,
}

impl Asked {
    pub(super) fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("cannot read", &path, e)),
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
                let path = path.display();
                err!(Corrupt, "{path} does not say what was trained ({e}); delete it and train anew, without resuming")
            }),
        }
    }

    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let (path, draft) = (directory.join(FILE), directory.join("asked.json.tmp"));
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| err!(InvalidArgument, "cannot keep the options: {e}; use paths that are UTF-8"))?;
        std::fs::write(&draft, text).map_err(|e| Error::io("cannot write", &draft, e))?;
        std::fs::rename(&draft, &path).map_err(|e| Error::io("cannot rename to", &path, e))
    }

    pub(super) fn forget(directory: &Path) {
        // Without its checkpoint it means nothing, and the next training replaces it.
        let _ = std::fs::remove_file(directory.join(FILE));
    }
}

impl Files {
    /// The files that the unfinished training of a store began with; `None` where it has none, or one that was not
    /// trained from files.
    ///
    /// # Errors
    /// `Corrupt` where what it began with cannot be read.
    pub fn of_unfinished(store: impl AsRef<Path>) -> Result<Option<Self>> {
        Ok(Asked::read(&training_folder(store.as_ref()))?.map(|asked| asked.files))
    }
}
