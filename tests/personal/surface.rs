//! A ranker that tells surfaces apart in a generation: tables of people on surfaces, requests that name where a list is shown, and
//! outcomes observed there.

use crate::scene::scene;
use docent::adapt::{BatchAdapted, BatchAdapter};
use docent::model::sections;
use docent::options::{ItemKind, RankerOptions};
use docent::progress::{Cancel, Silent};
use docent::serve::{AdaptMethod, AdaptPolicy, Engine, EngineOptions, Filter, Outcome, PersonalOptions, Query, Source};
use docent::store::{RunRecord, Store};
use docent::train::ranker::{Impressions, TrainedRanker};
use docent::{Cell, ErrorKind, Event};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Outcomes whose surface is no field of the events that the foundation model reads.
fn outcomes() -> &'static Impressions {
    static OUTCOMES: OnceLock<Impressions> = OnceLock::new();
    OUTCOMES.get_or_init(|| {
        let mut outcomes = scene().outcomes.clone();
        outcomes.surfaces[0].name = "shelf".into();
        // Some are missing.
        outcomes.surfaces[0].codes.iter_mut().step_by(13).for_each(|code| *code = 0);
        outcomes
    })
}

fn options(person: bool, items: ItemKind) -> RankerOptions {
    RankerOptions { person, items, surface: "shelf".into(), ..RankerOptions::default() }
}

/// A ranker of people and of people on surfaces.
fn ranker() -> &'static TrainedRanker {
    static RANKER: OnceLock<TrainedRanker> = OnceLock::new();
    RANKER.get_or_init(|| scene().ranked_on(outcomes(), options(true, ItemKind::Off)))
}

struct Shop {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Shop {
    fn new(ranker: &TrainedRanker) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        scene().publish_with(&path, ranker);
        Self { _folder: folder, path }
    }

    fn plain(&self) -> Engine {
        Engine::open(&self.path, &EngineOptions::default()).unwrap()
    }

    fn personal(&self, options: PersonalOptions) -> Engine {
        Engine::open(&self.path, &EngineOptions { personal: Some(options), ..EngineOptions::default() }).unwrap()
    }
}

fn adapted(engine: &Engine, outcomes: &Impressions, threads: usize) -> BatchAdapted {
    let adapter = BatchAdapter::new(engine.current(), &scene().data, outcomes).unwrap().threads(threads);
    adapter.run(&mut Silent, &Cancel::new()).unwrap().unwrap()
}

fn adapt(path: &Path, engine: &Engine, outcomes: &Impressions) {
    let adapter = BatchAdapter::new(engine.current(), &scene().data, outcomes).unwrap().threads(2);
    let found = adapter.run(&mut Silent, &Cancel::new()).unwrap().unwrap();
    let mut publisher = Store::open(path).unwrap().publisher().unwrap();
    adapter.publish(&mut publisher, &found, &RunRecord::default()).unwrap();
    engine.reload().unwrap();
}

/// The bits of everything that is expected of an entity on a surface; `None` names none.
fn answers(engine: &Engine, entity: &str, shelf: Option<&str>) -> Vec<u32> {
    let items: Vec<&str> = scene().data.items.names().iter().map(String::as_str).collect();
    let fields = shelf.map(|shelf| [("shelf", Cell::Text(shelf))]);
    let query = Query::entity(entity).with(fields.as_ref().map_or(&[], |f| f.as_slice()));
    engine.probabilities(&query, &items).unwrap().iter().flatten().map(|p| p.to_bits()).collect()
}

/// Somebody with many outcomes on each of two surfaces and none or some on the third, by row.
fn somebody(outcomes: &Impressions) -> u32 {
    let codes = &outcomes.surfaces[0].codes;
    let count = |u: u32, code: u32| outcomes.kept(u).filter(|i| codes[*i] == code).count();
    (0..scene().data.entities.len() as u32).find(|u| count(*u, 1) > 6 && count(*u, 2) > 6).unwrap()
}

