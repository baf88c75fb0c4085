//! What is trained where nobody said otherwise? One rule from the size of the training data to a model's shape and the
//! way it is trained.
//!
//! The rule looks at the training part of a split, how many entities, events and items there are and how long
//! the histories, and at the size of the catalogue. docs/train.md describes it. Every number that it is made of stands at the top of this file.

use crate::data::{Dataset, Split};
use crate::error::{Result, err};
use crate::options::{Loss, MOST_NEGATIVES, ModelOptions, Negatives, TowerOptions, TrainOptions};
use std::fmt;

/// The full softmax is taken where the vectors of all items are at most so many times the weights of the blocks: a step costs at most four
/// times what it would cost without them. Beyond, samples cost less and are no worse, if there are enough of them.
const FULL_TIMES: f64 = 3.0;
/// A step's tokens share its negatives. They are as many as the tokens, at least this share of the catalogue, and at least so many; with fewer, what
/// all tokens have in common is noise, and learning takes more steps.
const NEGATIVE_SHARE: usize = 100;
pub(crate) const NEGATIVES: u32 = 256;
/// Where they would be this share of the catalogue or more, it is taken whole.
const WHOLE_SHARE: usize = 3;
/// Model width by training events: the last entry whose events are reached.
const WIDTHS: [(usize, u32); 2] = [(0, 32), (20_000, 64)];
/// Hidden width of the feed-forward part, as a multiple of the model width.
const HIDDEN: u32 = 4;
/// One window from each history holds this share of all events, within these bounds of `max_length`.
const HELD: f64 = 0.95;
const MAX_LENGTH: (u32, u32) = (20, 200);
/// Training ends when learning does; it makes about this many steps at most, within these bounds of epochs.
const STEPS: usize = 22_400;
const EPOCHS: (usize, usize) = (120, 1_600);
/// Epochs without a better validation before learning has ended: about so many steps, and at least so many epochs. Steps, because on a
/// small set an epoch is a few of them, and at first a model knows popularity alone for some hundreds.
const PATIENCE: usize = 1_900;
const PATIENCE_EPOCHS: usize = 10;
/// Dropout at one training event per weight, how much more for every tenfold fewer, and its bounds.
const DROPOUT: f64 = 0.3;
const DROPOUT_SLOPE: f64 = 0.23;
const DROPOUT_RANGE: (f64, f64) = (0.1, 0.5);

/// What the rule looks at: the size of the training part of a split.
#[derive(Debug, Clone, PartialEq)]
pub struct Size {
    /// Entities with events to train on.
    pub entities: usize,
    /// Events to train on.
    pub events: usize,
    /// Items with events to train on.
    pub items: usize,
    /// Items of the catalogue.
    pub catalogue: usize,
    /// Median length of a history.
    pub median: usize,
    /// The window length of which one window from each history holds 95 % of all events.
    pub long: usize,
    /// Median events of an item that has any.
    pub item_events: usize,
}

impl Size {
    /// Measures the training part of `split`.
    ///
    /// # Errors
    /// `InvalidData` if it has no events.
    pub fn of(data: &Dataset, split: &Split) -> Result<Self> {
        let mut per_item = vec![0usize; data.items.len()];
        let mut lengths = Vec::with_capacity(split.train.len());
        for range in &split.train {
            let items = data.events.item.get(range.clone()).unwrap_or(&[]);
            let mut length = 0;
            for &item in items.iter().filter(|i| !split.is_hidden(**i)) {
                length += 1;
                if let Some(n) = per_item.get_mut(item as usize) {
                    *n += 1;
                }
            }
            if length > 0 {
                lengths.push(length);
            }
        }
        if lengths.is_empty() {
            return Err(err!(
                InvalidData,
                "the split leaves no event to train on; bring more events or another protocol"
            ));
        }
        per_item.retain(|n| *n > 0);
        lengths.sort_unstable();
        per_item.sort_unstable();
        Ok(Self {
            entities: lengths.len(),
            events: lengths.iter().sum(),
            items: per_item.len(),
            catalogue: data.items.len(),
            median: median(&lengths),
            long: long(&lengths),
            item_events: median(&per_item),
        })
    }
}

/// The lower median of sorted numbers; 0 if there is none.
fn median(sorted: &[usize]) -> usize {
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

/// The smallest of the sorted lengths such that windows of it hold [`HELD`] of all events.
fn long(lengths: &[usize]) -> usize {
    let all: usize = lengths.iter().sum();
    let (mut whole, mut left) = (0, lengths.len());
    for &length in lengths {
        if (whole + length * left) as f64 >= HELD * all as f64 {
            return length;
        }
        whole += length;
        left -= 1;
    }
    lengths.last().copied().unwrap_or(0)
}

/// One thing that the rule chose.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The keys of `train.toml` that it set.
    pub keys: &'static [&'static str],
    /// What was chosen, in words.
    pub what: String,
    /// Why.
    pub why: String,
}

