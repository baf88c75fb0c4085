//! What each position of a history is trained to predict, and what each prediction weighs (docs/model.md).

use super::corpus::{Corpus, Window};
use crate::data::{Column, Dataset, Marks};
use crate::error::{Result, err};
use crate::kernels::softmax::Targets;
use crate::model::{Features, Head, HeadSource, History};
use crate::options::{Objective, Seen, Utility};
use crate::schema::Schema;

/// The targets of training events.
pub(crate) struct Objectives<'a> {
    corpus: &'a Corpus,
    schema: &'a Schema,
    item_columns: &'a [Column],
    heads: &'a [Head],
    /// Weight of each event, mean 1; empty where all weigh alike.
    utility: Vec<f32>,
    /// Which events are no targets of the item head; empty where all are.
    passed: Vec<bool>,
    window: usize,
    half_life: f64,
}

/// What the weights of a step are divided by.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Totals {
    /// Of the item head.
    pub items: f64,
    /// Of each auxiliary head.
    pub heads: Vec<f64>,
    /// Labelled events.
    pub feedback: f64,
}

impl<'a> Objectives<'a> {
    /// Prepares the weights of all training events. Where seen items are excluded, an event that repeats an earlier item of its
    /// entity is no target: no list will be asked for it.
    ///
    /// # Errors
    /// `InvalidConfig` for a utility that the data do not have, or that is zero everywhere.
    pub(crate) fn new(
        data: &'a Dataset,
        corpus: &'a Corpus,
        features: &'a Features,
        objective: &Objective,
        seen: Seen,
        feedback: bool,
    ) -> Result<Self> {
        let label = |l: &f32| *l == 0.0 || *l == 1.0;
        if feedback && !(corpus.labels.iter().any(label) && corpus.labels.iter().all(|l| l.is_nan() || label(l))) {
            return Err(err!(
                InvalidConfig,
                "objectives.feedback needs training events with labels of 0 and 1; declare `label` with `positive` and \
                 `negative` in the dataset's description, or set it to 0"
            ));
        }
        Ok(Self {
            utility: utility(data, corpus, &objective.utility)?,
            passed: match seen {
                Seen::Excluded => repeats(corpus, data.items.len()),
                Seen::Allowed => Vec::new(),
            },
            corpus,
            schema: &data.schema,
            item_columns: &data.item_columns,
            heads: &features.heads,
            window: objective.window as usize,
            half_life: f64::from(objective.half_life),
        })
    }

    /// Calls `f` with the item of every event that the positions of a window predict.
    pub(crate) fn each_item(&self, window: &Window, mut f: impl FnMut(u32)) {
        for k in window.targets.clone() {
            self.each_target(window, k, |j, _| f(self.corpus.history.items[j]));
        }
    }

    fn worth(&self, event: usize) -> f32 {
        self.utility.get(event).copied().unwrap_or(1.0)
    }

    /// Calls `f` with the events that the position before event `k` predicts, and their weights: the utility times
    /// `2^(-(t_j - t_k) / half-life)`.
    fn each_target(&self, window: &Window, k: usize, mut f: impl FnMut(usize, f32)) {
        let passed = |event: usize| self.passed.get(event) == Some(&true);
        if !passed(k) {
            f(k, self.worth(k));
        }
        if self.half_life <= 0.0 {
            return;
        }
        let time = &self.corpus.history.time;
        for j in k + 1..(k + self.window).min(window.end) {
            let apart = match (time.get(k), time.get(j)) {
                (Some(a), Some(b)) => (b - a) as f64 / 1000.0,
                _ => (j - k) as f64,
            };
            let share = (-apart / self.half_life).exp2() as f32;
            if share > 1e-6 && !passed(j) {
                f(j, self.worth(j) * share);
            }
        }
    }

    /// What the weights of these windows sum to.
    pub(crate) fn totals(&self, windows: &[Window]) -> Totals {
        let mut totals = Totals { heads: vec![0.0; self.heads.len()], ..Totals::default() };
        for w in windows {
            for k in w.targets.clone() {
                self.each_target(w, k, |_, weight| totals.items += f64::from(weight));
                for (head, total) in self.heads.iter().zip(&mut totals.heads) {
                    let mut any = false;
                    self.each_class(head, k, |_| any = true);
                    *total += if any { f64::from(self.worth(k)) } else { 0.0 };
                }
                totals.feedback += if self.label(k).is_some() { 1.0 } else { 0.0 };
            }
        }
        totals
    }

