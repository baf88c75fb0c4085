//! Ranks the whole catalogue for every question, on the threads that the caller grants.

use super::metrics::mean_rank;
use super::scorer::Scorer;
use super::served::{Method, Served};
use crate::data::{Case, Dataset, Split};
use crate::error::{Result, err};
use crate::options::Seen;
use crate::progress::{Cancel, ProgressEvent, ProgressSink};
use crate::threads;

/// How long the recommended lists are whose coverage is measured.
pub(super) const LIST: usize = 10;
/// Blocks of questions per thread between two looks at the progress.
const ROUND: usize = 8;

/// What one method did with all questions.
#[derive(Debug, Clone, Default)]
pub(super) struct Judged {
    /// The target's rank per question.
    pub ranks: Vec<f64>,
    /// Its rank among the hidden items alone, where the target is one; NaN elsewhere; empty where nothing is hidden.
    pub hidden_ranks: Vec<f64>,
    /// How often each item was among the first [`LIST`].
    pub recommended: Vec<u64>,
}

/// The rank of each question's target over the whole catalogue, without the items of its history where `split` excludes seen items;
/// ties at the mean of the ranks that they share: what chooses a model on validation questions. Uses up to `threads` threads; the result does not depend on how many.
///
/// # Errors
/// `InvalidArgument` for a question outside of `data`, `Diverged` for a NaN score, `Cancelled`, and what the scorer
/// returns.
pub fn ranks(
    data: &Dataset,
    split: &Split,
    cases: &[Case],
    scorer: &dyn Scorer,
    threads: usize,
    cancel: &Cancel,
) -> Result<Vec<f64>> {
    let judged = judge(data, cases, split, &[Method::Scores(scorer)], threads, &mut crate::progress::Silent, cancel)?;
    Ok(judged.into_iter().next().map(|j| j.ranks).unwrap_or_default())
}

