//! Outcomes observed while an engine serves.

use crate::scene::{Place, other, scene};
use docent::adapt::BatchAdapter;
use docent::progress::{Cancel, Silent};
use docent::ranker::DriftDetection;
use docent::serve::{AdaptMethod, AdaptPolicy, Engine, Filter, Outcome, PersonalOptions, Query, WithoutStates};
use docent::store::{RunRecord, Store};
use docent::{Cell, ErrorKind, Event};
use std::collections::BTreeMap;

/// After everything that the world holds.
const LATER: i64 = 1_800_000_000_000;

fn place_of(engine: &Engine, entity: &str) -> Vec<u32> {
    let items: Vec<&str> = scene().data.items.names().iter().map(String::as_str).collect();
    let query = Query::entity(entity);
    let mut bits: Vec<u32> =
        engine.probabilities(&query, &items).unwrap().iter().flatten().map(|p| p.to_bits()).collect();
    bits.extend(engine.score(&query, &items).unwrap().iter().map(|s| s.to_bits()));
    bits
}

fn everybody(engine: &Engine) -> BTreeMap<&'static str, Vec<u32>> {
    let ids = scene().data.entities.names().iter().step_by(8);
    ids.map(|id| (id.as_str(), place_of(engine, id))).collect()
}

/// Shows `item` at a moment, clicked or not.
fn show(engine: &Engine, entity: &str, item: &str, moment: i64, clicked: bool) -> docent::serve::Observed {
    let event = Event { time: Some(LATER + moment), ..Event::item(item) };
    let labels = [("label", f32::from(u8::from(clicked)))];
    engine.observe(entity, &Outcome::labelled(event, &labels)).unwrap()
}

fn ids() -> [&'static str; 2] {
    let data = &scene().data;
    // Both are among those that `everybody` asks for.
    [data.entities.id(8), data.entities.id(16)]
}

#[test]
fn an_outcome_changes_what_one_entity_gets_and_no_bit_of_any_other() {
    let place = Place::new();
    let engine = place.personal(PersonalOptions::default());
    let before = everybody(&engine);
    let [a, b] = ids();
    let shown = show(&engine, a, "i0007", 1, false);
    assert_eq!(shown.seen, 1);
    let adapted = shown.adapted.unwrap();
    assert_eq!((adapted.outcomes, adapted.accepted), (1, true));
    assert!(adapted.losses[1] < adapted.losses[0], "{:?}", adapted.losses);
    let after = everybody(&engine);
    for (id, bits) in &after {
        assert_eq!(*bits == before[id], *id != a, "{id}");
    }
    // What was not clicked leaves the history alone: only the ranker learns of it. What was clicked joins it.
    let items = scene().data.items.len();
    assert_eq!(after[a][items..], before[a][items..]);
    show(&engine, a, "i0009", 2, true);
    assert_ne!(place_of(&engine, a)[items..], before[a][items..]);
    let unlabelled = Outcome::event(Event { time: Some(LATER + 3), ..Event::item("i0010") });
    // What joins the history is adapted to as well: the ranker reads the history.
    assert_eq!(engine.observe(a, &unlabelled).unwrap().adapted.unwrap().outcomes, 2);
    let nowhere = Outcome { in_history: false, ..unlabelled };
    assert_eq!(engine.observe(a, &nowhere).unwrap().adapted, None);
    let list = engine.recommend(&Query::entity(a), &Filter::default(), 80).unwrap();
    assert!(list.items.iter().all(|i| i.id != "i0009" && i.id != "i0010"), "what was met is left out");
    // A person whom the generation does not know becomes one.
    show(&engine, "somebody new", "i0003", 4, true);
    assert_ne!(engine.recommend(&Query::entity("somebody new"), &Filter::default(), 5).unwrap().items, list.items);

    // All of it is there in a new engine, to the bit.
    let (mine, theirs) = (place_of(&engine, a), place_of(&engine, b));
    let stored = engine.meta_embedding(a).unwrap().unwrap();
    drop(engine);
    let engine = place.personal(PersonalOptions::default());
    assert_eq!((place_of(&engine, a), place_of(&engine, b)), (mine, theirs));
    assert_eq!(engine.meta_embedding(a).unwrap().unwrap(), stored);
    assert_eq!(engine.adapt(a).unwrap().vector, stored.embedding, "adapting again starts from the learned block");
    assert_eq!(theirs_only(&engine), 2);

    // And nothing of it after forgetting.
    assert!(engine.entities().unwrap().forget(a).unwrap());
    assert_eq!(place_of(&engine, a), before[a]);
    assert_eq!(engine.meta_embedding(a).unwrap(), None);
}

