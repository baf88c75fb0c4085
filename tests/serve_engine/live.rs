//! Items that are added and removed while an engine serves.

use crate::world::{DAY, Make, START, Shop, World, item};
use docent::model::{History, Request, Scratch};
use docent::serve::{
    Condition, Engine, EngineOptions, Filter, Generation, NewItem, Query, Sampler, Sampling, Source, WithoutStates,
    score_all,
};
use docent::store::{GenerationId, Store, Verify};
use docent::{Cell, ErrorKind, Event};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

fn options() -> EngineOptions {
    EngineOptions { live: true, ..EngineOptions::default() }
}

fn open(path: &Path) -> Engine {
    Engine::open(path, &options()).unwrap()
}

/// A film about war that costs `price`.
fn film<'a>(id: &'a str, fields: &'a [(&'a str, Cell<'a>)]) -> NewItem<'a> {
    NewItem { id, title: Some("New"), released: Some(START), now: Some(START + 3 * DAY), fields }
}

const WAR: [(&str, Cell<'_>); 3] =
    [("kind", Cell::Text("film")), ("genre", Cell::Texts(&["war", "fun"])), ("price", Cell::Number(7.0))];
const ART: [(&str, Cell<'_>); 2] = [("genre", Cell::Text("art")), ("look", Cell::Vector(&[0.5, -1.0]))];

/// All ids that can be listed, with their scores.
fn everything(engine: &Engine) -> Vec<(String, u32)> {
    let seen = [item(4), item(9)];
    let ids = [seen[0].as_str(), &seen[1]];
    let list = engine.recommend(&Query::items(&ids), &Filter::everything(), 10_000).unwrap();
    list.items.into_iter().map(|i| (i.id, i.score.to_bits())).collect()
}

fn listed(engine: &Engine, id: &str) -> bool {
    everything(engine).iter().any(|(other, _)| other == id)
}

fn kind<T: std::fmt::Debug>(outcome: docent::Result<T>) -> ErrorKind {
    outcome.unwrap_err().kind()
}

#[test]
fn an_added_item_is_rankable_at_once_by_its_metadata_and_gone_after_its_removal() {
    let shop = Shop::new();
    let engine = open(&shop.path());
    let (before, plain) = (everything(&engine), engine.current());
    engine.add_item(&film("new-a", &WAR)).unwrap();
    engine.add_item(&film("new-b", &ART)).unwrap();
    engine.add_item(&film("new-c", &WAR)).unwrap();
    assert_eq!(plain.items(), 40, "a view does not change");
    let generation = engine.current();
    assert_eq!((generation.items(), generation.published_items()), (43, 40));
    let row = generation.item_row("new-b").unwrap();
    assert_eq!(
        (row, generation.item_id(row).unwrap(), generation.item_title(row).unwrap()),
        (41, "new-b", Some("New"))
    );

    // Ranked among all others by the product with its vector, which its metadata decide.
    let (a, b, c) = ("new-a", "new-b", "new-c");
    let vector = |id: &str| engine.item_embedding(id).unwrap();
    assert_eq!(vector(a), vector(c));
    assert_ne!(vector(a), vector(b));
    let ids = [item(4), item(9)];
    let pair = [ids[0].as_str(), &ids[1]];
    let query = Query::items(&pair);
    let user = engine.user_embedding(&query).unwrap();
    let list = everything(&engine);
    assert_eq!(list.len(), 43);
    for id in [a, b, c] {
        let score = f32::from_bits(list.iter().find(|(other, _)| other == id).unwrap().1);
        let exact: f64 = vector(id).iter().zip(&user).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
        assert!((f64::from(score) - exact).abs() < 1e-4);
        assert_eq!(engine.score(&query, &[id]).unwrap(), [score]);
    }
    assert!(list.windows(2).all(|w| f32::from_bits(w[0].1) >= f32::from_bits(w[1].1)));
    let old: Vec<_> = list.iter().filter(|(id, _)| !id.starts_with("new-")).cloned().collect();
    assert_eq!(old, before, "nothing else changes");

    // Every other kind of request knows it.
    assert_eq!(engine.similar(a, &Filter::default(), 1).unwrap().items[0].id, c);
    let under = |conditions: &[Condition<'_>]| -> BTreeSet<String> {
        let filter = Filter::everything().under(conditions);
        let list = engine.recommend(&query, &filter, 100).unwrap();
        list.items.into_iter().map(|i| i.id).filter(|id| id.starts_with("new-")).collect()
    };
    let set = |ids: &[&str]| ids.iter().map(|i| (*i).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(under(&[Condition::AnyOf { field: "genre", values: &["war"] }]), set(&[a, c]));
    assert_eq!(under(&[Condition::NoneOf { field: "genre", values: &["war"] }]), set(&[b]));
    assert_eq!(under(&[Condition::AnyOf { field: "kind", values: &["series"] }]), set(&[]));
    assert_eq!(under(&[Condition::Between { field: "price", least: Some(7.0), most: None }]), set(&[a, c]));
    assert_eq!(under(&[Condition::Between { field: "price", least: None, most: Some(6.9) }]), set(&[]));
    assert_eq!(under(&[Condition::Released { from: Some(START), until: None }]), set(&[a, b, c]));
    assert_eq!(under(&[Condition::Released { from: None, until: Some(START) }]), set(&[]));
    let only = engine.recommend(&query, &Filter::default().allow(&[b]), 5).unwrap();
    assert_eq!(only.items.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(), [b]);
    let sampler = Sampler { sampling: Sampling::All { temperature: 1e6 }, seed: 3 };
    let drawn = engine.sample(&query, &Filter::default().allow(&[a, b, c]), 3, &sampler).unwrap();
    assert_eq!(drawn.items.len(), 3);
    let batch = engine.recommend_batch(&[query, Query::items(&[b])], &Filter::default(), 50, 2).unwrap();
    assert_eq!(batch.iter().map(|l| l.as_ref().unwrap().items.len()).collect::<Vec<_>>(), [41, 42]);
    // It can be part of a history, and then changes what comes.
    assert_ne!(
        engine.user_embedding(&Query::items(&[a])).unwrap(),
        engine.user_embedding(&Query::items(&[b])).unwrap()
    );
    let steps = engine.steps(&Query::items(&[a]), &Filter::default().allow(&[b, c]), 1, 3, None).unwrap();
    assert_eq!(steps.len(), 2);
    // The popular list ends with it.
    let popular = engine.recommend(&Query::entity("nobody"), &Filter::default(), 100).unwrap();
    assert_eq!(popular.source, Source::Popularity);
    assert_eq!(popular.items.iter().map(|i| i.id.as_str()).skip(40).collect::<Vec<_>>(), [a, b, c]);
    assert_eq!(engine.score(&Query::entity("nobody"), &[a]).unwrap(), [0.0]);

    assert!(engine.remove_item(a).unwrap());
    assert!(!listed(&engine, a) && listed(&engine, c));
    assert_eq!(engine.current().find_item(a).unwrap(), None);
    assert_eq!(kind(engine.score(&query, &[a])), ErrorKind::UnknownItem);
    assert_eq!(kind(engine.recommend(&query, &Filter::default().allow(&[a]), 5)), ErrorKind::UnknownItem);
    let popular = engine.recommend(&Query::entity("nobody"), &Filter::default(), 100).unwrap();
    assert_eq!(popular.items.iter().map(|i| i.id.as_str()).skip(40).collect::<Vec<_>>(), [b, c]);
    assert!(!engine.remove_item(a).unwrap(), "removing twice is no error");
    assert_eq!(kind(engine.remove_item("never")), ErrorKind::UnknownItem);
    assert_eq!(plain.items(), 40);
}

#[test]
fn what_is_added_and_removed_survives_a_new_engine() {
    let shop = Shop::new();
    let engine = open(&shop.path());
    for n in 0..300 {
        engine.add_item(&film(&format!("new-{n:03}"), if n % 2 == 0 { &WAR } else { &ART })).unwrap();
    }
    engine.add_item(&film("new-004", &ART)).unwrap();
    engine.remove_item("new-007").unwrap();
    engine.remove_item(&item(11)).unwrap();
    assert!(listed(&engine, "new-299") && !listed(&engine, "new-007") && !listed(&engine, &item(11)));
    assert_eq!(engine.item_embedding("new-004").unwrap(), engine.item_embedding("new-003").unwrap(), "replaced");
    let (list, added) = (everything(&engine), engine.added_items().unwrap());
    assert_eq!(added.len(), 299);
    assert_eq!(added[4].item.id, "new-004", "it keeps its place");
    assert!(added.iter().all(|i| i.row.is_some()));
    drop(engine);
    let engine = Engine::open(shop.path(), &EngineOptions { verify: Verify::Full, ..options() }).unwrap();
    let again = everything(&engine);
    assert_eq!(again.iter().cloned().collect::<BTreeSet<_>>(), list.iter().cloned().collect());
    assert_eq!(engine.removed_items().unwrap(), [item(11), "new-007".into()].map(String::from).to_vec());
    // An engine without live items serves the publication, also beside one with them.
    let plain = shop.engine();
    assert!(listed(&plain, &item(11)) && !listed(&plain, "new-000"));
    for outcome in
        [plain.add_item(&film("x", &WAR)), plain.remove_item("x").map(|_| ()), plain.added_items().map(|_| ())]
    {
        assert_eq!(outcome.as_ref().unwrap_err().kind(), ErrorKind::InvalidConfig);
        assert!(outcome.unwrap_err().message().contains("EngineOptions::live"));
    }
    // A second one with them sees what the first does, soon after.
    let other = Engine::open(shop.path(), &options()).unwrap();
    assert!(everything(&other).iter().collect::<BTreeSet<_>>() == again.iter().collect());
    other.add_item(&film("by-the-other", &WAR)).unwrap();
    other.remove_item("new-000").unwrap();
    let soon = std::time::Instant::now() + std::time::Duration::from_secs(1);
    while !listed(&engine, "by-the-other") || listed(&engine, "new-000") {
        assert!(std::time::Instant::now() < soon, "a second has passed");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    engine.remove_item("by-the-other").unwrap();
    engine.add_item(&film("new-000", &WAR)).unwrap();
    let again = everything(&engine);
    // It does not stand in the way of whoever tends the store.
    let store = Store::create(shop.path()).unwrap();
    assert!(store.verify(None).unwrap().ok);
    store.prune(1).unwrap();
    assert_eq!(everything(&engine), again);
}

#[test]
fn items_of_the_generation_are_removed_and_come_back_as_they_were() {
    let shop = Shop::new();
    let engine = open(&shop.path());
    let (before, gone) = (everything(&engine), item(20));
    assert_eq!(kind(engine.add_item(&film(&gone, &WAR))), ErrorKind::AlreadyExists);
    assert!(engine.remove_item(&gone).unwrap());
    let left: Vec<_> = before.iter().filter(|(id, _)| *id != gone).cloned().collect();
    assert_eq!(everything(&engine), left);
    let one = [gone.as_str()];
    let query = Query::items(&one);
    assert!(engine.recommend(&query, &Filter::default(), 40).is_ok(), "a history may name it");
    assert_eq!(kind(engine.score(&query, &[&gone])), ErrorKind::UnknownItem);
    assert!(engine.recommend(&query, &Filter::everything().allow(&[&gone]), 3).unwrap().items.is_empty());
    for entity in 0..8 {
        let id = crate::world::entity(entity);
        let list = engine.recommend(&Query::entity(&id), &Filter::everything(), 40).unwrap();
        assert!(list.items.len() == 39 && list.items.iter().all(|i| i.id != gone));
    }
    engine.add_item(&film(&gone, &WAR)).unwrap();
    assert_eq!(everything(&engine), before);
    assert_eq!(kind(engine.add_item(&film(&gone, &WAR))), ErrorKind::AlreadyExists);
}

#[test]
fn what_cannot_be_added_is_refused_and_nothing_changes() {
    let shop = Shop::new();
    let engine = open(&shop.path());
    let before = everything(&engine);
    let long = "x".repeat(70_000);
    let refused: [(&str, &[(&str, Cell<'_>)]); 9] = [
        ("", &[]),
        (&long, &[]),
        ("a", &[("colour", Cell::Text("red"))]),
        ("a", &[("kind", Cell::Number(1.0))]),
        ("a", &[("genre", Cell::Vector(&[1.0]))]),
        ("a", &[("price", Cell::Number(f32::INFINITY))]),
        ("a", &[("look", Cell::Vector(&[1.0]))]),
        ("a", &[("look", Cell::Vector(&[1.0, f32::NAN]))]),
        ("a", &[("price", Cell::Number(1.0)), ("price", Cell::Number(2.0))]),
    ];
    for (id, fields) in refused {
        assert_eq!(kind(engine.add_item(&film(id, fields))), ErrorKind::InvalidArgument, "{id:.5} {fields:?}");
    }
    assert_eq!((everything(&engine), engine.added_items().unwrap().len()), (before, 0));
    // What the vocabulary does not have is missing, not wrong.
    let unknown =
        [("genre", Cell::Texts(&["western", "war", ""])), ("kind", Cell::Text("")), ("price", Cell::Number(f32::NAN))];
    engine.add_item(&film("a", &unknown)).unwrap();
    engine.add_item(&film("b", &[("genre", Cell::Texts(&["war"]))])).unwrap();
    assert_eq!(engine.item_embedding("a").unwrap(), engine.item_embedding("b").unwrap());
    let stored = &engine.added_items().unwrap()[0].item;
    assert!(format!("{stored:?}").contains("western"), "kept for a generation that knows it");
}

#[test]
fn a_model_without_a_tower_says_so_and_can_remove_items_all_the_same() {
    let shop = Shop::of(World::new(Make { tower: false, ..Make::default() }));
    let engine = open(&shop.path());
    let error = engine.add_item(&NewItem { id: "new", ..NewItem::default() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.message().contains("tower"), "{error}");
    engine.remove_item(&item(3)).unwrap();
    assert!(!listed(&engine, &item(3)));
    engine.add_item(&NewItem { id: &item(3), ..NewItem::default() }).unwrap();
    assert!(listed(&engine, &item(3)));
}

#[test]
fn a_reload_takes_over_what_was_added_and_what_the_new_generation_knows_itself() {
    let shop = Shop::new();
    let engine = open(&shop.path());
    // Another generation has more items: rows 40 and 41, under ids that were added before.
    let (known, removed) = (item(40), item(41));
    engine.add_item(&film(&known, &WAR)).unwrap();
    engine.add_item(&film(&removed, &WAR)).unwrap();
    engine.add_item(&film("new", &ART)).unwrap();
    engine.remove_item(&removed).unwrap();
    engine.remove_item(&item(5)).unwrap();
    let first = everything(&engine);
    World::new(Make { seed: 2, items: 45, ..Make::default() }).publish(&shop.path());
    engine.reload().unwrap();
    let generation = engine.current();
    assert_eq!((generation.published_items(), generation.items()), (45, 46));
    assert_eq!(generation.item_row(&known).unwrap(), 40, "the generation's own row");
    assert_eq!(generation.item_row("new").unwrap(), 45);
    assert!(!listed(&engine, &removed) && !listed(&engine, &item(5)) && listed(&engine, "new"));
    let rows: Vec<_> = engine.added_items().unwrap().into_iter().map(|i| (i.item.id, i.row)).collect();
    assert_eq!(rows, [(known.clone(), None), ("new".into(), Some(45))]);
    engine.add_item(&film("newer", &WAR)).unwrap();
    assert_eq!(engine.current().item_row("newer").unwrap(), 46);
    // A generation without a tower cannot show them; they are kept.
    World::new(Make { seed: 3, tower: false, ..Make::default() }).publish(&shop.path());
    engine.reload().unwrap();
    assert_eq!((engine.current().items(), engine.added_items().unwrap().len()), (40, 3));
    engine.switch_to(GenerationId(1)).unwrap();
    engine.remove_item("newer").unwrap();
    assert_eq!(everything(&engine).into_iter().collect::<BTreeSet<_>>(), first.into_iter().collect());
}

#[test]
fn evaluation_scores_added_items_too() {
    let shop = Shop::new();
    let engine = open(&shop.path());
    engine.add_item(&film("new", &WAR)).unwrap();
    let generation = engine.current();
    let history = History { items: vec![4, 40], ..History::default() };
    let users = [(history, Request::default()), (History::default(), Request::default())];
    let mut scores = vec![0.0; 82];
    score_all(&generation, &users, &mut Scratch::default(), &mut scores).unwrap();
    let (four, new) = (item(4), "new");
    let one = engine.score(&Query::items(&[&four, new]), &[&item(7), new]).unwrap();
    assert!((scores[7] - one[0]).abs() < 1e-4 && (scores[40] - one[1]).abs() < 1e-4);
    assert_eq!(scores[81], 0.0);
}

/// Eight readers ask while items are added, replaced and removed: every view must be one that existed, and every answer from
/// it the same.
#[test]
fn answers_belong_wholly_to_one_view_while_items_are_added() {
    let shop = Shop::new();
    let engine = open(&shop.path());
    let (done, replies) = (AtomicBool::new(false), AtomicU64::new(0));
    let ids: Vec<String> = (0..400).map(|n| format!("new-{n}")).collect();
    let check = |generation: &Generation| {
        let found: Vec<bool> = ids.iter().map(|id| generation.find_item(id).unwrap().is_some()).collect();
        let added = generation.items() - generation.published_items();
        // Every tenth item is removed after the next one was added.
        for (n, found) in found.iter().enumerate() {
            let removed = n % 10 == 3 && n + 2 <= added;
            let between = n % 10 == 3 && n + 2 == added;
            assert!(*found == (n < added && !removed) || between, "item {n} of {added}: {found}");
        }
        let mine = [item(4), item(9)];
        let pair = [mine[0].as_str(), &mine[1]];
        let query = Query::items(&pair);
        let list = WithoutStates(generation).recommend(&query, &Filter::everything(), 1000).unwrap();
        assert_eq!(list, WithoutStates(generation).recommend(&query, &Filter::everything(), 1000).unwrap());
        let news = list.items.iter().filter(|i| i.id.starts_with("new-")).count();
        assert_eq!(news, found.iter().filter(|f| **f).count());
        let vector = |row| generation.item_vector(row).unwrap();
        let user = WithoutStates(generation).user_embedding(&query).unwrap();
        for item in &list.items {
            let exact: f32 = vector(item.row).iter().zip(&user).map(|(a, b)| a * b).sum();
            assert!((exact - item.score).abs() < 1e-3 && generation.item_id(item.row).unwrap() == item.id);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let generation = engine.current();
                    assert!(generation.items() >= last, "views come in order");
                    last = generation.items();
                    check(&generation);
                    replies.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_micros(500));
                }
            });
        }
        let added = ids.iter().enumerate().try_for_each(|(n, id)| {
            engine.add_item(&film(id, if n % 3 == 0 { &ART } else { &WAR }))?;
            match n % 10 {
                4 => engine.remove_item(&ids[n - 1]).map(|_| ()),
                _ => Ok(()),
            }
        });
        done.store(true, Ordering::Relaxed);
        added.unwrap();
    });
    assert!(replies.load(Ordering::Relaxed) > 20, "the readers did read");
    check(&engine.current());
}

#[test]
fn items_that_come_and_go_are_not_scanned() {
    let shop = Shop::new();
    let engine = open(&shop.path());
    let published = engine.current().items();
    engine.add_item(&film("stays", &WAR)).unwrap();
    for n in 0..600 {
        let id = format!("new-{n}");
        engine.add_item(&film(&id, &ART)).unwrap();
        engine.remove_item(&id).unwrap();
    }
    let rows = engine.current().items() - published;
    assert!(rows < 300, "{rows} rows for one item");
    assert!(listed(&engine, "stays") && !listed(&engine, "new-599"));
}

#[test]
fn a_damaged_file_need_not_keep_the_publication_from_being_served() {
    let shop = Shop::new();
    let path = shop.path().join("live.db");
    let engine = open(&shop.path());
    let list = everything(&engine);
    engine.add_item(&film("new", &WAR)).unwrap();
    drop(engine);
    fs::write(&path, vec![7; 8192]).unwrap();
    assert_eq!(Engine::open(shop.path(), &options()).unwrap_err().kind(), ErrorKind::Corrupt);
    let engine = Engine::open(shop.path(), &EngineOptions { despite_damage: true, ..options() }).unwrap();
    let damage = engine.damage().unwrap();
    assert!(damage.kind() == ErrorKind::Corrupt && damage.message().contains("live.db"), "{damage}");
    assert_eq!(everything(&engine), list);
    // What cannot be kept is not taken.
    assert_eq!(engine.add_item(&film("later", &ART)).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(fs::read(&path).unwrap(), vec![7; 8192], "nothing is touched");
    let sound = Shop::new();
    assert!(
        Engine::open(sound.path(), &EngineOptions { despite_damage: true, ..options() }).unwrap().damage().is_none()
    );
}

#[test]
fn a_damaged_file_is_told_and_never_a_panic() {
    let shop = Shop::new();
    let path = shop.path().join("live.db");
    let engine = open(&shop.path());
    for n in 0..40 {
        engine.add_item(&film(&format!("new-{n}"), &WAR)).unwrap();
    }
    engine.remove_item("new-3").unwrap();
    engine.remove_item(&item(3)).unwrap();
    let list = everything(&engine).into_iter().collect::<BTreeSet<_>>();
    drop(engine);
    let sound = fs::read(&path).unwrap();
    // The pages in use: those that a change of breaks nothing are left out by a coarse step over the rest.
    let used: Vec<usize> = (0..sound.len()).filter(|at| sound[*at] != 0).collect();
    let mut outcomes = [0; 3];
    let mut examine = |bytes: &[u8], full: bool| {
        fs::write(&path, bytes).unwrap();
        // What a file that cannot be closed in order leaves beside it.
        ["live.db-wal", "live.db-shm"].iter().for_each(|side| _ = fs::remove_file(shop.path().join(side)));
        let verify = if full { Verify::Full } else { Verify::Header };
        let opened = Engine::open(shop.path(), &EngineOptions { verify, ..options() });
        let outcome = opened.and_then(|engine| {
            let now = everything(&engine).into_iter().collect::<BTreeSet<_>>();
            engine.add_item(&film("later", &ART))?;
            engine.remove_item("later")?;
            engine.added_items()?;
            Ok(now == list)
        });
        match outcome {
            Ok(true) => outcomes[0] += 1,
            Ok(false) => outcomes[1] += 1,
            Err(e) => {
                let known = [ErrorKind::Corrupt, ErrorKind::UpgradeRequired, ErrorKind::Poisoned, ErrorKind::Io];
                assert!(known.contains(&e.kind()), "{e:?}");
                assert!(e.message().contains("live.db"), "{e}");
                outcomes[2] += 1;
            }
        }
    };
    for (n, at) in used.iter().step_by(used.len() / 250 + 1).enumerate() {
        let mut bytes = sound.clone();
        bytes[*at] ^= [1, 0x80, 0xff][n % 3];
        examine(&bytes, n % 4 == 0);
    }
    for cut in [1, 63, 512, 4096, sound.len() / 3, sound.len() / 2, sound.len() - 4096, sound.len() - 1] {
        examine(&sound[..cut], false);
    }
    examine(b"not a database at all, but long enough to be looked at as one", false);
    let [same, different, told] = outcomes;
    assert_eq!(different, 0, "damage changed an answer ({same} did not matter, {told} were told)");
    assert!(told > 20 && same > 0, "{same} did not matter, {told} were told");
    // What is left without the file is the publication.
    assert_eq!(shop.engine().current().items(), 40);
    fs::write(&path, &sound).unwrap();
    let engine = open(&shop.path());
    assert_eq!(everything(&engine).into_iter().collect::<BTreeSet<_>>(), list);
    let event = [Event::item("new-5")];
    assert!(engine.recommend(&Query::history(&event), &Filter::default(), 3).is_ok());
}