#[test]
fn requests_that_name_their_surface_are_answered_as_training_answers() {
    let scene = scene();
    let (surface, data) = (&outcomes().surfaces[0], &scene.data);
    // What is asked comes after everything that the stored histories hold, as serving reads it.
    let mut held = outcomes().clone().holding_out(0.2).unwrap();
    for u in 0..data.entities.len() as u32 {
        let (kept, all) = (held.kept(u), held.range(u));
        held.before[kept.end..all.end].fill(data.range(u).len() as u32);
    }
    for person in [true, false] {
        let trained = scene.ranked_on(&held, options(person, ItemKind::Off));
        let shop = Shop::new(&trained);
        let engine = shop.plain();
        assert_eq!(adapted(&engine, &held, 1), adapted(&engine, &held, 2));
        adapt(&shop.path, &engine, &held);
        let (mut checked, mut apart) = (0, 0);
        for (i, predicted) in scene.predicted(&trained, &held) {
            let entity = (0..data.entities.len() as u32).find(|u| held.range(*u).contains(&i)).unwrap();
            let field = held.impression_fields[0].clone();
            let position = held.impression[i] * field.deviation + field.mean;
            let impression = [("position", position)];
            let shelf =
                (surface.codes[i] > 0).then(|| [("shelf", Cell::Text(&surface.values[surface.codes[i] as usize - 1]))]);
            let plain = Query::entity(data.entities.id(entity)).impression(&impression);
            let item = [data.items.id(held.item[i])];
            let query = plain.with(shelf.as_ref().map_or(&[], |s| s.as_slice()));
            let served = engine.probabilities(&query, &item).unwrap()[0][0];
            assert!((served - predicted).abs() < 2e-4, "outcome {i}: {served} served, {predicted} predicted");
            let without = engine.probabilities(&plain, &item).unwrap()[0][0];
            assert!(shelf.is_some() || without == served);
            checked += 1;
            apart += usize::from((without - predicted).abs() > 4e-3);
        }
        assert!(checked > 1000 && apart > checked / 4, "{apart} of {checked} differ by their surface");
    }
}

#[test]
fn parts_on_surfaces_and_of_items_stand_beside_each_other() {
    let both = scene().ranked_on(outcomes(), options(true, ItemKind::Item));
    let shop = Shop::new(&both);
    let engine = shop.plain();
    let table = |engine: &Engine| engine.current().snapshot().f32s(sections::META_ITEM_EMBEDDINGS).unwrap().to_vec();
    assert_eq!(table(&engine), both.item_embeddings);
    let id = scene().data.entities.id(somebody(outcomes()));
    let before = answers(&engine, id, Some("tv"));
    adapt(&shop.path, &engine, outcomes());
    assert_ne!(table(&engine), both.item_embeddings);
    let (tv, phone) = (answers(&engine, id, Some("tv")), answers(&engine, id, Some("phone")));
    assert!(tv != phone && tv != before);
    // The same outcomes give the same items, whatever was published before; other shelves give others.
    let items = table(&engine);
    adapt(&shop.path, &engine, outcomes());
    assert!(table(&engine) == items);
    let parts = |engine: &Engine| engine.current().snapshot().f32s(sections::META_SURFACE_EMBEDDINGS).unwrap().to_vec();
    let before = parts(&engine);
    let mut moved = outcomes().clone();
    moved.surfaces[0].codes.iter_mut().filter(|c| **c > 0).for_each(|c| *c = 1 + *c % 3);
    adapt(&shop.path, &engine, &moved);
    assert!(table(&engine) != items && parts(&engine) != before);
}

