//! Is it any good? Protocols, metrics, baselines and reports.
//!
//! [`evaluate`] ranks the whole catalogue for every test question of a [`crate::data::Split`] under every [`Scorer`],
//! and returns an [`Evaluation`] that reports write down.

mod baselines;
mod choose;
mod ctr;
mod cuts;
mod ease;
mod engine;
mod evaluation;
mod few_shot;
mod heads;
mod ials;
mod judge;
mod knn;
mod known;
mod machine;
mod metrics;
mod optimum;
mod outcomes;
mod prequential;
#[cfg(feature = "files")]
mod record;
mod report;
mod scorer;
mod served;
#[cfg(test)]
mod tests;
pub use crate::bootstrap::{Bootstrap, Resampling};
pub use baselines::{Markov, Popularity, RecentPopularity};
pub use ctr::{Ctr, CtrBucket, CtrDifference, CtrMethod, CtrRow, SUPPORT_BUCKETS, ctr, ctr_metrics};
pub use ease::{EASE_ITEMS, Ease};
pub use engine::EngineScorer;
pub use evaluation::{Cut, Difference, EvaluateOptions, Evaluation, ListMetrics, Row, evaluate, evaluate_methods};
pub use few_shot::{FewShot, FewShotMethod, FewShotOptions, FewShotSize, few_shot};
pub use heads::{HeadMetrics, HeadResult, evaluate_heads};
pub use ials::{Ials, IalsOptions};
pub use judge::ranks;
pub use knn::{ItemKnn, KnnOptions};
pub use known::{CountedEvents, known_items};
pub use machine::{Machine, peak_rss_bytes};
pub use metrics::{RankMetric, RankMetrics};
pub use optimum::Optimum;
pub use outcomes::{OutcomePart, evaluate_few_shot, evaluate_outcomes, evaluate_prequential};
pub use prequential::{Policy, Prequential, PrequentialOptions, WALK_BUCKETS, WalkBucket, prequential};
#[cfg(feature = "files")]
pub use record::Record;
pub use scorer::Scorer;
pub use served::{Method, Served};