    /// Adds the item targets of a window: item rows.
    pub(crate) fn items(&self, window: &Window, totals: &Totals, to: &mut Targets) {
        let share = 1.0 / totals.items.max(f64::MIN_POSITIVE) as f32;
        for k in window.targets.clone() {
            self.each_target(window, k, |j, weight| {
                to.rows.push(self.corpus.history.items[j]);
                to.weights.push(weight * share);
            });
            to.close();
        }
    }

    /// Adds the targets of auxiliary head `i` for a window: classes, between which a position's weight is divided.
    pub(crate) fn classes(&self, i: usize, window: &Window, totals: &Totals, to: &mut Targets) {
        let (head, total) = (&self.heads[i], totals.heads[i].max(f64::MIN_POSITIVE));
        for k in window.targets.clone() {
            let first = to.rows.len();
            self.each_class(head, k, |class| to.rows.push(class));
            let n = to.rows.len() - first;
            let weight = f64::from(head.weight * self.worth(k)) / total / n.max(1) as f64;
            to.weights.resize(to.rows.len(), weight as f32);
            to.close();
        }
    }

    /// The label of an event: 0 or 1.
    pub(crate) fn label(&self, event: usize) -> Option<f32> {
        self.corpus.labels.get(event).copied().filter(|l| !l.is_nan())
    }

    fn each_class(&self, head: &Head, event: usize, f: impl FnMut(u32)) {
        each_class(head, &self.corpus.history, event, self.schema, self.item_columns, f);
    }
}

/// Which events repeat an earlier item of their history; empty where none does.
fn repeats(corpus: &Corpus, items: usize) -> Vec<bool> {
    let mut marks = Marks::new(items);
    let mut repeats = vec![false; corpus.history.items.len()];
    for (a, z) in corpus.offsets.iter().zip(corpus.offsets.iter().skip(1)) {
        for (repeat, item) in repeats[*a..*z].iter_mut().zip(&corpus.history.items[*a..*z]) {
            *repeat = !marks.first(*item);
        }
        marks.forget();
    }
    if repeats.contains(&true) { repeats } else { Vec::new() }
}

/// Calls `f` with the classes that an event has for a head.
pub(crate) fn each_class(
    head: &Head,
    history: &History,
    event: usize,
    schema: &Schema,
    item_columns: &[Column],
    mut f: impl FnMut(u32),
) {
    let mut code = |code: u32| {
        if code > 0 {
            f(code - 1);
        }
    };
    match head.source {
        HeadSource::Action => {
            let action = history.action.get(event).copied().unwrap_or(History::NO_ACTION);
            code(if action == History::NO_ACTION { 0 } else { u32::from(action) + 1 });
        }
        HeadSource::Event(i) => code(history.fields.get(i).and_then(|c| c.get(event)).copied().unwrap_or(0)),
        HeadSource::Item(i) => {
            let item = history.items.get(event).map_or(usize::MAX, |i| *i as usize);
            match item_columns.get(i) {
                Some(Column::Codes(codes)) => code(codes.get(item).copied().unwrap_or(0)),
                Some(Column::Lists { offsets, codes }) => {
                    let at = |i: usize| offsets.get(i).map_or(0, |o| *o as usize);
                    codes.get(at(item)..at(item.saturating_add(1))).unwrap_or(&[]).iter().for_each(|c| code(*c));
                }
                Some(Column::Numbers(numbers)) => {
                    let kind = schema.item_fields.get(i).map(|f| &f.kind);
                    code(kind.map_or(0, |k| k.bucket(numbers.get(item).copied().unwrap_or(f32::NAN))));
                }
                Some(Column::Vectors { .. }) | None => {}
            }
        }
    }
}

