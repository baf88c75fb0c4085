//! Manifests that lie under valid checksums.

use super::disks::Failing;
use super::{create, publish, scratch};
use crate::random::Rng;
use crate::store::format::{Current, FileKind, HEADER, archive_header};
use crate::store::fsio::RealDisk;
use crate::store::manifest;
use crate::store::wire::v1::{Manifest, RunFile, Section};
use crate::store::{GenerationId, OpenOptions, RunRecord, Store, Verify};
use crate::{ErrorKind, Result};
use std::fs;
use std::path::Path;

/// Puts a manifest file in place as generation 1, with a run record and a CURRENT that fit it.
fn install(store: &Store, file: &[u8]) {
    let path = store.manifest_path(GenerationId(1));
    let _ = fs::remove_file(&path);
    fs::write(&path, file).unwrap();
    let checksum: [u8; 32] = *file[32..].first_chunk().unwrap();
    let run = RunFile { generation: 1, manifest: checksum, run: RunRecord::default().into() };
    let _ = fs::remove_file(store.run_path(GenerationId(1)));
    fs::write(store.run_path(GenerationId(1)), manifest::encode(&run).unwrap().bytes).unwrap();
    let manifest = *checksum.first_chunk().unwrap();
    assert!(store.write_current(&Current { generation: 1, last: 1, manifest }).is_ok());
}

fn open(store: &Store) -> Result<()> {
    store.snapshot(&OpenOptions { verify: Verify::Full, ..OpenOptions::default() }).map(|_| ())
}

fn honest(dir: &Path) -> (Store, Manifest) {
    let store = create(dir, Failing::default()).unwrap();
    publish(&store, 1).unwrap();
    let manifest = manifest::read::<Manifest>(&RealDisk, &store.manifest_path(GenerationId(1))).unwrap().value;
    (store, manifest)
}

#[test]
fn lies_under_valid_checksums_are_refused() {
    let dir = scratch();
    let (store, honest) = honest(dir.path());
    install(&store, &manifest::encode(&honest).unwrap().bytes);
    open(&store).expect("the honest manifest opens");

    type Lie = (&'static str, fn(&mut Vec<Section>));
    let lies: &[Lie] = &[
        ("must have", |s| s[0].shape = vec![31]),
        ("must have", |s| s[0].shape = vec![30, 2]),
        ("must have", |s| s[0].bytes -= 8),
        ("must have", |s| s[0].bytes = u64::MAX),
        ("must have", |s| s[0].dtype = 1),
        ("more bytes than can be addressed", |s| s[0].shape = vec![1 << 63]),
        ("more bytes than can be addressed", |s| s[0].shape = vec![1 << 32, 1 << 32]),
        ("more bytes than can be addressed", |s| s[0].shape = vec![u64::MAX, u64::MAX]),
        ("more than can be addressed", |s| (s[0].shape, s[0].bytes) = (vec![(1 << 60) - 1], (1 << 63) - 8)),
        ("unknown element type", |s| s[0].dtype = 0),
        ("unknown element type", |s| s[0].dtype = 200),
        ("dimensions, more than", |s| s[0].shape = vec![1; 9]),
        ("equal or out of order", |s| s[1].name = s[0].name.clone()),
        ("equal or out of order", |s| s.reverse()),
        ("section name", |s| s[0].name = String::new()),
        ("section name", |s| s[0].name = "../../etc/passwd".into()),
        ("section name", |s| s[0].name = "a\0b".into()),
        ("section name", |s| s[0].name = "A".into()),
        ("section name", |s| s[0].name = "a".repeat(201)),
        ("it is missing", |s| s[0].hash = [0; 32]),
        // The segment of another section: its header belongs to another length.
        ("another length", |s| s[0].hash = s[1].hash),
        ("another length", |s| (s[0].shape, s[0].bytes) = (vec![29], 29 * 8)),
        ("more than 4096", |s| *s = (0..4097).map(|i| Section { name: format!("{i:05}"), ..s[0].clone() }).collect()),
    ];
    for (number, (expected, lie)) in lies.iter().enumerate() {
        let mut manifest = honest.clone();
        lie(&mut manifest.sections);
        install(&store, &manifest::encode(&manifest).unwrap().bytes);
        let error = open(&store).expect_err(&format!("lie {number} ({expected})"));
        assert_eq!(error.kind(), ErrorKind::Corrupt, "lie {number}: {error}");
        assert!(error.message().contains(expected), "lie {number}: {error}");
        let report = store.verify(None).unwrap();
        assert!(!report.ok, "lie {number}");
    }
}

#[test]
fn a_run_record_or_a_manifest_of_another_generation_is_refused() {
    let dir = scratch();
    let (store, _) = honest(dir.path());
    publish(&store, 2).unwrap();
    let (one, two) = (GenerationId(1), GenerationId(2));
    let swap =
        |a: &Path, b: &Path| fs::copy(a, b.with_extension("x")).and_then(|_| fs::rename(b.with_extension("x"), b));
    let run = fs::read(store.run_path(two)).unwrap();
    swap(&store.run_path(one), &store.run_path(two)).unwrap();
    assert!(open(&store).unwrap_err().message().contains("another manifest"));
    fs::remove_file(store.run_path(two)).unwrap();
    assert!(open(&store).unwrap_err().message().contains("missing"));
    fs::write(store.run_path(two), run).unwrap();
    open(&store).unwrap();
    swap(&store.manifest_path(one), &store.manifest_path(two)).unwrap();
    assert!(open(&store).unwrap_err().message().contains("CURRENT was written for"));
}

#[test]
fn random_damage_to_an_archive_under_a_valid_checksum_never_panics() {
    let dir = scratch();
    let (store, honest) = honest(dir.path());
    let encoded = manifest::encode(&honest).unwrap().bytes;
    let mut random = Rng::new(7);
    let (mut opened, mut refused) = (0, 0);
    for round in 0..4000 {
        let mut archive = encoded[HEADER..].to_vec();
        for _ in 0..1 + round % 3 {
            let at = random.below(archive.len());
            archive[at] = match random.below(3) {
                0 => 0xff,
                1 => archive[at] ^ (1 << random.below(8)),
                _ => random.below(256) as u8,
            };
        }
        let (header, _) = archive_header(FileKind::Manifest, &archive);
        install(&store, &[&header[..], &archive].concat());
        match open(&store) {
            // Damage to a number that any value may have.
            Ok(()) => opened += 1,
            Err(e) => {
                // A changed word of an option may be one of a later version.
                assert!(matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Io | ErrorKind::UpgradeRequired), "{e:?}");
                refused += 1;
            }
        }
    }
    assert!(opened > 0 && refused > opened, "{opened} opened, {refused} refused");
}
