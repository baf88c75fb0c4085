//! All options of a training together.

use crate::data::{Dataset, Split};
use crate::error::Result;
use crate::options::{ModelOptions, RankerOptions, RankerTrainOptions, TokenizerOptions, TrainOptions};
use crate::store::ManifestContent;

/// The shape of the model, of its tokens and of its ranker, and how they are trained.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrainConfig {
    /// The shape of the foundation model: the tables `[model]` and `[tower]`, and the heads of `[objectives]`.
    pub model: ModelOptions,
    /// How it is trained: the table `[train]`, and what `[objectives]` says of the item head.
    pub train: TrainOptions,
    /// How events become tokens: the table `[tokenizer]`.
    pub tokenizer: TokenizerOptions,
    /// The ranker: the table `[ranker]`.
    pub ranker: RankerConfig,
}

/// The ranker that is adapted to each entity.
#[derive(Debug, Clone, PartialEq)]
pub struct RankerConfig {
    /// Whether one is trained where there are labelled outcomes.
    pub enabled: bool,
    /// Its shape.
    pub model: RankerOptions,
    /// How it is trained; seed and threads are those of the foundation model's training.
    pub train: RankerTrainOptions,
}

impl Default for RankerConfig {
    fn default() -> Self {
        Self { enabled: true, model: RankerOptions::default(), train: RankerTrainOptions::default() }
    }
}

impl TrainConfig {
    /// What the rule of [`defaults`](crate::train::defaults()) chooses for the data, on one thread.
    ///
    /// # Errors
    /// As [`defaults`](crate::train::defaults()).
    pub fn for_data(data: &Dataset, split: &Split) -> Result<Self> {
        let rule = crate::train::defaults(data, split)?;
        Ok(Self { model: rule.model, train: rule.train, ..Self::default() })
    }

    /// The configuration that a published generation was trained with.
    pub fn of(manifest: &ManifestContent) -> Self {
        Self {
            model: manifest.model.clone(),
            train: manifest.training.options.clone(),
            tokenizer: manifest.tokenizer.as_ref().map(|t| t.options.clone()).unwrap_or_default(),
            ranker: match &manifest.ranker {
                Some(r) => RankerConfig { enabled: true, model: r.shape.clone(), train: r.options.clone() },
                None => RankerConfig { enabled: false, ..RankerConfig::default() },
            },
        }
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// `InvalidConfig` naming the key.
    pub fn check(&self) -> Result<()> {
        self.ranker.model.check()?;
        self.ranker.train.check()?;
        self.tokenizer.check()?;
        self.model.check()?;
        self.train.check()
    }
}
