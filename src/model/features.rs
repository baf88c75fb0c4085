//! From events to the numbers that the network reads, the same way in training and in serving.
//!
//! Leakage rule (docs/model.md): the token that predicts event k joins the request-time fields of k with the
//! post-action fields (item, action, value, outcomes) of k-1. The token before the first event is the opening token.

use super::tower::TowerSize;
use crate::error::{Result, err};
use crate::kernels::attention::{NO_TIME, TIME_BUCKETS, time_bucket};
use crate::options::{Auxiliary, ModelOptions};
use crate::schema::{FieldKind, Schema, Timing};
use std::ops::Range;

/// A history as the model reads it, oldest event first. Optional columns are empty or as long as `items`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Item rows.
    pub items: Vec<u32>,
    /// Unix times in milliseconds.
    pub time: Vec<i64>,
    /// Where entries are merged events: the time of the first of each, while `time` is that of the last; empty where they
    /// are the same.
    pub first: Vec<i64>,
    /// Action codes (index into `schema.actions`); [`History::NO_ACTION`] is missing.
    pub action: Vec<u16>,
    /// Values; NaN is missing.
    pub value: Vec<f32>,
    /// Codes of each of `schema.event_fields` (numeric ones bucketed; 0 is missing).
    pub fields: Vec<Vec<u32>>,
}

impl History {
    /// In place of an action code: the action is not known.
    pub const NO_ACTION: u16 = u16::MAX;
}

/// What is known when a list is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// Unix time in milliseconds, where known.
    pub time: Option<i64>,
    /// Codes of `schema.event_fields`, of which only the request-time ones are read; empty or one per field.
    pub fields: Vec<u32>,
}

/// Where a feature's code comes from.
#[derive(Debug, Clone, PartialEq)]
enum FeatureSource {
    Action,
    Value(FieldKind),
    PostAction(usize),
    Request(usize),
    Hour,
    Weekday,
    Gap,
}

/// One embedded feature of a token besides its item.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// Its name: a declared field's, or `action`, `value`, `hour`, `weekday`, `gap`.
    pub name: String,
    /// How many codes it has, 0 (missing) included.
    pub codes: usize,
    source: FeatureSource,
}

/// Where the classes of an auxiliary head come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadSource {
    /// The next event's action.
    Action,
    /// This field of the next event.
    Event(usize),
    /// This field of the next event's item.
    Item(usize),
}

/// A head that predicts a field of the next event or of its item.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// The field's name.
    pub name: String,
    /// How many classes it has: the field's codes without 0, so that class `c` is code `c + 1`.
    pub classes: usize,
    /// Where they come from.
    pub source: HeadSource,
    /// Weight in the loss.
    pub weight: f32,
    /// Whether its predictions feed the item head.
    pub hierarchical: bool,
}

/// The features of a token under a schema and model options, the heads, and what the item tower reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// In the order of their codes in a token.
    pub list: Vec<Feature>,
    /// The auxiliary heads, in the order of the options.
    pub heads: Vec<Head>,
    /// Table rows and numbers that the item tower reads; none where there is no tower.
    pub(super) tower: Option<TowerSize>,
    columns: Vec<(String, usize)>,
    actions: usize,
    has_time: bool,
    time_input: bool,
}

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

