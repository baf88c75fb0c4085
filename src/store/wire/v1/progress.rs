//! Where a training stands that was interrupted.

use rkyv::{Archive, Deserialize, Serialize};

/// The record of a checkpoint; `train::foundation::checkpoint` says what its fields mean.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
pub(crate) struct Progress {
    pub(crate) identity: [u8; 32],
    pub(crate) step: u64,
    pub(crate) epoch: u32,
    pub(crate) batch: u64,
    pub(crate) tokens: u64,
    pub(crate) seconds: f64,
    pub(crate) losses: (Vec<f64>, u64),
    pub(crate) best_losses: Vec<f64>,
    pub(crate) best: Vec<(String, f64)>,
    pub(crate) best_epoch: u32,
    pub(crate) waited: u32,
}
