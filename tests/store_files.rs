//! What damaged, foreign and hostile files do to whoever opens them: a typed error, never a panic.

#[path = "fuzz/forge.rs"]
mod forge;
mod store_fixture;

use docent::store::{Dtype, LoadMode, OpenOptions, Store, Verify};
use docent::{Error, ErrorKind};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};
use store_fixture::*;

fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotDocent | ErrorKind::UpgradeRequired)
}

fn writable(path: &Path) -> File {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    File::options().write(true).open(path).unwrap()
}

fn open(path: &Path, options: &OpenOptions) -> docent::Result<u64> {
    Store::open(path)?.snapshot(options).map(|s| s.manifest().training.steps)
}

#[test]
fn every_section_comes_back_in_both_modes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    publish(&store, 1).unwrap();
    for load in [LoadMode::Map, LoadMode::Copy] {
        let snapshot = store.snapshot(&OpenOptions { load, prefault: true, ..full() }).unwrap();
        assert_eq!(number(&snapshot), 1);
        assert_eq!(snapshot.manifest(), &content(1));
        assert_eq!(snapshot.run(), &run_record());
        let vectors = snapshot.f32s("shared.vectors").unwrap();
        assert_eq!((vectors.len(), vectors[599], vectors.as_ptr() as usize % 64), (600, 149.75, 0));
        assert_eq!(snapshot.u32s("shared.empty").unwrap(), &[] as &[u32]);
        assert_eq!(snapshot.bytes("shared.bytes").unwrap(), b"first\0second!");
        assert_eq!(snapshot.i8s("shared.signed").unwrap(), &[-1, 0, 127]);
        assert_eq!(snapshot.i64s("shared.times").unwrap(), &[i64::MIN, 5]);
        assert_eq!(snapshot.u16s("shared.codes").unwrap(), &[1, 2, 3, 4, 5]);
        assert_eq!(snapshot.bits16("shared.half").unwrap(), &[0x3c00, 0xc000]);
        assert_eq!(snapshot.section("shared.half").unwrap().dtype, Dtype::F16);
        assert_eq!(snapshot.shape("shared.vectors").unwrap(), [60, 10]);
        assert!(snapshot.has("own") && !snapshot.has("other"));
        assert!(snapshot.section_names().is_sorted() && snapshot.section_names().len() == 8);
        assert_eq!(snapshot.f32s("other").unwrap_err().kind(), ErrorKind::NotFound);
        let wrong = snapshot.u32s("shared.vectors").unwrap_err();
        assert!(wrong.kind() == ErrorKind::Corrupt && wrong.message().contains("holds f32, not u32"), "{wrong}");
    }
    let report = store.verify(None).unwrap();
    let bytes: u64 = files(dir.path()).iter().skip(1).map(|f| fs::metadata(f).unwrap().len()).sum();
    assert_eq!((report.ok, report.sections, report.bytes), (true, 8, bytes));
    assert_eq!(store.generations().unwrap()[0].bytes, bytes);
}

#[test]
fn every_flipped_byte_is_found() {
    let dir = tempfile::tempdir().unwrap();
    publish(&Store::create(dir.path()).unwrap(), 1).unwrap();
    for path in files(dir.path()) {
        let original = fs::read(&path).unwrap();
        let file = writable(&path);
        let segment = path.extension().is_some_and(|e| e == "segment");
        for (at, byte) in original.iter().enumerate() {
            for pattern in [0x01, 0x80, 0xff] {
                file.write_all_at(&[byte ^ pattern], at as u64).unwrap();
                let error = open(dir.path(), &full()).expect_err(&format!("{path:?} byte {at}"));
                assert!(is_damage(&error), "{path:?} byte {at}: {error:?}");
                if !segment || at < 64 {
                    let error = open(dir.path(), &OpenOptions::default()).expect_err(&format!("{path:?} byte {at}"));
                    assert!(is_damage(&error), "{path:?} byte {at}: {error:?}");
                }
            }
            if at % 97 == 0 {
                let report = Store::open(dir.path()).and_then(|s| s.verify(None));
                assert!(report.map_or_else(|e| is_damage(&e), |r| !r.ok), "{path:?} byte {at}");
            }
            file.write_all_at(&[*byte], at as u64).unwrap();
        }
    }
    open(dir.path(), &full()).expect("all bytes were put back");
}