impl Features {
    /// The features that `options` asks for out of `schema`.
    ///
    /// # Errors
    /// `InvalidConfig` naming an auxiliary head whose field is not declared, or has no classes.
    pub(crate) fn new(schema: &Schema, options: &ModelOptions) -> Result<Self> {
        let mut list = Vec::new();
        let mut push = |name: &str, codes, source| list.push(Feature { name: name.to_owned(), codes, source });
        if !schema.actions.is_empty() {
            push("action", schema.actions.len() + 1, FeatureSource::Action);
        }
        if let Some(kind) = &schema.value {
            push("value", kind.codes(), FeatureSource::Value(kind.clone()));
        }
        for timing in [Timing::PostAction, Timing::Request] {
            for (i, f) in schema.event_fields.iter().enumerate().filter(|(_, f)| f.timing == timing) {
                let source =
                    if timing == Timing::PostAction { FeatureSource::PostAction(i) } else { FeatureSource::Request(i) };
                push(&f.field.name, f.field.kind.codes(), source);
            }
        }
        if schema.has_time && options.time_input {
            push("hour", 25, FeatureSource::Hour);
            push("weekday", 8, FeatureSource::Weekday);
            push("gap", TIME_BUCKETS, FeatureSource::Gap);
        }
        Ok(Self {
            list,
            heads: options.auxiliary.iter().map(|head| head_of(schema, head)).collect::<Result<_>>()?,
            tower: TowerSize::of(schema, options),
            columns: schema.event_fields.iter().map(|f| (f.field.name.clone(), f.field.kind.codes())).collect(),
            actions: schema.actions.len(),
            has_time: schema.has_time,
            time_input: options.time_input,
        })
    }

    /// Rows of the tables of event features, which come before those of the item tower.
    pub(crate) fn event_rows(&self) -> usize {
        self.list.iter().map(|f| f.codes).sum()
    }

    /// Rows of all feature tables.
    pub(crate) fn rows(&self) -> usize {
        self.event_rows() + self.tower.map_or(0, |t| t.rows)
    }

    /// Whether a token reads anything of the request that it answers, such as its time or device.
    pub(crate) fn reads_request(&self) -> bool {
        let of_request = |s: &FeatureSource| {
            matches!(s, FeatureSource::Request(_) | FeatureSource::Hour | FeatureSource::Weekday | FeatureSource::Gap)
        };
        self.list.iter().any(|f| of_request(&f.source))
    }

    /// The first row of each feature's table among all tables one after another, and last the number of rows.
    pub(crate) fn first_rows(&self) -> Vec<usize> {
        let mut rows = vec![0];
        rows.extend(self.list.iter().scan(0, |sum, f| {
            *sum += f.codes;
            Some(*sum)
        }));
        rows
    }

    /// Checks a history's column lengths and codes against the schema and a catalogue of `items` rows.
    ///
    /// # Errors
    /// `InvalidArgument` naming the column.
    pub(crate) fn check(&self, history: &History, items: usize) -> Result<()> {
        let n = history.items.len();
        let length = |name: &str, len: usize| match len == n || len == 0 {
            true => Ok(()),
            false => {
                Err(err!(InvalidArgument, "history column {name} has {len} entries for {n} events; pass one each"))
            }
        };
        length("time", history.time.len())?;
        length("first", history.first.len())?;
        length("action", history.action.len())?;
        length("value", history.value.len())?;
        if let Some(item) = history.items.iter().find(|i| **i as usize >= items) {
            return Err(err!(InvalidArgument, "history names item row {item} of {items}; look rows up by id"));
        }
        if let Some(a) = history.action.iter().find(|a| **a as usize >= self.actions && **a != History::NO_ACTION) {
            return Err(err!(InvalidArgument, "history names action {a} of {}; use the schema's codes", self.actions));
        }
        if history.fields.len() > self.columns.len() {
            let (have, want) = (history.fields.len(), self.columns.len());
            return Err(err!(
                InvalidArgument,
                "history has {have} field columns, the schema {want}; pass those declared"
            ));
        }
        for (column, (name, codes)) in history.fields.iter().zip(&self.columns) {
            length(name, column.len())?;
            if let Some(c) = column.iter().find(|c| **c as usize >= *codes) {
                return Err(err!(
                    InvalidArgument,
                    "history field {name} has code {c} of {codes}; use the schema's codes"
                ));
            }
        }
        Ok(())
    }

