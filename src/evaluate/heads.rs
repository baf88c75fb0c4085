//! How good are the heads beside the item head? Each by itself, against what the training events alone would say.

use super::engine::EngineScorer;
use super::known::{CountedEvents, for_each_sequence};
use super::metrics::logloss;
use crate::data::{Dataset, Split};
use crate::error::{Result, err};
use crate::kernels::rank::auc;
use crate::model::{History, Scratch};
use crate::train::foundation::corpus::encode_events;
use crate::train::foundation::targets::each_class;

/// What one head reached on the test questions that have a value of its field.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize))]
pub struct HeadResult {
    /// The field, or `feedback`.
    pub name: String,
    /// Questions whose target has a value of the field, or a label.
    pub questions: usize,
    /// Its metrics.
    pub metrics: HeadMetrics,
}

/// The metrics of a head: those that are of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct HeadMetrics {
    /// How often the likeliest class of an auxiliary head is one of the target's.
    pub accuracy: Option<f64>,
    /// The same of the class that most training events have.
    pub marginal_accuracy: Option<f64>,
    /// The area under the ROC curve of the feedback head.
    pub auc: Option<f64>,
    /// The mean log loss: over the target's values of an auxiliary head, of the label of the feedback head.
    pub logloss: Option<f64>,
    /// The log loss of the training events' mean label.
    pub marginal_logloss: Option<f64>,
}

impl HeadMetrics {
    /// Those that there are, by the keys of reports.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let all = [
            ("accuracy", self.accuracy),
            ("marginal_accuracy", self.marginal_accuracy),
            ("auc", self.auc),
            ("logloss", self.logloss),
            ("marginal_logloss", self.marginal_logloss),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?)))
    }
}

#[cfg(feature = "files")]
impl serde::Serialize for HeadMetrics {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.entries())
    }
}

/// Judges every head of a generation on the test questions of `split`; empty where it has the item head only.
///
/// # Errors
/// `StateMismatch` where the dataset's fields have other values than those that the model was trained with; those of
/// the generation.
pub fn evaluate_heads(scorer: &EngineScorer, data: &Dataset, split: &Split) -> Result<Vec<HeadResult>> {
    let generation = scorer.generation();
    let heads = &generation.inference().features().heads;
    if heads.is_empty() && !generation.inference().has_feedback() {
        return Ok(Vec::new());
    }
    let (ours, theirs) = (generation.schema(), &data.schema);
    if ours.event_fields != theirs.event_fields
        || ours.item_fields != theirs.item_fields
        || ours.actions != theirs.actions
    {
        return Err(err!(
            StateMismatch,
            "dataset {} declares other fields or values than generation {} was trained with; judge its heads on the dataset \
             that it was trained on",
            theirs.name,
            generation.id()
        ));
    }
    let classes_of = |events: &History, i: usize, head: usize, to: &mut Vec<u32>| {
        to.clear();
        if let Some(head) = heads.get(head) {
            each_class(head, events, i, theirs, &data.item_columns, |c| to.push(c));
        }
    };
    let mut counts: Vec<Vec<u64>> = heads.iter().map(|h| vec![0; h.classes]).collect();
    let mut own = Vec::new();
    let mut labels = [0u64; 2];
    for_each_sequence(data, split, CountedEvents::BeforeTest, |_, indices| {
        let events = encode_events(data, indices.iter().copied());
        for (at, index) in indices.iter().enumerate() {
            for (h, counts) in counts.iter_mut().enumerate() {
                classes_of(&events, at, h, &mut own);
                own.iter().filter_map(|c| counts.get_mut(*c as usize).map(|n| *n += 1)).for_each(drop);
            }
            if let Some(label) = data.events.label.get(*index).filter(|l| !l.is_nan()) {
                labels[usize::from(*label > 0.5)] += 1;
            }
        }
    });
    let usual: Vec<u32> = counts.iter().map(|c| most(c.iter().map(|n| *n as f32))).collect();
    let mut sums = vec![Sums::default(); heads.len()];
    let (mut outcomes, mut truths) = (Vec::new(), Vec::new());
    let mut scratch = Scratch::default();
    for case in &split.test {
        let (history, request) = scorer.question(data, case);
        let expected = generation.inference().expect(generation.weights()?, &history, &request, &mut scratch)?;
        let target = encode_events(data, case.target..case.target + 1);
        for (h, (probabilities, sums)) in expected.heads.iter().zip(&mut sums).enumerate() {
            classes_of(&target, 0, h, &mut own);
            if own.is_empty() {
                continue;
            }
            sums.questions += 1;
            sums.right += u64::from(own.contains(&most(probabilities.iter().copied())));
            sums.usual += u64::from(usual.get(h).is_some_and(|u| own.contains(u)));
            let nats =
                own.iter().map(|c| -f64::from(probabilities.get(*c as usize).copied().unwrap_or(0.0)).max(1e-12).ln());
            sums.nats += nats.sum::<f64>() / own.len() as f64;
        }
        let label = data.events.label.get(case.target).copied().filter(|l| !l.is_nan());
        let row = data.events.item.get(case.target).and_then(|i| scorer.row(*i));
        if let (Some(label), Some(row)) = (label, row)
            && let Some(p) =
                generation.inference().feedback(generation.weights()?, &expected, generation.item_vector(row)?)
        {
            outcomes.push(p);
            truths.push(label > 0.5);
        }
    }
    let mut results: Vec<HeadResult> = heads.iter().zip(&sums).map(|(head, s)| s.result(&head.name)).collect();
    if generation.inference().has_feedback() {
        results.push(feedback_result(&outcomes, &truths, labels));
    }
    Ok(results)
}

#[derive(Debug, Clone, Default)]
struct Sums {
    questions: usize,
    right: u64,
    usual: u64,
    nats: f64,
}

impl Sums {
    fn result(&self, name: &str) -> HeadResult {
        let n = self.questions.max(1) as f64;
        let metrics = HeadMetrics {
            accuracy: Some(self.right as f64 / n),
            marginal_accuracy: Some(self.usual as f64 / n),
            logloss: Some(self.nats / n),
            ..HeadMetrics::default()
        };
        HeadResult { name: name.into(), questions: self.questions, metrics }
    }
}

fn feedback_result(probabilities: &[f32], labels: &[bool], counts: [u64; 2]) -> HeadResult {
    let rate = (counts[1] as f64 + 1.0) / (counts[0] + counts[1] + 2) as f64;
    let metrics = HeadMetrics {
        auc: auc(probabilities, labels),
        logloss: logloss(probabilities, labels),
        marginal_logloss: logloss(&vec![rate as f32; labels.len()], labels),
        ..HeadMetrics::default()
    };
    HeadResult { name: "feedback".into(), questions: labels.len(), metrics }
}

/// The place of the largest number, the first of equals.
fn most(values: impl Iterator<Item = f32>) -> u32 {
    let best = values.zip(0u32..).fold((f32::NEG_INFINITY, 0), |best, (v, i)| if v > best.0 { (v, i) } else { best });
    best.1
}