#[test]
fn padding_and_blocks_of_a_large_section_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let mut publisher = store.publisher().unwrap();
    let payload: Vec<u8> = (0..(2 << 20) + 3u32).map(|i| (i % 251) as u8).collect();
    publisher.slice("large", &[payload.len() as u64], &payload).unwrap();
    publisher.publish(&content(1), &run_record()).unwrap();
    drop(publisher);
    let snapshot = store.snapshot(&full()).unwrap();
    assert_eq!(snapshot.bytes("large").unwrap(), payload);
    assert_eq!(snapshot.bytes("large").unwrap().as_ptr() as usize % 4096, 0);
    let hex: String = snapshot.sha256("large").unwrap().iter().map(|b| format!("{b:02x}")).collect();
    drop(snapshot);
    assert_eq!(hex.len(), 64);

    let path = files(dir.path()).into_iter().find(|f| f.extension().is_some_and(|e| e == "segment")).unwrap();
    let original = fs::read(&path).unwrap();
    let file = writable(&path);
    let end = original.len();
    let header_padding_payload = (0..4300).step_by(13);
    let blocks = [4096 + (1 << 20) - 1, 4096 + (1 << 20), 4096 + (2 << 20) - 1, 4096 + (2 << 20)];
    for at in header_padding_payload.chain(blocks).chain(end - 192..end) {
        file.write_all_at(&[original[at] ^ 0x10], at as u64).unwrap();
        let error = open(dir.path(), &full()).expect_err(&format!("byte {at}"));
        assert!(is_damage(&error), "byte {at}: {error:?}");
        file.write_all_at(&[original[at]], at as u64).unwrap();
    }
    open(dir.path(), &full()).expect("all bytes were put back");
}

#[test]
fn every_other_length_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    publish(&Store::create(dir.path()).unwrap(), 1).unwrap();
    for path in files(dir.path()) {
        let original = fs::read(&path).unwrap();
        let file = writable(&path);
        let extensions = (1..80).chain([127, 512, 4095, 4096]).map(|more| original.len() + more);
        for length in (0..original.len()).rev().chain(extensions) {
            file.set_len(length as u64).unwrap();
            let error = open(dir.path(), &OpenOptions::default()).expect_err(&format!("{path:?} with {length} bytes"));
            assert!(is_damage(&error), "{path:?} with {length} bytes: {error:?}");
        }
        file.set_len(0).unwrap();
        file.write_all_at(&original, 0).unwrap();
        open(dir.path(), &full()).unwrap();
    }
}

/// Each file of `tests/attacks` takes the place of the file of its kind; its name says what the error must say.
#[test]
fn attacks_are_refused() {
    let attacks = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks");
    let mut seen = 0;
    for entry in fs::read_dir(attacks).unwrap() {
        let attack = entry.unwrap().path();
        let (Some(stem), Some(extension)) = (attack.file_stem(), attack.extension()) else { continue };
        if extension == "md" {
            continue;
        }
        let stem = stem.to_str().unwrap();
        let (kind, says) = match stem.split_once('-').unwrap().0 {
            "foreign" => (ErrorKind::NotDocent, "first bytes are foreign"),
            "text" => (ErrorKind::Corrupt, "text mode"),
            "future" => (ErrorKind::UpgradeRequired, "this build reads up to"),
            "version0" => (ErrorKind::Corrupt, "version is 0"),
            "order" => (ErrorKind::Corrupt, "byte-order"),
            "empty" => (ErrorKind::Corrupt, "is empty"),
            "kind" => (ErrorKind::Corrupt, "it is a "),
            "layout" => (ErrorKind::Corrupt, "checksum does not match"),
            "header" => (ErrorKind::Corrupt, "header is damaged"),
            other => panic!("{other} is not described in README.md"),
        };
        let dir = tempfile::tempdir().unwrap();
        publish(&Store::create(dir.path()).unwrap(), 1).unwrap();
        let target = match extension.to_str().unwrap() {
            "current" => dir.path().join("CURRENT"),
            kind => files(dir.path()).into_iter().find(|f| f.extension().is_some_and(|e| e == kind)).unwrap(),
        };
        fs::remove_file(&target).unwrap();
        fs::copy(&attack, &target).unwrap();
        let error = open(dir.path(), &OpenOptions::default()).expect_err(stem);
        assert_eq!(error.kind(), kind, "{stem}: {error}");
        assert!(error.message().contains(says), "{stem}: {error}");
        seen += 1;
    }
    assert!(seen >= 12, "only {seen} attacks were found");
}