    /// Checks a request's field codes.
    ///
    /// # Errors
    /// `InvalidArgument` naming the field.
    pub(crate) fn check_request(&self, request: &Request) -> Result<()> {
        if request.fields.len() > self.columns.len() {
            let (have, want) = (request.fields.len(), self.columns.len());
            return Err(err!(InvalidArgument, "request has {have} fields, the schema {want}; pass those declared"));
        }
        match request.fields.iter().zip(&self.columns).find(|(c, (_, codes))| **c as usize >= *codes) {
            Some((c, (name, codes))) => {
                Err(err!(InvalidArgument, "request field {name} has code {c} of {codes}; use the schema's codes"))
            }
            None => Ok(()),
        }
    }

    /// Appends `tokens` to `to`: those that predict the events `targets` of `history`, each from what came before it
    /// since `begin`. Target index `history.items.len()` is the event to come, whose request-time fields are `request`'s.
    /// Token `k` holds event `k - 1`, or opens the history where `k` is `begin`.
    pub(crate) fn encode(
        &self,
        history: &History,
        begin: usize,
        targets: Range<usize>,
        request: &Request,
        to: &mut Tokens,
    ) {
        let n = history.items.len();
        let time = |e: usize| history.time.get(e).map(|t| t.div_euclid(1000));
        // A merged event was asked for when its first event was.
        let start = if history.first.is_empty() { &history.time } else { &history.first };
        for k in targets {
            let before = if k > begin { Some(k - 1) } else { None };
            let asked = if k < n { start.get(k).copied() } else { request.time };
            let asked = if self.has_time && self.time_input { asked } else { None };
            let key = before.and_then(time).filter(|_| self.has_time).unwrap_or(NO_TIME);
            let query = asked.map_or(key, |t| t.div_euclid(1000));
            to.items.push(before.and_then(|e| history.items.get(e).copied()).unwrap_or(Tokens::OPENING));
            to.query.push(query);
            to.key.push(key);
            for f in &self.list {
                let column = |i: usize, e: usize| history.fields.get(i).and_then(|c| c.get(e).copied());
                let code = match &f.source {
                    FeatureSource::Action => before
                        .and_then(|e| history.action.get(e))
                        .filter(|a| **a != History::NO_ACTION)
                        .map(|a| u32::from(*a) + 1),
                    FeatureSource::Value(kind) => before.and_then(|e| history.value.get(e)).map(|v| kind.bucket(*v)),
                    FeatureSource::PostAction(i) => before.and_then(|e| column(*i, e)),
                    FeatureSource::Request(i) if k < n => column(*i, k),
                    FeatureSource::Request(i) => request.fields.get(*i).copied(),
                    FeatureSource::Hour => asked.map(|t| 1 + (t.rem_euclid(DAY) / HOUR) as u32),
                    FeatureSource::Weekday => asked.map(|t| 1 + (t.div_euclid(DAY) + 3).rem_euclid(7) as u32),
                    FeatureSource::Gap => asked.map(|t| time_bucket(t.div_euclid(1000), key) as u32),
                };
                to.codes.push(code.unwrap_or(0).min(f.codes as u32 - 1));
            }
        }
    }
}

/// The head that `wanted` asks for.
fn head_of(schema: &Schema, wanted: &Auxiliary) -> Result<Head> {
    let name = &wanted.field;
    let event = schema.event_fields.iter().position(|f| f.field.name == *name);
    let item = schema.item_fields.iter().position(|f| f.name == *name);
    let (source, codes) = match (event, item) {
        (Some(i), _) => (HeadSource::Event(i), schema.event_fields.get(i).map_or(0, |f| f.field.kind.codes())),
        (None, Some(i)) => (HeadSource::Item(i), schema.item_fields.get(i).map_or(0, |f| f.kind.codes())),
        (None, None) if name == "action" => (HeadSource::Action, schema.actions.len() + 1),
        (None, None) => {
            let declared = schema.event_fields.iter().map(|f| &f.field.name);
            let declared: Vec<&str> =
                declared.chain(schema.item_fields.iter().map(|f| &f.name)).map(String::as_str).collect();
            let declared = declared.join(", ");
            return Err(err!(
                InvalidConfig,
                "an auxiliary head asks for the field {name:?}, which is not declared; choose `action` or one of {declared}"
            ));
        }
    };
    if codes < 2 {
        return Err(err!(
            InvalidConfig,
            "an auxiliary head asks for {name:?}, which has no classes to choose from; name a categorical, multi-valued or \
             numeric field, or an action"
        ));
    }
    let Auxiliary { weight, hierarchical, .. } = *wanted;
    Ok(Head { name: name.clone(), classes: codes - 1, source, weight, hierarchical })
}

