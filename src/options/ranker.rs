//! The options of the ranker that is adapted to each entity, and of its training.

use super::{MOST_BATCH, MOST_THREADS};
use crate::error::{Result, err};

/// Which outcomes share an embedding besides those of one person: the entities of the ranker's second meta block.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ItemKind {
    /// None: the ranker adapts to persons alone.
    #[default]
    Off,
    /// Those of an item.
    Item,
    /// Those of the items with a value of this categorical or multi-valued field, such as a creator; an item with several values has
    /// the mean of their embeddings.
    Field(String),
}

impl ItemKind {
    /// Whether there is a second meta block.
    pub fn is_on(&self) -> bool {
        *self != Self::Off
    }

    /// Reads what [`Display`](std::fmt::Display) writes: `off`, `item`, or `field:NAME`.
    ///
    /// # Errors
    /// `InvalidConfig` for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        match (text, text.strip_prefix("field:")) {
            ("off", _) => Ok(Self::Off),
            ("item", _) => Ok(Self::Item),
            (_, Some(name)) if !name.is_empty() => Ok(Self::Field(name.to_owned())),
            _ => Err(err!(InvalidConfig, "ranker.items is {text:?}; choose \"off\", \"item\" or \"field:NAME\"")),
        }
    }
}

impl std::fmt::Display for ItemKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Item => f.write_str("item"),
            Self::Field(name) => write!(f, "field:{name}"),
        }
    }
}

/// When a ranker that was trained is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Publish {
    /// Where it has earned its place: on validation it beats the prior, beyond doubt (docs/ranker.md).
    #[default]
    Earned,
    /// Always; what it has not earned is a warning.
    Always,
}

/// What ranked lists are for.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum RankerGoal {
    /// That the next item stands high in them: the weight of the outcome is chosen by the NDCG@10 of validation questions.
    #[default]
    Next,
    /// That what they hold turns out well: they are in the order of the outcome's probability alone, that of this head, `None`
    /// is the first.
    Outcome(Option<String>),
    /// What the weight of the outcome of the first head says.
    Weight(f32),
}

impl RankerGoal {
    /// Reads what [`Display`](std::fmt::Display) writes: `next`, `outcome`, `outcome:HEAD`, or a number.
    ///
    /// # Errors
    /// `InvalidConfig` for anything else, and for a weight that is not 0 to 1000.
    pub fn parse(text: &str) -> Result<Self> {
        match (text, text.strip_prefix("outcome:"), text.parse::<f32>()) {
            ("next", ..) => Ok(Self::Next),
            ("outcome", ..) => Ok(Self::Outcome(None)),
            (_, Some(head), _) if !head.is_empty() => Ok(Self::Outcome(Some(head.to_owned()))),
            (.., Ok(weight)) if (0.0..=Self::HEAVIEST).contains(&weight) => Ok(Self::Weight(weight)),
            _ => Err(err!(
                InvalidConfig,
                "ranker.goal is {text:?}; choose \"next\", \"outcome\", \"outcome:HEAD\" or a weight of 0 to {}",
                Self::HEAVIEST
            )),
        }
    }

    /// The place among `heads` of the one whose outcome counts.
    ///
    /// # Errors
    /// `InvalidConfig` where there is none of that name.
    pub(crate) fn head(&self, heads: &[String]) -> Result<usize> {
        let Self::Outcome(Some(name)) = self else { return Ok(0) };
        heads.iter().position(|head| head == name).ok_or_else(|| {
            err!(
                InvalidConfig,
                "ranker.goal is \"outcome:{name}\", and the outcomes' labels are {heads:?}; name one of them"
            )
        })
    }

    /// The largest weight of an outcome.
    pub(crate) const HEAVIEST: f32 = 1000.0;
}

impl std::fmt::Display for RankerGoal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Next => f.write_str("next"),
            Self::Outcome(None) => f.write_str("outcome"),
            Self::Outcome(Some(head)) => write!(f, "outcome:{head}"),
            Self::Weight(weight) => write!(f, "{weight:?}"),
        }
    }
}

