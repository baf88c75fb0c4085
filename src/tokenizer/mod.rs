//! Which events make one token?
//!
//! A run (adjacent events on one item, [`crate::data::RunRule`]) becomes one token or a few. Two kinds of merges join its events:
//!
//! - learned merges: a token's symbol and the next action become one symbol where training events had that pair often. The
//!   pairs are found as in byte-pair encoding (Gage 1994; Sennrich et al. 2016), the most frequent one first, with one
//!   restriction: the right side of a pair is a single action. So a merge is decided when the action arrives and no later event
//!   takes it back; that is why a stream and a batch make the same tokens;
//! - rule merges: when a run has used up its token budget, its last token takes all that follows. The symbol stays what it
//!   was, the longest known beginning of the token's actions; the set of actions, the terminal ones among them, and every
//!   sum go on.
//!
//! [`Tokenizer::merge`] makes tokens of a whole history, [`Stream`] event by event, with an open last token.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod learn;
mod merge;
mod stream;
pub use stream::{Event, Pushed, Stream, Token};

use crate::data::{Place, RunRule};
use crate::error::{Result, err};
use crate::model::History;
use crate::options::TokenizerOptions;
use crate::schema::{EventField, Field, FieldKind, Schema, Timing, TokenVocabulary};

/// The version of the rules in this module: a vocabulary of another one is refused.
pub const VERSION: u32 = 1;

/// Most actions that a schema may have: a token's set of actions is 64 bits.
const ACTIONS: usize = 64;
/// What the names of a composite symbol's actions are joined by.
const JOINT: &str = " + ";

/// What becomes of an event field when events merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// Known at the request: the first event's, whose request the token answers.
    First,
    /// A number known after the event: the largest (the most of a completion). Buckets ascend, so their codes do too.
    Largest,
    /// A category known after the event: the last one.
    Last,
}

/// Makes tokens of events. Tokens are again a [`History`], of another schema: [`Tokenizer::schema`].
#[derive(Debug, Clone, PartialEq)]
pub struct Tokenizer {
    vocabulary: TokenVocabulary,
    schema: Schema,
    rule: RunRule,
    keep: Vec<Keep>,
    /// Codes of the terminal actions.
    terminal: Vec<u16>,
    /// `(left, right)` and the symbol that they make, ascending.
    pairs: Vec<((u16, u16), u16)>,
    count: FieldKind,
    span: FieldKind,
}

impl Tokenizer {
    /// The tokenizer of a vocabulary, for events of `schema`.
    ///
    /// # Errors
    /// `StateMismatch` for a vocabulary of another version, `Corrupt` for one that contradicts itself, `InvalidConfig` where the
    /// options name a field or an action that the schema does not have, or the schema has more than 64 actions.
    pub fn new(schema: &Schema, vocabulary: TokenVocabulary) -> Result<Self> {
        let options = &vocabulary.options;
        if vocabulary.version != VERSION {
            return Err(err!(
                StateMismatch,
                "the tokenizer is of version {}, this docent makes tokens of version {VERSION}; train again, or use the docent \
                 that trained it",
                vocabulary.version
            ));
        }
        options.check()?;
        let actions = schema.actions.len();
        if actions > ACTIONS {
            return Err(err!(
                InvalidConfig,
                "dataset {:?} has {actions} actions, a token holds {ACTIONS}; switch [tokenizer] off, or map actions together",
                schema.name
            ));
        }
        let rule = RunRule::new(schema, options.max_gap, &options.surface)?;
        let mut terminal = Vec::new();
        for name in &options.terminal {
            match schema.actions.iter().position(|a| a == name) {
                Some(at) => terminal.push(at as u16),
                None => {
                    let known = schema.actions.join(", ");
                    return Err(err!(
                        InvalidConfig,
                        "tokenizer.terminal names {name:?}, which is no action of dataset {:?}; choose among: {known}",
                        schema.name
                    ));
                }
            }
        }
        let pairs = pairs(&vocabulary, actions)?;
        for (what, bounds) in [("value", &vocabulary.value), ("count", &vocabulary.count), ("span", &vocabulary.span)] {
            if !bounds.iter().all(|b| b.is_finite()) || !bounds.is_sorted_by(|a, b| a < b) {
                return Err(err!(Corrupt, "the tokenizer's bounds of {what} do not rise; restore the snapshot"));
            }
        }
        let keep = schema.event_fields.iter().map(|f| match (f.timing, &f.field.kind) {
            (Timing::Request, _) => Keep::First,
            (Timing::PostAction, FieldKind::Numeric(_)) => Keep::Largest,
            (Timing::PostAction, _) => Keep::Last,
        });
        Ok(Self {
            schema: effective(schema, &vocabulary),
            rule,
            keep: keep.collect(),
            terminal,
            pairs,
            count: FieldKind::Numeric(vocabulary.count.clone()),
            span: FieldKind::Numeric(vocabulary.span.clone()),
            vocabulary,
        })
    }

