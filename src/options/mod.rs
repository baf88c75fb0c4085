//! How anything gets configured: the options of the model, of its training, and of the devices it runs on.
//!
//! Plain data with defaults. A manifest holds them as lines of text (`text`); the files that people write (`train.toml`) are read
//! elsewhere and end up here.

mod ranker;
pub(crate) mod text;
pub use ranker::{ItemKind, ListOrder, Publish, RankerGoal, RankerOptions, RankerTrainOptions};

use crate::error::{Error, Result, err};

/// Whether lists may hold items that the entity has had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Seen {
    /// They are left out: people look for something new.
    #[default]
    Excluded,
    /// They compete like all others: people come back to items.
    Allowed,
}

impl Seen {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Excluded, Self::Allowed];

    /// Its word in files and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Excluded => "excluded",
            Self::Allowed => "allowed",
        }
    }
}

impl std::str::FromStr for Seen {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|seen| seen.as_str() == s);
        found.ok_or_else(|| err!(InvalidConfig, "seen items cannot be {s:?}; write \"excluded\" or \"allowed\""))
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a generation answers where a request does not say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServeOptions {
    /// Whether lists may hold items that the entity has had before.
    pub seen: Seen,
}

/// Where tensors live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The host's processor.
    #[default]
    Cpu,
    /// The CUDA device with this ordinal. Needs the feature `cuda` and a GPU.
    Cuda(usize),
}

impl std::str::FromStr for Device {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => match s.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
                Some(n) => Ok(Self::Cuda(n)),
                None => Err(err!(InvalidArgument, "device {s:?} is not known; write cpu, cuda or cuda:N")),
            },
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

/// How a token knows its place in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// One learned vector per place in the window.
    Learned,
    /// Rotary embedding of queries and keys (Su et al. 2021).
    Rotary,
}

/// The form of the transformer blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// Gated residuals around softmax attention and SwiGLU (LiGR, Borisyuk et al. 2024; eSASRec).
    Gated,
    /// Pointwise SiLU attention gated by the token itself, no feed-forward part (HSTU, Zhai et al. 2024).
    Hstu,
}

/// The shape of the foundation model; see `docs/model.md`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelOptions {
    /// Model width d.
    pub width: u32,
    /// The form of the blocks.
    pub block: Block,
    /// Transformer blocks.
    pub blocks: u32,
    /// Attention heads; divides `width`.
    pub heads: u32,
    /// Hidden width of the SwiGLU feed-forward part of gated blocks.
    pub hidden: u32,
    /// Most tokens L that the model reads of a history, the newest ones, the opening token included.
    pub max_length: u32,
    /// How places in the history are embedded.
    pub positions: Positions,
    /// Whether attention has a learned bias per bucket of the distance in tokens.
    pub distance_bias: bool,
    /// Whether attention has a learned bias per bucket of the time gap; needs events with time.
    pub time_bias: bool,
    /// Whether the time of the request (hour, weekday, gap since the last event) is an input.
    pub time_input: bool,
    /// Width of each field's embedding.
    pub field_width: u32,
    /// Whether item and user vectors have length 1 before they are multiplied: scores are cosines over the temperature.
    pub normalized: bool,
    /// Scores are divided by this before any softmax.
    pub temperature: f32,
    /// What is made of item metadata; `None` knows items by their ID alone. Ignored where no metadata is declared.
    pub tower: Option<TowerOptions>,
    /// Heads that predict fields of the next event beside its item.
    pub auxiliary: Vec<Auxiliary>,
    /// Weight in the loss of the feedback head, p(label = 1 | history, item) of labelled events; 0 makes no such head.
    pub feedback: f32,
}

/// How an item's ID embedding and its metadata are weighed against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// By a fixed function of the item's age and of how much was seen of it.
    Fixed,
    /// By one that training moves. The training loss trusts metadata longer than new questions do: it costs precision on sparse data.
    Learned,
}

/// The item tower: an item's vector is a mix of its ID embedding and of what is known about it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TowerOptions {
    /// Buckets that the words of titles are hashed into; 0 does not read titles.
    pub title_buckets: u32,
    /// What weighs the two.
    pub gate: Gate,
    /// Share of items that a training step scores a second time as if they were unknown, their ID embedding replaced by the learned vector of
    /// unknown items. Only the tower learns from that, and the step takes longer. `None` is 0.3. Young items are masked more often.
    pub masking: Option<f32>,
    /// Shares of items under 7 and under 28 days of age that are masked, where they exceed `masking`; where there is no time,
    /// nothing is young.
    pub masking_young: [f32; 2],
}

