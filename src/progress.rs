//! How anything gets watched: progress events to a callback, and a token that stops long work.
//!
//! The library never prints. Whoever calls it passes an [`ProgressSink`] and draws what it likes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Something that happened during long work.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ProgressEvent {
    /// A stage began, such as reading a file; `total` is its size in `unit`s where known.
    Stage {
        /// What is being done.
        name: String,
        /// How much there is to do; 0 where unknown.
        total: u64,
        /// The unit of `total`.
        unit: &'static str,
    },
    /// The stage moved on to `done` of its units.
    Advance {
        /// Units done so far.
        done: u64,
    },
    /// One training step ended.
    Step(Step),
    /// One validation ended.
    Validation(Validation),
    /// A checkpoint was written.
    Checkpoint {
        /// Steps done at the checkpoint.
        step: u64,
    },
    /// Something that a person may like to know, such as what was chosen and why.
    Note(String),
    /// Something that a person should know, but that does not stop the work.
    Warning(String),
}

/// Where training stands after a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Steps done, over all epochs.
    pub step: u64,
    /// Steps planned, over all epochs; the most that there can be, until the learning rate begins to fall.
    pub steps: u64,
    /// The epoch, from 0.
    pub epoch: u32,
    /// Epochs planned, as the steps.
    pub epochs: u32,
    /// Mean loss per target of this step (nats).
    pub loss: f64,
    /// The loss of each objective, by name.
    pub losses: Vec<(String, f64)>,
    /// Tokens trained on since the start or the resume.
    pub tokens: u64,
    /// Tokens per second of wall time since the start or the resume, validation excluded.
    pub tokens_per_second: f64,
    /// Seconds left at this speed, to the last planned step.
    pub eta_seconds: f64,
}

/// The outcome of a validation.
#[derive(Debug, Clone, PartialEq)]
pub struct Validation {
    /// The epoch, from 0.
    pub epoch: u32,
    /// Metrics by name: `ndcg@10`, `hr@10`, ...
    pub metrics: Vec<(String, f64)>,
    /// The best value so far, this one included, of the metric that chooses: NDCG@10 of lists, the log loss of outcomes.
    pub best: f64,
    /// Whether this one is the best so far.
    pub improved: bool,
}

/// Watches long work. Called on the thread that asked for the work.
pub trait ProgressSink {
    /// Something happened.
    fn on_event(&mut self, event: &ProgressEvent);
}

impl<F: FnMut(&ProgressEvent)> ProgressSink for F {
    fn on_event(&mut self, event: &ProgressEvent) {
        self(event);
    }
}

/// A sink that looks away.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl ProgressSink for Silent {
    fn on_event(&mut self, _: &ProgressEvent) {}
}

/// Asks long work to stop at its next safe point. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A token that has not been used.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the stop. Safe from a signal-handling thread.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