/// Options that fit a dataset, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Defaults {
    /// What was looked at.
    pub size: Size,
    /// The shape of the model.
    pub model: ModelOptions,
    /// How it is trained.
    pub train: TrainOptions,
    /// What the rule set; all else is as in [`ModelOptions::default`] and [`TrainOptions::default`].
    pub choices: Vec<Choice>,
}

impl fmt::Display for Defaults {
    /// One line: what was looked at, each choice and its reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size { entities, events, items, .. } = self.size;
        write!(f, "{events} events of {entities} entities on {items} items")?;
        for choice in &self.choices {
            write!(f, "; {} ({})", choice.what, choice.why)?;
        }
        Ok(())
    }
}

/// The options that the rule chooses for the training part of `split`.
///
/// # Errors
/// `InvalidData` if it has no events.
pub fn defaults(data: &Dataset, split: &Split) -> Result<Defaults> {
    let mut chosen = of_size(Size::of(data, split)?);
    let fields = data.schema.item_fields.len() + usize::from(data.titles.iter().any(|t| !t.is_empty()));
    if fields > 0 {
        chosen.model.tower = Some(TowerOptions::default());
        let why = format!("{fields} kinds of metadata are declared");
        chosen.choices.push(Choice { keys: &["enabled"], what: "an item tower".into(), why });
    }
    Ok(chosen)
}

fn of_size(size: Size) -> Defaults {
    let mut model = ModelOptions::default();
    let mut train = TrainOptions::default();
    let mut choices = Vec::new();
    let mut say = |keys, what: String, why: String| choices.push(Choice { keys, what, why });

    model.width = WIDTHS.iter().filter(|(events, _)| size.events >= *events).map(|w| w.1).next_back().unwrap_or(32);
    model.hidden = model.width * HIDDEN;
    say(&["width", "hidden"], format!("width {}", model.width), format!("{} events in all", size.events));

    model.max_length =
        (size.long.min(MAX_LENGTH.1 as usize) as u32).next_multiple_of(10).clamp(MAX_LENGTH.0, MAX_LENGTH.1);
    let why = format!("median history {}; windows of {} hold 95 % of all events", size.median, size.long);
    say(&["max_length"], format!("max_length {}", model.max_length), why);

    let (times, tokens) = (times(&model, size.catalogue), step_tokens(&size, &model, train.batch));
    train.loss = Some(loss(times, tokens, size.catalogue));
    let what = match train.loss {
        Some(Loss::Sampled(n)) => format!("softmax over {} sampled items", n.count),
        _ => "softmax over all items".to_owned(),
    };
    let why =
        format!("over all {} it costs {times:.1} times what the blocks do; {tokens} tokens a step", size.catalogue);
    say(&["loss"], what, why);

    let steps = size.entities.div_ceil(train.batch as usize).max(1);
    train.epochs = STEPS.div_ceil(steps).next_multiple_of(10).clamp(EPOCHS.0, EPOCHS.1) as u32;
    train.patience = PATIENCE.div_ceil(steps).clamp(PATIENCE_EPOCHS, EPOCHS.1) as u32;
    let what = format!("at most {} epochs, patience {}", train.epochs, train.patience);
    say(&["epochs", "patience"], what, format!("{steps} steps an epoch"));

    let ratio = size.events as f64 / weights(&model, size.items);
    train.dropout = dropout(ratio);
    say(&["dropout"], format!("dropout {}", train.dropout), format!("{ratio:.2} events per weight"));
    Defaults { size, model, train, choices }
}

/// What the softmax over all items costs a step, as a multiple of what the blocks do: both cost six operations a token and weight.
fn times(model: &ModelOptions, catalogue: usize) -> f64 {
    catalogue as f64 * f64::from(model.width) / block_weights(model).max(1.0)
}

/// Tokens of a step, about.
fn step_tokens(size: &Size, model: &ModelOptions, batch: u32) -> usize {
    let length = (size.events as f64 / size.entities.max(1) as f64).min(f64::from(model.max_length));
    (length * f64::from(batch)).round() as usize
}

/// The loss for a catalogue of this size over which the softmax costs so many times what the blocks do, in steps of so many tokens.
fn loss(times: f64, tokens: usize, catalogue: usize) -> Loss {
    let count = catalogue.div_ceil(NEGATIVE_SHARE).max(tokens).clamp(NEGATIVES as usize, MOST_NEGATIVES as usize);
    let whole = times <= FULL_TIMES || count.saturating_mul(WHOLE_SHARE) >= catalogue;
    if whole { Loss::Full } else { Loss::Sampled(Negatives::mixed(count as u32)) }
}

/// The loss that the rule chooses for these data and this shape.
///
/// # Errors
/// As [`Size::of`].
pub(crate) fn loss_for(data: &Dataset, split: &Split, model: &ModelOptions, batch: u32) -> Result<Loss> {
    let size = Size::of(data, split)?;
    Ok(loss(times(model, size.catalogue), step_tokens(&size, model, batch), size.catalogue))
}

