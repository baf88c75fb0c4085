//! The embeddings of all kinds of entity, and the rows that they shift.
//!
//! In training they are those of the last step that met each task. Made from weights alone ([`Embeddings::adapt`]), in a fixed order,
//! the same weights and outcomes give the same embeddings, whoever trained them: for validation, evaluation and publication.

use super::kinds::{Kind, Kinds, Shown, Table};
use super::plan::Plan;
use crate::error::{Result, err};
use crate::ranker::{Adapter, Ranker, RankerView};
use crate::threads;
use std::sync::Arc;

/// The embeddings of all kinds, by task.
#[derive(Debug, Clone)]
pub(crate) struct Embeddings {
    pub kinds: Arc<Kinds>,
    /// One for each kind; empty tables where there is a person alone, whose rows nothing shifts.
    pub tables: Vec<Table>,
}

/// What rows are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'s, 'p> {
    pub plan: &'s Plan<'p>,
    /// What is adapted to, `[n, heads]`.
    pub labels: &'s [f32],
    /// The ranker's own item vectors.
    pub items: &'s [f32],
    pub embeddings: &'s Embeddings,
}

impl Sources<'_, '_> {
    /// Appends the row of outcome `i` as `task` of the kind at number `at` reads it: under the user vector that its person had when the
    /// outcome was asked, shifted by the embeddings of the other kinds.
    pub(crate) fn row(&self, (at, kind): (usize, &dyn Kind), task: u32, i: u32, shown: Shown, out: &mut Vec<f32>) {
        let (shape, reader) = (&kind.about().shape, kind.reader(task, i));
        self.plan.candidate_as(shown.item, reader, i as usize, self.items, shape.options.item_width as usize, out);
        let start = out.len();
        out.resize(start + shape.shift(), 0.0);
        let others = self.embeddings.kinds.all.iter().zip(&self.embeddings.tables).enumerate();
        for (_, (other, table)) in others.filter(|(number, _)| *number != at) {
            other.shift(table, reader, i, shown, &mut out[start..]);
        }
    }
}

/// Weights, and what is adapted with them.
#[derive(Debug, Clone, Copy)]
struct Adapting<'s, 'p> {
    plan: &'s Plan<'p>,
    ranker: &'s Ranker,
    labels: &'s [f32],
    threads: usize,
}

impl Embeddings {
    /// Zeros, for a ranker whose rows are shifted.
    pub(crate) fn new(plan: &Plan<'_>, kinds: Arc<Kinds>) -> Self {
        let table = |kind: &Arc<dyn Kind>| {
            let shift = kind.about().shape.shift();
            let (embeddings, vectors) = (vec![0.0; kind.about().tasks * shift], kind.vectors(plan));
            Table { embeddings, vectors, starts: Vec::new() }
        };
        let tables = kinds.all.iter().map(table).collect();
        Self { kinds, tables }
    }

    /// Adapts all kinds to `labels` under the weights of `ranker`.
    ///
    /// # Errors
    /// Those of adaptations.
    pub(crate) fn adapt(
        plan: &Plan<'_>,
        ranker: &Ranker,
        labels: &[f32],
        kinds: Arc<Kinds>,
        threads: usize,
    ) -> Result<Self> {
        let adapting = Adapting { plan, ranker, labels, threads };
        let mut found = Self::new(plan, kinds);
        found.start(ranker.view())?;
        for (at, steps) in found.kinds.schedule(ranker.shape.options.steps as usize) {
            let kind = Arc::clone(&found.kinds.all[at]);
            let tasks = kind.adapted();
            let made = found.adapt_tasks(adapting, at, kind.as_ref(), &tasks, steps)?;
            found.keep(at, tasks.into_iter().zip(made.chunks_exact(kind.about().shape.options.embedding as usize)));
        }
        Ok(found)
    }

    /// Makes the embeddings before any outcome anew, under the weights of `ranker`.
    ///
    /// # Errors
    /// Those of adaptations.
    pub(crate) fn start(&mut self, ranker: RankerView<'_>) -> Result<()> {
        for (kind, table) in self.kinds.all.iter().zip(&mut self.tables) {
            table.starts = kind.starts(ranker)?;
        }
        Ok(())
    }

