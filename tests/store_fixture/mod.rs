//! What the tests of stores publish.
#![allow(dead_code, reason = "each test binary uses its part")]

use docent::options::{ModelOptions, TrainOptions};
use docent::schema::{Field, FieldKind, Schema};
use docent::store::{
    Dtype, GenerationId, ManifestContent, OpenOptions, Publisher, RunRecord, Snapshot, Store, TrainingRecord, Verify,
};
use std::path::{Path, PathBuf};

/// A manifest that says `number` in its training steps.
pub fn content(number: u64) -> ManifestContent {
    let genres = ["drama", "comedy", "a rather long name of a genre"].map(String::from).to_vec();
    ManifestContent {
        schema: Schema {
            name: "shop".into(),
            has_time: true,
            actions: vec!["view".into(), "purchase".into()],
            item_fields: vec![
                Field { name: "genre".into(), kind: FieldKind::MultiValued(genres) },
                Field { name: "price".into(), kind: FieldKind::Numeric(vec![1.0, 2.5, 9.0]) },
            ],
            ..Schema::default()
        },
        model: ModelOptions::default(),
        serve: Default::default(),
        tokenizer: None,
        training: TrainingRecord {
            options: TrainOptions::default(),
            data_hash: [7; 32],
            protocol: "leave-one-out".into(),
            target_hash: [8; 32],
            validation: vec![("hr@10".into(), 0.25), ("ndcg@10".into(), 0.125)],
            losses: vec![("next-item".into(), 1.5)],
            epochs: 3,
            best_epoch: 2,
            steps: number,
            tokens: 1000,
            parameters: 64,
            stopped: "patience".into(),
            version: "0.1.0".into(),
        },
        kept: Default::default(),
        ranker: None,
        items: 4,
        entities: 2,
        events: 9,
    }
}

pub fn run_record() -> RunRecord {
    RunRecord {
        created_ms: 1_700_000_000_123,
        seconds: 1.5,
        tokens_per_second: 10.0,
        peak_rss_bytes: 1 << 20,
        command: "docent train".into(),
        device: "cpu".into(),
    }
}

/// Sections of every type; those named `shared` do not depend on `number`.
pub fn write(publisher: &mut Publisher, number: u64) -> docent::Result<()> {
    let floats: Vec<f32> = (0..600).map(|i| i as f32 * 0.25).collect();
    publisher.slice("shared.vectors", &[60, 10], &floats)?;
    publisher.slice("shared.empty", &[0, 10], &[0u32; 0])?;
    publisher.slice("shared.bytes", &[13], b"first\0second!")?;
    publisher.slice("shared.signed", &[3], &[-1i8, 0, 127])?;
    publisher.slice("shared.times", &[2], &[i64::MIN, 5])?;
    publisher.slice("shared.codes", &[5], &[1u16, 2, 3, 4, 5])?;
    publisher.section("shared.half", Dtype::F16, &[2], &[0, 0x3c, 0, 0xc0])?;
    publisher.slice("own", &[100], &[number; 100])
}

pub fn publish(store: &Store, number: u64) -> docent::Result<GenerationId> {
    let mut publisher = store.publisher()?;
    write(&mut publisher, number)?;
    publisher.publish(&content(number), &run_record())
}

pub fn full() -> OpenOptions {
    OpenOptions { verify: Verify::Full, ..OpenOptions::default() }
}

/// The number that a snapshot was published with, from all places that hold it.
pub fn number(snapshot: &Snapshot) -> u64 {
    let number = snapshot.manifest().training.steps;
    assert_eq!(snapshot.u64s("own").unwrap(), &[number; 100], "a mixed generation");
    number
}

/// All files of a store but LOCK, sorted.
pub fn files(store: &Path) -> Vec<PathBuf> {
    let mut found = vec![store.join("CURRENT")];
    for folder in ["generations", "segments"] {
        found.extend(std::fs::read_dir(store.join(folder)).unwrap().map(|e| e.unwrap().path()));
    }
    found.sort();
    found
}
