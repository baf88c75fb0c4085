//! From the objects that a caller filled in to the query and the filter that the engine reads.

use crate::filter::{Rule, Rules};
use crate::query::Asked;
use crate::texts::{Span, Texts};
use docent_api::serve::{Condition, Filter, Query, Who};
use docent_api::{Cell, Event, FieldValue, Result};

/// Lists of borrowed texts, empty between calls: their memory is kept from call to call.
#[derive(Default)]
pub(crate) struct Lists {
    events: Vec<Event<'static>>,
    event_fields: Vec<FieldValue<'static>>,
    fields: Vec<FieldValue<'static>>,
    allow: Vec<&'static str>,
    deny: Vec<&'static str>,
    values: Vec<&'static str>,
    conditions: Vec<Condition<'static>>,
}

/// The memory of a list for a list of another lifetime: collecting an empty iterator of the same layout keeps it.
fn empty<A, B>(mut list: Vec<A>) -> Vec<B> {
    list.clear();
    list.into_iter().filter_map(|_| None).collect()
}

impl Lists {
    /// Calls `answer` with the query and the filter that the objects stand for.
    pub(crate) fn with<T>(
        &mut self,
        asked: Option<&Asked>,
        rules: Option<&Rules>,
        answer: impl FnOnce(&Query<'_>, &Filter<'_>) -> Result<T>,
    ) -> Result<T> {
        let nothing = (Asked::default(), Rules::default());
        let (asked, rules) = (asked.unwrap_or(&nothing.0), rules.unwrap_or(&nothing.1));

        let pair = |(name, value): &(Span, Span)| (asked.texts.get(*name), Cell::Text(asked.texts.get(*value)));
        let mut event_fields: Vec<FieldValue<'_>> = empty(std::mem::take(&mut self.event_fields));
        event_fields.extend(asked.event_fields.iter().map(pair));
        let mut fields: Vec<FieldValue<'_>> = empty(std::mem::take(&mut self.fields));
        fields.extend(asked.fields.iter().map(pair));
        let mut events: Vec<Event<'_>> = empty(std::mem::take(&mut self.events));
        events.extend(asked.events.iter().map(|event| Event {
            item: asked.texts.get(event.item),
            time: event.time,
            action: event.action.map(|action| asked.texts.get(action)),
            value: event.value,
            fields: event_fields.get(event.fields.clone()).unwrap_or_default(),
        }));
        let mut query = match asked.entity {
            Some(id) => Query::new(Who::Entity(asked.texts.get(id))).and_then(&events),
            None => Query::history(&events),
        };
        query.time = asked.time;
        query.as_of = asked.as_of;
        query.fields = &fields;
        query.unknown = asked.unknown;

        let allow = named(std::mem::take(&mut self.allow), &rules.texts, &rules.allow);
        let deny = named(std::mem::take(&mut self.deny), &rules.texts, &rules.deny);
        let values = named(std::mem::take(&mut self.values), &rules.texts, &rules.values);
        let mut conditions: Vec<Condition<'_>> = empty(std::mem::take(&mut self.conditions));
        conditions.extend(rules.conditions.iter().map(|rule| condition(rule, &rules.texts, &values)));
        let filter = Filter {
            seen: rules.seen,
            allow: rules.only.then_some(&allow[..]),
            deny: &deny,
            conditions: &conditions,
            unknown: rules.unknown,
        };

        let answer = answer(&query, &filter);
        *self = Self {
            conditions: empty(conditions),
            values: empty(values),
            deny: empty(deny),
            allow: empty(allow),
            events: empty(events),
            fields: empty(fields),
            event_fields: empty(event_fields),
        };
        answer
    }
}

fn named<'a>(list: Vec<&'static str>, texts: &'a Texts, spans: &[Span]) -> Vec<&'a str> {
    let mut list: Vec<&'a str> = empty(list);
    list.extend(spans.iter().map(|span| texts.get(*span)));
    list
}

fn condition<'a>(rule: &Rule, texts: &'a Texts, all: &'a [&'a str]) -> Condition<'a> {
    match rule {
        Rule::Values { field, values, wanted } => {
            let (field, values) = (texts.get(*field), all.get(values.clone()).unwrap_or_default());
            match wanted {
                true => Condition::AnyOf { field, values },
                false => Condition::NoneOf { field, values },
            }
        }
        Rule::Between { field, least, most } => {
            let bound = |bound: f32| Some(bound).filter(|bound| bound.is_finite());
            Condition::Between { field: texts.get(*field), least: bound(*least), most: bound(*most) }
        }
        Rule::Released { from, until } => Condition::Released {
            from: Some(*from).filter(|from| *from != i64::MIN),
            until: Some(*until).filter(|until| *until != i64::MAX),
        },
    }
}
