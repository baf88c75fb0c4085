use crate::world::{Make, Shop, World, item};
use docent::ErrorKind;
use docent::serve::{Engine, EngineOptions, Filter, Generation, Query, Recommendations, Session, WithoutStates};
use docent::store::{GenerationId, Store};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const fn shared<T: Send + Sync>() {}
const _: () = shared::<Engine>();
const _: () = shared::<Generation>();
const _: () = shared::<Session>();

fn world(seed: u64) -> World {
    World::new(Make { seed, ..Make::default() })
}

fn ask(engine: &Engine) -> Recommendations {
    let (a, b) = (item(4), item(9));
    engine.recommend(&Query::items(&[&a, &b]), &Filter::default(), 10).unwrap()
}

#[test]
fn reload_goes_over_to_what_was_published_and_back() {
    let shop = Shop::new();
    let engine = shop.engine();
    let held = engine.current();
    let first = ask(&engine);
    assert_eq!(engine.reload().unwrap(), GenerationId(1), "nothing new");
    assert!(Arc::ptr_eq(&held, &engine.current()));
    world(2).publish(&shop.path());
    assert_eq!(ask(&engine), first, "publishing alone changes nothing");
    assert_eq!(engine.reload().unwrap(), GenerationId(2));
    let second = ask(&engine);
    assert_eq!((second.generation, engine.generation()), (GenerationId(2), GenerationId(2)));
    assert_ne!(first.items, second.items);
    Store::open(shop.path()).unwrap().rollback(None).unwrap();
    assert_eq!(engine.reload().unwrap(), GenerationId(1));
    assert_eq!(ask(&engine), first);
    assert_eq!(engine.switch_to(GenerationId(2)).unwrap(), GenerationId(2));
    assert_eq!(ask(&engine), second);
    // What is held answers as ever.
    assert_eq!(
        WithoutStates(&held).recommend(&Query::items(&[&item(4), &item(9)]), &Filter::default(), 10).unwrap(),
        first
    );
}

#[test]
fn a_reload_that_fails_leaves_the_old_generation_serving() {
    let shop = Shop::new();
    let engine = shop.engine();
    let first = ask(&engine);
    let served = |engine: &Engine, kind: Option<ErrorKind>, outcome: docent::Result<GenerationId>| {
        assert_eq!(outcome.as_ref().err().map(|e| e.kind()), kind, "{outcome:?}");
        assert_eq!((ask(engine), engine.generation()), (first.clone(), GenerationId(1)));
    };
    served(&engine, Some(ErrorKind::NotFound), engine.switch_to(GenerationId(9)));
    // Sections of wrong dimensions.
    let mut bad = world(2);
    bad.put_f32("item.popularity", &[39], &[0.0; 39]);
    bad.publish(&shop.path());
    served(&engine, Some(ErrorKind::Corrupt), engine.reload());
    // A manifest with a flipped byte, then a torn one, then none.
    let id = world(3).publish(&shop.path());
    let manifest = shop.path().join(format!("generations/{:08}.manifest", id.0));
    let sound = std::fs::read(&manifest).unwrap();
    let replace = |bytes: &[u8]| {
        std::fs::remove_file(&manifest).unwrap();
        std::fs::write(&manifest, bytes).unwrap();
    };
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    replace(&flipped);
    served(&engine, Some(ErrorKind::Corrupt), engine.reload());
    replace(&sound[..sound.len() - 1]);
    served(&engine, Some(ErrorKind::Corrupt), engine.reload());
    std::fs::remove_file(&manifest).unwrap();
    assert!(engine.reload().is_err());
    assert_eq!(ask(&engine), first);
    std::fs::write(&manifest, &sound).unwrap();
    assert_eq!(engine.reload().unwrap(), id);
    assert_ne!(ask(&engine), first);
}

#[test]
fn deleting_the_store_under_an_engine_changes_nothing_for_it() {
    let shop = Shop::new();
    let engine = shop.engine();
    let first = ask(&engine);
    std::fs::remove_dir_all(shop.path()).unwrap();
    assert_eq!(ask(&engine), first);
    assert!(engine.reload().is_err());
    assert_eq!(ask(&engine), first);
}

#[test]
fn opening_what_is_not_there_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path| Engine::open(path, &EngineOptions::default()).unwrap_err().kind();
    assert_eq!(open(&dir.path().join("absent")), ErrorKind::NotFound);
    assert_eq!(open(dir.path()), ErrorKind::NotDocent);
    Store::create(dir.path().join("empty")).unwrap();
    assert_eq!(open(&dir.path().join("empty")), ErrorKind::NotFound, "no generation as yet");
    let shop = Shop::new();
    let options = EngineOptions { generation: Some(GenerationId(5)), ..EngineOptions::default() };
    assert_eq!(Engine::open(shop.path(), &options).unwrap_err().kind(), ErrorKind::NotFound);
}

