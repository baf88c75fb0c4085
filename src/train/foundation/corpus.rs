//! The events that may be trained on, as the network reads them, and the windows that one epoch takes from them.

use crate::data::{Column, Dataset, Split};
use crate::error::{Result, err};
use crate::model::History;
use crate::options::TokenizerOptions;
use crate::random::{Rng, hash64};
use crate::schema::FieldKind;
use crate::tokenizer::Tokenizer;
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
        first: Vec::new(),
        action: keep.clone().filter_map(|i| e.action.get(i).copied()).collect(),
        value: keep.clone().filter_map(|i| e.value.get(i).copied()).collect(),
        fields: e.fields.iter().zip(&data.schema.event_fields).map(field).collect(),
    }
}

/// The training events of every entity, or the tokens made of them.
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
    /// Of tokens: token `t` is made of the events `kept[spans[t]..spans[t + 1]]`. Empty where every event is a token.
    pub spans: Vec<usize>,
    /// How many versions there are of every history, whole one after another; 0 and 1 are the history alone. An epoch reads one of
    /// each.
    pub versions: usize,
}

/// Versions of a history whose tokens are merged with dropout, the one without among them.
const VERSIONS: usize = 4;

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
        Ok(Self { history, offsets, labels, kept: keep, spans: Vec::new(), versions: 1 })
    }

    /// The same events as tokens. With [`TokenizerOptions::dropout`] there are several versions of each history, in all but the first
    /// of which merges are left out at random, a function of `seed`.
    pub(crate) fn merged(&self, tokenizer: &Tokenizer, seed: u64) -> Self {
        let dropout = f64::from(tokenizer.options().dropout);
        let versions = if dropout > 0.0 { VERSIONS } else { 1 };
        let mut merged = Self { offsets: vec![0], spans: vec![0], versions, ..Self::default() };
        let mut latest = Vec::new();
        for version in 0..versions {
            let shift = merged.kept.len();
            merged.kept.extend_from_slice(&self.kept);
            for (s, (a, z)) in self.offsets.iter().zip(self.offsets.iter().skip(1)).enumerate() {
                let mut rng = Rng::for_stream(seed, hash64(8 + version as u64, s as u64));
                let cut = |_: &usize| version > 0 && rng.uniform() < dropout;
                let ends: Vec<usize> = (a + 1..*z).filter(cut).chain([*z]).collect();
                let mut from = *a;
                for to in ends {
                    tokenizer.merge_with(&self.history, from..to, &mut merged.history, |events| {
                        merged.spans.push(shift + events.end);
                        let labels = self.labels.get(events).unwrap_or_default();
                        latest.push(labels.iter().rev().copied().find(|l| !l.is_nan()).unwrap_or(f32::NAN));
                    });
                    from = to;
                }
                merged.offsets.push(merged.history.items.len());
            }
        }
        if !self.labels.is_empty() {
            merged.labels = latest;
        }
        merged
    }

    /// The events of one version of all histories.
    pub(crate) fn once(&self) -> usize {
        self.offsets.get(self.len()).copied().unwrap_or(0)
    }

    /// How many entities there are.
    pub(crate) fn len(&self) -> usize {
        (self.offsets.len() - 1) / self.versions.max(1)
    }

    /// The order of entities in an epoch, each by one of its versions: a function of the seed and the epoch alone.
    pub(crate) fn order(&self, seed: u64, epoch: u32) -> Vec<u32> {
        let n = self.len() as u32;
        let mut order: Vec<u32> = (0..n).collect();
        let mut rng = Rng::for_stream(seed, hash64(1, u64::from(epoch)));
        rng.shuffle(&mut order);
        if self.versions > 1 {
            order.iter_mut().for_each(|s| *s += n * rng.below(self.versions) as u32);
        }
        order
    }

    /// The window of the history `s` in an epoch: the latest `length` events, or, with probability `share`, as many drawn
    /// over the whole of a longer history (docs/model.md).
    pub(crate) fn window(&self, s: u32, length: usize, share: f32, seed: u64, epoch: u32) -> Window {
        let (a, z) = match self.offsets.get(s as usize..s as usize + 2) {
            Some(&[a, z]) => (a, z),
            _ => (0, 0),
        };
        let mut end = z;
        if z - a > length {
            let mut rng = Rng::for_stream(seed, hash64(2 + u64::from(epoch), u64::from(s)));
            if rng.uniform() < f64::from(share) {
                end = a + length + rng.below(z - a - length + 1);
            }
        }
        Window { begin: a, end: z, targets: end.saturating_sub(length).max(a)..end }
    }
}