/// Judges every method on every question, by the split's rule for seen items and its hidden items.
pub(super) fn judge(
    data: &Dataset,
    cases: &[Case],
    split: &Split,
    methods: &[Method<'_>],
    threads: usize,
    observer: &mut dyn ProgressSink,
    cancel: &Cancel,
) -> Result<Vec<Judged>> {
    check(data, cases)?;
    let items = data.items.len().max(1);
    // The block length decides which questions share a batch, so it must not depend on the number of threads.
    let block = ((1 << 21) / items).clamp(1, 64);
    let blocks: Vec<&[Case]> = cases.chunks(block).collect();
    let cold: Vec<&str> = (0..).zip(&split.hidden).filter(|(_, h)| **h).map(|(item, _)| data.items.id(item)).collect();
    let judge_block = |own: &[Case], scores: &mut [f32], marks: &mut [bool]| -> Result<Vec<Answers>> {
        if cancel.is_cancelled() {
            return Err(err!(Cancelled, "the evaluation was cancelled; nothing of it is kept, run it again"));
        }
        let mut answers = Vec::with_capacity(methods.len());
        for method in methods {
            let scorer = match method {
                Method::Scores(scorer) => scorer,
                Method::Lists(served) => {
                    answers.push(look_up(data, own, split, served, &cold)?);
                    continue;
                }
            };
            let rows = scores.get_mut(..own.len() * items).unwrap_or(&mut []);
            rows.fill(0.0);
            scorer.score_batch(data, own, rows)?;
            let mut found = Answers::default();
            for (case, row) in own.iter().zip(rows.chunks_exact_mut(items)) {
                let ranks = judge_one(data, case, split, row, marks, &mut found.recommended, scorer.name())?;
                found.ranks.push(ranks);
            }
            answers.push(found);
        }
        Ok(answers)
    };
    observer.on_event(&ProgressEvent::Stage {
        name: "evaluating".into(),
        total: cases.len() as u64,
        unit: "questions",
    });
    let mut judged = vec![Judged { recommended: vec![0; data.items.len()], ..Judged::default() }; methods.len()];
    let mut done = 0;
    // Progress is told between rounds, on the caller's thread.
    for round in blocks.chunks(ROUND * threads.max(1)) {
        let memory = || (vec![0.0f32; block * items], vec![false; items]);
        let answers = threads::map(threads, round.len(), memory, |b, (scores, marks)| {
            judge_block(round.get(b).copied().unwrap_or(&[]), scores, marks)
        });
        for answers in answers {
            judged.iter_mut().zip(answers?).for_each(|(all, own)| all.add(own, !split.hidden.is_empty()));
        }
        done += round.iter().map(|own| own.len() as u64).sum::<u64>();
        observer.on_event(&ProgressEvent::Advance { done });
    }
    Ok(judged)
}

/// What one method did with the questions of a block.
#[derive(Default)]
struct Answers {
    /// Each question's rank and hidden rank.
    ranks: Vec<(f64, f64)>,
    /// The items of all lists.
    recommended: Vec<u32>,
}

impl Judged {
    fn add(&mut self, answers: Answers, hidden: bool) {
        self.ranks.extend(answers.ranks.iter().map(|r| r.0));
        if hidden {
            self.hidden_ranks.extend(answers.ranks.iter().map(|r| r.1));
        }
        for item in answers.recommended {
            if let Some(count) = self.recommended.get_mut(item as usize) {
                *count += 1;
            }
        }
    }
}

/// Every question must lie inside of the dataset.
fn check(data: &Dataset, cases: &[Case]) -> Result<()> {
    let (events, items) = (data.events.len(), data.items.len());
    for (n, case) in cases.iter().enumerate() {
        let target = data.events.item.get(case.target);
        if case.history.start > case.history.end
            || case.history.end > events
            || target.is_none_or(|t| *t as usize >= items)
        {
            return Err(err!(
                InvalidArgument,
                "question {n} ({case:?}) does not fit a dataset of {events} events and {items} items; split the dataset that is evaluated"
            ));
        }
    }
    Ok(())
}

/// The places of the targets of a block in the lists that are served; those of hidden items also in lists of hidden items, `cold`,
/// alone.
fn look_up(data: &Dataset, cases: &[Case], split: &Split, served: &Served<'_>, cold: &[&str]) -> Result<Answers> {
    let mut found = Answers::default();
    for case in cases {
        let target = data.events.item.get(case.target).copied();
        let place = |list: &[Option<u32>]| {
            let place = list.iter().position(|item| item.is_some() && *item == target);
            place.map_or(f64::INFINITY, |place| 1.0 + place as f64)
        };
        let list = served.list(data, case, split.seen, None)?;
        let hidden = match target.is_some_and(|target| split.is_hidden(target)) {
            true => place(&served.list(data, case, split.seen, Some(cold))?),
            false => f64::NAN,
        };
        found.ranks.push((place(&list), hidden));
        found.recommended.extend(list.iter().take(LIST).filter_map(|item| *item));
    }
    Ok(found)
}

/// The rank of one question's target, over the catalogue and among the hidden items. `row` holds the scores and is used
/// up; `marks` is scratch, all false before and after.
fn judge_one(
    data: &Dataset,
    case: &Case,
    split: &Split,
    row: &mut [f32],
    marks: &mut [bool],
    recommended: &mut Vec<u32>,
    name: &str,
) -> Result<(f64, f64)> {
    let target = data.events.item.get(case.target).map_or(usize::MAX, |t| *t as usize);
    if let Some(item) = row.iter().position(|s| s.is_nan()) {
        return Err(err!(
            Diverged,
            "{name} scores item {:?} NaN for entity {:?}; train again with a lower learning rate",
            data.items.id(item as u32),
            data.entities.id(case.entity)
        ));
    }
    let own = row.get(target).copied().unwrap_or(f32::NEG_INFINITY);
    let history = match split.seen {
        Seen::Excluded => data.events.item.get(case.history.clone()).unwrap_or(&[]),
        Seen::Allowed => &[],
    };
    let hidden = split.hidden.as_slice();
    let mut excluded = 0usize;
    for item in history {
        let item = *item as usize;
        if let (Some(mark), Some(score)) = (marks.get_mut(item), row.get_mut(item))
            && item != target
            && !*mark
        {
            *mark = true;
            *score = f32::NEG_INFINITY;
            excluded += 1;
        }
    }
    let better = row.iter().filter(|s| **s > own).count();
    let mut equal = row.iter().filter(|s| **s == own).count().saturating_sub(1);
    if own == f32::NEG_INFINITY {
        equal = equal.saturating_sub(excluded);
    }
    let mut hidden_rank = f64::NAN;
    if hidden.get(target).copied().unwrap_or(false) {
        let others = || {
            let open = row.iter().zip(hidden).zip(marks.iter()).enumerate();
            open.filter(|(i, ((_, hidden), mark))| **hidden && !**mark && *i != target)
                .map(|(_, ((score, _), _))| *score)
        };
        hidden_rank = mean_rank(others().filter(|s| *s > own).count(), others().filter(|s| *s == own).count());
    }
    recommended.extend(first(row));
    for item in history {
        if let Some(mark) = marks.get_mut(*item as usize) {
            *mark = false;
        }
    }
    Ok((mean_rank(better, equal), hidden_rank))
}

/// The rows of the [`LIST`] highest scores above `-inf`, best first, ties by row.
fn first(scores: &[f32]) -> impl Iterator<Item = u32> {
    let mut best: Vec<(f32, u32)> = Vec::with_capacity(LIST + 1);
    let mut bar = f32::NEG_INFINITY;
    for (row, &score) in scores.iter().enumerate() {
        if score > bar {
            let place = best.partition_point(|b| b.0 >= score);
            best.insert(place, (score, row as u32));
            best.truncate(LIST);
            if best.len() == LIST {
                bar = best.last().map_or(bar, |b| b.0);
            }
        }
    }
    best.into_iter().map(|b| b.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_orders_by_score_then_row_and_leaves_out_what_is_excluded() {
        let mut scores = vec![0.0f32; 30];
        scores[29] = 3.0;
        scores[4] = f32::NEG_INFINITY;
        scores[17] = 3.0;
        assert_eq!(first(&scores).collect::<Vec<_>>(), [17, 29, 0, 1, 2, 3, 5, 6, 7, 8]);
        assert_eq!(first(&[f32::NEG_INFINITY, 1.0]).collect::<Vec<_>>(), [1]);
    }
}
