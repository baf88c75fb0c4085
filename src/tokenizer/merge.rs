//! The batch form: a whole history, run by run, column by column.

use super::{Keep, Tokenizer, bit};
use crate::model::History;
use std::ops::Range;

impl Tokenizer {
    /// Appends the tokens of `events` (places in `history`, one entity's, oldest first) to `to`, a history of
    /// [`Tokenizer::schema`]. Codes must be in range, as `Features::check` finds out.
    pub fn merge(&self, history: &History, events: Range<usize>, to: &mut History) {
        self.merge_with(history, events, to, |_| {});
    }

    /// As [`Tokenizer::merge`]; calls `made` with the events of each token.
    pub(crate) fn merge_with(
        &self,
        history: &History,
        events: Range<usize>,
        to: &mut History,
        mut made: impl FnMut(Range<usize>),
    ) {
        to.fields.resize_with(self.schema.event_fields.len(), Vec::new);
        let mut start = events.start;
        while start < events.end {
            let mut end = start + 1;
            while end < events.end && self.rule.joins(self.place(history, end - 1), self.place(history, end)) {
                end += 1;
            }
            self.merge_run(history, start..end, to, &mut made);
            start = end;
        }
    }

    /// The tokens of one run.
    fn merge_run(&self, history: &History, run: Range<usize>, to: &mut History, made: &mut impl FnMut(Range<usize>)) {
        let action = |i: usize| history.action.get(i).copied().unwrap_or(History::NO_ACTION);
        let (mut start, mut tokens) = (run.start, 0);
        while start < run.end {
            tokens += 1;
            let (mut symbol, mut end) = (action(start), start + 1);
            while let Some(longer) = (end < run.end).then(|| self.after(symbol, action(end))).flatten() {
                symbol = longer;
                end += 1;
            }
            if self.spent(tokens) {
                end = run.end;
            }
            self.write(history, start..end, symbol, to);
            made(start..end);
            start = end;
        }
    }

    /// The token of these events.
    fn write(&self, history: &History, events: Range<usize>, symbol: u16, to: &mut History) {
        let (first, last) = (events.start, events.end - 1);
        to.items.extend(history.items.get(first));
        to.time.extend(history.time.get(last));
        to.first.extend(history.time.get(first));
        if !history.action.is_empty() {
            to.action.push(symbol);
        }
        if let Some(values) = history.value.get(events.clone()) {
            let known = values.iter().filter(|v| !v.is_nan());
            let sum = known.map(|v| f64::from(*v)).reduce(|a, b| a + b);
            to.value.push(sum.map_or(f32::NAN, |sum| sum as f32));
        }
        let mut columns = to.fields.iter_mut();
        for (at, (keep, column)) in self.keep.iter().zip(columns.by_ref()).enumerate() {
            let codes = history.fields.get(at).and_then(|c| c.get(events.clone())).unwrap_or_default();
            let code = match keep {
                Keep::First => codes.first().copied(),
                Keep::Last => codes.last().copied(),
                Keep::Largest => codes.iter().copied().max(),
            };
            column.push(code.unwrap_or(0));
        }
        let actions = history.action.get(events.clone()).unwrap_or_default().iter().fold(0, |set, a| set | bit(*a));
        let times = (history.time.get(first).copied(), history.time.get(last).copied());
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
        for (column, code) in columns.zip(self.extra(count, times.0, times.1, actions)) {
            column.push(code);
        }
    }
}
