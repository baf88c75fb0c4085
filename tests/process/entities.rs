//! Entity states and `kill -9`: what was acknowledged is there, and the store opens every time.

#[path = "../entity_crash/mod.rs"]
#[allow(dead_code, reason = "the benchmark reports more of it")]
mod entity_crash;

use entity_crash::{Plan, live_and_die};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Kills a child `lives` times, and gives how many outcomes were acknowledged in all, and how many compactions were cut short.
fn kill(plan: &Plan, lives: u64) -> (u64, u64) {
    let (mut acknowledged, mut compactions) = (0, 0);
    for life in 0..lives {
        let mut child = Command::new(env!("CARGO_BIN_EXE_docent-test-child"));
        child.arg("observe-until-killed").stdout(Stdio::null());
        let time =
            Duration::from_micros(life.wrapping_mul(7_919_317) % if plan.within == 0 { 100_000 } else { 300_000 });
        let life = live_and_die(plan, &mut child, time, life % 3 == 0);
        (acknowledged, compactions) = (acknowledged + life.acknowledged, compactions + u64::from(life.compacting));
    }
    (acknowledged, compactions)
}

#[test]
fn killed_at_any_time_what_was_acknowledged_on_disk_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan { store: dir.path().join("store"), within: 0, threads: 4, entities: 30, compact: false };
    let (acknowledged, _) = kill(&plan, 12);
    assert!(acknowledged > 200, "{acknowledged} outcomes");
}

#[test]
fn killed_at_any_time_what_was_acknowledged_long_enough_ago_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan { store: dir.path().join("store"), within: 100, threads: 4, entities: 30, compact: false };
    let (acknowledged, _) = kill(&plan, 12);
    assert!(acknowledged > 200, "{acknowledged} outcomes");
}

#[test]
fn killed_while_it_compacts_the_old_file_or_the_new_one_is_left() {
    let dir = tempfile::tempdir().unwrap();
    for within in [0, 100] {
        let store = dir.path().join(format!("store-{within}"));
        let plan = Plan { store: store.clone(), within, threads: 3, entities: 200, compact: true };
        let (acknowledged, compactions) = kill(&plan, 10);
        assert!(acknowledged >= 30 && compactions > 0, "{acknowledged} outcomes, {compactions} compactions cut short");
        assert!(!store.join("live.redb.new").exists());
    }
}
