//! What is asked: for whom, after which events, in which circumstances.

use crate::boundary::fail;
use crate::error::{docent_error, run};
use crate::handle::{Exclusive, Object, exclude, give, release};
use crate::input::{check_count, choice, text};
use crate::output::Output;
use crate::status::docent_status;
use crate::texts::{Span, Texts};
use docent_api::Result;
use docent_api::serve::{AsOf, MAX_EVENTS, UnknownItems};
use std::ffi::c_char;
use std::ops::Range;

/// What is asked: for whom, after which events, in which circumstances. A new query asks for somebody of whom nothing is
/// known; clear it to use it again without taking memory anew.
pub struct docent_query {
    _opaque: [u8; 0],
}

impl Object for docent_query {
    type Value = Asked;
    const TAG: u32 = 0xd0ce_0006;
    const NAME: &'static str = "query";
}

/// What to do about what the generation does not know: DOCENT_UNKNOWN_REFUSE or DOCENT_UNKNOWN_SKIP.
pub type docent_unknown = u32;
/// Refuse with DOCENT_ERR_UNKNOWN_ITEM or DOCENT_ERR_INVALID_ARGUMENT, naming it. The default.
pub const DOCENT_UNKNOWN_REFUSE: docent_unknown = 0;
/// Go on without it.
pub const DOCENT_UNKNOWN_SKIP: docent_unknown = 1;

/// What a query object holds.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) texts: Texts,
    pub(crate) entity: Option<Span>,
    pub(crate) events: Vec<Event>,
    /// Fields of all events, one event after another.
    pub(crate) event_fields: Vec<(Span, Span)>,
    pub(crate) fields: Vec<(Span, Span)>,
    pub(crate) time: Option<i64>,
    pub(crate) as_of: Option<AsOf>,
    pub(crate) unknown: UnknownItems,
}

/// An event of a query.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) item: Span,
    pub(crate) time: Option<i64>,
    pub(crate) action: Option<Span>,
    pub(crate) value: Option<f32>,
    pub(crate) fields: Range<usize>,
}

/// The most fields of a query, and of all its events together.
const MOST_FIELDS: usize = 4 * MAX_EVENTS;

/// A new query.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_query_new(
    query: *mut *mut docent_query,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_query_new", error, || {
        let query = Output::begin(query, std::ptr::null_mut()).needed("query")?;
        give(Asked::default(), &query);
        Ok(())
    })
}

/// Makes a query a new one; its memory is kept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_query_clear(query: *mut docent_query, error: *mut *mut docent_error) -> docent_status {
    run("docent_query_clear", error, || {
        let mut query = exclude(query)?;
        query.texts.clear();
        query.entity = None;
        query.events.clear();
        query.event_fields.clear();
        query.fields.clear();
        query.time = None;
        query.as_of = None;
        query.unknown = UnknownItems::Refuse;
        Ok(())
    })
}

/// Asks for an entity: its stored history comes before the events of the query. An entity that the generation does not
/// know is no error: without events, the list is the popular one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_query_set_entity(
    query: *mut docent_query,
    id: *const c_char,
    id_length: usize,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_query_set_entity", error, || {
        let mut query = exclude(query)?;
        // SAFETY: the caller passes a text and its length.
        let id = unsafe { text(id, id_length, "the entity id")? };
        query.entity = Some(query.texts.add(id)?);
        Ok(())
    })
}

/// Adds an event with an item, after the events before it (oldest first). The calls that set an event's time, action,
/// value and fields are about the event that was added last.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_query_add_event(
    query: *mut docent_query,
    item: *const c_char,
    item_length: usize,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_query_add_event", error, || {
        let mut query = exclude(query)?;
        // SAFETY: the caller passes a text and its length.
        let item = unsafe { text(item, item_length, "the item id")? };
        if query.events.len() >= MAX_EVENTS {
            return Err(fail!(
                InvalidArgument,
                "the query has {MAX_EVENTS} events, the most it may have; leave the oldest out"
            ));
        }
        let item = query.texts.add(item)?;
        let fields = query.event_fields.len()..query.event_fields.len();
        query.events.push(Event { item, time: None, action: None, value: None, fields });
        Ok(())
    })
}

/// Sets when the last event happened, in Unix milliseconds. An event without a time happened together with the one before
/// it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_query_set_event_time(
    query: *mut docent_query,
    time: i64,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_query_set_event_time", error, || {
        let mut query = exclude(query)?;
        last(&mut query)?.time = Some(time);
        Ok(())
    })
}

