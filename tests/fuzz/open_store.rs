//! A store whose manifest and segments say something else under checksums that are right: opened, then asked.

use super::checks::{ask, sound};
use super::forge;
use super::golden;
use super::script::{Script, put};
use docent::serve::{Engine, EngineOptions};
use docent::store::{GenerationId, LoadMode, OpenOptions, Store, Verify};
use std::fs;
use std::path::{Path, PathBuf};

/// Steps that are taken, so that no input takes long.
const STEPS: usize = 64;
/// Longest payload that a section is given.
const LONGEST: u64 = 64 << 10;

/// A section as it was published.
struct Section {
    payload: Vec<u8>,
    /// Bytes of an element.
    width: u64,
    /// Where its root hash stands in the manifest. Its length is in the 8 bytes before.
    hash: usize,
    /// Where its first dimension stands in the manifest, and the product of the others.
    shape: Option<(usize, u64)>,
}

/// A store that was published, and lies in a folder where its files can be replaced.
struct Base {
    path: PathBuf,
    generation: u64,
    current: Vec<u8>,
    manifest: Vec<u8>,
    run: Vec<u8>,
    sections: Vec<Section>,
}

thread_local! {
    static BASES: (tempfile::TempDir, [Base; 2]) = {
        let folder = tempfile::tempdir().unwrap();
        let bases = golden::STORES.map(|(name, generation)| Base::new(golden::copy(name, folder.path()), generation));
        (folder, bases)
    };
}

/// What `bytes` say becomes of a store.
pub fn open_store(bytes: &[u8]) {
    BASES.with(|(_, bases)| run(&mut Script::new(bytes), bases));
}

fn run(script: &mut Script<'_>, bases: &[Base; 2]) {
    let flags = script.byte();
    let base = &bases[usize::from(flags & 1)];
    let options = EngineOptions {
        verify: if flags & 2 == 0 { Verify::Header } else { Verify::Full },
        load: if flags & 4 == 0 { LoadMode::Map } else { LoadMode::Copy },
        prefault: flags & 8 != 0,
        ..EngineOptions::default()
    };
    let (mut manifest, mut run) = (base.manifest.clone(), base.run.clone());
    let mut payloads: Vec<Option<Vec<u8>>> = base.sections.iter().map(|_| None).collect();
    for _ in 0..STEPS {
        if script.is_done() {
            break;
        }
        let kind = script.byte();
        let which = script.below(base.sections.len());
        let section = &base.sections[which];
        let mut payload = || payloads[which].take().unwrap_or_else(|| section.payload.clone());
        match kind % 8 {
            0 | 1 => script.edit(&mut manifest[forge::HEADER..]),
            2 => script.edit(&mut run[forge::HEADER..]),
            // Another length, of which the manifest knows.
            3 => {
                let (Some((at, others)), rows) = (section.shape, script.number()) else { continue };
                let bytes = rows.wrapping_mul(others).wrapping_mul(section.width);
                put(&mut manifest, at, &rows.to_le_bytes());
                put(&mut manifest, section.hash - 8, &bytes.to_le_bytes());
                if bytes <= LONGEST {
                    let mut payload = payload();
                    payload.resize(bytes as usize, script.byte());
                    payloads[which] = Some(payload);
                }
            }
            // Another length, of which it does not.
            4 => {
                let mut payload = payload();
                payload.resize(script.below(LONGEST as usize), script.byte());
                payloads[which] = Some(payload);
            }
            _ => {
                let mut payload = payload();
                script.edit(&mut payload);
                payloads[which] = Some(payload);
            }
        }
    }
    let written = base.install(&mut manifest, &mut run, &payloads);
    if let Some(engine) = sound(Engine::open(&base.path, &options)) {
        if options.verify == Verify::Full {
            let report = Store::open(&base.path).and_then(|store| store.verify(None)).unwrap();
            assert!(report.ok, "it opened under Verify::Full, and then: {:?}", report.problems);
        }
        ask(&engine, &["p0001", "p0002", "a stranger"]);
    }
    written.iter().for_each(|path| fs::remove_file(path).unwrap());
}

impl Base {
    fn new(path: PathBuf, generation: u64) -> Self {
        let read = |path: PathBuf| fs::read(path).unwrap();
        let manifest = read(path.join(format!("generations/{generation:08}.manifest")));
        let options = OpenOptions { generation: Some(GenerationId(generation)), ..OpenOptions::default() };
        let snapshot = Store::open(&path).unwrap().snapshot(&options).unwrap();
        let mut behind = 0;
        let sections = snapshot.sections().map(|info| {
            // They stand in their order.
            let found = manifest[behind..].windows(32).position(|hash| hash == info.hash).expect("its hash is there");
            let hash = behind + found;
            behind = hash + 32;
            assert_eq!(manifest[hash - 8..hash], info.bytes.to_le_bytes(), "its length stands before its hash");
            let payload = read(segment_path(&path, &info.hash))[forge::HEADER..][..info.bytes as usize].to_vec();
            assert_eq!(forge::segment(&payload).1, info.hash, "the forged hash is that of the library");
            // The shape is a pointer, relative to its own place, and a length; then padding up to 8 bytes.
            let pointer = hash - 20;
            let relative = i32::from_le_bytes(*manifest[pointer..].first_chunk().unwrap());
            let at = (pointer as i64 + i64::from(relative)) as usize;
            let shape = info.shape.first().map(|rows| {
                assert_eq!(manifest[at..at + 8], rows.to_le_bytes(), "its shape stands where it should");
                (at, info.shape[1..].iter().product())
            });
            Section { payload, width: info.dtype.size() as u64, hash, shape }
        });
        let sections = sections.collect();
        let run = read(path.join(format!("generations/{generation:08}.run")));
        let current = read(path.join("CURRENT"));
        Self { path, generation, current, manifest, run, sections }
    }

    /// Puts the files in place with checksums that are right; gives the segments that there were not before.
    fn install(&self, manifest: &mut [u8], run: &mut [u8], payloads: &[Option<Vec<u8>>]) -> Vec<PathBuf> {
        let mut written = Vec::new();
        for (section, payload) in self.sections.iter().zip(payloads) {
            let Some(payload) = payload else { continue };
            let (file, hash) = forge::segment(payload);
            put(manifest, section.hash, &hash);
            let path = segment_path(&self.path, &hash);
            if !path.exists() {
                fs::write(&path, file).unwrap();
                written.push(path);
            }
        }
        let before = self.manifest[32..forge::HEADER].to_vec();
        let checksum = forge::archive(manifest);
        if let Some(at) = run.windows(32).position(|hash| hash == before) {
            put(run, at, &checksum);
        }
        forge::archive(run);
        let mut current = self.current.clone();
        forge::current(&mut current, &checksum);
        let generation = self.path.join(format!("generations/{:08}", self.generation));
        fs::write(generation.with_extension("manifest"), manifest).unwrap();
        fs::write(generation.with_extension("run"), run).unwrap();
        fs::write(self.path.join("CURRENT"), current).unwrap();
        written
    }
}

fn segment_path(store: &Path, hash: &[u8; 32]) -> PathBuf {
    let name: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    store.join("segments").join(name + ".segment")
}
