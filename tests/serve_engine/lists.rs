use crate::world::{DAY, Make, START, Shop, World, best, entity, item, scores};
use docent::serve::{Engine, EngineOptions, Filter, MAX_EVENTS, Query, Recommendations, Session, Source};
use docent::store::{GenerationId, LoadMode, Verify};
use docent::{Cell, ErrorKind, Event, FieldValue};

fn rows(list: &Recommendations) -> Vec<u32> {
    list.items.iter().map(|i| i.row).collect()
}

#[test]
fn an_entity_gets_the_best_items_that_it_has_not_seen() {
    let shop = Shop::new();
    let engine = shop.engine();
    let mut lists = Vec::new();
    for u in (0..shop.world.entities).filter(|u| *u != 2) {
        let id = entity(u);
        let query = Query::entity(&id).at(START + 90 * DAY);
        let list = engine.recommend(&query, &Filter::default(), 7).unwrap();
        let seen = shop.world.seen(u);
        let all = scores(&shop.world, &engine.user_embedding(&query).unwrap());
        assert_eq!(rows(&list), best(&all, 7, |row| !seen.contains(&row)), "entity {u}");
        assert_eq!((list.source, list.generation), (Source::Model, GenerationId(1)));
        for found in &list.items {
            assert_eq!(found.id, item(found.row as usize));
            let title = (found.row % 9 != 4).then(|| format!("Title № {}", found.row));
            assert_eq!(found.title, title);
            assert!((f64::from(found.score) - all[found.row as usize]).abs() < 1e-4);
        }
        assert!(engine.known_entity(&id).unwrap());
        lists.push(rows(&list));
    }
    lists.dedup();
    assert!(lists.len() > 3, "different people get different lists");
}

#[test]
fn what_is_given_as_a_history_counts_like_what_is_stored() {
    let shop = Shop::new();
    let engine = shop.engine();
    let w = &shop.world;
    let devices = ["", "tv", "phone"];
    // The bucket of a number that stands for each code; none for 0.
    let seconds = ["", "5", "30", "100"];
    for u in 0..w.entities {
        let offsets = w.u64s("history.offsets");
        let range = offsets[u] as usize..offsets[u + 1] as usize;
        let items: Vec<String> = w.seen(u).iter().map(|row| item(*row as usize)).collect();
        let values = w.f32s("history.value");
        let fields: Vec<Vec<FieldValue<'_>>> = range
            .clone()
            .map(|e| [("device", devices[e % 3]), ("seconds", seconds[e % 4])])
            .map(|pairs| pairs.into_iter().filter(|(_, t)| !t.is_empty()).map(|(n, t)| (n, Cell::Text(t))).collect())
            .collect();
        let events: Vec<Event<'_>> = range
            .clone()
            .zip(items.iter().zip(&fields))
            .map(|(e, (id, fields))| Event {
                item: id,
                time: Some(START + e as i64 * DAY / 3),
                action: Some(["view", "like"][e % 2]),
                value: Some(values[e]).filter(|v| !v.is_nan()),
                fields,
            })
            .collect();
        let id = entity(u);
        let now = START + 50 * DAY;
        let stored = engine.recommend(&Query::entity(&id).at(now), &Filter::default(), 9).unwrap();
        let given = engine.recommend(&Query::history(&events).at(now), &Filter::default(), 9).unwrap();
        assert_eq!(stored, given, "entity {u}");
        // Stored events that are given once more are not counted twice.
        let again = engine.recommend(&Query::entity(&id).and_then(&events).at(now), &Filter::default(), 9).unwrap();
        assert_eq!(stored, again, "entity {u}");
        // Order is that of the times.
        let mut turned = events.clone();
        turned.reverse();
        let turned = engine.recommend(&Query::history(&turned).at(now), &Filter::default(), 9).unwrap();
        assert_eq!(stored, turned, "entity {u}");
    }
}

#[test]
fn a_new_event_changes_the_list_and_is_not_recommended() {
    let shop = Shop::new();
    let engine = shop.engine();
    let id = entity(3);
    let before = engine.recommend(&Query::entity(&id), &Filter::default(), 5).unwrap();
    let bought = before.items[0].id.clone();
    let events = [Event { action: Some("like"), value: Some(2.5), ..Event::item(&bought) }];
    let after = engine.recommend(&Query::entity(&id).and_then(&events), &Filter::default(), 5).unwrap();
    assert_ne!(before, after);
    assert!(after.items.iter().all(|i| i.id != bought));
    let again = engine.recommend(&Query::entity(&id).and_then(&events), &Filter::everything(), 40).unwrap();
    assert!(again.items.iter().any(|i| i.id == bought));
    assert_eq!(again.items.len(), 40);
}