/// Tokens ready to be embedded, packed one sequence after another.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tokens {
    /// Item row of each token's content; [`Tokens::OPENING`] opens a history.
    pub items: Vec<u32>,
    /// Feature codes, one row of `features.list.len()` per token.
    pub codes: Vec<u32>,
    /// Seconds at which each token asks.
    pub query: Vec<i64>,
    /// Seconds at which what each token holds happened.
    pub key: Vec<i64>,
}

impl Tokens {
    /// In place of an item row: the token that opens a history.
    pub(crate) const OPENING: u32 = u32::MAX;

    /// Forgets the tokens, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.codes.clear();
        self.query.clear();
        self.key.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{EventField, Field};

    fn schema() -> Schema {
        let field = |name: &str, timing| EventField {
            field: Field { name: name.into(), kind: FieldKind::Categorical(vec!["a".into(), "b".into()]) },
            timing,
        };
        Schema {
            has_time: true,
            actions: vec!["view".into(), "like".into()],
            value: Some(FieldKind::Numeric(vec![1.0, 2.0])),
            event_fields: vec![field("device", Timing::Request), field("answer", Timing::PostAction)],
            ..Schema::default()
        }
    }

    #[test]
    fn a_token_joins_the_request_with_the_event_before() {
        let features = Features::new(&schema(), &ModelOptions::default()).unwrap();
        let names: Vec<&str> = features.list.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["action", "value", "answer", "device", "hour", "weekday", "gap"]);
        let history = History {
            items: vec![7, 8],
            time: vec![0, DAY + 2 * HOUR],
            first: Vec::new(),
            action: vec![0, 1],
            value: vec![1.5, f32::NAN],
            fields: vec![vec![1, 2], vec![2, 1]],
        };
        let request = Request { time: Some(2 * DAY), fields: vec![1, 2] };
        let mut tokens = Tokens::default();
        features.encode(&history, 0, 0..3, &request, &mut tokens);
        assert_eq!(tokens.items, [Tokens::OPENING, 7, 8]);
        // 1970-01-01 was a Thursday: code 4.
        assert_eq!(tokens.codes[..7], [0, 0, 0, 1, 1, 4, 0]);
        assert_eq!(tokens.codes[7..14], [1, 2, 2, 2, 3, 5, time_bucket(26 * 3600, 0) as u32]);
        assert_eq!(tokens.codes[14..], [2, 0, 1, 1, 1, 6, time_bucket(22 * 3600, 0) as u32]);
        assert_eq!(tokens.key, [NO_TIME, 0, 26 * 3600]);
    }

    #[test]
    fn what_follows_an_event_is_not_in_the_token_that_predicts_it() {
        let features = Features::new(&schema(), &ModelOptions::default()).unwrap();
        let mut history = History {
            items: vec![7, 8],
            time: vec![0, DAY],
            first: Vec::new(),
            action: vec![0, 1],
            value: vec![1.5, 0.5],
            fields: vec![vec![1, 2], vec![2, 1]],
        };
        let encode = |h: &History| {
            let mut tokens = Tokens::default();
            features.encode(h, 0, 0..2, &Request::default(), &mut tokens);
            tokens
        };
        let before = encode(&history);
        (history.items[1], history.action[1], history.value[1], history.fields[1][1]) = (1, 0, 9.0, 2);
        assert_eq!(before, encode(&history));
        history.fields[0][1] = 1;
        assert_ne!(before, encode(&history));
    }
}