#[test]
fn what_is_not_a_store_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let kind = |p: &Path| Store::open(p).unwrap_err().kind();
    assert_eq!(kind(&dir.path().join("nothing")), ErrorKind::NotFound);
    assert_eq!(kind(dir.path()), ErrorKind::NotDocent);
    let file = dir.path().join("file");
    fs::write(&file, "hello").unwrap();
    assert_eq!(kind(&file), ErrorKind::NotDocent);
    assert_eq!(Store::create(dir.path()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(Store::create(&file).is_err());
    assert_eq!(Store::create(dir.path().join("a/b")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a refused directory is left as it was");

    let store = Store::create(dir.path().join("store")).unwrap();
    assert_eq!(store.current().unwrap(), None);
    assert_eq!(store.snapshot(&OpenOptions::default()).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.verify(None).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.rollback(None).unwrap_err().kind(), ErrorKind::NotFound);
    publish(&store, 1).unwrap();
    assert_eq!(Store::create(store.path()).unwrap().current().unwrap(), store.current().unwrap());
    let absent = OpenOptions { generation: Some("9".parse().unwrap()), ..OpenOptions::default() };
    assert_eq!(store.snapshot(&absent).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_directory_or_a_pipe_in_place_of_a_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    publish(&Store::create(dir.path()).unwrap(), 1).unwrap();
    for path in files(dir.path()) {
        let aside = path.with_extension("aside");
        fs::rename(&path, &aside).unwrap();
        assert!(open(dir.path(), &OpenOptions::default()).is_err(), "{path:?} is missing");
        fs::create_dir(&path).unwrap();
        assert!(open(dir.path(), &OpenOptions::default()).is_err(), "{path:?} is a directory");
        fs::remove_dir(&path).unwrap();
        if std::process::Command::new("mkfifo").arg(&path).status().is_ok_and(|s| s.success()) {
            let start = Instant::now();
            assert!(open(dir.path(), &OpenOptions::default()).is_err(), "{path:?} is a pipe");
            assert!(start.elapsed() < Duration::from_secs(1));
            fs::remove_file(&path).unwrap();
        }
        fs::rename(&aside, &path).unwrap();
    }
    open(dir.path(), &full()).unwrap();
}

#[test]
fn a_pinned_manifest_is_compared() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    publish(&store, 1).unwrap();
    let pin = store.snapshot(&full()).unwrap().manifest_sha256();
    let pinned = OpenOptions { manifest_sha256: Some(pin), ..full() };
    store.snapshot(&pinned).unwrap();
    publish(&store, 2).unwrap();
    assert_eq!(store.snapshot(&pinned).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_manifest_changed_after_opening_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    publish(&store, 1).unwrap();
    let snapshot = store.snapshot(&OpenOptions::default()).unwrap();
    for path in files(dir.path()).iter().filter(|p| p.extension().is_some_and(|e| e != "segment")) {
        let length = fs::metadata(path).unwrap().len() as usize;
        writable(path).write_all_at(&vec![0xee; length], 0).unwrap();
    }
    assert_eq!(snapshot.manifest(), &content(1));
    assert_eq!(snapshot.run(), &run_record());
    assert_eq!(number(&snapshot), 1);
    assert!(store.snapshot(&OpenOptions { generation: Some(snapshot.generation()), ..full() }).is_err());
}

/// What builds wrote before version 1 was settled had a number where there is 0 now.
#[test]
fn a_store_from_before_the_first_release_says_to_train_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    publish(&store, 1).unwrap();
    let path = dir.path().join("generations/00000001.manifest");
    let mut bytes = fs::read(&path).unwrap();
    bytes[16..20].copy_from_slice(&608u32.to_le_bytes());
    forge::archive(&mut bytes);
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    let error = open(dir.path(), &OpenOptions::default()).unwrap_err();
    assert!(error.kind() == ErrorKind::UpgradeRequired && error.message().contains("train again"), "{error}");
    assert!(store.generations().unwrap()[0].problem.as_ref().unwrap().contains("train again"));
    // The next generation is readable, and the old one goes when it is pruned.
    publish(&store, 2).unwrap();
    assert_eq!(open(dir.path(), &OpenOptions::default()).unwrap(), 2);
    assert_eq!(store.prune(1).unwrap().len(), 1);
}

/// As a batch adaptation does, which publishes what the generation before says of itself.
#[test]
fn informative_options_of_a_later_version_survive_being_published_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let mut later = content(1);
    later.kept.insert("train.colour".into(), "red".into());
    let mut publisher = store.publisher().unwrap();
    publisher.publish(&later, &run_record()).unwrap();
    let first = store.snapshot(&full()).unwrap().manifest().clone();
    publisher.publish(&first, &run_record()).unwrap();
    let second = store.snapshot(&full()).unwrap().manifest().clone();
    assert!(first == later && second == later, "{second:?}");
}

#[test]
fn verify_names_everything_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    publish(&store, 1).unwrap();
    let segments: Vec<_> =
        files(dir.path()).into_iter().filter(|f| f.extension().is_some_and(|e| e == "segment")).collect();
    fs::remove_file(&segments[0]).unwrap();
    writable(&segments[1]).write_all_at(&[0xaa; 3], 70).unwrap();
    let report = store.verify(None).unwrap();
    assert!(!report.ok && report.problems.len() == 2, "{:?}", report.problems);
    assert!(report.problems.iter().any(|p| p.contains("missing")));
    assert!(store.snapshot(&OpenOptions { verify: Verify::Full, ..OpenOptions::default() }).is_err());
    // Publishing the same sections again heals them.
    publish(&store, 1).unwrap();
    assert!(store.verify(None).unwrap().ok);
    assert!(store.verify(Some("1".parse().unwrap())).unwrap().ok);
}