#[test]
fn the_circumstances_of_a_request_count() {
    let shop = Shop::new();
    let engine = shop.engine();
    let id = entity(4);
    let user = |query: Query<'_>| engine.user_embedding(&query).unwrap();
    let plain = user(Query::entity(&id));
    assert_ne!(plain, user(Query::entity(&id).with(&[("device", Cell::Text("phone"))])));
    assert_ne!(plain, user(Query::entity(&id).at(START + 400 * DAY)));
    assert_eq!(
        plain,
        user(Query::entity(&id).with(&[("device", Cell::Text("never seen"))])),
        "unknown values count as missing"
    );
}

#[test]
fn those_of_whom_nothing_is_known_get_the_popular_list() {
    let shop = Shop::new();
    let engine = shop.engine();
    let popular = shop.world.u32s("item.popular");
    let shares = shop.world.f32s("item.popularity");
    let silent = entity(2);
    for query in [Query::entity("nobody"), Query::entity(&silent), Query::items(&[]), Query::history(&[])] {
        let list = engine.recommend(&query, &Filter::default(), 6).unwrap();
        assert_eq!(list.source, Source::Popularity);
        assert_eq!(rows(&list), popular[..6]);
        assert!(list.items.iter().all(|i| i.score == shares[i.row as usize]));
        let denied = item(popular[0] as usize);
        let rest = engine.recommend(&query, &Filter::default().deny(&[&denied]), 6).unwrap();
        assert_eq!(rows(&rest), popular[1..7]);
        assert_eq!(engine.score(&query, &[&denied]).unwrap(), [shares[popular[0] as usize]]);
    }
    assert!(!engine.known_entity("nobody").unwrap());
    let seen = item(5);
    let events = [Event::item(&seen)];
    let one = engine.recommend(&Query::entity("nobody").and_then(&events), &Filter::default(), 6).unwrap();
    assert_eq!(one.source, Source::Model, "one event is enough for the model");
}

#[test]
fn unknown_items_are_refused_or_skipped() {
    let shop = Shop::new();
    let engine = shop.engine();
    let known = item(7);
    let with = [known.as_str(), "no such item"];
    let refused = engine.recommend(&Query::items(&with), &Filter::default(), 3).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::UnknownItem);
    assert!(refused.message().contains("\"no such item\""), "{refused}");
    let skipped = engine.recommend(&Query::items(&with).skip_unknown(), &Filter::default(), 3).unwrap();
    assert_eq!(skipped, engine.recommend(&Query::items(&[&known]), &Filter::default(), 3).unwrap());
    for refused in [
        engine.similar("no such item", &Filter::default(), 3).map(|_| ()),
        engine.item_embedding("no such item").map(|_| ()),
        engine.score(&Query::items(&[&known]), &["no such item"]).map(|_| ()),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::UnknownItem);
    }
}

#[test]
fn k_is_checked_and_bounded_by_the_catalogue() {
    let shop = Shop::new();
    let engine = shop.engine();
    let id = entity(1);
    for query in [Query::entity(&id), Query::entity("nobody")] {
        let refused = engine.recommend(&query, &Filter::default(), 0).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
        for k in [40, 41, usize::MAX] {
            assert_eq!(engine.recommend(&query, &Filter::everything(), k).unwrap().items.len(), 40);
        }
    }
    assert_eq!(engine.similar(&item(0), &Filter::default(), 0).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(engine.similar(&item(0), &Filter::default(), usize::MAX).unwrap().items.len(), 39);
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    let shop = Shop::new();
    let engine = shop.engine();
    let id = item(1);
    let event = Event { action: Some("view"), ..Event::item(&id) };
    let refused = |event: Event<'_>| {
        let events = [event];
        let outcome = engine.recommend(&Query::history(&events), &Filter::default(), 3);
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::InvalidArgument, "{event:?}");
    };
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        refused(Event { value: Some(value), ..event });
    }
    for time in [i64::MIN, i64::MAX, 253_402_300_800_000] {
        refused(Event { time: Some(time), ..event });
        let outcome = engine.recommend(&Query::items(&[&id]).at(time), &Filter::default(), 3);
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    refused(Event { action: Some("buy"), ..event });
    refused(Event { fields: &[("colour", Cell::Text("red"))], ..event });
    refused(Event { fields: &[("seconds", Cell::Text("NaN"))], ..event });
    let outcome = engine.recommend(&Query::items(&[&id]).with(&[("seconds", Cell::Text("3"))]), &Filter::default(), 3);
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::InvalidArgument, "outcomes are not part of a request");
    // An event may leave out what others of the history bring: it counts as missing.
    let half = [event, Event::item(&id)];
    assert_eq!(engine.recommend(&Query::history(&half), &Filter::default(), 3).unwrap().items.len(), 3);
}

