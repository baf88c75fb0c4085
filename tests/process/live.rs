//! An engine that is killed while items are added to it.

#[path = "../serve_engine/world.rs"]
#[allow(dead_code, reason = "shared with the tests of the engine")]
mod world;

use docent::serve::{Engine, EngineOptions, Filter, Query};
use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use world::{Shop, item};

#[test]
fn killing_the_engine_at_any_time_loses_nothing() {
    let shop = Shop::new();
    let told = shop.path().join("told.tmp");
    let mut most = 0;
    for round in 0..12u64 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_docent-test-child"))
            .arg("add-items-until-killed")
            .arg(shop.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let lines = || fs::read_to_string(&told).unwrap_or_default().lines().count();
        let (before, start) = (lines(), Instant::now());
        while lines() < before + 3 {
            assert!(start.elapsed() < Duration::from_secs(30), "the child does not come up");
            std::thread::sleep(Duration::from_micros(300));
        }
        std::thread::sleep(Duration::from_micros(round.wrapping_mul(7_919) % 20_000));
        assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        let options = EngineOptions { live: true, ..EngineOptions::default() };
        let engine = Engine::open(shop.path(), &options).unwrap();
        let text = fs::read_to_string(&told).unwrap();
        let (mut there, mut gone, mut asked) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for line in text.lines() {
            match line.split_at(1) {
                ("+", id) => there.insert(id),
                ("?", id) => asked.insert(id),
                (_, id) => gone.insert(id),
            };
        }
        let seen = [item(4), item(9)];
        let ids = [seen[0].as_str(), &seen[1]];
        let list = engine.recommend(&Query::items(&ids), &Filter::everything(), 10_000).unwrap();
        let list: BTreeSet<String> = list.items.into_iter().map(|i| i.id).collect();
        assert!(there.difference(&asked).all(|id| list.contains(*id)), "an added item is lost");
        assert!(gone.iter().all(|id| !list.contains(*id)), "a removed item is back");
        most = most.max(there.len());
    }
    assert!(most > 20, "{most} items were added in all");
}