fn theirs_only(engine: &Engine) -> u64 {
    engine.entities().unwrap().len().unwrap()
}

#[test]
fn eight_threads_disturb_nobody_and_two_on_one_entity_are_serial() {
    let place = Place::new();
    let engine = place.personal(PersonalOptions::default());
    let before = everybody(&engine);
    let watched: Vec<&str> = before.keys().copied().skip(20).collect();
    std::thread::scope(|scope| {
        for t in 0..8i64 {
            let (engine, watched, before) = (&engine, &watched, &before);
            scope.spawn(move || {
                let ids = &scene().data.entities;
                for n in 0..6i64 {
                    // Two threads to each of four entities.
                    let entity = ids.id(1 + (t as u32 / 2));
                    let item = scene().data.items.id((7 * t + n) as u32 % 80);
                    show(engine, entity, item, 100 * n + t, (t + n) % 2 == 0);
                    let id = watched[(t + n) as usize % watched.len()];
                    assert_eq!(place_of(engine, id), before[id], "{id}");
                }
            });
        }
    });
    for t in 0..4u32 {
        let entity = scene().data.entities.id(1 + t);
        let state = engine.entities().unwrap().get(entity).unwrap().unwrap();
        assert_eq!((state.seen, state.outcomes.len()), (12, 12), "nothing is lost");
        // The embedding is the one that the last of the serial order made.
        let stored = engine.meta_embedding(entity).unwrap().unwrap();
        assert_eq!(stored.outcomes, 12);
        assert_eq!(engine.adapt(entity).unwrap().vector, stored.embedding);
    }
}

#[test]
fn another_model_is_told_apart_and_adapted_to_anew() {
    let place = Place::new();
    let engine = place.personal(PersonalOptions::default());
    let [a, b] = ids();
    for n in 0..3 {
        show(&engine, a, scene().data.items.id(n), i64::from(n), n % 2 == 0);
    }
    let old = engine.meta_embedding(a).unwrap().unwrap();
    let bystander = {
        other().publish(&place.path);
        engine.reload().unwrap();
        place_of(&engine, b)
    };
    let error = engine.meta_embedding(a).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StateMismatch);
    assert!(error.message().contains(a) && error.message().contains("adapt"), "{error}");
    // Requests do not stop: they adapt from what is kept, to the same bits as after `adapt`.
    let meanwhile = place_of(&engine, a);
    assert_eq!((engine.adapt_stale().unwrap(), engine.adapt_stale().unwrap()), (1, 0));
    let stale = engine.meta_embedding(a).unwrap().unwrap().embedding;
    let renewed = engine.adapt(a).unwrap();
    assert_eq!(renewed.vector, stale);
    assert_ne!(renewed.vector, old.embedding);
    assert_eq!(engine.meta_embedding(a).unwrap().unwrap().embedding, renewed.vector);
    assert_eq!(place_of(&engine, a), meanwhile);
    assert_eq!(place_of(&engine, b), bystander);
}

