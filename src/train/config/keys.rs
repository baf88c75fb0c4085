//! The keys of a `train.toml`, each defined once: its name, its type, and the option that it is.

use super::options::TrainConfig;
use crate::error::{Result, err};
use crate::options::{
    Auxiliary, Block, Gate, Gbce, ItemKind, Loss, NegativeSource, Negatives, Positions, Publish, RankerGoal,
    TowerOptions, Utility,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Negatives of `loss = "sampled"` unless `negatives` says otherwise.
pub(super) const NEGATIVES: u32 = 256;
/// The temperature of normalized vectors unless `temperature` says otherwise (HSTU's).
const TEMPERATURE: f32 = 0.05;
/// The calibration of `loss = "gbce"` unless `calibration` says otherwise (gSASRec's).
pub(super) const CALIBRATION: f32 = 0.75;

/// Table, old name and new name of the keys that are still read under an old one.
pub(super) const RENAMED: [(&str, &str, &str); 4] = [
    ("model", "context", "max_length"),
    ("ranker", "tower", "trunk"),
    ("ranker", "shrink", "prior_count"),
    ("ranker", "fade", "rate_decay"),
];

/// Keys of `asked.json` that were added after it was first written: table, key, and what stood for it before. A table that is not there
/// was not used.
pub(super) const ADDED: [(&str, &str, &str); 4] = [
    ("tower", "gate", "learned"),
    ("ranker", "publish", "always"),
    ("ranker", "goal", "outcome"),
    ("train", "cooldown", "0"),
];

/// A file: any key may be missing.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    model: ModelTable,
    train: TrainTable,
    tower: TowerTable,
    objectives: ObjectivesTable,
    tokenizer: TokenizerTable,
    ranker: RankerTable,
}

impl File {
    /// Every key of a configuration.
    pub(super) fn of(config: &TrainConfig) -> Self {
        Self {
            model: ModelTable::of(config),
            train: TrainTable::of(config).with_loss(config.train.loss),
            tower: TowerTable::of(config.model.tower),
            objectives: ObjectivesTable::of(config).with_lists(config),
            tokenizer: TokenizerTable::of(config),
            ranker: RankerTable::of(config),
        }
    }

    /// The keys that are given, over `config`.
    pub(super) fn put(&self, config: &mut TrainConfig) -> Result<()> {
        if let Some(normalized) = self.model.normalized.filter(|n| *n != config.model.normalized) {
            config.model.temperature = if normalized { TEMPERATURE } else { 1.0 };
        }
        self.model.put(config);
        self.train.put(config);
        self.train.put_loss(&mut config.train.loss)?;
        self.tower.put(&mut config.model.tower);
        self.objectives.put(config);
        self.objectives.put_lists(config)?;
        self.tokenizer.put(config);
        self.ranker.put(config);
        Ok(())
    }
}

