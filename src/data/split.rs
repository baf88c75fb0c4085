//! Which events are trained on, which choose the model, and which judge it.

use super::Dataset;
use crate::error::Result;
use std::ops::Range;

/// How a dataset is divided.
#[derive(Debug, Clone, PartialEq)]
pub enum Protocol {
    /// Everything is trained on; the last event of a sample of entities is also used to choose the model. Nothing tests it.
    Everything,
    /// Each entity's last event tests, the one before validates, the rest trains (protocol A of evaluation.md).
    LeaveOneOut,
    /// Each entity's last two events test, the one before validates, the rest trains.
    LeaveTwoOut,
    /// The last `test` share of time tests, the `validation` share before it validates.
    TimeSplit {
        /// Share of events, by time, that test.
        test: f64,
        /// Share of events, by time, that validate.
        validation: f64,
    },
    /// A seeded `share` of the items is hidden from all training; events on them test.
    ColdItems {
        /// Share of the items that are hidden.
        share: f64,
        /// Seed of the choice.
        seed: u64,
    },
    /// A seeded `share` of the entities is hidden from all training; their last events test.
    ColdEntities {
        /// Share of the entities that are hidden.
        share: f64,
        /// Seed of the choice.
        seed: u64,
    },
}

/// One question: after these events of this entity, which item came next?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The entity's row.
    pub entity: u32,
    /// The events known at the time of the question: indices into the columns of [`super::Events`], oldest first.
    pub history: Range<usize>,
    /// The event to be predicted.
    pub target: usize,
}

/// A dataset divided under a protocol.
#[derive(Debug, Clone)]
pub struct Split {
    /// The protocol.
    pub protocol: Protocol,
    /// Events of entity `u` that may be trained on: indices into the columns of [`super::Events`]. Empty for hidden
    /// entities.
    pub train: Vec<Range<usize>>,
    /// Items that are hidden from training: one entry per item row, or empty where none is. Events on them inside
    /// `train` must be skipped.
    pub hidden: Vec<bool>,
    /// Questions that choose the model.
    pub validation: Vec<Case>,
    /// Questions that judge it.
    pub test: Vec<Case>,
    /// BLAKE3 over the test questions by id (entity id, target item id, in order): equal hashes mean equal questions.
    pub target_hash: [u8; 32],
}

impl Split {
    /// Divides `data` under `protocol`.
    ///
    /// # Errors
    /// `InvalidConfig` for shares out of range; `InvalidData` where the protocol needs time and there is none, or
    /// leaves nothing to train on.
    pub fn new(data: &Dataset, protocol: &Protocol) -> Result<Self> {
        let _ = (data, protocol);
        Err(crate::error::err!(Internal, "not built yet"))
    }
}