#[test]
fn a_taste_that_turns_is_followed_and_yesterdays_table_does_not() {
    let place = Place::new();
    let engine = place.personal(PersonalOptions::default());
    let generation = engine.current();
    let adapter = BatchAdapter::new(generation, &scene().data, &scene().outcomes).unwrap();
    let adapted = adapter.run(&mut Silent, &Cancel::new()).unwrap().unwrap();
    let mut publisher = Store::open(&place.path).unwrap().publisher().unwrap();
    adapter.publish(&mut publisher, &adapted, &RunRecord::default()).unwrap();
    drop(publisher);
    engine.reload().unwrap();
    let table = engine.current();
    let table = WithoutStates(&table);
    drop(engine);
    // People who came to like what they disliked: the five works that the table expects least of are clicked, one after another. The
    // next five are asked for: by yesterday's table, adapted to everything, and adapted to what came since the change.
    let items: Vec<&str> = scene().data.items.names().iter().map(String::as_str).collect();
    let drift = DriftDetection { evidence: 0.3, ..DriftDetection::default() };
    let mut means = Vec::new();
    let (mut followed, mut asked) = (0, 0u32);
    for drift in [None, Some(drift)] {
        let engine = place.personal(PersonalOptions { drift, ..PersonalOptions::default() });
        let mut sum = 0.0;
        for entity in scene().data.entities.names().iter().step_by(20) {
            let query = Query::entity(entity);
            let expected = table.probabilities(&query, &items).unwrap();
            let mut order: Vec<usize> = (0..items.len()).collect();
            order.sort_by(|x, y| expected[*x][0].total_cmp(&expected[*y][0]));
            let (shown, held) = order[..10].split_at(5);
            for (n, item) in shown.iter().enumerate() {
                show(&engine, entity, items[*item], n as i64, true);
            }
            let held: Vec<&str> = held.iter().map(|i| items[*i]).collect();
            let mean = |of: Vec<Vec<f32>>| of.iter().map(|p| f64::from(p[0])).sum::<f64>() / of.len() as f64;
            let now = mean(engine.probabilities(&query, &held).unwrap());
            let yesterday = mean(table.probabilities(&query, &held).unwrap());
            sum += now / yesterday;
            if drift.is_none() {
                followed += usize::from(now > 1.2 * yesterday);
                asked += 1;
            }
            engine.entities().unwrap().forget(entity).unwrap();
        }
        means.push(sum / f64::from(asked));
    }
    assert!(followed * 10 >= asked as usize * 7, "{followed} of {asked}");
    assert!(means[1] > 1.1 * means[0], "{means:?}");
}

#[test]
fn a_later_batch_adaptation_takes_over() {
    let place = Place::new();
    let engine = place.personal(PersonalOptions::default());
    let [a, _] = ids();
    // An outcome of the log: the batch adaptation reads it.
    let (row, log) = (scene().data.entities.row(a).unwrap(), &scene().outcomes);
    let of_log = |at: usize| Event { time: Some(log.time[at]), ..Event::item(scene().data.items.id(log.item[at])) };
    let read = log.kept(row);
    let label = [("label", log.label(read.end - 2)[0])];
    engine.observe(a, &Outcome::labelled(of_log(read.end - 2), &label)).unwrap();
    let adapter = BatchAdapter::new(engine.current(), &scene().data, &scene().outcomes).unwrap();
    let adapted = adapter.run(&mut Silent, &Cancel::new()).unwrap().unwrap();
    let mut publisher = Store::open(&place.path).unwrap().publisher().unwrap();
    adapter.publish(&mut publisher, &adapted, &RunRecord::default()).unwrap();
    drop(publisher);
    engine.reload().unwrap();
    let items = ["i0001", "i0002", "i0003"];
    let query = Query::entity(a);
    assert_eq!(
        engine.probabilities(&query, &items).unwrap(),
        WithoutStates(&engine.current()).probabilities(&query, &items).unwrap()
    );
    // One from the same days that the log has not is late, and counts beside all that the table was made of.
    let known = read.len();
    let newest = log.time[read.end - 1];
    assert!(newest - 1 > log.time[read.start]);
    let late = Event { time: Some(newest - 1), ..Event::item("i0007") };
    let told = engine.observe(a, &Outcome::labelled(late, &[("label", 0.0)])).unwrap();
    assert_eq!(told.adapted.unwrap().outcomes, known + 1);
    assert_ne!(
        engine.probabilities(&query, &items).unwrap(),
        WithoutStates(&engine.current()).probabilities(&query, &items).unwrap()
    );
    // So does a newer one.
    assert_eq!(show(&engine, a, "i0007", 1, false).adapted.unwrap().outcomes, known + 2);
}

