//! The generation that requests are answered from, swapped under load.

use crate::generation::Generation;
use crossbeam::utils::CachePadded;
use parking_lot::RwLock;
use std::sync::Arc;

/// A plain lock: it keeps nothing per thread, so that hosts which fork or look for leaks are not surprised.
#[derive(Debug)]
pub(super) struct Current(CachePadded<RwLock<Arc<Generation>>>);

impl Current {
    pub(super) fn new(generation: Generation) -> Self {
        Self(CachePadded::new(RwLock::new(Arc::new(generation))))
    }

    pub(super) fn get(&self) -> Arc<Generation> {
        Arc::clone(&self.0.read())
    }

    /// Answers from `generation` from now on.
    pub(super) fn show(&self, generation: Generation) {
        let next = Arc::new(generation);
        let previous = std::mem::replace(&mut *self.0.write(), next);
        // Unmapping, if it falls to us, does not hold up requests: the lock is released.
        drop(previous);
    }
}
