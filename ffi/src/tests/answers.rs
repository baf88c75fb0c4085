//! The interface answers as the engine does, for every part of a query and a filter, and over a reload.

use super::fixture::Fixture;
use super::world::{DAY, Make, START, World, entity, item};
use crate::embedding::*;
use crate::engine::*;
use crate::filter::*;
use crate::generation::*;
use crate::query::*;
use crate::recommend::*;
use crate::session::*;
use crate::status::*;
use docent_api::serve::{Condition, Filter, Query, Recommendations, Source};
use docent_api::store::GenerationId;
use docent_api::{Cell, Event};
use std::ffi::c_char;
use std::ptr::{null, null_mut};

fn parts(text: &str) -> (*const c_char, usize) {
    (text.as_ptr().cast(), text.len())
}

/// What docent_recommend writes for the fixture's query and filter.
fn recommend(made: &Fixture, k: usize) -> (Vec<u32>, Vec<f32>, u64, u32) {
    let (mut rows, mut scores) = (vec![0; k], vec![0.0; k]);
    let (mut written, mut generation, mut source) = (0, 0, 0);
    // SAFETY: living objects and arrays of `k`.
    let status = unsafe {
        docent_recommend(
            made.session,
            made.query,
            made.filter,
            k,
            rows.as_mut_ptr(),
            scores.as_mut_ptr(),
            &mut written,
            &mut generation,
            &mut source,
            null_mut(),
        )
    };
    assert_eq!(status, DOCENT_OK);
    rows.truncate(written);
    scores.truncate(written);
    (rows, scores, generation, source)
}

fn written(list: &Recommendations) -> (Vec<u32>, Vec<f32>, u64, u32) {
    let source = match list.source {
        Source::Model => DOCENT_SOURCE_MODEL,
        Source::Popularity => DOCENT_SOURCE_POPULARITY,
        Source::Ranker => DOCENT_SOURCE_RANKER,
        other => panic!("{other}"),
    };
    let (rows, scores) = list.items.iter().map(|i| (i.row, i.score)).unzip();
    (rows, scores, list.generation.0, source)
}

/// Checks statuses of several calls.
fn all_ok(statuses: &[docent_status]) {
    assert!(statuses.iter().all(|status| *status == DOCENT_OK), "{statuses:?}");
}

