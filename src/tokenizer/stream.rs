//! The streaming form: event by event, with an open last token that is extended, closed and rolled back.

use super::{Keep, Tokenizer, bit};
use crate::data::Place;
use crate::error::{Result, err};
use crate::model::History;

/// One event as it arrives, in codes of the events' schema.
#[derive(Debug, Clone, PartialEq)]
pub struct CodedEvent {
    /// Item row.
    pub item: u32,
    /// Unix time in milliseconds, where known.
    pub time: Option<i64>,
    /// Action code; [`History::NO_ACTION`] is missing.
    pub action: u16,
    /// Value; NaN is missing.
    pub value: f32,
    /// Codes of `schema.event_fields`; those left out are missing.
    pub fields: Vec<u32>,
}

/// Events merged into one.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Item row.
    pub item: u32,
    /// The composite action symbol, a code of [`Tokenizer::schema`]'s actions: the longest known beginning of the actions.
    pub symbol: u16,
    /// Time of the first event, Unix milliseconds.
    pub first: Option<i64>,
    /// Time of the last event.
    pub last: Option<i64>,
    /// How many events.
    pub count: u32,
    /// The set of actions: bit `a` is action code `a`.
    pub actions: u64,
    /// The sum of the values that are known; NaN where none is. Rounded to f32 only when the model reads it.
    pub value: f64,
    /// Field codes of the first event, whose request the token answers.
    pub requested: Vec<u32>,
    /// Field codes after the last event: the largest of numeric outcomes, the last event's of all others.
    pub fields: Vec<u32>,
}

/// What an event did to the stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Pushed {
    /// It joined the open token.
    Extended,
    /// It opened a token and so closed the one before, which is handed over; `None` where there was none.
    Opened(Option<Token>),
}

/// A token that may still change, with what it takes to take events back.
#[derive(Debug, Clone)]
struct Open {
    token: Token,
    /// Its events, and the symbol after each of them; `None` once the symbol may not grow any more.
    events: Vec<(CodedEvent, Grown)>,
    /// How many tokens its run has, this one included.
    tokens: u32,
}

/// A symbol, and whether learned merges may still make it longer.
#[derive(Debug, Clone, Copy)]
struct Grown {
    symbol: u16,
    growing: bool,
}

/// Makes tokens of one entity's events as they arrive.
///
/// Whatever is pushed, closed and rolled back, the tokens that were handed over and the open one are those that
/// [`Tokenizer::merge`] makes of the events that remain, cut where [`Stream::close`] was called.
#[derive(Debug, Clone)]
pub struct Stream<'a> {
    tokenizer: &'a Tokenizer,
    open: Option<Open>,
    /// The token that the open one closed, in case all of the open one is taken back.
    before: Option<Open>,
    /// Whether a token that is not held any more lies right before the open one.
    more: bool,
}

