//! The table `[ranker]` of a `train.toml`.

use super::set;
use crate::error::Result;
use crate::options::{ItemKind, RankerOptions, RankerTrainOptions};
use serde::{Deserialize, Serialize};

/// The ranker that is adapted to each entity.
#[derive(Debug, Clone, PartialEq)]
pub struct RankerConfig {
    /// Whether one is trained where there are labelled outcomes.
    pub enabled: bool,
    /// Its shape.
    pub model: RankerOptions,
    /// How it is trained; seed and threads are those of `[train]`.
    pub train: RankerTrainOptions,
}

impl Default for RankerConfig {
    fn default() -> Self {
        Self { enabled: true, model: RankerOptions::default(), train: RankerTrainOptions::default() }
    }
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RankerTable {
    enabled: Option<bool>,
    embedding: Option<u32>,
    hidden: Option<Vec<u32>>,
    trunk: Option<u32>,
    gate: Option<u32>,
    item_width: Option<u32>,
    steps: Option<u32>,
    support: Option<u32>,
    prior_count: Option<f32>,
    rate_decay: Option<f32>,
    bound: Option<f32>,
    identity: Option<bool>,
    person: Option<bool>,
    items: Option<String>,
    surface: Option<String>,
    epochs: Option<u32>,
    batch: Option<u32>,
    learning_rate: Option<f32>,
    weight_decay: Option<f32>,
    vector_decay: Option<f32>,
    inner_rate: Option<f32>,
    exact: Option<bool>,
    unadapted: Option<f32>,
    first: Option<f32>,
    cold: Option<f32>,
    cold_items: Option<f32>,
    validation: Option<f32>,
    patience: Option<u32>,
    finetune: Option<f32>,
}

impl RankerTable {
    pub(super) fn of(config: &RankerConfig) -> Self {
        let (m, t) = (&config.model, &config.train);
        Self {
            enabled: Some(config.enabled),
            embedding: Some(m.embedding),
            hidden: Some(m.hidden.clone()),
            trunk: Some(m.trunk),
            gate: Some(m.gate),
            item_width: Some(m.item_width),
            steps: Some(m.steps),
            support: Some(m.support),
            prior_count: Some(m.prior_count),
            rate_decay: Some(m.rate_decay),
            bound: Some(m.bound),
            identity: Some(m.identity),
            person: Some(m.person),
            items: Some(m.items.to_string()),
            surface: Some(m.surface.clone()),
            epochs: Some(t.epochs),
            batch: Some(t.batch),
            learning_rate: Some(t.learning_rate),
            weight_decay: Some(t.weight_decay),
            vector_decay: Some(t.vector_decay),
            inner_rate: Some(t.inner_rate),
            exact: Some(t.exact),
            unadapted: Some(t.unadapted),
            first: Some(t.first),
            cold: Some(t.cold),
            cold_items: Some(t.cold_items),
            validation: Some(t.validation),
            patience: Some(t.patience),
            finetune: Some(t.finetune),
        }
    }

    pub(super) fn put(&self, to: &mut RankerConfig) -> Result<()> {
        let items = self.items.as_deref().map(ItemKind::parse).transpose()?;
        let (m, t) = (&mut to.model, &mut to.train);
        set(&mut to.enabled, self.enabled);
        set(&mut m.embedding, self.embedding);
        set(&mut m.hidden, self.hidden.clone());
        set(&mut m.trunk, self.trunk);
        set(&mut m.gate, self.gate);
        set(&mut m.item_width, self.item_width);
        set(&mut m.steps, self.steps);
        set(&mut m.support, self.support);
        set(&mut m.prior_count, self.prior_count);
        set(&mut m.rate_decay, self.rate_decay);
        set(&mut m.bound, self.bound);
        set(&mut m.identity, self.identity);
        set(&mut m.person, self.person);
        set(&mut m.items, items);
        set(&mut m.surface, self.surface.clone());
        set(&mut t.epochs, self.epochs);
        set(&mut t.batch, self.batch);
        set(&mut t.learning_rate, self.learning_rate);
        set(&mut t.weight_decay, self.weight_decay);
        set(&mut t.vector_decay, self.vector_decay);
        set(&mut t.inner_rate, self.inner_rate);
        set(&mut t.exact, self.exact);
        set(&mut t.unadapted, self.unadapted);
        set(&mut t.first, self.first);
        set(&mut t.cold, self.cold);
        set(&mut t.cold_items, self.cold_items);
        set(&mut t.validation, self.validation);
        set(&mut t.patience, self.patience);
        set(&mut t.finetune, self.finetune);
        Ok(())
    }
}