impl Default for TowerOptions {
    fn default() -> Self {
        Self { title_buckets: 4096, gate: Gate::Fixed, masking: None, masking_young: [0.7, 0.5] }
    }
}

/// A head that predicts a field of the next event or of its item.
#[derive(Debug, Clone, PartialEq)]
pub struct Auxiliary {
    /// A declared field of items (categorical, multi-valued or numeric) or of events, or `action`.
    pub field: String,
    /// Weight in the loss.
    pub weight: f32,
    /// Whether the head's probabilities, pooled over its classes, are added to the user vector before the items are scored
    /// (hierarchical prediction, Netflix 2025).
    pub hierarchical: bool,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            width: 64,
            block: Block::Gated,
            blocks: 2,
            heads: 2,
            hidden: 256,
            max_length: 200,
            positions: Positions::Learned,
            distance_bias: true,
            time_bias: true,
            time_input: true,
            field_width: 16,
            normalized: true,
            temperature: 0.05,
            tower: None,
            auxiliary: Vec::new(),
            feedback: 0.0,
        }
    }
}

impl ModelOptions {
    /// Checks ranges and divisibility.
    ///
    /// # Errors
    /// `InvalidConfig` naming the option.
    pub fn check(&self) -> Result<()> {
        let range = |name: &str, v: u32, lo: u32, hi: u32| match (lo..=hi).contains(&v) {
            true => Ok(()),
            false => Err(err!(InvalidConfig, "model.{name} is {v}; choose {lo} to {hi}")),
        };
        range("width", self.width, 2, 4096)?;
        range("blocks", self.blocks, 1, 64)?;
        range("heads", self.heads, 1, self.width)?;
        range("hidden", self.hidden, 1, 65_536)?;
        range("max_length", self.max_length, 2, 65_536)?;
        range("field_width", self.field_width, 1, 1024)?;
        let (width, hidden, length) = (u64::from(self.width), u64::from(self.hidden), u64::from(self.max_length));
        let weights = u64::from(self.blocks) * (6 * width * width + 3 * width * hidden) + length * width;
        if weights > MOST_WEIGHTS {
            return Err(err!(
                InvalidConfig,
                "model.width {width}, model.hidden {hidden} and model.blocks {} make {weights} weights; choose smaller ones, for at most \
                 {MOST_WEIGHTS}",
                self.blocks
            ));
        }
        if !(self.temperature >= 0.001 && self.temperature <= 1000.0) {
            return Err(err!(InvalidConfig, "model.temperature is {}; choose 0.001 to 1000", self.temperature));
        }
        if !self.width.is_multiple_of(self.heads) {
            return Err(err!(
                InvalidConfig,
                "model.width {} is not a multiple of model.heads {}; change one",
                self.width,
                self.heads
            ));
        }
        let share = |name: &str, v: f32, most: f32| match (0.0..=most).contains(&v) {
            true => Ok(()),
            false => Err(err!(InvalidConfig, "{name} is {v}; choose 0 to {most}")),
        };
        if let Some(tower) = &self.tower {
            range("tower.title_buckets", tower.title_buckets, 0, 1 << 24)?;
            share("tower.masking", tower.masking.unwrap_or(0.0), 0.95)?;
            tower.masking_young.iter().try_for_each(|v| share("tower.masking_young", *v, 0.95))?;
        }
        for (i, head) in self.auxiliary.iter().enumerate() {
            share(&format!("the weight of head {:?}", head.field), head.weight, 1000.0)?;
            if self.auxiliary.iter().take(i).any(|other| other.field == head.field) {
                return Err(err!(InvalidConfig, "field {:?} has two heads; remove one", head.field));
            }
        }
        share("objectives.feedback", self.feedback, 1000.0)?;
        if self.positions == Positions::Rotary && !(self.width / self.heads).is_multiple_of(2) {
            return Err(err!(
                InvalidConfig,
                "rotary positions need an even head width; change model.width or model.heads"
            ));
        }
        Ok(())
    }
}

/// How runs of actions on one item become tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizerOptions {
    /// Adjacent events on one item belong to one run where the gap between them is at most this many seconds; 0: every
    /// event is a token of its own.
    pub max_gap: u32,
    /// The categorical request-time field whose value must stay the same within a run; empty: none.
    pub surface: String,
    /// Actions that the model must always see: each is a feature of its own, whatever it was merged with.
    pub terminal: Vec<String>,
    /// Most learned merges: composite action symbols beside the plain actions.
    pub merges: u32,
    /// The token budget of a run: the last token that it allows takes all that is left of the run. 1 is most compression;
    /// 0 is no limit: only learned merges join events.
    pub budget: u32,
    /// In training, the chance that two events of a run are kept apart after all, so that the model also sees people come back to
    /// an item (BPE-dropout, Provilkov et al. 2020). Serving and evaluation merge whatever they can.
    pub dropout: f32,
}