/// The order of ranked lists.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ListOrder {
    /// The head whose outcome counts.
    pub head: u32,
    /// The weight `w` in `score + w log p(outcome)`; 0 leaves lists as they were retrieved. `None`: by the probability of the
    /// outcome alone.
    pub weight: Option<f32>,
}

/// The shape of the ranker that is adapted to each entity: the meta block and the global block.
#[derive(Debug, Clone, PartialEq)]
pub struct RankerOptions {
    /// Width of the meta embedding.
    pub embedding: u32,
    /// Hidden widths of the meta block, from its input to the embedding; empty makes it one linear layer.
    pub hidden: Vec<u32>,
    /// Hidden width of the global block's trunk over the candidate, the user state and the context.
    pub trunk: u32,
    /// Width of the gated layer in which the meta embedding meets the trunk.
    pub gate: u32,
    /// Width of the item vectors that the global block learns besides those of the foundation model.
    pub item_width: u32,
    /// Inner steps K of an adaptation.
    pub steps: u32,
    /// Most outcomes that an adaptation reads, the latest ones.
    pub support: u32,
    /// The inner loss is the sum over the outcomes divided by their number plus this: few outcomes move little.
    pub prior_count: f32,
    /// The inner rates of a step are those of the step before times this, 0 to 1: the first step does most, and many steps
    /// settle.
    pub rate_decay: f32,
    /// An adapted embedding lies at most this many times the length of the un-adapted one away from it; 0 sets no bound.
    pub bound: f32,
    /// Whether every entity that was trained on also has a learned vector of its own, added to its embedding.
    pub identity: bool,
    /// Whether the embedding has a part that is adapted to each person.
    pub person: bool,
    /// Whether it has another part, added to that, which is adapted to each item or creator.
    pub items: ItemKind,
    /// The categorical request-time field of the outcomes that says where an item was shown (device, page, row of the home
    /// screen): a part is added which is adapted to each person on each of its values. Empty: none.
    pub surface: String,
}

impl Default for RankerOptions {
    fn default() -> Self {
        Self {
            embedding: 32,
            hidden: vec![48],
            trunk: 64,
            gate: 32,
            item_width: 32,
            steps: 5,
            support: 128,
            prior_count: 16.0,
            rate_decay: 0.4,
            bound: 0.0,
            identity: false,
            person: true,
            items: ItemKind::Off,
            surface: String::new(),
        }
    }
}

impl RankerOptions {
    /// Whether the embedding has a part that is adapted to each person on each surface.
    pub fn has_surface(&self) -> bool {
        !self.surface.is_empty()
    }

