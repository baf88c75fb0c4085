//! Are the quality figures of the documents those of this code? The board's record holds the hashes of tiny trainings.

#[path = "../benches/common/tiny.rs"]
mod tiny;

use std::collections::BTreeMap;

#[test]
fn the_boards_record_is_of_this_code() {
    let record = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/records/board.json");
    let record: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(record).unwrap()).unwrap();
    let recorded: BTreeMap<String, String> = serde_json::from_value(record["result"]["hashes"].clone()).unwrap();
    let found: BTreeMap<String, String> = tiny::hashes().unwrap().into_iter().collect();
    assert_eq!(
        found, recorded,
        "training gives other weights than those that benches/records/board.md was made with, so its figures and those of the \
         README are of another model; run `cargo bench --bench board --features cli -- --data DIR --record board` again"
    );
}