#[test]
fn an_outcome_with_an_id_counts_once() {
    let place = Place::new();
    let engine = place.personal(PersonalOptions { keep_impressions: 2, ..PersonalOptions::default() });
    let [a, _] = ids();
    let shown = |id, moment: i64| {
        let event = Event { time: Some(LATER + moment), ..Event::item("i0007") };
        engine.observe(a, &Outcome { id: Some(id), ..Outcome::labelled(event, &[("label", 0.0)]) }).unwrap()
    };
    let first = shown("e1", 1);
    assert!(first.is_new && first.seen == 1 && first.adapted.is_some());
    let before = place_of(&engine, a);
    for _ in 0..3 {
        let again = shown("e1", 1);
        assert_eq!((again.is_new, again.seen, again.adapted), (false, 1, None));
    }
    assert_eq!(place_of(&engine, a), before);
    // In another engine, too; another id is another outcome, and so is one without.
    assert!(!shown("e1", 9).is_new && shown("e2", 1).is_new);
    assert_eq!(show(&engine, a, "i0007", 1, false).seen, 3);
    // What is kept no more is forgotten with its id.
    let kept = engine.entities().unwrap().get(a).unwrap().unwrap().outcomes;
    assert_eq!(kept.iter().map(|o| o.id.as_deref()).collect::<Vec<_>>(), [Some("e2"), None]);
    assert!(shown("e1", 5).is_new);
}

#[test]
fn what_was_seen_is_left_out_when_its_event_is_not_kept() {
    let place = Place::new();
    let engine = place.personal(PersonalOptions { keep: 4, keep_items: 20, ..PersonalOptions::default() });
    let id = |n: i64| scene().data.items.id(n as u32).to_owned();
    for n in 0..30 {
        show(&engine, "somebody", &id(n), n, true);
    }
    let left = |engine: &Engine| {
        let list = engine.recommend(&Query::entity("somebody"), &Filter::default(), 80).unwrap();
        (0..30).filter(|n| list.items.iter().all(|item| item.id != id(*n))).collect::<Vec<_>>()
    };
    // Four events, and the items of the twenty before them.
    assert_eq!(left(&engine), (6..30).collect::<Vec<_>>());
    let everything = engine.recommend(&Query::entity("somebody"), &Filter::everything(), 80).unwrap();
    assert_eq!(everything.items.len(), 80, "a filter may let seen items pass");
    // As of the second of the events that are kept, the last two had not happened; before the first, nothing is known.
    let as_of = |moment: i64| Query::entity("somebody").as_of(docent::serve::AsOf::Time(LATER + moment));
    let list = engine.recommend(&as_of(27), &Filter::default(), 80).unwrap();
    assert!(list.items.iter().any(|item| item.id == id(28)) && list.items.iter().all(|item| item.id != id(10)));
    // It survives a new engine, and nothing does forgetting.
    drop(engine);
    let engine = place.personal(PersonalOptions::default());
    assert_eq!(left(&engine), (6..30).collect::<Vec<_>>());
    engine.entities().unwrap().forget("somebody").unwrap();
    assert_eq!(left(&engine), [] as [i64; 0]);
}

#[test]
fn a_time_in_the_future_does_not_outlive_a_purge() {
    let place = Place::new();
    let engine = place.personal(PersonalOptions { policy: AdaptPolicy::OnDemand, ..PersonalOptions::default() });
    for (id, time) in [("future", Some(253_402_300_799_999)), ("past", Some(-5)), ("none", None)] {
        engine.observe(id, &Outcome::event(Event { time, ..Event::item("i0001") })).unwrap();
    }
    let entities = engine.entities().unwrap();
    assert_eq!(entities.purge_idle(0).unwrap(), 1, "a time before 1970 is one");
    // A year from now nobody has been here since, as far as this machine's clock can tell.
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    assert_eq!(entities.purge_idle(now + 365 * 86_400_000).unwrap(), 1);
    assert!(entities.get("none").unwrap().is_some(), "where events have no times nobody is idle");
}

