//! The events that may be trained on, as the network reads them, and the windows that one epoch takes from them.

use crate::data::{Column, Dataset, Split};
use crate::error::{Result, err};
use crate::model::History;
use crate::random::{Rng, hash64};
use crate::schema::FieldKind;
use std::ops::Range;

/// Codes every event of `keep` (indices into the dataset's columns) as one long history.
pub(crate) fn encode_events(data: &Dataset, keep: impl Iterator<Item = usize> + Clone) -> History {
    let e = &data.events;
    let pick = |code: &dyn Fn(usize) -> u32| keep.clone().map(code).collect::<Vec<u32>>();
    let field = |(column, field): (&Column, &crate::schema::EventField)| match column {
        Column::Codes(codes) => pick(&|i| codes.get(i).copied().unwrap_or(0)),
        Column::Numbers(values) => pick(&|i| field.field.kind.bucket(values.get(i).copied().unwrap_or(f32::NAN))),
        Column::Lists { .. } | Column::Vectors { .. } => pick(&|_| 0),
    };
    History {
        items: keep.clone().filter_map(|i| e.item.get(i).copied()).collect(),
        time: keep.clone().filter_map(|i| e.time.get(i).copied()).collect(),
        action: keep.clone().filter_map(|i| e.action.get(i).copied()).collect(),
        value: keep.clone().filter_map(|i| e.value.get(i).copied()).collect(),
        fields: e.fields.iter().zip(&data.schema.event_fields).map(field).collect(),
    }
}

/// The training events of every entity.
#[derive(Debug, Default)]
pub(crate) struct Corpus {
    /// All of them, one entity after another.
    pub history: History,
    /// Entity `s` (of those that have any) is events `offsets[s]..offsets[s + 1]`.
    pub offsets: Vec<usize>,
    /// Labels, 0 or 1; NaN is missing; empty where the dataset has none.
    pub labels: Vec<f32>,
    /// The place of each event in the dataset's columns.
    pub kept: Vec<usize>,
}

/// One training sequence: which events it predicts, and where the entity's own begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    /// First event of the entity.
    pub begin: usize,
    /// One past the last event of the entity.
    pub end: usize,
    /// The events to predict, each from all before it in the window.
    pub targets: Range<usize>,
}

impl Corpus {
    /// Gathers what `split` allows.
    ///
    /// # Errors
    /// `InvalidData` if nothing is left to train on.
    pub(crate) fn new(data: &Dataset, split: &Split) -> Result<Self> {
        if data.schema.event_fields.iter().any(|f| !is_code(&f.field.kind)) {
            return Err(err!(
                InvalidData,
                "event fields must be categorical or numeric; declare lists on items instead"
            ));
        }
        let hidden = |i: usize| {
            let item = data.events.item.get(i).copied().unwrap_or(u32::MAX) as usize;
            split.hidden.get(item).copied().unwrap_or(false)
        };
        let mut keep = Vec::new();
        let mut offsets = vec![0];
        for range in &split.train {
            keep.extend(range.clone().filter(|i| !hidden(*i)));
            if offsets.last() != Some(&keep.len()) {
                offsets.push(keep.len());
            }
        }
        if keep.is_empty() {
            return Err(err!(
                InvalidData,
                "the split leaves no event to train on; bring more events or another protocol"
            ));
        }
        let history = encode_events(data, keep.iter().copied());
        let labels = keep.iter().filter_map(|i| data.events.label.get(*i).copied()).collect();
        Ok(Self { history, offsets, labels, kept: keep })
    }

    /// How many entities there are.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The order of entities in an epoch: a function of the seed and the epoch alone.
    pub(crate) fn order(&self, seed: u64, epoch: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        Rng::for_stream(seed, hash64(1, u64::from(epoch))).shuffle(&mut order);
        order
    }

    /// The window of entity `s` in an epoch: the latest `context` events, or, with probability `share`, as many drawn
    /// over the whole of a longer history (model.md, sliding windows).
    pub(crate) fn window(&self, s: u32, context: usize, share: f32, seed: u64, epoch: u32) -> Window {
        let (a, z) = match self.offsets.get(s as usize..s as usize + 2) {
            Some(&[a, z]) => (a, z),
            _ => (0, 0),
        };
        let mut end = z;
        if z - a > context {
            let mut rng = Rng::for_stream(seed, hash64(2 + u64::from(epoch), u64::from(s)));
            if rng.uniform() < f64::from(share) {
                end = a + context + rng.below(z - a - context + 1);
            }
        }
        Window { begin: a, end: z, targets: end.saturating_sub(context).max(a)..end }
    }
}

fn is_code(kind: &FieldKind) -> bool {
    matches!(kind, FieldKind::Categorical(_) | FieldKind::Numeric(_))
}
