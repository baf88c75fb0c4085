//! Entity states and `kill -9`: what was acknowledged is there, and the store opens every time.

#[path = "../entity_crash/mod.rs"]
#[allow(dead_code, reason = "the benchmark reports more of it")]
mod entity_crash;

use docent::store::{EntityStore, EntityStoreOptions, LiveStore, Store};
use entity_crash::{Plan, live_and_die};
use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Kills a child `lives` times, and gives how many outcomes were acknowledged in all.
fn kill(plan: &Plan, lives: u64) -> u64 {
    let mut acknowledged = 0;
    for life in 0..lives {
        let mut child = Command::new(env!("CARGO_BIN_EXE_docent-test-child"));
        child.arg("observe-until-killed").stdout(Stdio::null());
        let time =
            Duration::from_micros(life.wrapping_mul(7_919_317) % if plan.within == 0 { 100_000 } else { 300_000 });
        acknowledged += live_and_die(plan, &mut child, time, life % 3 == 0).acknowledged;
    }
    acknowledged
}

#[test]
fn killed_at_any_time_what_was_acknowledged_on_disk_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan { store: dir.path().join("store"), within: 0, threads: 4, entities: 30, compact: false };
    let acknowledged = kill(&plan, 12);
    assert!(acknowledged > 200, "{acknowledged} outcomes");
}

#[test]
fn killed_at_any_time_what_was_acknowledged_long_enough_ago_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan { store: dir.path().join("store"), within: 100, threads: 4, entities: 30, compact: false };
    let acknowledged = kill(&plan, 12);
    assert!(acknowledged > 200, "{acknowledged} outcomes");
}

#[test]
fn killed_while_it_compacts_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    for within in [0, 100] {
        let store = dir.path().join(format!("store-{within}"));
        let plan = Plan { store: store.clone(), within, threads: 3, entities: 200, compact: true };
        let acknowledged = kill(&plan, 10);
        assert!(acknowledged >= 30, "{acknowledged} outcomes");
    }
}

/// Four processes observe the same people; two of them are killed in the middle, and two more take their places.
#[test]
fn several_processes_observe_the_same_people_and_nothing_is_lost_or_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let live = LiveStore::open(&Store::create(&path).unwrap(), false).unwrap();
    let entities = EntityStore::new(Arc::new(live), &EntityStoreOptions::default()).unwrap();
    let start = || Command::new(env!("CARGO_BIN_EXE_docent-test-child")).arg("observe-together").arg(&path).spawn();
    let told = |child: &Child| -> Vec<(String, String)> {
        let text = fs::read_to_string(path.with_extension(format!("told-{}", child.id()))).unwrap_or_default();
        let whole = text.lines().filter(|_| text.ends_with('\n'));
        whole.map(|line| line.split_once(' ').map(|(id, item)| (id.to_owned(), item.to_owned())).unwrap()).collect()
    };
    let mut running: Vec<Child> = (0..4).map(|_| start().unwrap()).collect();
    let (mut acknowledged, begun) = (BTreeSet::new(), Instant::now());
    for child in running.iter_mut().take(2) {
        while told(child).len() < 20 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the children do not come up");
            std::thread::sleep(Duration::from_millis(1));
        }
        // Whoever is alive sees at once what others were told.
        for (id, item) in told(child) {
            let state = entities.get(&id).unwrap().unwrap();
            assert!(state.outcomes.iter().any(|o| o.item == *item), "{item} of {id} is not seen");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(told(child));
        *child = start().unwrap();
    }
    for child in &mut running {
        assert!(child.wait().unwrap().success());
        acknowledged.extend(told(child));
    }
    let (mut found, mut count) = (BTreeSet::new(), 0);
    entities
        .each(|id, state| {
            assert_eq!(state.seen, state.outcomes.len() as u64, "{id}");
            count += state.outcomes.len();
            found.extend(state.outcomes.iter().map(|o| (id.to_owned(), o.item.clone())));
            Ok(())
        })
        .unwrap();
    assert_eq!(count, found.len(), "an outcome is there twice");
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "{lost:?} are lost");
    // Each killed process may have written one that it could not tell of.
    assert!(
        acknowledged.len() >= 840 && found.len() <= acknowledged.len() + 2,
        "{} of {}",
        acknowledged.len(),
        found.len()
    );
}