impl<'a> Stream<'a> {
    /// A stream without events.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, open: None, before: None, more: false }
    }

    /// The open token.
    pub fn open(&self) -> Option<&Token> {
        self.open.as_ref().map(|o| &o.token)
    }

    /// Takes the next event.
    pub fn push(&mut self, event: CodedEvent) -> Pushed {
        let tokenizer = self.tokenizer;
        let mut tokens = 1;
        if let Some(open) = &mut self.open {
            let place = |e: &CodedEvent| {
                let surface = tokenizer.rule.surface.and_then(|at| e.fields.get(at)).copied().unwrap_or(0);
                Place { item: e.item, time: e.time, surface }
            };
            let last = open.events.last();
            if last.is_some_and(|(last, _)| tokenizer.rule.joins(place(last), place(&event))) {
                let grown = last.map_or(Grown { symbol: event.action, growing: true }, |(_, grown)| *grown);
                let longer = tokenizer.after(grown.symbol, event.action).filter(|_| grown.growing);
                let grown = match longer {
                    Some(symbol) => Some(Grown { symbol, growing: true }),
                    None => tokenizer.spent(open.tokens).then_some(Grown { growing: false, ..grown }),
                };
                if let Some(grown) = grown {
                    open.token = tokenizer.join(&open.token, &tokenizer.single(&event), grown.symbol);
                    open.events.push((event, grown));
                    return Pushed::Extended;
                }
                tokens = open.tokens.saturating_add(1);
            }
        }
        let grown = Grown { symbol: event.action, growing: true };
        let next = Open { token: tokenizer.single(&event), events: vec![(event, grown)], tokens };
        let closed = self.open.replace(next);
        let token = closed.as_ref().map(|o| o.token.clone());
        self.more = self.before.is_some() || (self.more && closed.is_some());
        self.before = closed;
        Pushed::Opened(token)
    }

    /// Closes the open token and hands it over: the next event opens a new one, whatever it is, as at the end of a session.
    pub fn close(&mut self) -> Option<Token> {
        (self.before, self.more) = (None, false);
        self.open.take().map(|o| o.token)
    }

    /// Takes back the last `events` events. When that empties the open token, the one before it is open again (it was handed
    /// over as closed, and is not any more).
    ///
    /// # Errors
    /// `InvalidArgument` where the open token holds fewer events, or all of it would be taken back and the token before it is
    /// not held any more (only one is). Nothing changes then.
    pub fn roll_back(&mut self, events: usize) -> Result<()> {
        let held = self.open.as_ref().map_or(0, |o| o.events.len());
        if events > held {
            return Err(err!(
                InvalidArgument,
                "the open token holds {held} events, {events} are taken back; take fewer"
            ));
        }
        if events == 0 {
            return Ok(());
        }
        if events == held {
            if self.before.is_none() && self.more {
                return Err(err!(
                    InvalidArgument,
                    "the token before the open one is not held any more; take back fewer than {held} events, or read the \
                     history again"
                ));
            }
            self.more = self.before.is_some() && self.more;
            self.open = self.before.take();
            return Ok(());
        }
        if let Some(open) = &mut self.open {
            open.events.truncate(held - events);
            let mut parts = open.events.iter();
            if let Some((first, _)) = parts.next() {
                let first = self.tokenizer.single(first);
                open.token =
                    parts.fold(first, |t, (e, g)| self.tokenizer.join(&t, &self.tokenizer.single(e), g.symbol));
            }
        }
        Ok(())
    }
}

impl Tokenizer {
    /// The token of one event.
    pub(crate) fn single(&self, event: &CodedEvent) -> Token {
        let mut fields = event.fields.clone();
        fields.resize(self.keep.len(), 0);
        Token {
            item: event.item,
            symbol: event.action,
            first: event.time,
            last: event.time,
            count: 1,
            actions: bit(event.action),
            value: f64::from(event.value),
            requested: fields.clone(),
            fields,
        }
    }

    /// Two adjacent tokens of a run as one, under a symbol. But for the symbol this is associative (sums of values as far as 64
    /// bits hold them).
    pub(crate) fn join(&self, a: &Token, b: &Token, symbol: u16) -> Token {
        let fields = self.keep.iter().zip(a.fields.iter().zip(&b.fields));
        Token {
            item: a.item,
            symbol,
            first: a.first,
            last: b.last,
            count: a.count.saturating_add(b.count),
            actions: a.actions | b.actions,
            value: match (a.value.is_nan(), b.value.is_nan()) {
                (true, _) => b.value,
                (_, true) => a.value,
                _ => a.value + b.value,
            },
            requested: a.requested.clone(),
            fields: fields.map(|(keep, (a, b))| if *keep == Keep::Largest { *a.max(b) } else { *b }).collect(),
        }
    }

    /// Appends a token to a history of [`Tokenizer::schema`]. All tokens of a history must have the same columns.
    pub fn append(&self, token: &Token, to: &mut History) {
        to.fields.resize_with(self.schema.event_fields.len(), Vec::new);
        to.items.push(token.item);
        to.time.extend(token.last);
        to.first.extend(token.first);
        if !self.schema.actions.is_empty() {
            to.action.push(token.symbol);
        }
        if self.schema.value.is_some() {
            to.value.push(token.value as f32);
        }
        let own = self.keep.iter().zip(token.requested.iter().zip(&token.fields));
        let own = own.map(|(keep, (first, last))| if *keep == Keep::First { *first } else { *last });
        let extra = self.extra(token.count, token.first, token.last, token.actions);
        to.fields.iter_mut().zip(own.chain(extra)).for_each(|(column, code)| column.push(code));
    }
}