#[test]
fn adaptations_age() {
    let place = Place::new();
    let [a, _] = ids();
    let items = ["i0001", "i0002", "i0003"];
    let query = Query::entity(a);
    let learned = place.plain().probabilities(&query, &items).unwrap();
    {
        let engine = place.personal(PersonalOptions { half_life_days: Some(1.0), ..PersonalOptions::default() });
        show(&engine, a, "i0007", 0, false);
        let day = 86_400_000;
        let at = |days: i64| engine.probabilities(&query.at(LATER + days * day), &items).unwrap();
        let far = |p: &[Vec<f32>]| p.iter().zip(&learned).map(|(x, y)| (x[0] - y[0]).abs()).sum::<f32>();
        let (now, later, at_last) = (far(&at(0)), far(&at(1)), far(&at(400)));
        assert!(now > 1e-4 && later < 0.8 * now && at_last < 1e-6, "{now} {later} {at_last}");
        engine.entities().unwrap().forget(a).unwrap();
    }
}

#[test]
fn policies_say_when_entities_are_adapted() {
    let place = Place::new();
    let [a, _] = ids();
    {
        let engine = place.personal(PersonalOptions { policy: AdaptPolicy::Every(3), ..PersonalOptions::default() });
        let adapted: Vec<bool> = (0..6).map(|n| show(&engine, a, "i0007", n, false).adapted.is_some()).collect();
        assert_eq!(adapted, [false, false, true, false, false, true]);
        engine.entities().unwrap().forget(a).unwrap();
    }
    let options = PersonalOptions { policy: AdaptPolicy::OnDemand, keep_impressions: 4, ..PersonalOptions::default() };
    let engine = place.personal(options);
    let before = place_of(&engine, a);
    for n in 0..6 {
        assert_eq!(show(&engine, a, "i0007", n, false).adapted, None);
    }
    assert_eq!(place_of(&engine, a), before);
    assert_eq!(engine.adapt(a).unwrap().outcomes, 4, "the latest four are kept");
    assert_ne!(place_of(&engine, a), before);
}

#[test]
fn the_direct_step_goes_where_adaptation_goes() {
    let place = Place::new();
    let items: Vec<&str> = scene().data.items.names().iter().map(String::as_str).collect();
    let mut cosines = Vec::new();
    let mut restarted = Vec::new();
    for method in [AdaptMethod::Restart, AdaptMethod::FirstOrder] {
        let engine = place.personal(PersonalOptions { method, ..PersonalOptions::default() });
        for (n, entity) in scene().data.entities.names().iter().step_by(8).enumerate() {
            let query = Query::entity(entity);
            // The same start for both: one outcome, adapted to from the learned block.
            show(&engine, entity, "i0003", 0, false);
            let before = engine.probabilities(&query, &items).unwrap();
            show(&engine, entity, "i0007", 1, true);
            let after = engine.probabilities(&query, &items).unwrap();
            let moved: Vec<f32> = after.iter().zip(&before).map(|(a, b)| a[0] - b[0]).collect();
            match method {
                AdaptMethod::Restart => restarted.push((before, moved)),
                _ => {
                    assert_eq!(before, restarted[n].0);
                    let dot: f32 = moved.iter().zip(&restarted[n].1).map(|(a, b)| a * b).sum();
                    let length = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
                    let cosine = dot / length(&moved) / length(&restarted[n].1);
                    assert!(cosine > 0.0, "{entity} goes another way: {cosine}");
                    cosines.push(cosine);
                    assert_ne!(moved, restarted[n].1);
                    // On demand it starts anew, to the bit.
                    let anew = engine.adapt(entity).unwrap();
                    assert_eq!(anew.outcomes, 2);
                }
            }
            engine.entities().unwrap().forget(entity).unwrap();
        }
    }
    let mean = cosines.iter().sum::<f32>() / cosines.len() as f32;
    assert!(cosines.len() >= 40 && mean > 0.6, "{mean} in the mean of {}", cosines.len());
}

