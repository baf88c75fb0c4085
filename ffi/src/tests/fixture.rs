//! One object of each kind over a small store, and a valid call of every function.

use super::world::{Shop, entity, item};
use crate::embedding::*;
use crate::engine::*;
use crate::error::*;
use crate::filter::*;
use crate::generation::*;
use crate::options::*;
use crate::query::*;
use crate::recommend::*;
use crate::session::*;
use crate::status::{DOCENT_OK, docent_status};
use std::ffi::{CStr, c_char};
use std::ptr::{null, null_mut};

/// One object of each kind.
pub(super) struct Fixture {
    pub(super) shop: Shop,
    pub(super) options: *mut docent_options,
    pub(super) engine: *mut docent_engine,
    pub(super) generation: *mut docent_generation,
    pub(super) session: *mut docent_session,
    pub(super) query: *mut docent_query,
    pub(super) filter: *mut docent_filter,
    /// An error for the functions about errors.
    pub(super) failure: *mut docent_error,
    /// Where calls put theirs.
    pub(super) error: *mut docent_error,
}

fn parts(text: &str) -> (*const c_char, usize) {
    (text.as_ptr().cast(), text.len())
}

impl Fixture {
    pub(super) fn new() -> Self {
        let mut made = Self {
            shop: Shop::new(),
            options: null_mut(),
            engine: null_mut(),
            generation: null_mut(),
            session: null_mut(),
            query: null_mut(),
            filter: null_mut(),
            failure: null_mut(),
            error: null_mut(),
        };
        for name in ["options_new", "engine_open", "engine_generation", "session_new", "query_new", "filter_new"] {
            assert_eq!(made.call(&format!("docent_{name}")), DOCENT_OK, "{name}");
        }
        for name in
            ["docent_query_set_entity", "docent_query_add_event", "docent_query_set_event_action", "docent_recommend"]
        {
            assert_eq!(made.call(name), DOCENT_OK, "{name}: {}", made.message());
        }
        let path = "";
        // SAFETY: valid texts and places.
        unsafe { docent_engine_open(path.as_ptr().cast(), 0, null(), &mut null_mut(), &mut made.failure) };
        assert!(!made.failure.is_null());
        made
    }

    /// The message of the last failure.
    pub(super) fn message(&self) -> String {
        let mut text = null();
        // SAFETY: a living error, or NULL, which is refused.
        match unsafe { docent_error_message(self.error, &mut text, null_mut()) } {
            // SAFETY: the message ends in NUL.
            DOCENT_OK => unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned(),
            _ => String::new(),
        }
    }