/// A table: its keys, and the option that each is; keys that are no option by themselves are put by hand.
macro_rules! table {
    ($name:ident { $($(#[$attribute:meta])* $key:ident: $kind:ty $(= $($option:ident).+)?,)* }) => {
        #[derive(Debug, Clone, Default, Deserialize, Serialize)]
        #[serde(deny_unknown_fields, default)]
        struct $name { $($(#[$attribute])* $key: Option<$kind>,)* }

        impl $name {
            #[allow(clippy::needless_update, reason = "some tables have keys that are put by hand")]
            fn of(config: &TrainConfig) -> Self {
                Self { $($($key: Some(config.$($option).+.clone()),)?)* ..Self::default() }
            }

            fn put(&self, config: &mut TrainConfig) {
                $($(if let Some(value) = &self.$key { config.$($option).+.clone_from(value); })?)*
            }
        }
    };
}

/// How an enum is written, as the functions that `#[serde(with)]` wants.
macro_rules! words {
    ($name:ident: $kind:ident { $($variant:ident = $word:literal),+ }) => {
        mod $name {
            use crate::options::$kind;
            use serde::{Deserialize, Deserializer, Serializer, de::Error};

            pub(super) fn serialize<S: Serializer>(value: &Option<$kind>, to: S) -> Result<S::Ok, S::Error> {
                match value {
                    None => to.serialize_none(),
                    $(Some($kind::$variant) => to.serialize_str($word),)+
                }
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<$kind>, D::Error> {
                match String::deserialize(from)?.as_str() {
                    $($word => Ok(Some($kind::$variant)),)+
                    other => Err(D::Error::unknown_variant(other, &[$($word),+])),
                }
            }
        }
    };
}

words!(block: Block { Gated = "gated", Hstu = "hstu" });
words!(gate: Gate { Fixed = "fixed", Learned = "learned" });
words!(positions: Positions { Learned = "learned", Rotary = "rotary" });
words!(source: NegativeSource { Uniform = "uniform", Popularity = "popularity", Mixed = "mixed", InBatch = "in-batch" });

words!(publish: Publish { Earned = "earned", Always = "always" });

/// [`RankerGoal`] as text, or as a number.
mod goal {
    use super::RankerGoal;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Key {
        Weight(f64),
        Word(String),
    }

    pub(super) fn serialize<S: Serializer>(value: &Option<RankerGoal>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(RankerGoal::Weight(weight)) => to.serialize_f32(*weight),
            Some(goal) => to.collect_str(goal),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<RankerGoal>, D::Error> {
        let text = match Key::deserialize(from)? {
            Key::Weight(weight) => (weight as f32).to_string(),
            Key::Word(word) => word,
        };
        RankerGoal::parse(&text).map(Some).map_err(|e| D::Error::custom(e.message()))
    }
}

/// [`ItemKind`] as text.
mod items {
    use super::ItemKind;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &Option<ItemKind>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(kind) => to.collect_str(kind),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ItemKind>, D::Error> {
        ItemKind::parse(&String::deserialize(from)?).map(Some).map_err(|e| D::Error::custom(e.message()))
    }
}

table!(ModelTable {
    width: u32 = model.width,
    #[serde(with = "block")]
    block: Block = model.block,
    blocks: u32 = model.blocks,
    heads: u32 = model.heads,
    hidden: u32 = model.hidden,
    #[serde(alias = "context")]
    max_length: u32 = model.max_length,
    #[serde(with = "positions")]
    positions: Positions = model.positions,
    distance_bias: bool = model.distance_bias,
    time_bias: bool = model.time_bias,
    time_input: bool = model.time_input,
    field_width: u32 = model.field_width,
    normalized: bool = model.normalized,
    temperature: f32 = model.temperature,
});

table!(TrainTable {
    seed: u64 = train.seed,
    threads: u32 = train.threads,
    loss: LossKey,
    negatives: u32,
    #[serde(with = "source")]
    negative_source: NegativeSource,
    log_q: bool,
    calibration: f32,
    epochs: u32 = train.epochs,
    batch: u32 = train.batch,
    learning_rate: f32 = train.learning_rate,
    warmup: u32 = train.warmup,
    final_rate: f32 = train.final_rate,
    cooldown: f32 = train.cooldown,
    weight_decay: f32 = train.weight_decay,
    clip: f32 = train.clip,
    dropout: f32 = train.dropout,
    patience: u32 = train.patience,
    validate_every: u32 = train.validate_every,
    ema: f32 = train.ema,
    window_share: f32 = train.window_share,
    checkpoint_every: u32 = train.checkpoint_every,
    max_seconds: u64 = train.max_seconds,
});

table!(ObjectivesTable {
    utility: String,
    window: u32 = train.objective.window,
    half_life: f32 = train.objective.half_life,
    feedback: f32 = model.feedback,
    actions: BTreeMap<String, f32>,
    heads: Vec<HeadTable>,
});

table!(TokenizerTable {
    max_gap: u32 = tokenizer.max_gap,
    surface: String = tokenizer.surface,
    terminal: Vec<String> = tokenizer.terminal,
    merges: u32 = tokenizer.merges,
    budget: u32 = tokenizer.budget,
    dropout: f32 = tokenizer.dropout,
});

table!(RankerTable {
    enabled: bool = ranker.enabled,
    embedding: u32 = ranker.model.embedding,
    hidden: Vec<u32> = ranker.model.hidden,
    #[serde(alias = "tower")]
    trunk: u32 = ranker.model.trunk,
    gate: u32 = ranker.model.gate,
    item_width: u32 = ranker.model.item_width,
    steps: u32 = ranker.model.steps,
    support: u32 = ranker.model.support,
    #[serde(alias = "shrink")]
    prior_count: f32 = ranker.model.prior_count,
    #[serde(alias = "fade")]
    rate_decay: f32 = ranker.model.rate_decay,
    bound: f32 = ranker.model.bound,
    identity: bool = ranker.model.identity,
    person: bool = ranker.model.person,
    #[serde(with = "items")]
    items: ItemKind = ranker.model.items,
    surface: String = ranker.model.surface,
    epochs: u32 = ranker.train.epochs,
    batch: u32 = ranker.train.batch,
    learning_rate: f32 = ranker.train.learning_rate,
    weight_decay: f32 = ranker.train.weight_decay,
    vector_decay: f32 = ranker.train.vector_decay,
    inner_rate: f32 = ranker.train.inner_rate,
    exact: bool = ranker.train.exact,
    unadapted: f32 = ranker.train.unadapted,
    first: f32 = ranker.train.first,
    cold: f32 = ranker.train.cold,
    cold_items: f32 = ranker.train.cold_items,
    validation: f32 = ranker.train.validation,
    patience: u32 = ranker.train.patience,
    finetune: f32 = ranker.train.finetune,
    #[serde(with = "publish")]
    publish: Publish = ranker.train.publish,
    #[serde(with = "goal")]
    goal: RankerGoal = ranker.train.goal,
});

#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum LossKey {
    Auto,
    Full,
    Sampled,
    Gbce,
}

impl TrainTable {
    fn with_loss(self, loss: Option<Loss>) -> Self {
        let (loss, negatives, calibration) = match loss {
            None => (LossKey::Auto, None, None),
            Some(Loss::Full) => (LossKey::Full, None, None),
            Some(Loss::Sampled(n)) => (LossKey::Sampled, Some(n), None),
            Some(Loss::Gbce(Gbce { negatives, calibration })) => (LossKey::Gbce, Some(negatives), Some(calibration)),
        };
        Self {
            loss: Some(loss),
            negatives: negatives.map(|n| n.count),
            negative_source: negatives.map(|n| n.source),
            log_q: negatives.map(|n| n.log_q),
            calibration,
            ..self
        }
    }

    fn put_loss(&self, to: &mut Option<Loss>) -> Result<()> {
        let sampled = matches!(self.loss, Some(LossKey::Sampled | LossKey::Gbce));
        let given = [
            ("negatives", self.negatives.is_some()),
            ("negative_source", self.negative_source.is_some()),
            ("log_q", self.log_q.is_some()),
        ];
        if let Some((key, _)) = given.iter().find(|(_, given)| *given && !sampled) {
            return Err(err!(
                InvalidConfig,
                "train.{key} stands without train.loss = \"sampled\" or \"gbce\"; add one, or remove the key"
            ));
        }
        if self.calibration.is_some() && self.loss != Some(LossKey::Gbce) {
            return Err(err!(
                InvalidConfig,
                "train.calibration stands without train.loss = \"gbce\"; add that, or remove the key"
            ));
        }
        let count = self.negatives.unwrap_or(NEGATIVES);
        let default = match self.loss {
            Some(LossKey::Sampled) => Negatives::mixed(count),
            _ => Negatives { log_q: false, ..Negatives::uniform(count) },
        };
        let negatives = Negatives {
            source: self.negative_source.unwrap_or(default.source),
            log_q: self.log_q.unwrap_or(default.log_q),
            ..default
        };
        *to = match self.loss {
            None => return Ok(()),
            Some(LossKey::Auto) => None,
            Some(LossKey::Full) => Some(Loss::Full),
            Some(LossKey::Sampled) => Some(Loss::Sampled(negatives)),
            Some(LossKey::Gbce) => {
                Some(Loss::Gbce(Gbce { negatives, calibration: self.calibration.unwrap_or(CALIBRATION) }))
            }
        };
        Ok(())
    }
}

/// What is made of item metadata.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct TowerTable {
    enabled: Option<bool>,
    title_buckets: Option<u32>,
    #[serde(with = "gate")]
    gate: Option<Gate>,
    masking: Option<f32>,
    masking_young: Option<[f32; 2]>,
}

impl TowerTable {
    fn of(tower: Option<TowerOptions>) -> Self {
        let TowerOptions { title_buckets, gate, masking, masking_young } = tower.unwrap_or_default();
        Self {
            enabled: Some(tower.is_some()),
            title_buckets: Some(title_buckets),
            gate: Some(gate),
            masking,
            masking_young: Some(masking_young),
        }
    }

    /// Any other key switches the tower on that `enabled` does not switch off.
    fn put(&self, to: &mut Option<TowerOptions>) {
        let given = self.title_buckets.is_some()
            || self.gate.is_some()
            || self.masking.is_some()
            || self.masking_young.is_some();
        let tower = to.unwrap_or_default();
        *to = self.enabled.unwrap_or(to.is_some() || given).then(|| TowerOptions {
            title_buckets: self.title_buckets.unwrap_or(tower.title_buckets),
            gate: self.gate.unwrap_or(tower.gate),
            masking: self.masking.or(tower.masking),
            masking_young: self.masking_young.unwrap_or(tower.masking_young),
        });
    }
}

/// An auxiliary head.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct HeadTable {
    field: String,
    #[serde(default = "head_weight")]
    weight: f32,
    #[serde(default)]
    hierarchical: bool,
}

fn head_weight() -> f32 {
    0.1
}

impl ObjectivesTable {
    fn with_lists(self, config: &TrainConfig) -> Self {
        let (utility, actions) = match &config.train.objective.utility {
            Utility::Equal => ("equal".into(), None),
            Utility::Value => ("value".into(), None),
            Utility::Field(name) => (format!("field:{name}"), None),
            Utility::Actions(weights) => ("action".into(), Some(weights.iter().cloned().collect())),
        };
        let head = |h: &Auxiliary| HeadTable { field: h.field.clone(), weight: h.weight, hierarchical: h.hierarchical };
        let heads: Vec<HeadTable> = config.model.auxiliary.iter().map(head).collect();
        Self { utility: Some(utility), actions, heads: Some(heads).filter(|h| !h.is_empty()), ..self }
    }

    fn put_lists(&self, config: &mut TrainConfig) -> Result<()> {
        if let Some(heads) = &self.heads {
            let head =
                |h: &HeadTable| Auxiliary { field: h.field.clone(), weight: h.weight, hierarchical: h.hierarchical };
            config.model.auxiliary = heads.iter().map(head).collect();
        }
        if self.actions.is_some() != (self.utility.as_deref() == Some("action")) {
            return Err(err!(
                InvalidConfig,
                "objectives.utility = \"action\" and the table [objectives.actions] need each other; add the missing one"
            ));
        }
        let Some(utility) = self.utility.as_deref() else { return Ok(()) };
        config.train.objective.utility = match (utility, utility.strip_prefix("field:")) {
            ("equal", _) => Utility::Equal,
            ("value", _) => Utility::Value,
            ("action", _) => Utility::Actions(self.actions.iter().flatten().map(|(a, w)| (a.clone(), *w)).collect()),
            (_, Some(name)) => Utility::Field(name.to_owned()),
            _ => {
                return Err(err!(
                    InvalidConfig,
                    "objectives.utility is {utility:?}; write equal, value, action or field:NAME"
                ));
            }
        };
        Ok(())
    }
}