/// Eight readers ask while generations are swapped: every reply must be, to the bit, one that a single generation gives,
/// the one that it names.
#[test]
fn replies_belong_wholly_to_one_generation_while_generations_are_swapped() {
    let shop = Shop::new();
    for seed in 2..=4 {
        world(seed).publish(&shop.path());
    }
    let engine = shop.engine();
    let mut truth = BTreeMap::new();
    for id in 1..=4 {
        engine.switch_to(GenerationId(id)).unwrap();
        truth.insert(GenerationId(id), ask(&engine));
    }
    let distinct: Vec<_> =
        truth.values().map(|l| l.items.iter().map(|i| i.score.to_bits()).collect::<Vec<_>>()).collect();
    assert!((1..4).all(|i| distinct[i] != distinct[0]));
    let (done, replies, slowest) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for reader in 0..8 {
            let (engine, truth, done, replies, slowest) = (&engine, &truth, &done, &replies, &slowest);
            scope.spawn(move || {
                let mut session = Session::new();
                let (a, b) = (item(4), item(9));
                let ids = [a.as_str(), &b];
                let (mut rows, mut scores) = ([0; 10], [0.0; 10]);
                while !done.load(Ordering::Relaxed) {
                    if reader % 2 == 0 {
                        let list = ask(engine);
                        assert_eq!(list, truth[&list.generation]);
                    } else {
                        let query = Query::items(&ids);
                        let written = engine
                            .recommend_into(&mut session, &query, &Filter::default(), &mut rows, &mut scores)
                            .unwrap();
                        let expected = &truth[&written.generation];
                        for ((row, score), item) in rows.iter().zip(&scores).zip(&expected.items) {
                            assert_eq!((*row, score.to_bits()), (item.row, item.score.to_bits()));
                            assert_eq!(session.generation().unwrap().item_id(*row).unwrap(), item.id);
                        }
                    }
                    replies.fetch_add(1, Ordering::Relaxed);
                    let asked = Instant::now();
                    let _ = engine.current();
                    slowest.fetch_max(asked.elapsed().as_micros() as u64, Ordering::Relaxed);
                    // Leaves the swapping thread a share of a small machine.
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
        }
        for swap in 0..1000u64 {
            engine.switch_to(GenerationId(1 + swap % 4)).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(replies.load(Ordering::Relaxed) > 100, "the readers did read");
    // On a loaded machine a thread may lose its processor for longer than any lock is held.
    let slowest = Duration::from_micros(slowest.load(Ordering::Relaxed));
    assert!(slowest < Duration::from_secs(1), "a reader waited {slowest:?} for the generation");
}

#[cfg(target_os = "linux")]
#[test]
fn the_last_reader_of_an_old_generation_unmaps_it() {
    let shop = Shop::new();
    let mapped = || {
        let name = shop.path().to_string_lossy().into_owned();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|l| l.contains(&name)).count()
    };
    let engine = shop.engine();
    let alone = mapped();
    assert!(alone > 0);
    let held = engine.current();
    world(2).publish(&shop.path());
    engine.reload().unwrap();
    assert!(mapped() > alone, "both are mapped while the first is held");
    let mut session = Session::new();
    engine.recommend_into(&mut session, &Query::entity("x"), &Filter::default(), &mut [0; 3], &mut [0.0; 3]).unwrap();
    drop(held);
    assert!(mapped() <= alone + 1, "{} mappings, {alone} before", mapped());
    let old = engine.current();
    engine.switch_to(GenerationId(1)).unwrap();
    drop(old);
    assert!(mapped() > alone, "a session keeps the generation of its last answer");
    session.release();
    assert!(mapped() <= alone + 1);
}

#[cfg(target_os = "linux")]
#[test]
fn requests_start_no_threads() {
    // In a process of its own: other tests of this binary start threads.
    if std::env::var_os("DOCENT_COUNT_THREADS").is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "swap::requests_start_no_threads", "--test-threads=1"])
            .env("DOCENT_COUNT_THREADS", "1")
            .output()
            .unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
        return;
    }
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let shop = Shop::new();
    let before = threads();
    let engine = shop.engine();
    let ids = [item(1), item(2)];
    let histories = [[ids[0].as_str()], [ids[1].as_str()]];
    let queries = [Query::items(&histories[0]), Query::items(&histories[1])];
    for query in &queries {
        engine.recommend(query, &Filter::default(), 10).unwrap();
        engine.steps(query, &Filter::default(), 3, 3, None).unwrap();
    }
    engine.recommend_batch(&queries, &Filter::default(), 10, 1).unwrap();
    engine.similar(&ids[0], &Filter::default(), 3).unwrap();
    assert_eq!(threads(), before);
    // A sampled list has one thread of its own, which ends with it: candle would start a pool for good.
    let sampler = docent::serve::Sampler { sampling: docent::serve::Sampling::All { temperature: 1.0 }, seed: 1 };
    engine.sample(&queries[0], &Filter::default(), 3, &sampler).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while threads() > before && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(threads(), before);
}