    /// Calls an exported function with arguments that suit it. Unknown names fail the test: every function needs a case.
    pub(super) fn call(&mut self, name: &str) -> docent_status {
        let (item, entity, path) = (item(3), entity(1), self.shop.path().to_str().unwrap().to_owned());
        let ((item, item_length), (entity, entity_length)) = (parts(&item), parts(&entity));
        let (store, store_length) = parts(&path);
        let (device, device_length) = parts("device");
        let (phone, phone_length) = parts("phone");
        let (kind, kind_length) = parts("kind");
        let (film, film_length) = parts("film");
        let (price, price_length) = parts("price");
        let (like, like_length) = parts("like");
        let (mut rows, mut scores, mut vector) = ([0; 5], [0.0; 5], [0.0; 8]);
        let (mut written, mut number, mut source, mut row) = (0, 0, 0, 0);
        let (mut text, mut place, mut other) = (null(), null(), null_mut());
        // The error of the call before, if any; not by an exported function, which a test may have armed.
        crate::handle::release(std::mem::replace(&mut self.error, null_mut())).unwrap();
        let Self { options, engine, generation, session, query, filter, failure, error, .. } = self;
        // SAFETY: objects are living or NULL, texts and arrays are as long as is said.
        unsafe {
            match name {
                "docent_error_status" => match docent_error_status(*failure) {
                    1 => DOCENT_OK,
                    other => other,
                },
                "docent_error_message" => docent_error_message(*failure, &mut text, &mut written),
                "docent_error_free" => freed(docent_error_free(*failure), failure),
                "docent_options_new" => docent_options_new(fresh(options, |o| docent_options_free(o)), error),
                "docent_options_set_verify" => docent_options_set_verify(*options, DOCENT_VERIFY_FULL, error),
                "docent_options_set_load_mode" => docent_options_set_load_mode(*options, DOCENT_LOAD_COPY, error),
                "docent_options_set_generation" => docent_options_set_generation(*options, 1, error),
                "docent_options_set_prefault" => docent_options_set_prefault(*options, 1, error),
                "docent_options_free" => freed(docent_options_free(*options), options),
                "docent_engine_open" => {
                    docent_engine_open(store, store_length, *options, fresh(engine, |e| docent_engine_free(e)), error)
                }
                "docent_engine_reload" => docent_engine_reload(*engine, &mut number, error),
                "docent_engine_switch_to" => docent_engine_switch_to(*engine, 1, error),
                "docent_engine_generation" => {
                    docent_engine_generation(*engine, fresh(generation, |g| docent_generation_free(g)), error)
                }
                "docent_engine_free" => freed(docent_engine_free(*engine), engine),
                "docent_generation_number" => docent_generation_number(*generation, &mut number, error),
                "docent_generation_counts" => {
                    docent_generation_counts(*generation, &mut written, null_mut(), null_mut(), error)
                }
                "docent_generation_find_item" => {
                    docent_generation_find_item(*generation, item, item_length, &mut row, error)
                }
                "docent_generation_find_entity" => {
                    docent_generation_find_entity(*generation, entity, entity_length, &mut row, error)
                }
                "docent_generation_item_id" => {
                    docent_generation_item_id(*generation, 2, &mut text, &mut written, error)
                }
                "docent_generation_item_title" => {
                    docent_generation_item_title(*generation, 2, &mut text, &mut written, error)
                }
                "docent_generation_item_vector" => {
                    docent_generation_item_vector(*generation, 2, &mut place, &mut written, error)
                }
                "docent_generation_free" => freed(docent_generation_free(*generation), generation),
                "docent_session_new" => docent_session_new(*engine, fresh(session, |s| docent_session_free(s)), error),
                "docent_session_generation" => {
                    let status = docent_session_generation(*session, &mut other, error);
                    docent_generation_free(other);
                    status
                }
                "docent_session_release" => docent_session_release(*session, error),
                "docent_session_free" => freed(docent_session_free(*session), session),
                "docent_query_new" => docent_query_new(fresh(query, |q| docent_query_free(q)), error),
                "docent_query_clear" => docent_query_clear(*query, error),
                "docent_query_set_entity" => docent_query_set_entity(*query, entity, entity_length, error),
                "docent_query_add_event" => docent_query_add_event(*query, item, item_length, error),
                "docent_query_set_event_time" => docent_query_set_event_time(*query, 1_700_000_000_000, error),
                "docent_query_set_event_action" => docent_query_set_event_action(*query, like, like_length, error),
                "docent_query_set_event_value" => docent_query_set_event_value(*query, 1.5, error),
                "docent_query_add_event_field" => {
                    docent_query_add_event_field(*query, device, device_length, phone, phone_length, error)
                }
                "docent_query_set_time" => docent_query_set_time(*query, 1_700_000_000_000, error),
                "docent_query_set_as_of_time" => docent_query_set_as_of_time(*query, 1_700_000_000_000, error),
                "docent_query_set_as_of_events" => docent_query_set_as_of_events(*query, 1, error),
                "docent_query_add_field" => {
                    docent_query_add_field(*query, device, device_length, phone, phone_length, error)
                }
                "docent_query_set_unknown" => docent_query_set_unknown(*query, DOCENT_UNKNOWN_SKIP, error),
                "docent_query_free" => freed(docent_query_free(*query), query),
                "docent_filter_new" => docent_filter_new(fresh(filter, |f| docent_filter_free(f)), error),
                "docent_filter_clear" => docent_filter_clear(*filter, error),
                "docent_filter_set_include_seen" => docent_filter_set_include_seen(*filter, 1, error),
                "docent_filter_allow_only" => docent_filter_allow_only(*filter, error),
                "docent_filter_allow" => docent_filter_allow(*filter, item, item_length, error),
                "docent_filter_deny" => docent_filter_deny(*filter, item, item_length, error),
                "docent_filter_require_values" => docent_filter_require_values(
                    *filter,
                    kind,
                    kind_length,
                    [film].as_ptr(),
                    [film_length].as_ptr(),
                    1,
                    1,
                    error,
                ),
                "docent_filter_require_between" => {
                    docent_filter_require_between(*filter, price, price_length, 0.0, f32::INFINITY, error)
                }
                "docent_filter_require_released" => docent_filter_require_released(*filter, 0, i64::MAX, error),
                "docent_filter_set_unknown" => docent_filter_set_unknown(*filter, DOCENT_UNKNOWN_SKIP, error),
                "docent_filter_free" => freed(docent_filter_free(*filter), filter),
                "docent_recommend" => docent_recommend(
                    *session,
                    *query,
                    *filter,
                    rows.len(),
                    rows.as_mut_ptr(),
                    scores.as_mut_ptr(),
                    &mut written,
                    &mut number,
                    &mut source,
                    error,
                ),
                "docent_similar" => docent_similar(
                    *session,
                    item,
                    item_length,
                    *filter,
                    rows.len(),
                    rows.as_mut_ptr(),
                    scores.as_mut_ptr(),
                    &mut written,
                    &mut number,
                    error,
                ),
                "docent_score" => docent_score(
                    *session,
                    *query,
                    [item].as_ptr(),
                    [item_length].as_ptr(),
                    1,
                    scores.as_mut_ptr(),
                    &mut number,
                    error,
                ),
                "docent_user_embedding" => docent_user_embedding(
                    *session,
                    *query,
                    vector.len(),
                    vector.as_mut_ptr(),
                    &mut written,
                    &mut number,
                    error,
                ),
                "docent_item_embedding" => docent_item_embedding(
                    *session,
                    item,
                    item_length,
                    vector.len(),
                    vector.as_mut_ptr(),
                    &mut written,
                    &mut number,
                    error,
                ),
                _ => panic!("{name} has no case; add one"),
            }
        }
    }
}

/// The place for a new object, after the one that was there is freed.
fn fresh<T>(place: &mut *mut T, free: impl Fn(*mut T) -> docent_status) -> &mut *mut T {
    free(std::mem::replace(place, null_mut()));
    place
}

/// Forgets an object that was freed.
fn freed<T>(status: docent_status, place: &mut *mut T) -> docent_status {
    if status == DOCENT_OK {
        *place = null_mut();
    }
    status
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for kind in ["engine", "generation", "session", "query", "filter", "options", "error"] {
            let status = self.call(&format!("docent_{kind}_free"));
            if !std::thread::panicking() {
                assert_eq!(status, DOCENT_OK, "{kind}");
            }
        }
        // SAFETY: the last error, or NULL.
        unsafe { docent_error_free(self.error) };
    }
}
