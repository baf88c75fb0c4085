//! How the options of a training come about.

use crate::data::{Dataset, Split};
use crate::error::Result;
use crate::progress::{ProgressEvent, ProgressSink};
use crate::train::TrainConfig;
#[cfg(feature = "files")]
use crate::train::TrainFile;

/// The options of a training: a base, and what goes over it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The base; `None` is what the rule of [`defaults`](crate::train::defaults()) chooses for the data.
    pub config: Option<TrainConfig>,
    /// A `train.toml` that goes over the base.
    #[cfg(feature = "files")]
    pub file: Option<TrainFile>,
    /// Threads that are granted to what the rule chooses; a `config` or `file` that names another number takes that.
    pub granted: u32,
    /// Over all of these: the seed of every random choice.
    pub seed: Option<u64>,
    /// Threads.
    pub threads: Option<u32>,
    /// Most seconds of training; the best model so far is then published.
    pub max_seconds: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            config: None,
            #[cfg(feature = "files")]
            file: None,
            granted: 1,
            seed: None,
            threads: None,
            max_seconds: None,
        }
    }
}

impl Settings {
    /// Whether they leave every option to the rule.
    pub(super) fn is_rule(&self) -> bool {
        #[cfg(feature = "files")]
        if self.file.is_some() {
            return false;
        }
        self.config.is_none()
    }

    /// The options for the data.
    pub(super) fn resolve(
        &self,
        data: &Dataset,
        split: &Split,
        progress: &mut dyn ProgressSink,
    ) -> Result<TrainConfig> {
        let config = match &self.config {
            Some(config) => config.clone(),
            None => {
                let rule = crate::train::defaults(data, split)?;
                progress.on_event(&ProgressEvent::Note(format!("defaults: {rule}")));
                let mut config = TrainConfig { model: rule.model, train: rule.train, ..TrainConfig::default() };
                config.train.threads = self.granted.max(1);
                config
            }
        };
        #[cfg(feature = "files")]
        let config = match &self.file {
            Some(file) => {
                file.warnings().iter().for_each(|w| progress.on_event(&ProgressEvent::Warning(w.clone())));
                file.over(config)?
            }
            None => config,
        };
        Ok(self.over(config))
    }

    /// What goes over everything.
    pub(super) fn over(&self, mut config: TrainConfig) -> TrainConfig {
        let train = &mut config.train;
        train.seed = self.seed.unwrap_or(train.seed);
        train.threads = self.threads.unwrap_or(train.threads);
        train.max_seconds = self.max_seconds.unwrap_or(train.max_seconds);
        config
    }
}
