//! Opening costs what the manifest costs, not what the tables cost.

use super::{content, create};
use crate::store::format::{Current, SegmentLayout};
use crate::store::fsio::RealDisk;
use crate::store::manifest;
use crate::store::wire::v1::{Manifest, RunFile, Section};
use crate::store::{Dtype, GenerationId, OpenOptions, RunRecord, Store};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A store whose one table is a sparse file of `rows` x 128 f32.
fn sparse_store(path: &Path, rows: u64) -> Store {
    let store = create(path, RealDisk).unwrap();
    let bytes = rows * 512;
    let section =
        Section { name: "table".into(), dtype: Dtype::F32.code(), shape: vec![rows, 128], bytes, hash: [3; 32] };
    let layout = SegmentLayout::of(bytes).unwrap();
    let segment = File::create(store.segment_path(&section.hash)).unwrap();
    segment.set_len(layout.file).unwrap();
    segment.write_all_at(&layout.header(), 0).unwrap();
    segment.write_all_at(&1.5f32.to_le_bytes(), layout.payload_offset + bytes - 4).unwrap();
    let encoded = manifest::encode(&Manifest { content: content(1).into(), sections: vec![section] }).unwrap();
    fs::write(store.manifest_path(GenerationId(1)), &encoded.bytes).unwrap();
    let run = RunFile { generation: 1, manifest: encoded.checksum, run: RunRecord::default().into() };
    fs::write(store.run_path(GenerationId(1)), manifest::encode(&run).unwrap().bytes).unwrap();
    let manifest = *encoded.checksum.first_chunk().unwrap();
    assert!(store.write_current(&Current { generation: 1, last: 1, manifest }).is_ok());
    store
}

/// Resident KiB of the mappings of files below `path`.
fn resident(path: &Path) -> u64 {
    let (mut inside, mut sum) = (false, 0);
    for line in fs::read_to_string("/proc/self/smaps").unwrap().lines() {
        if line.contains('-') && line.contains(" r") {
            inside = line.contains(path.to_str().unwrap());
        } else if inside && line.starts_with("Rss:") {
            sum += line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        }
    }
    sum
}

#[test]
fn opening_two_gibibytes_touches_no_table() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let store = sparse_store(&dir, 4 << 20);
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            let snapshot = store.snapshot(&OpenOptions::default()).unwrap();
            let took = start.elapsed();
            assert!(resident(&dir) < 64 * 4, "{} KiB are resident", resident(&dir));
            drop(snapshot);
            took
        })
        .min()
        .unwrap();
    assert!(best < Duration::from_millis(20), "opening took {best:?}");
    let snapshot = store.snapshot(&OpenOptions::default()).unwrap();
    let table = snapshot.f32s("table").unwrap();
    assert_eq!(table.len(), 4 << 27);
    assert_eq!(table.last(), Some(&1.5));
    let far: f32 = table.iter().step_by(1 << 20).sum();
    assert_eq!(far, 0.0);
    assert!(resident(&dir) >= 64 * 4, "the measure sees pages that are touched");
}