#[test]
fn long_histories_are_read_from_their_newest_end_and_too_long_ones_refused() {
    let shop = Shop::new();
    let engine = shop.engine();
    let ids: Vec<String> = (0..30).map(item).collect();
    let long: Vec<&str> = ids.iter().cycle().take(500).map(String::as_str).collect();
    let user = |ids: &[&str]| engine.user_embedding(&Query::items(ids)).unwrap();
    assert_eq!(user(&long), user(&long[300..]));
    assert_ne!(user(&long), user(&long[..499]));
    let much = vec![ids[0].as_str(); MAX_EVENTS + 1];
    let refused = engine.recommend(&Query::items(&much), &Filter::default(), 3).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn adversarial_but_valid_events_give_finite_scores() {
    let shop = Shop::new();
    let engine = shop.engine();
    let ids: Vec<String> = (0..40).map(item).collect();
    let times = [-62_167_219_200_000, -1, 0, 1, START, 253_402_300_799_999];
    let values = [f32::MIN, f32::MAX, f32::MIN_POSITIVE, 1e-45, 0.0, -0.0];
    for round in 0..200usize {
        let events: Vec<Event<'_>> = (0..round % 23)
            .map(|e| Event {
                item: &ids[(e * round) % 40],
                time: Some(times[(e + round) % 6]),
                action: Some(["view", "like"][e % 2]),
                value: Some(values[(e * 5 + round) % 6]),
                fields: &[("seconds", Cell::Text("-1e38")), ("device", Cell::Text(""))],
            })
            .collect();
        let query = Query::history(&events).at(times[round % 6]);
        let list = engine.recommend(&query, &Filter::everything(), 40).unwrap();
        assert_eq!(list.items.len(), 40);
        assert!(list.items.iter().all(|i| i.score.is_finite()));
        assert!(list.items.is_sorted_by(|a, b| a.score > b.score || (a.score == b.score && a.row < b.row)));
    }
}

#[test]
fn ties_go_to_the_lower_row() {
    let mut world = World::new(Make::default());
    let one = world.f32s("item.vectors")[..8].to_vec();
    world.put_f32("item.vectors", &[40, 8], &one.repeat(40));
    let shop = Shop::of(world);
    let engine = shop.engine();
    let seen = item(3);
    let list = engine.recommend(&Query::items(&[&seen]), &Filter::default(), 6).unwrap();
    assert_eq!(rows(&list), [0, 1, 2, 4, 5, 6]);
    assert_eq!(rows(&engine.similar(&seen, &Filter::default(), 4).unwrap()), [0, 1, 2, 4]);
}

#[test]
fn likeness_is_the_cosine_of_the_vectors() {
    let mut world = World::new(Make::default());
    let mut vectors = world.f32s("item.vectors");
    vectors[8 * 6..8 * 7].fill(0.0);
    world.put_f32("item.vectors", &[40, 8], &vectors);
    let shop = Shop::of(world);
    let engine = shop.engine();
    let row = |i: usize| &vectors[i * 8..(i + 1) * 8];
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    for i in 0..40 {
        let cosine = |j: usize| {
            let lengths = (dot(row(i), row(i)) * dot(row(j), row(j))).sqrt();
            if lengths > 0.0 { dot(row(i), row(j)) / lengths } else { 0.0 }
        };
        let all: Vec<f64> = (0..40).map(cosine).collect();
        let list = engine.similar(&item(i), &Filter::default(), 8).unwrap();
        assert_eq!(rows(&list), best(&all, 8, |j| j as usize != i), "item {i}");
        for found in &list.items {
            assert!((f64::from(found.score) - all[found.row as usize]).abs() < 1e-5);
        }
        assert_eq!(engine.item_embedding(&item(i)).unwrap(), row(i));
    }
}

#[test]
fn scores_are_those_of_the_list_in_the_order_asked_for() {
    let shop = Shop::new();
    let engine = shop.engine();
    let id = entity(5);
    let list = engine.recommend(&Query::entity(&id), &Filter::everything(), 40).unwrap();
    let ids: Vec<&str> = list.items.iter().rev().map(|i| i.id.as_str()).collect();
    let scores = engine.score(&Query::entity(&id), &ids).unwrap();
    let listed: Vec<f32> = list.items.iter().rev().map(|i| i.score).collect();
    assert_eq!(scores, listed, "to the bit");
    assert!(engine.score(&Query::entity(&id), &[]).unwrap().is_empty());
}

#[test]
fn batches_equal_single_calls_on_any_number_of_threads() {
    let shop = Shop::new();
    let engine = shop.engine();
    let ids: Vec<String> = (0..shop.world.entities).map(entity).collect();
    let mut queries: Vec<Query<'_>> = ids.iter().cycle().take(37).map(|id| Query::entity(id)).collect();
    queries.insert(11, Query::items(&["no such item"]));
    let single: Vec<_> = queries.iter().map(|q| engine.recommend(q, &Filter::default(), 5)).collect();
    for threads in [1, 2, 4, 64] {
        for size in [1, 7, 38] {
            let lists: Vec<_> = queries
                .chunks(size)
                .flat_map(|part| engine.recommend_batch(part, &Filter::default(), 5, threads).unwrap())
                .collect();
            assert_eq!(lists.len(), single.len());
            for (place, (a, b)) in single.iter().zip(&lists).enumerate() {
                match (a, b) {
                    (Ok(a), Ok(b)) => assert_eq!(a, b),
                    (Err(a), Err(b)) => assert_eq!((a.kind(), place), (b.kind(), 11)),
                    _ => panic!("query {place} differs on {threads} threads"),
                }
            }
        }
    }
    let vectors = engine.user_embeddings(&queries, 3).unwrap();
    for (query, vector) in queries.iter().zip(vectors) {
        assert_eq!(vector.ok(), engine.user_embedding(query).ok());
    }
    assert!(engine.recommend_batch(&[], &Filter::default(), 5, 2).unwrap().is_empty());
    let refused = engine.recommend_batch(&queries, &Filter::default(), 5, 0).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_session_writes_what_recommend_returns() {
    let shop = Shop::new();
    let engine = shop.engine();
    let mut session = Session::new();
    for round in 0..3 {
        for u in 0..shop.world.entities {
            let id = entity(u);
            let query = Query::entity(&id).at(START);
            let k = 1 + (u * 7 + round) % 12;
            let (mut rows, mut scores) = (vec![9; k], vec![9.0; k]);
            let written =
                engine.recommend_into(&mut session, &query, &Filter::default(), &mut rows, &mut scores).unwrap();
            let list = engine.recommend(&query, &Filter::default(), k).unwrap();
            assert_eq!((written.count, written.generation, written.source), (k, list.generation, list.source));
            let generation = session.generation().unwrap();
            for ((row, score), item) in rows.iter().zip(&scores).zip(&list.items) {
                assert_eq!((*row, *score), (item.row, item.score));
                assert_eq!(generation.item_id(*row).unwrap(), item.id);
                assert_eq!(generation.item_title(*row).unwrap(), item.title.as_deref());
            }
        }
    }
    let (mut rows, mut scores) = ([9; 3], [9.0; 2]);
    let refused = engine
        .recommend_into(&mut session, &Query::entity("x"), &Filter::default(), &mut rows, &mut scores)
        .unwrap_err();
    assert_eq!((refused.kind(), rows, scores), (ErrorKind::InvalidArgument, [9; 3], [9.0; 2]));
    let (mut rows, mut scores) = ([9; 60], [9.0; 60]);
    let written =
        engine.recommend_into(&mut session, &Query::entity("x"), &Filter::default(), &mut rows, &mut scores).unwrap();
    assert_eq!((written.count, rows[40], scores[40]), (40, 9, 9.0), "what is beyond the count is left alone");
    session.release();
    assert!(session.generation().is_none());
}

#[test]
fn answers_do_not_depend_on_how_the_store_was_opened() {
    let shop = Shop::new();
    let id = entity(6);
    let answer = |verify, load, prefault| {
        let options =
            EngineOptions { verify, load, prefault, generation: Some(GenerationId(1)), ..EngineOptions::default() };
        let engine = Engine::open(shop.path(), &options).unwrap();
        engine.recommend(&Query::entity(&id), &Filter::default(), 20).unwrap()
    };
    let first = answer(Verify::Header, LoadMode::Map, false);
    assert_eq!(first, answer(Verify::Full, LoadMode::Map, true));
    assert_eq!(first, answer(Verify::Full, LoadMode::Copy, false));
}

#[test]
fn rows_and_ids_name_each_other() {
    let shop = Shop::new();
    let generation = shop.engine().current();
    for row in 0..40 {
        assert_eq!(generation.item_row(&item(row)).unwrap(), row as u32);
        assert_eq!(generation.item_id(row as u32).unwrap(), item(row));
    }
    for row in 0..shop.world.entities {
        assert_eq!(generation.find_entity(&entity(row)).unwrap(), Some(row as u32));
        assert_eq!(generation.entity_id(row as u32).unwrap(), entity(row));
    }
    for unknown in ["", "i", "zzz", "\u{10ffff}"] {
        assert_eq!(generation.find_item(unknown).unwrap(), None);
        assert_eq!(generation.find_entity(unknown).unwrap(), None);
    }
    for refused in [generation.item_id(40).map(|_| ()), generation.entity_id(99).map(|_| ())] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