    /// Keeps the embeddings of some tasks.
    pub(crate) fn keep<'m>(&mut self, kind: usize, made: impl IntoIterator<Item = (u32, &'m [f32])>) {
        let table = &mut self.tables[kind].embeddings;
        for (task, made) in made {
            table[task as usize * made.len()..(task as usize + 1) * made.len()].copy_from_slice(made);
        }
    }

    /// Adds the embedding of the item of outcome `i` to `shift`, where items have one.
    pub(crate) fn shift_by_item(&self, i: usize, shift: &mut [f32]) {
        if let Some((at, item)) = &self.kinds.item {
            item.shift(&self.tables[*at], 0, i as u32, Shown::ALL, shift);
        }
    }

    /// The embedding of each item, `[items, embedding]`, adapted to all its outcomes that are trained on: the mean over its
    /// entities. An entity without outcomes has that of the block as it was learned, an item without entities zeros. Empty where
    /// items have no part.
    ///
    /// # Errors
    /// Those of adaptations.
    pub(crate) fn items(&self, plan: &Plan<'_>, ranker: &Ranker, labels: &[f32], threads: usize) -> Result<Vec<f32>> {
        let Some((at, item)) = &self.kinds.item else { return Ok(Vec::new()) };
        let (whole, steps) = (item.of_members(), ranker.shape.options.steps as usize);
        let adapting = Adapting { plan, ranker, labels, threads };
        let made = self.adapt_tasks(adapting, *at, &whole, &whole.adapted(), steps)?;
        Ok(item.by_item(&made, ranker.shape.options.embedding as usize))
    }

    /// The embeddings of tasks of `kind`, the kind at number `at`, after `steps` inner steps.
    fn adapt_tasks(
        &self,
        adapting: Adapting<'_, '_>,
        at: usize,
        kind: &dyn Kind,
        tasks: &[u32],
        steps: usize,
    ) -> Result<Vec<f32>> {
        let Adapting { plan, ranker, labels, threads } = adapting;
        let shape = &kind.about().shape;
        let heads = shape.heads;
        let sources = Sources { plan, labels, items: &ranker.items, embeddings: self };
        let shown = Shown { before: kind.is_first(), ..Shown::ALL };
        type Thread<'t> = (Adapter<'t>, Vec<f32>);
        let one = |task: u32, (adapter, rows): &mut Thread<'_>| -> Result<Vec<f32>> {
            let (mut input, mut known) = (vec![0.0; shape.inputs], Vec::new());
            kind.input(plan, labels, &self.tables[at], task, false, &mut input)?;
            rows.clear();
            for i in if steps > 0 { kind.support(plan, task) } else { Vec::new() } {
                sources.row((at, kind), task, i, shown, rows);
                known.extend_from_slice(&labels[i as usize * heads..(i as usize + 1) * heads]);
            }
            let own = kind.entity(plan, task).and_then(|row| ranker.entity(row));
            Ok(adapter.adapt(&input, own, rows, &known, steps)?.embedding.to_vec())
        };
        let adapter = RankerView { shape, ..ranker.view() }.adapter()?;
        let start = || (adapter.clone(), Vec::new());
        let mut all = Vec::with_capacity(tasks.len() * shape.options.embedding as usize);
        for made in threads::map(threads, tasks.len(), start, |job, thread| one(tasks[job], thread)) {
            all.extend(made?);
        }
        match all.iter().all(|x| x.is_finite()) {
            true => Ok(all),
            false => {
                Err(err!(Diverged, "an adapted ranker gave an embedding that is not finite; lower the inner rate"))
            }
        }
    }
}

/// The embedding of each item, `[items, embedding]`, adapted to the outcomes of a plan; empty for a ranker without a part of items.
///
/// # Errors
/// Those of adaptations.
pub(crate) fn adapt_items(plan: &Plan<'_>, ranker: &Ranker, threads: usize) -> Result<Vec<f32>> {
    let (labels, kinds) = (&plan.impressions.labels, Arc::new(Kinds::new(plan, &ranker.shape)?));
    match kinds.item {
        Some(_) => Embeddings::adapt(plan, ranker, labels, kinds, threads)?.items(plan, ranker, labels, threads),
        None => Ok(Vec::new()),
    }
}
