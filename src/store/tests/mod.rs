//! Tests that need what the public interface does not show: the seam to the file system and the encoder of files.

mod crash;
mod disks;
mod failures;
mod hostile;
mod sparse;

use super::fsio::Disk;
use super::records::{ManifestContent, RunRecord, TrainingRecord};
use super::{GenerationId, OpenOptions, Publisher, Store, Verify};
use crate::Result;
use crate::options::{ModelOptions, Objective, TokenizerOptions, TrainOptions, Utility};
use crate::schema::{Field, FieldKind, Merge, Schema, TokenVocabulary};
use std::path::Path;
use std::sync::Arc;

/// A manifest that says `number` in its training steps.
pub(super) fn content(number: u64) -> ManifestContent {
    ManifestContent {
        schema: Schema {
            name: "shop".into(),
            has_time: true,
            actions: vec!["view".into(), "purchase of something".into()],
            item_fields: vec![Field { name: "genre".into(), kind: FieldKind::Categorical(vec!["drama".into()]) }],
            ..Schema::default()
        },
        model: ModelOptions { normalized: false, temperature: 1.0, ..ModelOptions::default() },
        serve: Default::default(),
        tokenizer: Some(TokenVocabulary {
            version: 1,
            options: TokenizerOptions {
                max_gap: 1800,
                surface: "device".into(),
                terminal: vec!["purchase of something".into()],
                merges: 32,
                budget: 1,
                dropout: 0.0,
            },
            merges: vec![Merge { left: 0, right: 0, count: 12 }],
            value: vec![1.5],
            count: vec![1.0, 2.0],
            span: vec![0.0, 60.0],
        }),
        training: TrainingRecord {
            // Written out, so that new defaults do not look like a new format.
            options: TrainOptions {
                seed: 1,
                threads: 1,
                loss: None,
                objective: Objective { utility: Utility::Equal, window: 1, half_life: 86_400.0 },
                epochs: 100,
                batch: 128,
                learning_rate: 1e-3,
                warmup: 100,
                final_rate: 0.1,
                cooldown: 0.0,
                weight_decay: 0.0,
                clip: 1.0,
                dropout: 0.2,
                patience: 10,
                validate_every: 1,
                ema: 0.0,
                window_share: 0.5,
                checkpoint_every: 200,
                max_seconds: 0,
            },
            data_hash: [7; 32],
            protocol: "leave-one-out".into(),
            target_hash: [8; 32],
            validation: vec![("ndcg@10".into(), 0.125)],
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

/// A directory in memory where there is one: these tests make thousands of files and model the disk themselves.
pub(super) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Writes the two sections of generation `number`: one that all share, one of its own.
pub(super) fn write(publisher: &mut Publisher, number: u64) -> Result<()> {
    publisher.slice("shared", &[4, 2], &[0.5f32, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0])?;
    publisher.slice("own", &[30], &[number; 30])
}

pub(super) fn publish(store: &Store, number: u64) -> Result<GenerationId> {
    let mut publisher = store.publisher()?;
    write(&mut publisher, number)?;
    publisher.publish(&content(number), &RunRecord::default())
}

/// The number of the current generation, read from all places that hold it; 0 if there is none.
pub(super) fn number(store: &Store) -> Result<u64> {
    if store.current()?.is_none() {
        return Ok(0);
    }
    let snapshot = store.snapshot(&OpenOptions { verify: Verify::Full, ..OpenOptions::default() })?;
    let number = snapshot.manifest().training.steps;
    assert_eq!(snapshot.u64s("own")?, &[number; 30], "a mixed generation");
    assert_eq!(snapshot.f32s("shared")?[7], 4.0);
    Ok(number)
}

pub(super) fn create(path: &Path, disk: impl Disk + 'static) -> Result<Store> {
    Store::create_on(path, Arc::new(disk))
}

/// All files below a directory, relative, sorted.
pub(super) fn files(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["", "generations", "segments"] {
        for entry in std::fs::read_dir(path.join(folder)).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                found.push(Path::new(folder).join(entry.file_name()).to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// What builds wrote from before the first release: table (or `ckpt`, a checkpoint), key, bytes.
pub(super) fn before() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let bytes = |hex: &str| {
        let pairs = hex.as_bytes().as_chunks::<2>().0.iter();
        pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    };
    let parts = |line: &'static str| {
        let (rest, hex) = line.rsplit_once(' ').unwrap();
        let (table, key) = rest.split_once(' ').unwrap_or((rest, ""));
        (table, key, bytes(hex))
    };
    include_str!("../../../tests/fixtures/before-v1.txt").lines().map(parts).collect()
}