/// Codes every event of a dataset, in its order, as one long history.
pub fn encode(data: &Dataset) -> History {
    encode_events(data, 0..data.events.len())
}

/// The tokenizer that options ask for, learned from the training events of a split: what [`Trainer`](crate::train::Trainer) trains
/// with.
///
/// # Errors
/// As [`Tokenizer::learn`]; `InvalidData` if there is nothing to train on.
pub fn tokenizer(data: &Dataset, split: &Split, options: &TokenizerOptions) -> Result<Tokenizer> {
    let corpus = Corpus::new(data, split)?;
    Tokenizer::learn(&data.schema, options, &corpus.history, &corpus.offsets)
}

fn is_code(kind: &FieldKind) -> bool {
    matches!(kind, FieldKind::Categorical(_) | FieldKind::Numeric(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{BuildOptions, DatasetBuilder, Declaration, EventRow, Protocol};
    use crate::event::Event;

    /// People with runs of three views and a like.
    fn data() -> Dataset {
        let declaration = Declaration { action: true, ..Declaration::new("runs").with_time() };
        let mut builder = DatasetBuilder::new(declaration, BuildOptions::default()).unwrap();
        for person in 0..30 {
            for event in 0..40i64 {
                let item = format!("i{}", (event / 4 * 7 + person) % 11);
                let action = if event % 4 == 3 { "like" } else { "view" };
                let (id, time) = (format!("p{person}"), Some(event * 10_000));
                let event = Event { time, action: Some(action), ..Event::item(&item) };
                builder.push_event(&EventRow::new(&id, event)).unwrap();
            }
        }
        builder.build().unwrap()
    }

    #[test]
    fn merges_that_are_left_out_lose_no_event_and_an_epoch_reads_everybody_once() {
        let data = data();
        let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
        let options = TokenizerOptions { max_gap: 60, ..TokenizerOptions::default() };
        let plain = Corpus::new(&data, &split).unwrap();
        let learned = |dropout: f32| {
            let options = TokenizerOptions { dropout, ..options.clone() };
            Tokenizer::learn(&data.schema, &options, &plain.history, &plain.offsets).unwrap()
        };
        let whole = plain.merged(&learned(0.0), 1);
        let several = plain.merged(&learned(0.5), 1);
        let n = plain.len();
        assert_eq!((whole.len(), several.len(), several.offsets.len() - 1), (n, n, VERSIONS * n));
        assert_eq!(several.once(), whole.history.items.len());
        assert_eq!(several.history.items[..several.once()], whole.history.items[..]);
        assert_eq!(several.spans[..=several.once()], whole.spans[..]);
        let mut more = Vec::new();
        for version in 0..VERSIONS {
            let (mut tokens, mut events) = (0, 0);
            for s in version * n..(version + 1) * n {
                let (a, z) = (several.offsets[s], several.offsets[s + 1]);
                tokens += z - a;
                events += several.spans[z] - several.spans[a];
                // Each token is of the events that it says, in their order.
                for t in a..z {
                    let first = several.kept[several.spans[t]];
                    assert_eq!(several.history.items[t], data.events.item[first]);
                }
            }
            assert_eq!(events, plain.history.items.len());
            more.push(tokens);
        }
        assert!(more[1..].iter().all(|t| *t > more[0] + more[0] / 2), "{more:?}");
        assert_ne!(several.offsets[n..2 * n], several.offsets[2 * n..3 * n]);
        for epoch in 0..5 {
            let mut order = several.order(3, epoch);
            assert!(order.iter().any(|s| *s as usize >= n));
            order.iter_mut().for_each(|s| *s %= n as u32);
            order.sort_unstable();
            assert_eq!(order, (0..n as u32).collect::<Vec<_>>());
        }
        assert_eq!(plain.merged(&learned(0.5), 1).history, several.history);
        assert_ne!(plain.merged(&learned(0.5), 2).history, several.history);
    }
}