/// The weights that training moves, about: item vectors, and those of the blocks.
fn weights(model: &ModelOptions, items: usize) -> f64 {
    items as f64 * f64::from(model.width) + block_weights(model)
}

/// The weights of the blocks: each has attention (four matrices), two gates and the three matrices of the feed-forward part.
fn block_weights(model: &ModelOptions) -> f64 {
    let (d, h) = (f64::from(model.width), f64::from(model.hidden));
    f64::from(model.blocks) * (6.0 * d * d + 3.0 * d * h)
}

/// The dropout for so many training events per weight: the fewer, the more.
fn dropout(ratio: f64) -> f32 {
    let exact = (DROPOUT - DROPOUT_SLOPE * ratio.max(1e-9).log10()).clamp(DROPOUT_RANGE.0, DROPOUT_RANGE.1);
    // In steps of 0.05, written as short as they are.
    (exact * 20.0).round() as f32 / 20.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(entities: usize, events: usize, items: usize, long: usize) -> Size {
        Size { entities, events, items, catalogue: items, median: long / 4, long, item_events: events / items.max(1) }
    }

    #[test]
    fn movielens_gets_about_the_static_defaults() {
        let Defaults { model, train, .. } = of_size(size(6_040, 987_530, 3_416, 600));
        assert_eq!(model, ModelOptions::default());
        assert_eq!(train, TrainOptions { loss: Some(Loss::Full), ..TrainOptions::default() });
    }

    #[test]
    fn short_histories_on_many_items_get_short_windows_and_much_dropout() {
        let Defaults { model, train, .. } = of_size(size(19_412, 128_773, 11_876, 31));
        assert_eq!(
            (model.width, model.max_length, train.dropout, train.epochs, train.patience),
            (64, 40, 0.5, 120, 10)
        );
        assert_eq!(
            train.loss,
            Some(Loss::Sampled(Negatives::mixed(256))),
            "11,876 items cost five times what the blocks do"
        );
        let Defaults { train, .. } = of_size(size(1_000_000, 50_000_000, 500_000, 100));
        assert_eq!(train.loss, Some(Loss::Sampled(Negatives::mixed(5_000))));
        let Defaults { train, .. } = of_size(size(138_000, 20_000_000, 27_000, 300));
        assert_eq!(train.loss, Some(Loss::Sampled(Negatives::mixed(4_638))), "as many as a step has tokens");
        let Defaults { train, .. } = of_size(size(600, 80_000, 9_000, 500));
        assert_eq!(train.loss, Some(Loss::Full), "a step has half as many tokens as there are items");
        let wide = ModelOptions { width: 256, hidden: 1024, ..ModelOptions::default() };
        assert_eq!(loss(times(&wide, 27_000), 200, 27_000), Loss::Full, "a wide network costs more beside its items");
    }

    #[test]
    fn whatever_the_size_the_options_are_valid() {
        for entities in [1, 7, 1_000, 100_000_000] {
            for events in [1, 10, 100_000, 1 << 40] {
                for items in [1, 3, 1_000_000_000] {
                    let Defaults { model, train, choices, .. } = of_size(size(entities, events, items, events));
                    model.check().unwrap();
                    train.check().unwrap();
                    assert!(choices.iter().all(|c| !c.keys.is_empty() && !c.what.is_empty() && !c.why.is_empty()));
                }
            }
        }
    }

    #[test]
    fn lengths_are_measured() {
        let lengths: Vec<usize> = (1..=100).collect();
        assert_eq!((median(&lengths), median(&[]), median(&[4])), (50, 0, 4));
        // Windows of 79 hold 79 * 80 / 2 + 21 * 79 = 4,819 of 5,050; windows of 78 hold 4,797.
        assert_eq!(long(&lengths), 79);
        assert_eq!((long(&[]), long(&[5]), long(&[1, 1, 1, 97])), (0, 5, 97));
    }

    #[test]
    fn only_what_is_trained_on_is_looked_at() {
        let world = crate::data::SyntheticOptions { entities: 50, items: 60, days: 20, ..Default::default() };
        let data = crate::data::World::new(&world, 1).unwrap().dataset().unwrap();
        let split = Split::new(&data, &crate::data::Protocol::LeaveOneOut).unwrap();
        let mut other = data.clone();
        for case in split.test.iter().chain(&split.validation) {
            other.events.item[case.target] = 0;
        }
        let found = defaults(&data, &split).unwrap();
        assert_eq!(found, defaults(&other, &split).unwrap());
        assert_eq!(found.size.events, split.train.iter().map(|r| r.len()).sum::<usize>());
        let mut none = split.clone();
        none.train.iter_mut().for_each(|r| r.end = r.start);
        assert_eq!(defaults(&data, &none).unwrap_err().kind(), crate::ErrorKind::InvalidData);
    }
}