#[test]
fn the_table_holds_a_part_for_each_surface_of_an_entitys_outcomes() {
    let shop = Shop::new(ranker());
    let engine = shop.plain();
    let before = engine.current();
    adapt(&shop.path, &engine, outcomes());
    let (after, codes) = (engine.current(), &outcomes().surfaces[0].codes);
    assert_eq!(before.meta_version().unwrap(), after.meta_version().unwrap());
    let snapshot = after.snapshot();
    let offsets = snapshot.u64s(sections::META_SURFACE_OFFSETS).unwrap();
    let table = snapshot.u32s(sections::META_SURFACE_CODES).unwrap();
    assert_eq!(offsets.len(), scene().data.entities.len() + 1);
    for u in 0..scene().data.entities.len() as u32 {
        let range = outcomes().range(u);
        let latest = range.end - range.len().min(RankerOptions::default().support as usize)..range.end;
        let mut own: Vec<u32> = codes[latest].iter().copied().filter(|c| *c > 0).collect();
        own.sort_unstable();
        own.dedup();
        assert_eq!(table[offsets[u as usize] as usize..offsets[u as usize + 1] as usize], own);
    }
    assert!(Store::open(&shop.path).unwrap().verify(Some(after.id())).unwrap().problems.is_empty());
    // Each surface has its own answer, one that is not known that of no surface.
    let entity = scene().data.entities.id(somebody(outcomes()));
    let none = answers(&engine, entity, None);
    let named = ["tv", "phone", "tablet"].map(|shelf| answers(&engine, entity, Some(shelf)));
    assert!(named[0] != named[1] && named[1] != named[2] && named.iter().all(|a| *a != none));
    assert_eq!(answers(&engine, entity, Some("fridge")), none);
    let fields = [("shelf", Cell::Text("tv"))];
    let list = engine.recommend(&Query::entity(entity).with(&fields), &Filter::default(), 5).unwrap();
    assert_eq!(list.source, Source::Ranker);
    let other =
        engine.recommend(&Query::entity(entity).with(&[("row", Cell::Text("3"))]), &Filter::default(), 5).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::InvalidArgument);
    // Nobody is somebody on a surface, too.
    assert_ne!(answers(&engine, "nobody", Some("tv")), answers(&engine, "nobody", Some("phone")));
    // Outcomes of a log with the values in another order are read by name; a log without the field is refused.
    let mut turned = outcomes().clone();
    let surface = &mut turned.surfaces[0];
    surface.values.reverse();
    let n = surface.values.len() as u32;
    surface.codes.iter_mut().filter(|c| **c > 0).for_each(|c| *c = n + 1 - *c);
    assert_eq!(adapted(&engine, &turned, 2), adapted(&engine, outcomes(), 2));
    let refused = BatchAdapter::new(engine.current(), &scene().data, &scene().outcomes).unwrap_err();
    assert!(refused.kind() == ErrorKind::InvalidConfig && refused.to_string().contains("shelf"), "{refused}");
    // An interrupted run goes on with the parts that it had.
    let file = shop.path.join("partial");
    let resumable = || BatchAdapter::new(engine.current(), &scene().data, outcomes()).unwrap().partial(&file);
    let first = resumable().run(&mut Silent, &Cancel::new()).unwrap().unwrap();
    let again = resumable().run(&mut Silent, &Cancel::new()).unwrap().unwrap();
    assert_eq!((again.resumed as usize, &again.surfaces), (scene().data.entities.len(), &first.surfaces));
    assert_eq!(again.embeddings, first.embeddings);
}

/// What happened to an entity according to the log, observed.
fn observe(engine: &Engine, entity: u32, id: &str) {
    let (log, surface) = (outcomes(), &outcomes().surfaces[0]);
    for i in log.range(entity) {
        let event = Event { time: Some(log.time[i]), ..Event::item(scene().data.items.id(log.item[i])) };
        let name = surface.values.get((surface.codes[i] as usize).wrapping_sub(1));
        let fields = name.map(|name| [("shelf", Cell::Text(name))]);
        let event = Event { fields: fields.as_ref().map_or(&[], |f| f.as_slice()), ..event };
        let field = &log.impression_fields[0];
        let impression = [("position", log.impression[i] * field.deviation + field.mean)];
        let labels = [("label", log.labels[i])];
        engine.observe(id, &Outcome { event, labels: &labels, impression: &impression, ..Outcome::default() }).unwrap();
    }
}

