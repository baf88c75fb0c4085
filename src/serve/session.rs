//! The memory that one thread reuses from request to request.

use super::filter::Mask;
use super::generation::Generation;
use super::ranker::RankWork;
use super::resolve::Resolved;
use crate::kernels::retrieve::TopK;
use crate::model::Scratch;
use std::sync::Arc;

/// The memory that one thread reuses from request to request, and the generation that its last answer came from.
///
/// After the first requests of a session the memory is there: only conditions on metadata and histories out of order
/// allocate, and matrix products up to 2 KiB for their own flags. A session keeps the generation of its last
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

/// Buffers of one request.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) resolved: Resolved,
    pub(super) mask: Mask,
    pub(super) scratch: Scratch,
    pub(super) user: Vec<f32>,
    pub(super) block: Vec<f32>,
    pub(super) top: TopK,
    /// Rows of the popular list.
    pub(super) listed: Vec<u32>,
    pub(super) rank: RankWork,
}
