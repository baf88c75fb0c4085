//! What training, adaptation and publication ask of a kind of entity.

use super::super::plan::{ItemKnowledge, Plan};
use crate::error::Result;
use crate::options::RankerTrainOptions;
use crate::random::Rng;
use crate::ranker::{RankerShape, RankerView};

/// What there is of a kind at the moment, by task.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    /// The embeddings to which tasks were adapted, `[tasks, embedding]`; zeros before the first.
    pub embeddings: Vec<f32>,
    /// What [`Kind::vectors`] gave when all embeddings were made.
    pub vectors: Vec<f32>,
    /// What [`Kind::starts`] gives under the weights of the moment.
    pub starts: Vec<f32>,
}

/// What a row is to show of the other kinds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    /// What is taken to be known of the item.
    pub item: ItemKnowledge,
    /// Whether parts that are adapted after this task are those before any outcome.
    pub before: bool,
}

impl Shown {
    /// All that is known.
    pub(crate) const ALL: Self = Self { item: ItemKnowledge::Full, before: false };
}

/// What every kind has.
#[derive(Debug)]
pub(crate) struct About {
    /// The name of its meta block in the layout of the weights.
    pub block: &'static str,
    /// What keeps its random choices apart from those of other kinds: a number added to each task's, and one for the order of
    /// tasks.
    pub streams: [u64; 2],
    /// The ranker seen from its meta block.
    pub shape: RankerShape,
    /// How many tasks it has.
    pub tasks: usize,
    /// The tasks that are trained on.
    pub trained: Vec<u32>,
}

/// A kind of entity: which tasks it has over the outcomes of a plan, what its meta block reads, and what it adds to the rows of
/// others.
pub(crate) trait Kind: std::fmt::Debug + Send + Sync {
    /// What it is.
    fn about(&self) -> &About;

    /// The tasks whose embeddings others read.
    fn adapted(&self) -> Vec<u32> {
        (0..self.about().tasks as u32).collect()
    }

    /// Writes what the meta block reads of a task's entity; `cold` withholds its outcomes.
    ///
    /// # Errors
    /// `InvalidArgument` for widths that do not fit.
    fn input(
        &self,
        plan: &Plan<'_>,
        labels: &[f32],
        table: &Table,
        task: u32,
        cold: bool,
        out: &mut [f32],
    ) -> Result<()>;

    /// The outcomes that an adaptation reads, oldest first.
    fn support(&self, plan: &Plan<'_>, task: u32) -> Vec<u32>;

    /// How many outcomes a step asks for.
    fn asked(&self, plan: &Plan<'_>, task: u32) -> usize;

    /// The outcomes that a step asks for; `rng` chooses where a task has more.
    fn query(&self, plan: &Plan<'_>, task: u32, rng: Rng) -> Vec<u32>;

    /// The person's task under whose user vector an outcome is read.
    fn reader(&self, task: u32, outcome: u32) -> u32;

    /// Adds to `shift`, that of the row of an outcome read by the person's task `reader`, the embedding of this kind's entity.
    fn shift(&self, table: &Table, reader: u32, outcome: u32, shown: Shown, shift: &mut [f32]);

    /// The entity whose own vector is added to the embedding, where entities have one.
    fn entity(&self, _plan: &Plan<'_>, _task: u32) -> Option<u32> {
        None
    }

    /// What a step takes to be known of an item.
    fn knowledge(&self, _options: &RankerTrainOptions, _step: u64, _item: u32) -> ItemKnowledge {
        ItemKnowledge::Full
    }

    /// Whether its tasks are adapted before those of surfaces, and read the foundation model's vectors of the moment, so that they
    /// teach it.
    fn is_first(&self) -> bool {
        false
    }

    /// The vectors of the foundation model that inputs read, where they are kept from one epoch to the next.
    fn vectors(&self, _plan: &Plan<'_>) -> Vec<f32> {
        Vec::new()
    }

    /// The embeddings before any outcome, where they are told apart by a code, `[codes, embedding]`.
    ///
    /// # Errors
    /// Those of adaptations.
    fn starts(&self, _ranker: RankerView<'_>) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }
}