    /// What it learned, and its options: what a snapshot stores.
    pub fn vocabulary(&self) -> &TokenVocabulary {
        &self.vocabulary
    }

    /// Its options.
    pub fn options(&self) -> &TokenizerOptions {
        &self.vocabulary.options
    }

    /// The schema of tokens, which is what the model is made for: that of the events, with symbols for actions, buckets of
    /// summed values, and outcome fields more: how many events a token holds, the seconds between its first and its last, and
    /// for each terminal action whether it is among them.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The rule that joins events into runs.
    pub fn rule(&self) -> &RunRule {
        &self.rule
    }

    /// The name of a symbol, such as `VIEW + LIKE`; empty where there is no such symbol.
    pub fn symbol(&self, code: u16) -> &str {
        self.schema.actions.get(usize::from(code)).map_or("", String::as_str)
    }

    /// The symbol of a token with `symbol` when `action` joins it, where learned merges allow that. What is not known changes
    /// nothing.
    fn after(&self, symbol: u16, action: u16) -> Option<u16> {
        match (symbol, action) {
            (_, History::NO_ACTION) => Some(symbol),
            (History::NO_ACTION, _) => Some(action),
            pair => {
                let found = self.pairs.binary_search_by_key(&pair, |(pair, _)| *pair);
                found.ok().and_then(|at| self.pairs.get(at)).map(|(_, symbol)| *symbol)
            }
        }
    }

    /// Whether a run with so many tokens may not have more.
    fn spent(&self, tokens: u32) -> bool {
        let budget = self.vocabulary.options.budget;
        budget != 0 && tokens >= budget
    }

    /// What the rule looks at in event `i` of a history.
    pub(crate) fn place(&self, history: &History, i: usize) -> Place {
        let surface = self.rule.surface.and_then(|at| history.fields.get(at)).and_then(|column| column.get(i));
        Place {
            item: history.items.get(i).copied().unwrap_or(u32::MAX),
            time: history.time.get(i).copied(),
            surface: surface.copied().unwrap_or(0),
        }
    }

    /// The codes of the fields that tokens have beyond those of events.
    fn extra(&self, count: u32, first: Option<i64>, last: Option<i64>, actions: u64) -> impl Iterator<Item = u32> + '_ {
        let span = match (first, last) {
            (Some(a), Some(b)) => (b.saturating_sub(a) / 1000) as f32,
            _ => f32::NAN,
        };
        let done = self.terminal.iter().map(move |a| 1 + u32::from(actions >> *a & 1 == 1));
        [self.count.bucket(count as f32), self.span.bucket(span)].into_iter().chain(done)
    }
}

/// The bit of an action in a token's set; none where the action is not known.
fn bit(action: u16) -> u64 {
    1u64.checked_shl(u32::from(action)).unwrap_or(0)
}

/// The pairs of a vocabulary, checked and in order.
fn pairs(vocabulary: &TokenVocabulary, actions: usize) -> Result<Vec<((u16, u16), u16)>> {
    let mut pairs = Vec::with_capacity(vocabulary.merges.len());
    for (made, merge) in (actions..).zip(&vocabulary.merges) {
        let known = usize::from(merge.left) < made && usize::from(merge.right) < actions;
        match u16::try_from(made).ok().filter(|made| known && *made != History::NO_ACTION) {
            Some(symbol) => pairs.push(((merge.left, merge.right), symbol)),
            None => {
                return Err(err!(
                    Corrupt,
                    "merge {} of the tokenizer joins symbols {} and {}, which it does not have; restore the snapshot",
                    made - actions,
                    merge.left,
                    merge.right
                ));
            }
        }
    }
    pairs.sort_unstable();
    if pairs.iter().zip(pairs.iter().skip(1)).any(|(a, b)| a.0 == b.0) {
        return Err(err!(Corrupt, "the tokenizer merges a pair twice; restore the snapshot"));
    }
    Ok(pairs)
}

/// The schema of tokens (see [`Tokenizer::schema`]).
fn effective(schema: &Schema, vocabulary: &TokenVocabulary) -> Schema {
    let mut schema = schema.clone();
    let plain = schema.actions.clone();
    for merge in &vocabulary.merges {
        let name = |names: &[String], code: u16| names.get(usize::from(code)).cloned().unwrap_or_default();
        let name = format!("{}{JOINT}{}", name(&schema.actions, merge.left), name(&plain, merge.right));
        schema.actions.push(name);
    }
    schema.value = schema.value.map(|_| FieldKind::Numeric(vocabulary.value.clone()));
    let mut outcome = |name: String, kind| {
        schema.event_fields.push(EventField { field: Field { name, kind }, timing: Timing::PostAction });
    };
    outcome("token.count".into(), FieldKind::Numeric(vocabulary.count.clone()));
    outcome("token.span".into(), FieldKind::Numeric(vocabulary.span.clone()));
    for action in &vocabulary.options.terminal {
        outcome(format!("token.{action}"), FieldKind::Categorical(vec!["no".into(), "yes".into()]));
    }
    schema
}

#[cfg(test)]
mod tests;
