//! A panic inside any exported function becomes a status; what it was changing is poisoned, everything else goes on.

use super::fixture::Fixture;
use super::injection::{Place, arm, disarm};
use crate::status::{DOCENT_ERR_PANIC, DOCENT_OK};

/// Functions without a body that could fail: they return constants.
const CONSTANT: [&str; 3] = ["docent_abi_version", "docent_version", "docent_status_name"];

fn exported() -> Vec<&'static str> {
    let all: Vec<&str> = include_str!("../../symbols.txt").lines().filter(|name| !CONSTANT.contains(name)).collect();
    assert!(all.len() > 40, "{all:?}");
    all
}

#[test]
fn a_panic_in_any_function_is_a_status() {
    let mut other = Fixture::new();
    for name in exported() {
        let mut made = Fixture::new();
        arm(name, Place::Entry);
        assert_eq!(made.call(name), DOCENT_ERR_PANIC, "{name}");
        assert!(!disarm(), "{name} has no boundary");
        if !made.error.is_null() {
            let message = made.message();
            assert!(message.contains(&format!("injected into {name}")) && message.contains(".rs:"), "{message}");
        }
        assert_eq!(made.call(name), DOCENT_OK, "{name} does not go on: {}", made.message());
        assert_eq!(other.call("docent_recommend"), DOCENT_OK, "{name} harmed another engine");
    }
}

#[test]
fn what_a_panic_interrupts_is_poisoned() {
    let mut other = Fixture::new();
    let mut poisoned = 0;
    for name in exported() {
        let mut made = Fixture::new();
        arm(name, Place::Held);
        let status = made.call(name);
        if disarm() {
            // It has nothing to itself.
            assert_eq!(status, DOCENT_OK, "{name}: {}", made.message());
            continue;
        }
        poisoned += 1;
        assert_eq!(status, DOCENT_ERR_PANIC, "{name}");
        assert_eq!(made.call(name), DOCENT_ERR_PANIC, "{name} goes on with what the panic left");
        assert!(made.message().contains("was in a call that panicked"), "{}", made.message());
        assert_eq!(other.call("docent_recommend"), DOCENT_OK, "{name} harmed another engine");
        // Dropping the fixture frees the poisoned object, too.
    }
    assert!(poisoned > 25, "only {poisoned} functions change an object");
}

#[test]
fn a_panic_prints_nothing() {
    let all = "tests::panics::a_panic_in_any_function_is_a_status";
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    let output = again.args(["--exact", all, "--nocapture"]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
    assert!(!format!("{out}{err}").contains("panicked"), "{out}\n{err}");
}
