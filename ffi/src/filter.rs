//! Which items may be in a list.

use crate::boundary::fail;
use crate::error::{docent_error, run};
use crate::handle::{Object, exclude, give, release};
use crate::input::{DOCENT_MAX_COUNT, choice, flag, text, texts};
use crate::output::Output;
use crate::query::docent_unknown;
use crate::status::docent_status;
use crate::texts::{Span, Texts};
use docent_api::Result;
use docent_api::options::Seen;
use docent_api::serve::UnknownItems;
use std::ffi::c_char;
use std::ops::Range;

/// Which items may be in a list. A new filter leaves nothing out but, where the generation says so, what the person has had already.
pub struct docent_filter {
    _opaque: [u8; 0],
}

impl Object for docent_filter {
    type Value = Rules;
    const TAG: u32 = 0xd0ce_0007;
    const NAME: &'static str = "filter";
}

/// What a filter object holds.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) texts: Texts,
    /// `None` is as the generation says.
    pub(crate) seen: Option<Seen>,
    /// Whether only the items of `allow` may be in the list.
    pub(crate) only: bool,
    pub(crate) allow: Vec<Span>,
    pub(crate) deny: Vec<Span>,
    /// Values of all conditions, one condition after another.
    pub(crate) values: Vec<Span>,
    pub(crate) conditions: Vec<Rule>,
    pub(crate) unknown: UnknownItems,
}

/// A condition of a filter.
#[derive(Debug)]
pub(crate) enum Rule {
    Values { field: Span, values: Range<usize>, wanted: bool },
    Between { field: Span, least: f32, most: f32 },
    Released { from: i64, until: i64 },
}

/// A new filter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_filter_new(
    filter: *mut *mut docent_filter,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_filter_new", error, || {
        let filter = Output::begin(filter, std::ptr::null_mut()).needed("filter")?;
        give(Rules::default(), &filter);
        Ok(())
    })
}

/// Makes a filter a new one; its memory is kept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_filter_clear(
    filter: *mut docent_filter,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_filter_clear", error, || {
        let mut filter = exclude(filter)?;
        filter.texts.clear();
        filter.seen = None;
        filter.only = false;
        filter.allow.clear();
        filter.deny.clear();
        filter.values.clear();
        filter.conditions.clear();
        filter.unknown = UnknownItems::Refuse;
        Ok(())
    })
}

/// Sets whether items of the history, stored and given, may be in the list (1) or not (0). A filter that does not say leaves it to the
/// generation: they may where the people that it learned from come back to items.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_filter_set_include_seen(
    filter: *mut docent_filter,
    include: u32,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_filter_set_include_seen", error, || {
        let mut filter = exclude(filter)?;
        filter.seen = Some(if flag(include, "include")? { Seen::Allowed } else { Seen::Excluded });
        Ok(())
    })
}

/// Lets only allowed items be in the list: those of docent_filter_allow, before and after this call. Without any, the
/// list is empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_filter_allow_only(
    filter: *mut docent_filter,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_filter_allow_only", error, || {
        exclude(filter)?.only = true;
        Ok(())
    })
}

/// Allows an item; from then on only allowed items may be in the list, as after docent_filter_allow_only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_filter_allow(
    filter: *mut docent_filter,
    item: *const c_char,
    item_length: usize,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_filter_allow", error, || {
        let mut filter = exclude(filter)?;
        // SAFETY: the caller passes a text and its length.
        let item = unsafe { text(item, item_length, "the item id")? };
        check_room(filter.allow.len())?;
        let item = filter.texts.add(item)?;
        filter.allow.push(item);
        filter.only = true;
        Ok(())
    })
}

/// Denies an item. Denying one that the generation does not know is no error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_filter_deny(
    filter: *mut docent_filter,
    item: *const c_char,
    item_length: usize,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_filter_deny", error, || {
        let mut filter = exclude(filter)?;
        // SAFETY: the caller passes a text and its length.
        let item = unsafe { text(item, item_length, "the item id")? };
        check_room(filter.deny.len())?;
        let item = filter.texts.add(item)?;
        filter.deny.push(item);
        Ok(())
    })
}

/// Asks that an item's categorical or multi-valued field has one of `count` values (`wanted` 1; items without a value are
/// left out) or none of them (`wanted` 0; items without a value stay). Values are pointers and lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_filter_require_values(
    filter: *mut docent_filter,
    field: *const c_char,
    field_length: usize,
    values: *const *const c_char,
    value_lengths: *const usize,
    count: usize,
    wanted: u32,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_filter_require_values", error, || {
        let mut filter = exclude(filter)?;
        let wanted = flag(wanted, "wanted")?;
        // SAFETY: the caller passes a text and its length.
        let field = unsafe { text(field, field_length, "the field's name")? };
        check_room(filter.conditions.len())?;
        check_room(filter.values.len().saturating_add(count).saturating_sub(1))?;
        let start = filter.values.len();
        let rules = &mut *filter;
        let mut added = || {
            let add = |value: &str| {
                rules.values.push(rules.texts.add(value)?);
                Ok(())
            };
            // SAFETY: the caller passes arrays of `count` texts and lengths.
            unsafe { texts(values, value_lengths, count, "the values", add) }
        };
        if let Err(failure) = added() {
            filter.values.truncate(start);
            return Err(failure);
        }
        let values = start..filter.values.len();
        let field = filter.texts.add(field)?;
        filter.conditions.push(Rule::Values { field, values, wanted });
        Ok(())
    })
}

/// Asks that an item's numeric field lies within two bounds, both included; an infinity is no bound. Items without a
/// number are left out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_filter_require_between(
    filter: *mut docent_filter,
    field: *const c_char,
    field_length: usize,
    least: f32,
    most: f32,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_filter_require_between", error, || {
        let mut filter = exclude(filter)?;
        // SAFETY: the caller passes a text and its length.
        let field = unsafe { text(field, field_length, "the field's name")? };
        if least.is_nan() || most.is_nan() {
            return Err(fail!(InvalidArgument, "a bound is not a number; pass an infinity where there is none"));
        }
        check_room(filter.conditions.len())?;
        let field = filter.texts.add(field)?;
        filter.conditions.push(Rule::Between { field, least, most });
        Ok(())
    })
}

/// Asks that an item was released at or after `from` and before `until`, in Unix milliseconds; INT64_MIN and INT64_MAX are
/// no bounds. Items whose release is not known are left out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_filter_require_released(
    filter: *mut docent_filter,
    from: i64,
    until: i64,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_filter_require_released", error, || {
        let mut filter = exclude(filter)?;
        check_room(filter.conditions.len())?;
        filter.conditions.push(Rule::Released { from, until });
        Ok(())
    })
}

/// Sets what to do about allowed items and values that the generation does not know: refuse, so that a slip of the pen
/// does not pass for an empty list, or go on, where they match nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_filter_set_unknown(
    filter: *mut docent_filter,
    unknown: docent_unknown,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_filter_set_unknown", error, || {
        let mut filter = exclude(filter)?;
        filter.unknown = choice(unknown, [UnknownItems::Refuse, UnknownItems::Skip], "unknown")?;
        Ok(())
    })
}

/// Frees a filter. NULL is nothing to free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_filter_free(filter: *mut docent_filter) -> docent_status {
    run("docent_filter_free", std::ptr::null_mut(), || release(filter))
}

fn check_room(count: usize) -> Result<()> {
    match count < DOCENT_MAX_COUNT {
        true => Ok(()),
        false => {
            Err(fail!(InvalidArgument, "the filter has {count} entries of a kind, the most it may have; clear it"))
        }
    }
}