#[test]
fn outcomes_observed_on_surfaces_give_what_a_batch_gives_and_touch_nobody_else() {
    let (a, shop) = (somebody(outcomes()), Shop::new(ranker()));
    let id = scene().data.entities.id(a);
    let bystander = scene().data.entities.id(a + 1);
    let shelves = [None, Some("tv"), Some("phone"), Some("tablet"), Some("fridge")];
    let engine = shop.personal(PersonalOptions { policy: AdaptPolicy::OnDemand, ..PersonalOptions::default() });
    let all = |engine: &Engine, id: &str| shelves.map(|shelf| answers(engine, id, shelf));
    let (before, others) = (all(&engine, id), all(&engine, bystander));
    observe(&engine, a, id);
    let embedding = engine.adapt(id).unwrap();
    let mut own: Vec<&str> = embedding.surfaces.iter().map(|(name, _)| name.as_str()).collect();
    own.sort_unstable();
    assert!(own.contains(&"phone") && own.contains(&"tv"), "{own:?}");
    let online = all(&engine, id);
    assert!(online.iter().zip(&before).all(|(a, b)| a != b));
    assert_eq!(online[4], online[0]);
    assert_eq!(all(&engine, bystander), others);
    // It is kept: a new engine answers so.
    drop(engine);
    let engine = shop.personal(PersonalOptions::default());
    assert_eq!(all(&engine, id), online);

    // The table that a batch makes of the same outcomes answers the same.
    let batch = Shop::new(ranker());
    let table = batch.plain();
    adapt(&batch.path, &table, outcomes());
    let close =
        |a: &[u32], b: &[u32]| a.iter().zip(b).all(|(a, b)| (f32::from_bits(*a) - f32::from_bits(*b)).abs() < 1e-4);
    for (online, table) in online.iter().zip(&all(&table, id)) {
        assert!(close(online, table));
    }
    // After one more outcome on the phone the parts elsewhere change no more than the person's own makes them.
    let event =
        Event { time: Some(1_800_000_000_000), fields: &[("shelf", Cell::Text("phone"))], ..Event::item("i0003") };
    let outcome = Outcome { event, labels: &[("label", 1.0)], ..Outcome::default() };
    assert!(engine.observe(id, &outcome).unwrap().adapted.is_some());
    assert_ne!(answers(&engine, id, Some("phone")), online[2]);
    assert_eq!(all(&engine, bystander), others);

    // Under another model the parts are made anew, by requests and by `adapt_stale` alike.
    let newer =
        TrainedRanker { ..scene().ranked_on(outcomes(), RankerOptions { steps: 3, ..options(true, ItemKind::Off) }) };
    scene().publish_with(&shop.path, &newer);
    engine.reload().unwrap();
    let meanwhile = all(&engine, id);
    assert_eq!(engine.adapt_stale().unwrap(), 1);
    assert_eq!(all(&engine, id), meanwhile);
    assert!(meanwhile[1] != meanwhile[2] && meanwhile[1] != online[1]);

    // What an outcome cannot name is refused.
    let wrong = Event { fields: &[("row", Cell::Text("3"))], ..event };
    let refused = engine.observe(id, &Outcome { event: wrong, ..outcome }).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn the_direct_step_moves_the_person_and_the_part_of_the_new_outcomes_surface() {
    let a = somebody(outcomes());
    let id = scene().data.entities.id(a);
    let shop = Shop::new(ranker());
    let table = shop.plain();
    adapt(&shop.path, &table, outcomes());
    let mut found = Vec::new();
    for method in [AdaptMethod::Restart, AdaptMethod::FirstOrder] {
        let engine = shop.personal(PersonalOptions { method, ..PersonalOptions::default() });
        let event =
            Event { time: Some(1_800_000_000_000), fields: &[("shelf", Cell::Text("phone"))], ..Event::item("i0003") };
        let outcome = Outcome { event, labels: &[("label", 1.0)], ..Outcome::default() };
        engine.observe(id, &outcome).unwrap();
        let kept = engine.meta_embedding(id).unwrap().unwrap();
        found.push(kept.surfaces.into_iter().collect::<std::collections::BTreeMap<_, _>>());
        engine.entities().unwrap().forget(id).unwrap();
    }
    let [restarted, direct] = [&found[0], &found[1]];
    assert_eq!(restarted.keys().collect::<Vec<_>>(), direct.keys().collect::<Vec<_>>());
    let snapshot = table.current();
    let snapshot = snapshot.snapshot();
    let offsets = snapshot.u64s(sections::META_SURFACE_OFFSETS).unwrap();
    let codes = snapshot.u32s(sections::META_SURFACE_CODES).unwrap();
    let (width, parts) = (32, snapshot.f32s(sections::META_SURFACE_EMBEDDINGS).unwrap());
    for at in offsets[a as usize] as usize..offsets[a as usize + 1] as usize {
        let name = &ranker().surfaces[codes[at] as usize - 1];
        let published = &parts[at * width..(at + 1) * width];
        assert_eq!(direct[name] == published, name != "phone", "{name}");
    }
}

#[test]
fn adaptations_on_surfaces_age() {
    let a = somebody(outcomes());
    let (id, shop) = (scene().data.entities.id(a), Shop::new(ranker()));
    let free = shop.plain();
    let numbers = |bits: Vec<u32>| bits.into_iter().map(f32::from_bits).collect::<Vec<f32>>();
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let before = numbers(answers(&free, id, Some("tv")));
    let aging = PersonalOptions { half_life_days: Some(1.0), ..PersonalOptions::default() };
    let engine = shop.personal(aging);
    observe(&engine, a, id);
    let items: Vec<&str> = scene().data.items.names().iter().map(String::as_str).collect();
    let made = outcomes().time[outcomes().range(a).end - 1];
    let asked = |days: i64| {
        let fields = [("shelf", Cell::Text("tv"))];
        let query = Query::entity(id).with(&fields).at(made + days * 86_400_000);
        let found = engine.probabilities(&query, &items).unwrap();
        found.into_iter().flatten().collect::<Vec<f32>>()
    };
    let (fresh, old, ancient) = (asked(0), asked(1), asked(60));
    assert!(apart(&fresh, &before) > 1e-3);
    assert!(apart(&old, &before) < apart(&fresh, &before) && apart(&ancient, &before) < 1e-4);
}

#[test]
fn damaged_parts_are_told_or_answered_and_never_a_panic() {
    let (shop, id) = (Shop::new(ranker()), scene().data.entities.id(somebody(outcomes())));
    let engine = shop.plain();
    adapt(&shop.path, &engine, outcomes());
    let sound = engine.current();
    let mut told = 0;
    for name in [
        sections::META_SURFACES,
        sections::META_SURFACE_OFFSETS,
        sections::META_SURFACE_CODES,
        sections::META_SURFACE_EMBEDDINGS,
    ] {
        crate::batch::with_section(&shop.path, &sound, name, |bytes, shape| {
            bytes.truncate(bytes.len() / shape[0] as usize * (shape[0] as usize - 1));
            shape[0] -= 1;
        });
        assert_eq!(engine.reload().unwrap_err().kind(), ErrorKind::Corrupt, "{name}");
        for byte in [0xff, 0x7f, 0x80] {
            crate::batch::with_section(&shop.path, &sound, name, |bytes, _| bytes.fill(byte));
            let engine = shop.personal(PersonalOptions::default());
            let fields = [("shelf", Cell::Text("tv"))];
            let event = Event { fields: &fields, ..Event::item("i0003") };
            let answers = [
                engine.probabilities(&Query::entity(id).with(&fields), &["i0001"]).err(),
                engine.observe(id, &Outcome::labelled(event, &[("label", 1.0)])).err(),
                engine.probabilities(&Query::entity(id).with(&fields), &["i0001"]).err(),
            ];
            for error in answers.into_iter().flatten() {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
                told += 1;
            }
            let _ = engine.entities().unwrap().forget(id).unwrap();
        }
    }
    assert!(told > 6, "{told}");
}

#[test]
fn without_a_part_of_the_person_the_direct_step_adapts_the_surface_alone() {
    let alone = scene().ranked_on(outcomes(), options(false, ItemKind::Off));
    let id = scene().data.entities.id(somebody(outcomes()));
    let shop = Shop::new(&alone);
    adapt(&shop.path, &shop.plain(), outcomes());
    let event = Event { fields: &[("shelf", Cell::Text("phone"))], ..Event::item("i0003") };
    let outcome = Outcome { event, labels: &[("label", 1.0)], ..Outcome::default() };
    let found = [AdaptMethod::Restart, AdaptMethod::FirstOrder].map(|method| {
        let engine = shop.personal(PersonalOptions { method, ..PersonalOptions::default() });
        let time = Some(1_800_000_000_000);
        engine.observe(id, &Outcome { event: Event { time, ..event }, ..outcome }).unwrap();
        let kept = engine.meta_embedding(id).unwrap().unwrap();
        engine.entities().unwrap().forget(id).unwrap();
        assert!(kept.embedding.iter().all(|x| *x == 0.0), "{method:?}");
        kept.surfaces.into_iter().find(|(name, _)| name == "phone").unwrap().1
    });
    assert_eq!(found[0], found[1]);
    assert!(found[0].iter().any(|x| x.abs() > 1e-3));
}

#[test]
fn the_order_of_a_logs_surfaces_changes_no_adaptation() {
    let ranker = scene().ranked_on(outcomes(), options(true, ItemKind::Item));
    let mut flipped = outcomes().clone();
    flipped.labels.iter_mut().for_each(|l| *l = 1.0 - *l);
    let mut turned = flipped.clone();
    let n = turned.surfaces[0].values.len() as u32;
    turned.surfaces[0].values.reverse();
    turned.surfaces[0].codes.iter_mut().filter(|c| **c > 0).for_each(|c| *c = n + 1 - *c);
    let shops = [&flipped, &turned].map(|outcomes| {
        let shop = Shop::new(&ranker);
        let engine = shop.plain();
        let items =
            |engine: &Engine| engine.current().snapshot().f32s(sections::META_ITEM_EMBEDDINGS).unwrap().to_vec();
        let (before, people) = (items(&engine), adapted(&engine, outcomes, 1));
        adapt(&shop.path, &engine, outcomes);
        assert_ne!(items(&engine), before);
        (people, items(&engine))
    });
    assert_eq!(shops[0], shops[1]);
    assert!(scene().outcomes.surfaces[0].values.is_sorted());
}
