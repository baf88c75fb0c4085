//! As the tests of version 1: the bytes of records, held against committed ones.

use super::super::codec::{archive, read};
use super::super::v1;
use super::*;
use crate::store::records::{EntityState, StoredEmbedding, StoredOutcome};

/// BLAKE3 of the archive of [`full`].
const STATE: &str = "a58a6631508d34a5e39ced0658184620c32e05a71e1ac24891aff74070818354";

fn full() -> EntityState {
    let outcome = StoredOutcome {
        id: Some("an outcome of its own".into()),
        item: "item-1".into(),
        time: Some(-1),
        action: Some("view".into()),
        value: Some(0.5),
        fields: vec![("device".into(), "phone".into())],
        labels: vec![("click".into(), 1.0), ("like".into(), 0.0)],
        impression: vec![("position".into(), 1.0), ("hour".into(), -1.5)],
        in_history: true,
    };
    let adapted = StoredEmbedding {
        model: [3; 32],
        embedding: vec![0.25, -3.5, 1e-20],
        surfaces: vec![("home".into(), vec![0.5, 0.0, -1.0])],
        outcomes: 3,
        made: 9,
    };
    EntityState {
        outcomes: vec![outcome, StoredOutcome { item: "x".into(), ..StoredOutcome::default() }],
        seen: 2,
        touched: Some(-1),
        past_items: vec!["item-0".into(), "a longer name of an item".into()],
        adapted: Some(adapted),
    }
}

#[test]
fn records_of_version_2_are_frozen() {
    let bytes = archive(&State::from(full())).unwrap();
    assert_eq!(blake3::hash(&bytes).to_hex().as_str(), STATE);
    assert_eq!(EntityState::from(read::<State>(&bytes).unwrap()), full());
}

#[test]
fn a_state_of_version_1_is_read_as_what_it_says() {
    let outcome = v1::Outcome {
        item: "x".into(),
        time: Some(9),
        action: None,
        value: None,
        fields: Vec::new(),
        labels: vec![("click".into(), 1.0)],
        impression: Vec::new(),
        in_history: true,
    };
    let state = |touched| v1::State { outcomes: vec![outcome.clone()], seen: 1, touched, adapted: None };
    let read = EntityState::from(State::from(state(9)));
    assert_eq!((read.touched, read.seen, read.outcomes[0].id.as_deref()), (Some(9), 1, None));
    assert_eq!((read.outcomes[0].item.as_str(), read.outcomes[0].labels.len()), ("x", 1));
    assert_eq!(EntityState::from(State::from(state(0))).touched, None, "0 stood for no time");
}