/// The gap that `docent tokenize` and `--questions token-starts` take where none is given, in seconds.
pub const DEFAULT_GAP: u32 = 1800;

impl Default for TokenizerOptions {
    fn default() -> Self {
        Self { max_gap: 0, surface: String::new(), terminal: Vec::new(), merges: 32, budget: 1, dropout: 0.0 }
    }
}

impl TokenizerOptions {
    /// Whether events are merged at all.
    pub fn is_on(&self) -> bool {
        self.max_gap > 0
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// `InvalidConfig` naming the option.
    pub fn check(&self) -> Result<()> {
        if self.merges > 4096 {
            return Err(err!(InvalidConfig, "tokenizer.merges is {}; choose 0 to 4096", self.merges));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(err!(InvalidConfig, "tokenizer.dropout is {}; choose 0 to below 1", self.dropout));
        }
        Ok(())
    }
}

/// Where the negatives of a sampled loss come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NegativeSource {
    /// Every item alike.
    Uniform,
    /// In proportion to how often an item is in the training events.
    Popularity,
    /// Half of them from every item alike, half in proportion to the training events.
    Mixed,
    /// The targets of the same batch.
    InBatch,
}

/// Negatives that the rows of a batch share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negatives {
    /// How many a step draws.
    pub count: u32,
    /// From where.
    pub source: NegativeSource,
    /// Whether the scores of negatives are corrected by the logarithm of how often each is drawn (logQ, Bengio & Senecal 2008), so that the
    /// loss is that of the full softmax in the mean.
    pub log_q: bool,
}

impl Negatives {
    /// This many, every item alike, corrected.
    pub fn uniform(count: u32) -> Self {
        Self { count, source: NegativeSource::Uniform, log_q: true }
    }

    /// This many, half of them from every item alike, half in proportion to the training events, corrected.
    pub fn mixed(count: u32) -> Self {
        Self { source: NegativeSource::Mixed, ..Self::uniform(count) }
    }
}

/// The loss over the catalogue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// Softmax over the whole catalogue.
    Full,
    /// Softmax over the target and shared negatives.
    Sampled(Negatives),
    /// Generalised binary cross-entropy over the target and shared negatives.
    Gbce(Gbce),
}

/// Generalised binary cross-entropy (gSASRec, Petrov & Macdonald 2023).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gbce {
    /// The negatives.
    pub negatives: Negatives,
    /// The calibration t in [0, 1]: 0 is plain binary cross-entropy, 1 makes scores unbiased.
    pub calibration: f32,
}

/// What an event is worth as a target of training (utility weighting).
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Utility {
    /// All events alike.
    #[default]
    Equal,
    /// The event's value, from 0 up to the 99th percentile of the training events; missing ones count as the mean.
    Value,
    /// A numeric outcome field, likewise.
    Field(String),
    /// By action: a weight each; actions that are not named weigh 1.
    Actions(Vec<(String, f32)>),
}

/// What the item head is trained to predict.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// The weight of each target event; divided by its mean over the training events.
    pub utility: Utility,
    /// Targets of each position: the next event and those after it, up to this many (multi-token set loss). 1 is next-item
    /// prediction.
    pub window: u32,
    /// A target so many seconds after the next event weighs half (without time: so many events); 0 keeps the next event
    /// alone.
    pub half_life: f32,
}

impl Default for Objective {
    fn default() -> Self {
        Self { utility: Utility::Equal, window: 1, half_life: 86_400.0 }
    }
}

impl Objective {
    /// Checks ranges.
    ///
    /// # Errors
    /// `InvalidConfig` naming the option.
    pub fn check(&self) -> Result<()> {
        if !(1..=256).contains(&self.window) {
            return Err(err!(InvalidConfig, "objectives.window is {}; choose 1 to 256", self.window));
        }
        if !(self.half_life >= 0.0 && self.half_life.is_finite()) {
            let given = self.half_life;
            return Err(err!(InvalidConfig, "objectives.half_life is {given}; choose 0 or more seconds"));
        }
        if let Utility::Actions(weights) = &self.utility
            && let Some((action, weight)) = weights.iter().find(|(_, w)| !(0.0..=1e6).contains(w))
        {
            return Err(err!(InvalidConfig, "the utility of action {action:?} is {weight}; choose 0 to 1000000"));
        }
        Ok(())
    }
}

