//! A store that was written once opens for ever, and answers the same: to the bit on the portable path of the kernels, within a
//! bound and with the same lists on what this processor has. `tests/golden/write.rs` wrote it.

#[path = "golden/ask.rs"]
mod ask;

/// How far an answer of another processor may lie from the committed one, as a share of it, or of 1 where it is smaller.
const BOUND: f32 = 1e-4;

#[test]
fn the_stores_of_version_1_answer_as_they_did() {
    let folder = tempfile::tempdir().unwrap();
    for store in ask::STORES {
        ask::copy(&ask::fixtures().join(store), &folder.path().join(store)).unwrap();
    }
    let committed = std::fs::read_to_string(ask::fixtures().join("answers.txt")).unwrap();
    docent::force_scalar(true);
    let portable = ask::ask(folder.path()).unwrap();
    docent::force_scalar(false);
    assert_eq!(portable, ask::parse(&committed), "the portable path gives other answers than it did");
    assert_eq!(ask::text(&portable), committed, "to the bit");
    assert!(portable.iter().all(|answer| !answer.numbers.is_empty()));

    let own = ask::ask(folder.path()).unwrap();
    assert_eq!(own.len(), portable.len());
    for (own, expected) in own.iter().zip(&portable) {
        assert_eq!(own.question, expected.question);
        let names = |answer: &ask::Answer| answer.numbers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(own), names(expected), "{}", own.question);
        for ((name, x), (_, y)) in own.numbers.iter().zip(&expected.numbers) {
            assert!((x - y).abs() <= BOUND * y.abs().max(1.0), "{}, {name}: {x} instead of {y}", own.question);
        }
    }
}