    /// Whether some part is not the person's, so that the rows of one kind of entity are shifted by the embeddings of others.
    pub fn has_several(&self) -> bool {
        self.items.is_on() || self.has_surface()
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// `InvalidConfig` naming the option.
    pub fn check(&self) -> Result<()> {
        let range = |name: &str, v: u32, lo: u32, hi: u32| match (lo..=hi).contains(&v) {
            true => Ok(()),
            false => Err(err!(InvalidConfig, "ranker.{name} is {v}; choose {lo} to {hi}")),
        };
        range("embedding", self.embedding, 1, 1024)?;
        self.hidden.iter().try_for_each(|h| range("hidden", *h, 1, 4096))?;
        range("layers", self.hidden.len() as u32, 0, 8)?;
        range("trunk", self.trunk, 1, 4096)?;
        range("gate", self.gate, 1, 1024)?;
        range("item_width", self.item_width, 1, 1024)?;
        range("steps", self.steps, 0, 64)?;
        range("support", self.support, 1, 65_536)?;
        let number = |name: &str, v: f32, hi: f32| match v >= 0.0 && v <= hi {
            true => Ok(()),
            false => Err(err!(InvalidConfig, "ranker.{name} is {v}; choose 0 to {hi}")),
        };
        number("prior_count", self.prior_count, 1e6)?;
        number("bound", self.bound, 1e6)?;
        number("rate_decay", self.rate_decay, 1.0)?;
        match self.person || self.has_several() {
            true => Ok(()),
            false => Err(err!(
                InvalidConfig,
                "the ranker has no entity to adapt to; set ranker.person = true, ranker.items = \"item\" or ranker.surface = \
                 \"FIELD\""
            )),
        }
    }
}

/// How the ranker is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct RankerTrainOptions {
    /// Seed of every random choice.
    pub seed: u64,
    /// Threads to use; they do not change the result.
    pub threads: u32,
    /// Most epochs.
    pub epochs: u32,
    /// Tasks (an entity at a time) per step.
    pub batch: u32,
    /// Peak learning rate of the outer Adam; falls along a cosine to a tenth.
    pub learning_rate: f32,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f32,
    /// The same of the learned vectors of items and entities.
    pub vector_decay: f32,
    /// Where the inner rates of all layers start; they are learned.
    pub inner_rate: f32,
    /// Whether the meta-gradient is exact (second order) or holds the inner gradients (first order).
    pub exact: bool,
    /// Share of the outer loss on predictions before any inner step, so that those stay good.
    pub unadapted: f32,
    /// Share of the rest on predictions after the first of several inner steps, so that one step already helps.
    pub first: f32,
    /// Share of the tasks whose outcomes are withheld, as if nothing but the history were known.
    pub cold: f32,
    /// Share of the items whose outcomes are withheld in a step, half of them their events too: the ranker learns to rank new
    /// items by their metadata.
    pub cold_items: f32,
    /// Share of the entities whose latest training task validates instead.
    pub validation: f32,
    /// Validations without a better loss before training stops.
    pub patience: u32,
    /// The learning rate with which the foundation model goes on learning beside the ranker, as a share of the ranker's; 0 leaves it
    /// as it is.
    pub finetune: f32,
    /// When it is published.
    pub publish: Publish,
    /// What lists are for.
    pub goal: RankerGoal,
}

impl Default for RankerTrainOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            threads: 1,
            epochs: 4,
            batch: 256,
            learning_rate: 2e-3,
            weight_decay: 0.01,
            vector_decay: 0.1,
            inner_rate: 2.0,
            exact: true,
            unadapted: 0.2,
            first: 0.5,
            cold: 0.1,
            cold_items: 0.1,
            validation: 0.1,
            patience: 2,
            finetune: 0.0,
            publish: Publish::Earned,
            goal: RankerGoal::Next,
        }
    }
}

impl RankerTrainOptions {
    /// Checks ranges.
    ///
    /// # Errors
    /// `InvalidConfig` naming the option.
    pub fn check(&self) -> Result<()> {
        let whole = [
            ("threads", self.threads, MOST_THREADS),
            ("epochs", self.epochs, u32::MAX),
            ("batch", self.batch, MOST_BATCH),
            ("patience", self.patience, u32::MAX),
        ];
        if let Some((name, v, most)) = whole.iter().find(|(_, v, most)| !(1..=*most).contains(v)) {
            return Err(err!(InvalidConfig, "ranker.{name} is {v}; choose 1 to {most}"));
        }
        let range = |name: &str, v: f32, lo: f32, hi: f32| match v >= lo && v <= hi {
            true => Ok(()),
            false => Err(err!(InvalidConfig, "ranker.{name} is {v}; choose {lo} to {hi}")),
        };
        range("learning_rate", self.learning_rate, 0.0, 10.0)?;
        range("weight_decay", self.weight_decay, 0.0, 100.0)?;
        range("vector_decay", self.vector_decay, 0.0, 100.0)?;
        range("inner_rate", self.inner_rate, 1e-6, 1e3)?;
        range("unadapted", self.unadapted, 0.0, 1.0)?;
        range("first", self.first, 0.0, 1.0)?;
        range("cold", self.cold, 0.0, 1.0)?;
        range("cold_items", self.cold_items, 0.0, 1.0)?;
        range("finetune", self.finetune, 0.0, 10.0)?;
        range("validation", self.validation, 0.0, 0.9)?;
        RankerGoal::parse(&self.goal.to_string()).map(drop)
    }
}