/// How the model is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOptions {
    /// Seed of every random choice.
    pub seed: u64,
    /// Threads to use; they do not change the result.
    pub threads: u32,
    /// The loss; `None` chooses by catalogue size.
    pub loss: Option<Loss>,
    /// What the item head predicts.
    pub objective: Objective,
    /// Most epochs.
    pub epochs: u32,
    /// Entities per step.
    pub batch: u32,
    /// Peak learning rate.
    pub learning_rate: f32,
    /// Steps of linear warm-up.
    pub warmup: u32,
    /// The share of its peak that the learning rate falls to; 1 keeps it constant.
    pub final_rate: f32,
    /// Above 0, the learning rate stays at its peak until validation has not improved for `patience` validations, or until `epochs` are
    /// near. Then it falls, in a straight line, over this share of the epochs so far, and training ends. 0: it falls along a cosine over
    /// all planned epochs, wherever learning ends.
    pub cooldown: f32,
    /// Decoupled weight decay of matrices (not of biases, norms and tables).
    pub weight_decay: f32,
    /// Longest gradient norm; longer ones are scaled down to it. 0 switches clipping off.
    pub clip: f32,
    /// Dropout of embeddings and of what each part of a block adds.
    pub dropout: f32,
    /// Validations without a better NDCG@10 before the learning rate falls or, without a cooldown, training stops.
    pub patience: u32,
    /// Epochs between validations.
    pub validate_every: u32,
    /// Decay per step of the exponential moving average of all weights that is validated and published; 0 publishes the
    /// weights themselves. Early in training the average spans a tenth of the steps so far.
    pub ema: f32,
    /// Share of longer histories trained on a window drawn over the whole history instead of the latest one.
    pub window_share: f32,
    /// Steps between checkpoints; one is also written at every validation. 0: only at validations.
    pub checkpoint_every: u32,
    /// Stop after this many seconds; 0 is no limit.
    pub max_seconds: u64,
}

/// Most threads, entities or outcomes of a step, and negatives of a step: each has its share of memory.
pub(crate) const MOST_THREADS: u32 = 1024;
pub(crate) const MOST_BATCH: u32 = 1 << 16;
pub(crate) const MOST_NEGATIVES: u32 = 1 << 20;
/// Most weights beside those of items and features.
const MOST_WEIGHTS: u64 = 1 << 30;

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            threads: 1,
            loss: None,
            objective: Objective::default(),
            epochs: 120,
            batch: 32,
            learning_rate: 1e-3,
            warmup: 100,
            final_rate: 0.1,
            cooldown: 0.2,
            weight_decay: 0.0,
            clip: 1.0,
            dropout: 0.2,
            patience: 11,
            validate_every: 1,
            ema: 0.999,
            window_share: 0.5,
            checkpoint_every: 200,
            max_seconds: 0,
        }
    }
}

impl TrainOptions {
    /// Checks ranges.
    ///
    /// # Errors
    /// `InvalidConfig` naming the option.
    pub fn check(&self) -> Result<()> {
        let whole = |name: &str, v: u32, most: u32| match (1..=most).contains(&v) {
            true => Ok(()),
            false => Err(err!(InvalidConfig, "train.{name} is {v}; choose 1 to {most}")),
        };
        whole("threads", self.threads, MOST_THREADS)?;
        whole("epochs", self.epochs, u32::MAX)?;
        whole("batch", self.batch, MOST_BATCH)?;
        whole("patience", self.patience, u32::MAX)?;
        whole("validate_every", self.validate_every, u32::MAX)?;
        let range = |name: &str, v: f32, lo: f32, hi: f32| match v >= lo && v <= hi {
            true => Ok(()),
            false => Err(err!(InvalidConfig, "train.{name} is {v}; choose {lo} to {hi}")),
        };
        range("learning_rate", self.learning_rate, 0.0, 10.0)?;
        range("final_rate", self.final_rate, 0.0, 1.0)?;
        range("cooldown", self.cooldown, 0.0, 10.0)?;
        range("weight_decay", self.weight_decay, 0.0, 100.0)?;
        range("clip", self.clip, 0.0, f32::MAX)?;
        range("dropout", self.dropout, 0.0, 0.95)?;
        range("window_share", self.window_share, 0.0, 1.0)?;
        range("ema", self.ema, 0.0, 0.999_999)?;
        self.objective.check()?;
        let negatives = match self.loss {
            Some(Loss::Sampled(n)) => n,
            Some(Loss::Gbce(Gbce { negatives, calibration })) => {
                range("calibration", calibration, 0.0, 1.0)?;
                negatives
            }
            _ => return Ok(()),
        };
        whole("negatives", negatives.count, MOST_NEGATIVES)
    }
}
