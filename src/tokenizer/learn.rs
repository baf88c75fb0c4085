//! What a tokenizer learns from training events: merges, and the buckets of sums.

use super::{Tokenizer, VERSION};
use crate::data::bounds;
use crate::error::Result;
use crate::model::History;
use crate::options::TokenizerOptions;
use crate::schema::{FieldKind, Merge, Schema, TokenVocabulary};
use std::collections::BTreeMap;

/// A pair that training events have less often is not merged: its symbol's vector could not be learned.
const LEAST: u64 = 10;
/// The most actions of a composite symbol.
const LONGEST: usize = 16;
/// Bucket bounds of a token's count of events.
const COUNTS: [f32; 8] = [1.0, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0, 50.0];
/// Bucket bounds of a token's span, in seconds.
const SPANS: [f32; 9] = [0.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 7200.0, 86_400.0];

impl Tokenizer {
    /// Learns merges and buckets from training events: entity `s` has the events `offsets[s]..offsets[s + 1]` of `history`,
    /// oldest first. The same events give the same tokenizer.
    ///
    /// # Errors
    /// As [`Tokenizer::new`].
    pub fn learn(schema: &Schema, options: &TokenizerOptions, history: &History, offsets: &[usize]) -> Result<Self> {
        let vocabulary = TokenVocabulary {
            version: VERSION,
            options: options.clone(),
            merges: Vec::new(),
            value: Vec::new(),
            count: COUNTS.to_vec(),
            span: SPANS.to_vec(),
        };
        let mut tokenizer = Self::new(schema, vocabulary)?;
        let runs = tokenizer.runs(history, offsets);
        while tokenizer.vocabulary.merges.len() < options.merges as usize {
            let Some(merge) = tokenizer.next_merge(&runs, schema.actions.len()) else { break };
            tokenizer.vocabulary.merges.push(merge);
            tokenizer = Self::new(schema, tokenizer.vocabulary)?;
        }
        if let Some(FieldKind::Numeric(plain)) = &schema.value {
            let mut merged = History::default();
            let entities = offsets.iter().zip(offsets.iter().skip(1));
            entities.for_each(|(a, z)| tokenizer.merge(history, *a..*z, &mut merged));
            tokenizer.vocabulary.value = bounds(&merged.value, plain.len() + 1);
            tokenizer = Self::new(schema, tokenizer.vocabulary)?;
        }
        Ok(tokenizer)
    }

    /// The sequences of actions of all runs that have two known ones or more, and how often each stands.
    fn runs(&self, history: &History, offsets: &[usize]) -> BTreeMap<Vec<u16>, u64> {
        let mut runs = BTreeMap::new();
        let mut run: Vec<u16> = Vec::new();
        for (a, z) in offsets.iter().zip(offsets.iter().skip(1)) {
            for i in *a..*z {
                let joins = i > *a && self.rule.joins(self.place(history, i - 1), self.place(history, i));
                if !joins {
                    count(&mut runs, &mut run);
                }
                run.extend(history.action.get(i).filter(|a| **a != History::NO_ACTION));
            }
            count(&mut runs, &mut run);
        }
        runs
    }

    /// The most frequent pair of a token's symbol and the action at which the token ends now; ties go to the smaller codes.
    fn next_merge(&self, runs: &BTreeMap<Vec<u16>, u64>, actions: usize) -> Option<Merge> {
        let mut pairs: BTreeMap<(u16, u16), u64> = BTreeMap::new();
        for (run, times) in runs {
            let mut rest = run.iter();
            let Some(mut symbol) = rest.next().copied() else { continue };
            let mut tokens = 1;
            for &action in rest {
                match self.after(symbol, action) {
                    Some(longer) => symbol = longer,
                    None => {
                        *pairs.entry((symbol, action)).or_default() += times;
                        if self.spent(tokens) {
                            break;
                        }
                        (symbol, tokens) = (action, tokens + 1);
                    }
                }
            }
        }
        let short = |symbol: u16| self.actions_of(symbol, actions) < LONGEST;
        let known = pairs.into_iter().filter(|((left, _), times)| *times >= LEAST && short(*left));
        let best = known.reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.map(|((left, right), count)| Merge { left, right, count })
    }

    /// How many actions a symbol is made of.
    fn actions_of(&self, symbol: u16, actions: usize) -> usize {
        let (mut symbol, mut length) = (symbol, 1);
        while let Some(merge) = usize::from(symbol).checked_sub(actions).and_then(|at| self.vocabulary.merges.get(at)) {
            (symbol, length) = (merge.left, length + 1);
        }
        length
    }
}

fn count(runs: &mut BTreeMap<Vec<u16>, u64>, run: &mut Vec<u16>) {
    if run.len() > 1 {
        // Only beginnings can become symbols, but a run of several tokens has several: all of it counts.
        *runs.entry(run.clone()).or_default() += 1;
    }
    run.clear();
}
