//! How an engine keeps what entities do.

use crate::error::{Result, err};
use crate::ranker::DriftDetection;
use crate::store::EntityStoreOptions;

/// When an entity is adapted anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AdaptPolicy {
    /// With every outcome that is labelled or joins the history, before it is acknowledged.
    #[default]
    EveryOutcome,
    /// With every n-th labelled outcome of the entity.
    Every(u32),
    /// By [`Engine::adapt`](crate::serve::Engine::adapt) alone.
    OnDemand,
}

/// How an entity is adapted to an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AdaptMethod {
    /// From the meta block as it was learned, to the latest outcomes, the new one among them. Nothing drifts.
    #[default]
    Restart,
    /// The first-order update: the embedding moves by the new outcome alone, by the meta block's tangent kernel. Cheaper, and close to the
    /// other while outcomes agree; [`Engine::adapt`](crate::serve::Engine::adapt) starts anew. An entity without an embedding of the current model is adapted from
    /// the start.
    FirstOrder,
}

/// How an engine keeps what entities do while it serves.
#[derive(Debug, Clone, PartialEq)]
pub struct PersonalOptions {
    /// Durability and memory of the states. Naming [`crate::store::Durability::Within`] grants one thread.
    pub store: EntityStoreOptions,
    /// When entities are adapted.
    pub policy: AdaptPolicy,
    /// How they are adapted.
    pub method: AdaptMethod,
    /// Most events that are kept of an entity's history, the latest ones; at least 1. Fewer where all that is kept would take more than 1 MiB.
    pub keep: usize,
    /// Most outcomes that are kept beside them, the latest ones: what was shown and did not join the history; at least 1. However many there are, they push no event
    /// out of the history.
    pub keep_impressions: usize,
    /// Most items that are left out of an entity's lists although their events are not kept any more, the latest ones; fewer where their ids are
    /// long (256 KiB in all).
    pub keep_items: usize,
    /// Looks for changes of taste when an entity is adapted, and adapts it to the outcomes since the latest one alone; `None` adapts to
    /// all that are kept. Follows a turn within some outcomes, and costs a little where taste stays (docs/mechanisms.md).
    pub drift: Option<DriftDetection>,
    /// Days after which an adaptation counts half, by the time of the request; `None`: it does not age.
    pub half_life_days: Option<f32>,
}

impl Default for PersonalOptions {
    fn default() -> Self {
        Self {
            store: EntityStoreOptions::default(),
            policy: AdaptPolicy::default(),
            method: AdaptMethod::default(),
            keep: 256,
            keep_impressions: 256,
            keep_items: 4096,
            drift: None,
            half_life_days: None,
        }
    }
}

impl PersonalOptions {
    pub(super) fn check(&self) -> Result<()> {
        if self.keep == 0 || self.keep_impressions == 0 || matches!(self.policy, AdaptPolicy::Every(0)) {
            return Err(err!(
                InvalidConfig,
                "an engine that keeps, or adapts to, 0 outcomes learns nothing; choose at least 1"
            ));
        }
        if self.method == AdaptMethod::FirstOrder && self.policy != AdaptPolicy::EveryOutcome {
            return Err(err!(
                InvalidConfig,
                "the first-order update moves by each outcome once; choose AdaptPolicy::EveryOutcome, or AdaptMethod::Restart"
            ));
        }
        let positive = |x: f32| x > 0.0 && !x.is_nan();
        if self.drift.is_some_and(|w| w.latest == 0 || !positive(w.evidence)) {
            return Err(err!(
                InvalidConfig,
                "drift detection needs outcomes to look at and evidence above 0; correct the options"
            ));
        }
        if self.half_life_days.is_some_and(|d| !positive(d)) {
            return Err(err!(InvalidConfig, "half_life_days must be above 0; correct the options"));
        }
        Ok(())
    }
}
