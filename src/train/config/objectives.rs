//! The tables `[tower]` and `[objectives]` of a `train.toml`.

use super::set;
use crate::error::{Result, err};
use crate::options::{Auxiliary, ModelOptions, Objective, TowerOptions, Utility};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is made of item metadata.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TowerTable {
    enabled: Option<bool>,
    title_buckets: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    masking: Option<f32>,
    masking_young: Option<[f32; 2]>,
}

impl TowerTable {
    pub(super) fn of(model: &ModelOptions) -> Self {
        let tower = model.tower.unwrap_or_default();
        Self {
            enabled: Some(model.tower.is_some()),
            title_buckets: Some(tower.title_buckets),
            masking: tower.masking,
            masking_young: Some(tower.masking_young),
        }
    }

    pub(super) fn put(&self, to: &mut ModelOptions) {
        let given = self.title_buckets.is_some() || self.masking.is_some() || self.masking_young.is_some();
        let Some(enabled) = self.enabled.or((given && to.tower.is_none()).then_some(true)) else {
            return to.tower.iter_mut().for_each(|tower| self.fill(tower));
        };
        to.tower = enabled.then(|| {
            let mut tower = to.tower.unwrap_or_default();
            self.fill(&mut tower);
            tower
        });
    }

    fn fill(&self, tower: &mut TowerOptions) {
        set(&mut tower.title_buckets, self.title_buckets);
        set(&mut tower.masking, self.masking.map(Some));
        set(&mut tower.masking_young, self.masking_young);
    }
}

/// What is predicted.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ObjectivesTable {
    utility: Option<String>,
    window: Option<u32>,
    half_life: Option<f32>,
    feedback: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actions: Option<BTreeMap<String, f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heads: Option<Vec<HeadTable>>,
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
    pub(super) fn of(model: &ModelOptions, objective: &Objective) -> Self {
        let (utility, actions) = match &objective.utility {
            Utility::Equal => ("equal".into(), None),
            Utility::Value => ("value".into(), None),
            Utility::Field(name) => (format!("field:{name}"), None),
            Utility::Actions(weights) => ("action".into(), Some(weights.iter().cloned().collect())),
        };
        let head = |h: &Auxiliary| HeadTable { field: h.field.clone(), weight: h.weight, hierarchical: h.hierarchical };
        Self {
            utility: Some(utility),
            window: Some(objective.window),
            half_life: Some(objective.half_life),
            feedback: Some(model.feedback),
            actions,
            heads: (!model.auxiliary.is_empty()).then(|| model.auxiliary.iter().map(head).collect()),
        }
    }

    pub(super) fn put(&self, model: &mut ModelOptions, objective: &mut Objective) -> Result<()> {
        set(&mut objective.window, self.window);
        set(&mut objective.half_life, self.half_life);
        set(&mut model.feedback, self.feedback);
        if let Some(heads) = &self.heads {
            let head =
                |h: &HeadTable| Auxiliary { field: h.field.clone(), weight: h.weight, hierarchical: h.hierarchical };
            model.auxiliary = heads.iter().map(head).collect();
        }
        if self.actions.is_some() != (self.utility.as_deref() == Some("action")) {
            return Err(err!(
                InvalidConfig,
                "objectives.utility = \"action\" and the table [objectives.actions] need each other; add the missing one"
            ));
        }
        objective.utility = match self.utility.as_deref() {
            None => return Ok(()),
            Some("equal") => Utility::Equal,
            Some("value") => Utility::Value,
            Some("action") => Utility::Actions(self.actions.iter().flatten().map(|(a, w)| (a.clone(), *w)).collect()),
            Some(other) => match other.strip_prefix("field:") {
                Some(name) => Utility::Field(name.to_owned()),
                None => {
                    return Err(err!(
                        InvalidConfig,
                        "objectives.utility is {other:?}; write equal, value, action or field:NAME"
                    ));
                }
            },
        };
        Ok(())
    }
}