#[test]
fn an_id_that_nobody_can_have_is_nobodys() {
    let place = Place::new();
    let (personal, plain) = (place.personal(PersonalOptions::default()), place.plain());
    for id in [String::new(), "x".repeat((64 << 10) + 1)] {
        let list = |engine: &Engine| engine.recommend(&Query::entity(&id), &Filter::default(), 5).unwrap().items;
        assert_eq!(list(&personal), list(&plain));
        assert_eq!(personal.meta_embedding(&id).unwrap(), None);
        let outcome = Outcome::event(Event { time: Some(LATER), ..Event::item("i0007") });
        assert_eq!(personal.observe(&id, &outcome).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn impressions_push_no_event_out_of_the_history() {
    let place = Place::new();
    let engine = place.personal(PersonalOptions { policy: AdaptPolicy::OnDemand, ..PersonalOptions::default() });
    let clicked: Vec<String> = (0..5).map(|i| format!("i{i:04}")).collect();
    for (n, item) in clicked.iter().enumerate() {
        show(&engine, "somebody", item, n as i64, true);
    }
    let list = || engine.recommend(&Query::entity("somebody"), &Filter::default(), 1000).unwrap().items;
    let before: Vec<(String, u32)> = list().into_iter().map(|i| (i.id, i.score.to_bits())).collect();
    assert!(clicked.iter().all(|id| before.iter().all(|(other, _)| other != id)), "what was clicked is seen");
    for n in 0..600 {
        show(&engine, "somebody", "i0007", 5 + n, false);
    }
    let after: Vec<(String, u32)> = list().into_iter().map(|i| (i.id, i.score.to_bits())).collect();
    assert_eq!(after, before, "the history is the same");
    let kept = engine.entities().unwrap().get("somebody").unwrap().unwrap();
    assert_eq!((kept.outcomes.len(), kept.seen), (5 + 256, 605));
    // Nor do events push out impressions.
    for n in 0..300 {
        show(&engine, "somebody", &format!("i{:04}", n % 30), 1000 + n, true);
    }
    let kept = engine.entities().unwrap().get("somebody").unwrap().unwrap().outcomes;
    let newest = kept.iter().filter(|o| o.in_history).map(|o| o.time.unwrap()).min().unwrap();
    assert_eq!(kept.iter().filter(|o| !o.in_history).count(), 256);
    assert_eq!((kept.len(), newest), (512, kept.last().unwrap().time.unwrap() - 255), "the oldest went");
}

#[test]
fn of_long_outcomes_the_oldest_go_until_the_record_fits() {
    let place = Place::new();
    let engine = place.personal(PersonalOptions { keep: 10_000, policy: AdaptPolicy::OnDemand, ..Default::default() });
    for i in 0..300i64 {
        let item = format!("{i:08000}");
        let outcome = Outcome::event(Event { time: Some(LATER + i), ..Event::item(&item) });
        engine.observe("somebody", &outcome).unwrap();
    }
    drop(engine);
    let store = Store::open(&place.path).unwrap();
    let live = std::sync::Arc::new(docent::store::LiveStore::open(&store, true).unwrap());
    let entities = docent::store::EntityStore::new(live, &Default::default()).unwrap();
    let kept = entities.get("somebody").unwrap().unwrap().outcomes;
    // A quarter of the space is for the items of those that went.
    assert!((80..=100).contains(&kept.len()), "{} are kept", kept.len());
    let times: Vec<i64> = kept.iter().map(|o| o.time.unwrap() - LATER).collect();
    assert_eq!(times, (300 - kept.len() as i64..300).collect::<Vec<_>>(), "the newest, in their order");
}

#[test]
fn nobody_is_locked_out_by_fields_that_were_of_another_kind() {
    let place = Place::new();
    let [a, b] = ids();
    let fields = &scene().data.schema.event_fields;
    assert!(
        fields.iter().any(|f| matches!(f.field.kind, docent::schema::FieldKind::Numeric(_))),
        "a text is no number"
    );
    let engine = place.personal(PersonalOptions::default());
    show(&engine, a, "i0009", 1, true);
    drop(engine);
    let store = Store::open(&place.path).unwrap();
    let live = std::sync::Arc::new(docent::store::LiveStore::open(&store, true).unwrap());
    let entities = docent::store::EntityStore::new(live, &Default::default()).unwrap();
    let mut state = entities.get(a).unwrap().unwrap();
    entities.put(b, &state).unwrap();
    state.outcomes[0].fields = fields.iter().map(|f| (f.field.name.clone(), "once a text".to_owned())).collect();
    entities.put(a, &state).unwrap();
    drop(entities);
    let engine = place.personal(PersonalOptions::default());
    let list = engine.recommend(&Query::entity(a), &Filter::default(), 80).unwrap();
    assert!(list.items.iter().all(|i| i.id != "i0009"), "the event still counts");
    engine.adapt(a).unwrap();
    show(&engine, a, "i0010", 2, true);
}

#[test]
fn bad_outcomes_are_refused_and_leave_nothing() {
    let place = Place::new();
    let plain = place.plain();
    let good = Outcome::event(Event::item("i0001"));
    assert_eq!(plain.observe("p0001", &good).unwrap_err().kind(), ErrorKind::InvalidConfig);
    assert_eq!(plain.adapt("p0001").unwrap_err().kind(), ErrorKind::InvalidConfig);
    for options in [
        PersonalOptions { keep: 0, ..PersonalOptions::default() },
        PersonalOptions { keep_impressions: 0, ..PersonalOptions::default() },
        PersonalOptions { half_life_days: Some(0.0), ..PersonalOptions::default() },
        PersonalOptions { policy: AdaptPolicy::Every(0), ..PersonalOptions::default() },
    ] {
        let options = docent::serve::EngineOptions { personal: Some(options), ..Default::default() };
        assert_eq!(Engine::open(&place.path, &options).unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
    let engine = place.personal(PersonalOptions::default());
    let event = Event { time: Some(LATER), ..Event::item("i0001") };
    let bad = [
        Outcome::labelled(event, &[("label", 2.0)]),
        Outcome::labelled(event, &[("label", f32::NAN)]),
        Outcome::labelled(event, &[("purchase", 1.0)]),
        Outcome::event(Event::item("")),
        Outcome::event(Event { time: Some(i64::MAX), ..event }),
        Outcome::event(Event { value: Some(f32::INFINITY), ..event }),
        Outcome::event(Event { action: Some("no such action"), ..event }),
        Outcome::event(Event { fields: &[("no such field", Cell::Text("x"))], ..event }),
        Outcome { impression: &[("weather", 1.0)], ..Outcome::event(event) },
        Outcome { impression: &[("position", f32::NAN)], ..Outcome::event(event) },
        Outcome { id: Some(""), ..Outcome::event(event) },
        Outcome { id: Some(&"x".repeat(1025)), ..Outcome::event(event) },
    ];
    for outcome in &bad {
        assert_eq!(engine.observe("p0001", outcome).unwrap_err().kind(), ErrorKind::InvalidArgument, "{outcome:?}");
    }
    assert_eq!(engine.observe("", &good).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(engine.entities().unwrap().is_empty().unwrap());
    // An item that the generation does not know is kept for one that does, and changes nothing until then.
    let before = place_of(&engine, "p0001");
    let unknown = Event { time: Some(LATER), ..Event::item("not yet published") };
    engine.observe("p0001", &Outcome::event(unknown)).unwrap();
    assert_eq!(place_of(&engine, "p0001"), before);
    assert_eq!(engine.entities().unwrap().get("p0001").unwrap().unwrap().outcomes[0].item, "not yet published");
}
