//! The memory that one thread reuses from request to request.

use super::rank::{Given, RankWork};
use super::request::{Mask, Resolved};
use super::retrieve::Popular;
use crate::generation::Generation;
use crate::kernels::retrieve::TopK;
use crate::model::Scratch;
use std::sync::Arc;

/// The memory that one thread reuses from request to request, and the generation that its last answer came from.
///
/// After the first requests of a session the memory is there, also for ranked lists and for entities with a state. What a request
/// still allocates, and gives back at once, does not grow with the catalogue: in each matrix product a block to pack an operand into
/// (about 50 in a pass over 200 events at width 64, some 400 KB together; 2 KiB each where the history is short), a dozen blocks
/// where the ranker answers, and the record of a state. Conditions on metadata, profiles of those of whom nothing else is known,
/// histories out of order and states that were adapted to another model allocate more. A session keeps the generation of its last
/// answer mapped, so that rows can be named; [`Session::release`] lets go of it.
#[derive(Debug, Default)]
pub struct Session {
    pub(super) work: Work,
    pub(super) generation: Option<Arc<Generation>>,
}

impl Session {
    /// A session without memory as yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The generation that the last answer came from, to name its rows ([`Generation::item_id`]).
    pub fn generation(&self) -> Option<&Arc<Generation>> {
        self.generation.as_ref()
    }

    /// Lets go of the generation of the last answer.
    pub fn release(&mut self) {
        self.generation = None;
    }
}

/// The buffers of one request, stage by stage.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// What is asked.
    pub asked: Resolved,
    /// What may be in the list.
    pub mask: Mask,
    /// The embeddings of the state of whoever asks.
    pub given: Given,
    /// The foundation model's.
    pub scratch: Scratch,
    /// The user vector under the request.
    pub user: Vec<f32>,
    /// The popular list's.
    pub popular: Popular,
    /// The ranker's.
    pub rank: RankWork,
    /// The best rows.
    pub top: TopK,
    /// Scores before they are handed out.
    pub scores: Vec<f32>,
}