/// The weight of each training event, with mean 1.
fn utility(data: &Dataset, corpus: &Corpus, utility: &Utility) -> Result<Vec<f32>> {
    let undeclared = |what: &str| {
        err!(InvalidConfig, "objectives.utility asks for {what}, which the dataset does not declare; remove the key")
    };
    let of_event: Vec<f32> = match utility {
        Utility::Equal => return Ok(Vec::new()),
        Utility::Value => match data.schema.value {
            None => return Err(undeclared("the events' value")),
            Some(_) => corpus.kept.iter().map(|e| data.events.value[*e]).collect(),
        },
        Utility::Field(name) => {
            let at = data.schema.event_fields.iter().position(|f| f.field.name == *name);
            match at.and_then(|i| data.events.fields.get(i)) {
                Some(Column::Numbers(numbers)) => corpus.kept.iter().map(|e| numbers[*e]).collect(),
                _ => return Err(undeclared(&format!("the numeric event field {name:?}"))),
            }
        }
        Utility::Actions(weights) => {
            let mut table = vec![1.0; data.schema.actions.len()];
            for (name, weight) in weights {
                let code = data.schema.actions.iter().position(|a| a == name);
                table[code.ok_or_else(|| undeclared(&format!("the action {name:?}")))?] = *weight;
            }
            let weight = |e: &usize| data.events.action.get(*e).and_then(|a| table.get(usize::from(*a)));
            corpus.kept.iter().map(|e| weight(e).copied().unwrap_or(1.0)).collect()
        }
    };
    // A token has the sum of its events' values, and the most of anything else.
    let join = |a: f32, b: f32| match utility {
        _ if a.is_nan() => b,
        _ if b.is_nan() => a,
        Utility::Value => a + b,
        _ => a.max(b),
    };
    let mut worth = match corpus.spans.is_empty() {
        true => of_event,
        false => corpus.spans.windows(2).map(|w| of_event[w[0]..w[1]].iter().copied().fold(f32::NAN, join)).collect(),
    };
    if !matches!(utility, Utility::Actions(_)) {
        let mut known: Vec<f32> = worth.iter().copied().filter(|w| !w.is_nan()).collect();
        known.sort_by(f32::total_cmp);
        let cap = known.get(known.len() * 99 / 100).copied().unwrap_or(0.0).max(0.0);
        let mean = known.iter().map(|w| f64::from(w.clamp(0.0, cap))).sum::<f64>() / known.len().max(1) as f64;
        worth.iter_mut().for_each(|w| *w = if w.is_nan() { mean as f32 } else { w.clamp(0.0, cap) });
    }
    let mean = worth.iter().map(|w| f64::from(*w)).sum::<f64>() / worth.len().max(1) as f64;
    if mean <= 0.0 {
        return Err(err!(InvalidConfig, "objectives.utility is 0 for every training event; choose another one"));
    }
    worth.iter_mut().for_each(|w| *w = (f64::from(*w) / mean) as f32);
    Ok(worth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{BuildOptions, DatasetBuilder, Declaration, EventRow, Protocol, Split};
    use crate::event::Event;
    use crate::options::ModelOptions;

    /// The targets of `items`, one history each, under a window of several.
    fn targets(items: &[&str], seen: Seen) -> Vec<Vec<u32>> {
        let mut builder = DatasetBuilder::new(Declaration::new("toy"), BuildOptions::default()).unwrap();
        for (u, items) in items.iter().enumerate() {
            for item in items.chars() {
                builder.push_event(&EventRow::new(&format!("u{u}"), Event::item(&item.to_string()))).unwrap();
            }
        }
        let data = builder.build().unwrap();
        let corpus = Corpus::new(&data, &Split::new(&data, &Protocol::Everything).unwrap()).unwrap();
        let features = Features::new(&data.schema, &ModelOptions::default()).unwrap();
        let objective = Objective { window: 2, ..Objective::default() };
        let objectives = Objectives::new(&data, &corpus, &features, &objective, seen, false).unwrap();
        let windows: Vec<Window> = (0..items.len() as u32).map(|s| corpus.window(s, 20, 0.0, 1, 0)).collect();
        let totals = objectives.totals(&windows);
        let mut found = Targets::default();
        windows.iter().for_each(|window| objectives.items(window, &totals, &mut found));
        assert!((found.weights.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{:?}", found.weights);
        (0..found.len()).map(|i| found.row(i).0.to_vec()).collect()
    }

    #[test]
    fn where_seen_items_are_excluded_an_event_that_repeats_one_is_no_target() {
        // Rows: a 0, b 1, c 2. The second person meets a for the first time.
        let (all, new) = (targets(&["abac", "ba"], Seen::Allowed), targets(&["abac", "ba"], Seen::Excluded));
        assert_eq!(all, [vec![0, 1], vec![1, 0], vec![0, 2], vec![2], vec![1, 0], vec![0]]);
        assert_eq!(new, [vec![0, 1], vec![1], vec![2], vec![2], vec![1, 0], vec![0]]);
        assert_eq!(targets(&["abc", "ba"], Seen::Allowed), targets(&["abc", "ba"], Seen::Excluded));
    }
}