/// Sets the action of the last event, by its name in the model's schema.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_query_set_event_action(
    query: *mut docent_query,
    action: *const c_char,
    action_length: usize,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_query_set_event_action", error, || {
        let mut query = exclude(query)?;
        // SAFETY: the caller passes a text and its length.
        let action = unsafe { text(action, action_length, "the action")? };
        last(&mut query)?;
        let action = query.texts.add(action)?;
        last(&mut query)?.action = Some(action);
        Ok(())
    })
}

/// Sets the value of the last event, such as a rating or a duration; finite.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_query_set_event_value(
    query: *mut docent_query,
    value: f32,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_query_set_event_value", error, || {
        let mut query = exclude(query)?;
        if !value.is_finite() {
            return Err(fail!(InvalidArgument, "the value of an event is {value}; pass a finite number, or none"));
        }
        last(&mut query)?.value = Some(value);
        Ok(())
    })
}

/// Gives the last event a field by name, with its value as text: "device", "phone". Fields left out are missing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_query_add_event_field(
    query: *mut docent_query,
    name: *const c_char,
    name_length: usize,
    value: *const c_char,
    value_length: usize,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_query_add_event_field", error, || {
        let mut query = exclude(query)?;
        // SAFETY: the caller passes texts and their lengths.
        let (name, value) =
            unsafe { (text(name, name_length, "the field's name")?, text(value, value_length, "the field's value")?) };
        last(&mut query)?;
        check_fields(query.event_fields.len())?;
        let field = (query.texts.add(name)?, query.texts.add(value)?);
        query.event_fields.push(field);
        let end = query.event_fields.len();
        last(&mut query)?.fields.end = end;
        Ok(())
    })
}

/// Sets the time of the request, in Unix milliseconds. Without it, time does not matter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_query_set_time(
    query: *mut docent_query,
    time: i64,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_query_set_time", error, || {
        exclude(query)?.time = Some(time);
        Ok(())
    })
}

/// Asks for the entity as it stood at a time, in Unix milliseconds: only what happened until then counts, itself included. The list is
/// then asked for at that time, too, unless docent_query_set_time says otherwise. Needs an entity and a model of events with times.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_query_set_as_of_time(
    query: *mut docent_query,
    time: i64,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_query_set_as_of_time", error, || {
        exclude(query)?.as_of = Some(AsOf::Time(time));
        Ok(())
    })
}

/// Asks for the entity as it stood after `count` events, oldest first: those that the generation holds, then those observed since. Needs
/// an entity.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_query_set_as_of_events(
    query: *mut docent_query,
    count: usize,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_query_set_as_of_events", error, || {
        check_count(count, "count")?;
        exclude(query)?.as_of = Some(AsOf::Events(count));
        Ok(())
    })
}

/// Gives the request a field by name, with its value as text: "device", "phone". Fields left out are missing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_query_add_field(
    query: *mut docent_query,
    name: *const c_char,
    name_length: usize,
    value: *const c_char,
    value_length: usize,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_query_add_field", error, || {
        let mut query = exclude(query)?;
        // SAFETY: the caller passes texts and their lengths.
        let (name, value) =
            unsafe { (text(name, name_length, "the field's name")?, text(value, value_length, "the field's value")?) };
        check_fields(query.fields.len())?;
        let field = (query.texts.add(name)?, query.texts.add(value)?);
        query.fields.push(field);
        Ok(())
    })
}

/// Sets what to do about events whose item the generation does not know.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_query_set_unknown(
    query: *mut docent_query,
    unknown: docent_unknown,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_query_set_unknown", error, || {
        let mut query = exclude(query)?;
        query.unknown = choice(unknown, [UnknownItems::Refuse, UnknownItems::Skip], "unknown")?;
        Ok(())
    })
}

/// Frees a query. NULL is nothing to free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_query_free(query: *mut docent_query) -> docent_status {
    run("docent_query_free", std::ptr::null_mut(), || release(query))
}

fn last(query: &mut Exclusive<docent_query>) -> Result<&mut Event> {
    query.events.last_mut().ok_or_else(|| fail!(InvalidArgument, "the query has no event as yet; add one first"))
}

fn check_fields(count: usize) -> Result<()> {
    match count < MOST_FIELDS {
        true => Ok(()),
        false => Err(fail!(InvalidArgument, "the query has {count} fields, the most it may have; clear it")),
    }
}