#[test]
fn queries_and_filters_are_those_of_the_engine() {
    let made = Fixture::new();
    let engine = made.shop.engine();
    let (q, f) = (made.query, made.filter);
    let (one, two, denied, who) = (item(11), item(2), item(5), entity(1));
    let (((one_at, one_n), (two_at, two_n)), ((denied_at, denied_n), (who_at, who_n))) =
        ((parts(&one), parts(&two)), (parts(&denied), parts(&who)));
    let ((like, like_n), (device, device_n), (tv, tv_n)) = (parts("like"), parts("device"), parts("tv"));
    let ((genre, genre_n), (price, price_n)) = (parts("genre"), parts("price"));
    let ((war, war_n), (fun, fun_n)) = (parts("war"), parts("fun"));

    let (later, latest) = (START + 400 * DAY, START + 401 * DAY);
    let fields = [("device", Cell::Text("tv"))];
    let events = [
        Event { time: Some(later), action: Some("like"), value: Some(1.5), fields: &fields, ..Event::item(&one) },
        Event { time: Some(latest), action: Some("like"), value: Some(0.5), ..Event::item(&two) },
    ];
    // SAFETY: living objects, texts with their lengths.
    unsafe {
        all_ok(&[
            docent_query_clear(q, null_mut()),
            docent_query_set_entity(q, who_at, who_n, null_mut()),
            docent_query_add_event(q, one_at, one_n, null_mut()),
            docent_query_set_event_time(q, later, null_mut()),
            docent_query_set_event_action(q, like, like_n, null_mut()),
            docent_query_set_event_value(q, 1.5, null_mut()),
            docent_query_add_event_field(q, device, device_n, tv, tv_n, null_mut()),
            docent_query_add_event(q, two_at, two_n, null_mut()),
            docent_query_set_event_time(q, latest, null_mut()),
            docent_query_set_event_action(q, like, like_n, null_mut()),
            docent_query_set_event_value(q, 0.5, null_mut()),
            docent_query_set_time(q, latest + DAY, null_mut()),
            docent_query_add_field(q, device, device_n, tv, tv_n, null_mut()),
        ]);
    }
    let query = Query::entity(&who).and_then(&events).at(latest + DAY).with(&fields);
    let plain = engine.recommend(&query, &Filter::default(), 10).unwrap();
    assert_eq!(recommend(&made, 10), written(&plain));
    let simple = engine.recommend(&Query::entity(&who), &Filter::default(), 10).unwrap();
    assert_ne!(written(&plain), written(&simple), "the events have no effect");

    // SAFETY: as above.
    unsafe {
        all_ok(&[
            docent_filter_deny(f, denied_at, denied_n, null_mut()),
            docent_filter_set_include_seen(f, 1, null_mut()),
            docent_filter_require_values(
                f,
                genre,
                genre_n,
                [war, fun].as_ptr(),
                [war_n, fun_n].as_ptr(),
                2,
                1,
                null_mut(),
            ),
            docent_filter_require_values(f, genre, genre_n, [fun].as_ptr(), [fun_n].as_ptr(), 1, 0, null_mut()),
            docent_filter_require_between(f, price, price_n, f32::NEG_INFINITY, 30.0, null_mut()),
            docent_filter_require_released(f, DAY, i64::MAX, null_mut()),
        ]);
    }
    let (any, none) = (["war", "fun"], ["fun"]);
    let conditions = [
        Condition::AnyOf { field: "genre", values: &any },
        Condition::NoneOf { field: "genre", values: &none },
        Condition::Between { field: "price", least: None, most: Some(30.0) },
        Condition::Released { from: Some(DAY), until: None },
    ];
    let deny = [denied.as_str()];
    let filtered = engine.recommend(&query, &Filter::everything().deny(&deny).under(&conditions), 40).unwrap();
    assert!(filtered.items.len() > 2 && filtered.items.len() < 20, "{}", filtered.items.len());
    assert_eq!(recommend(&made, 40), written(&filtered));

    // SAFETY: as above.
    unsafe {
        all_ok(&[
            docent_filter_clear(f, null_mut()),
            docent_filter_allow(f, denied_at, denied_n, null_mut()),
            docent_filter_allow(f, one_at, one_n, null_mut()),
        ]);
    }
    let allow = [denied.as_str(), one.as_str()];
    let allowed = engine.recommend(&query, &Filter::default().allow(&allow), 5).unwrap();
    assert_eq!(recommend(&made, 5), written(&allowed));
    assert_eq!(allowed.items.len(), 1, "what was given is seen");

    // SAFETY: as above.
    unsafe { all_ok(&[docent_filter_clear(f, null_mut()), docent_filter_allow_only(f, null_mut())]) };
    assert_eq!(recommend(&made, 5).0, [] as [u32; 0], "an empty allow list allows nothing");

    let (mut scores, mut vector, mut count, mut number) = ([0.0; 2], [0.0; 8], 0, 0);
    // SAFETY: as above.
    unsafe {
        all_ok(&[
            docent_score(
                made.session,
                q,
                [two_at, denied_at].as_ptr(),
                [two_n, denied_n].as_ptr(),
                2,
                scores.as_mut_ptr(),
                &mut number,
                null_mut(),
            ),
            docent_user_embedding(made.session, q, 8, vector.as_mut_ptr(), &mut count, null_mut(), null_mut()),
        ]);
    }
    assert_eq!(scores.to_vec(), engine.score(&query, &[&two, &denied]).unwrap());
    assert_eq!((vector.to_vec(), count, number), (engine.user_embedding(&query).unwrap(), 8, 1));
    // SAFETY: as above.
    let small = unsafe {
        docent_item_embedding(made.session, two_at, two_n, 7, vector.as_mut_ptr(), &mut count, null_mut(), null_mut())
    };
    assert_eq!((small, count), (DOCENT_ERR_INVALID_ARGUMENT, 0));
    // SAFETY: as above.
    let fits = unsafe {
        docent_item_embedding(made.session, two_at, two_n, 8, vector.as_mut_ptr(), &mut count, null_mut(), null_mut())
    };
    assert_eq!((fits, vector.to_vec()), (DOCENT_OK, engine.item_embedding(&two).unwrap()));
}

#[test]
fn a_reload_leaves_what_is_held_as_it_was() {
    let made = Fixture::new();
    let before = recommend(&made, 5);
    World::new(Make { seed: 2, ..Make::default() }).publish(&made.shop.path());
    let (mut served, mut number, mut vector, mut width) = (0, 0, null(), 0);
    // SAFETY: living objects and places.
    unsafe {
        assert_eq!(docent_engine_reload(made.engine, &mut served, null_mut()), DOCENT_OK);
        assert_eq!(docent_generation_number(made.generation, &mut number, null_mut()), DOCENT_OK);
        let status = docent_generation_item_vector(made.generation, 3, &mut vector, &mut width, null_mut());
        assert_eq!((served, number, status, width), (2, 1, DOCENT_OK, 8));
    }
    let after = recommend(&made, 5);
    assert_eq!((before.2, after.2), (1, 2));
    assert_ne!(before.1, after.1);

    let mut held = null_mut();
    // SAFETY: as above; the vector lives with the first generation, which is held.
    unsafe {
        assert_eq!(docent_session_generation(made.session, &mut held, null_mut()), DOCENT_OK);
        assert_eq!(docent_generation_number(held, &mut number, null_mut()), DOCENT_OK);
        assert_eq!(docent_generation_free(held), DOCENT_OK);
        let first = docent_api::serve::EngineOptions { generation: Some(GenerationId(1)), ..Default::default() };
        let first = docent_api::serve::Engine::open(made.shop.path(), &first).unwrap();
        assert_eq!(std::slice::from_raw_parts(vector, width), first.item_embedding(&item(3)).unwrap());
        assert_eq!((number, docent_engine_switch_to(made.engine, 1, null_mut())), (2, DOCENT_OK));
        assert_eq!(docent_engine_switch_to(made.engine, 9, null_mut()), DOCENT_ERR_NOT_FOUND);
    }
    assert_eq!(recommend(&made, 5), before);
}
