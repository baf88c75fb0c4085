//! A model store: a directory of generations, one of which is current.

use super::format::{Current, FileKind, HEADER, corrupt};
use super::fsio::{Disk, RealDisk, read_exact};
use super::generation::{GenerationId, GenerationInfo, VerifyReport};
use super::live::{FRESH, LIVE};
use super::manifest::{self, Manifest, RunFile};
use super::publish::{Publisher, WriteError, check_segment_file, write_replacing};
use super::segment;
use super::snapshot::{OpenOptions, Snapshot, Verify};
use crate::error::{Error, ErrorKind, Result, err};
use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const GENERATIONS: &str = "generations";
const SEGMENTS: &str = "segments";
const CURRENT: &str = "CURRENT";
const LOCK: &str = "LOCK";

/// A directory that holds generations. Cheap to clone; holds no lock and no open file.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
    disk: Arc<dyn Disk>,
}

/// The right to write to a store.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that the host is just starting has it open until it executes.
        // Should this fail, the lock ends with the last of these files.
        let _ = self.0.unlock();
    }
}

impl Store {
    /// Opens the store at `path`, or makes an empty one there (the directory too, not its parents).
    ///
    /// # Errors
    /// `InvalidArgument` where `path` is a directory with other content; `Locked` where another process is making or
    /// writing it; input and output errors.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::create_on(path.as_ref(), Arc::new(RealDisk))
    }

    /// Opens the store at `path`.
    ///
    /// # Errors
    /// `NotFound` where there is nothing; `NotDocent` where there is something else; `Corrupt` and `UpgradeRequired`
    /// where its CURRENT file cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let store = Self { path: path.as_ref().to_path_buf(), disk: Arc::new(RealDisk) };
        store.check_directory()?;
        match store.read_current() {
            Err(e) if e.kind() != ErrorKind::Corrupt => Err(e),
            // A damaged CURRENT is reported by whoever needs it, so that `rollback` can repair it.
            _ => Ok(store),
        }
    }

    pub(super) fn create_on(path: &Path, disk: Arc<dyn Disk>) -> Result<Self> {
        let store = Self { path: path.to_path_buf(), disk };
        match store.disk.create_dir(path) {
            Ok(()) => {
                let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                store.disk.sync_dir(parent).map_err(|e| Error::io("cannot sync", parent, e))?;
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(e) => return Err(Error::io("cannot make the store", path, e)),
        }
        if !store.looks_like_a_store() {
            // What a crash in the middle of this function leaves is taken up again; anything else is not ours.
            let list = |p: &Path| store.disk.list(p).map_err(|e| Error::io("cannot list", p, e));
            let ours = [GENERATIONS, SEGMENTS, LOCK, "CURRENT.tmp", LIVE, FRESH];
            if let Some(foreign) = list(path)?.into_iter().find(|name| !ours.contains(&name.as_str())) {
                return Err(err!(
                    InvalidArgument,
                    "{} is not a store and not empty (it has {foreign:?}); name a new directory",
                    path.display()
                ));
            }
            let _lock = store.lock()?;
            if !path.join(CURRENT).exists() {
                for part in [GENERATIONS, SEGMENTS] {
                    let part = path.join(part);
                    match store.disk.create_dir(&part) {
                        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                            return Err(Error::io("cannot make", &part, e));
                        }
                        _ => store.disk.sync_dir(&part).map_err(|e| Error::io("cannot sync", &part, e))?,
                    }
                }
                store.sweep()?;
                // The folders must be on disk before the CURRENT file that makes this a store.
                store.disk.sync_dir(path).map_err(|e| Error::io("cannot sync", path, e))?;
                store.write_current(&Current::EMPTY)?;
            }
        }
        store.check_directory()?;
        store.read_current()?;
        Ok(store)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The generation being served; `None` before the first one.
    ///
    /// # Errors
    /// `Corrupt` where CURRENT is damaged.
    pub fn current(&self) -> Result<Option<GenerationId>> {
        Ok(Some(GenerationId(self.read_current()?.generation)).filter(|id| id.0 > 0))
    }

    /// All generations, oldest first. One that cannot be read is listed with its problem.
    ///
    /// # Errors
    /// Input and output errors on the directory; `Corrupt` where CURRENT is damaged.
    pub fn generations(&self) -> Result<Vec<GenerationInfo>> {
        let current = self.current()?;
        let describe = |id| {
            let mut info = GenerationInfo {
                id,
                created_ms: 0,
                bytes: 0,
                validation: Vec::new(),
                current: current == Some(id),
                problem: None,
            };
            if let Err(e) = self.describe(&mut info) {
                info.problem = Some(e.message().to_owned());
            }
            info
        };
        Ok(self.ids()?.into_iter().map(describe).collect())
    }

    fn describe(&self, info: &mut GenerationInfo) -> Result<()> {
        let path = self.manifest_path(info.id);
        let decoded = manifest::read::<Manifest>(&*self.disk, &path)?;
        decoded.value.check(&path)?;
        info.validation = decoded.value.content.training.validation;
        let hashes: BTreeSet<[u8; 32]> = decoded.value.sections.iter().map(|s| s.hash).collect();
        let run_path = self.run_path(info.id);
        info.bytes = decoded.file.len() as u64;
        for file in hashes.iter().map(|hash| self.segment_path(hash)).chain([run_path.clone()]) {
            info.bytes += fs::metadata(&file).map_err(|e| Error::io("cannot read", &file, e))?.len();
        }
        info.created_ms = manifest::read::<RunFile>(&*self.disk, &run_path)?.value.run.created_ms;
        Ok(())
    }

    /// Opens a generation for reading.
    ///
    /// # Errors
    /// `NotFound` where nothing is published or the generation does not exist; `Corrupt`, `UpgradeRequired` where its
    /// files are damaged or too new; input and output errors.
    pub fn snapshot(&self, options: &OpenOptions) -> Result<Snapshot> {
        if let Some(id) = options.generation {
            return Snapshot::open(self, id, None, options);
        }
        let mut current = self.read_current()?;
        loop {
            if current.generation == 0 {
                return Err(err!(NotFound, "store {} has no generation yet; publish one", self.path.display()));
            }
            let opened = Snapshot::open(self, GenerationId(current.generation), Some(current.manifest), options);
            let Err(failure) = opened else { return opened };
            // Between reading CURRENT and opening its files, others may have published and pruned.
            let now = self.read_current()?;
            if now == current {
                return Err(failure);
            }
            current = now;
        }
    }

    /// Makes an older generation current again: `to`, or the one before the current one. It is checked in full first.
    /// Also repairs a damaged CURRENT, if `to` is given.
    ///
    /// # Errors
    /// `NotFound` where there is none to go back to; `Corrupt` where it is damaged; `Locked` where somebody publishes.
    pub fn rollback(&self, to: Option<GenerationId>) -> Result<GenerationId> {
        let _lock = self.lock()?;
        let ids = self.ids()?;
        let (target, last) = match (to, self.read_current()) {
            (Some(id), Ok(current)) => (id, current.last),
            (Some(id), Err(e)) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => (id, 0),
            (None, Ok(current)) => {
                let before = ids.iter().rev().find(|id| id.0 < current.generation);
                let id = before.ok_or_else(|| {
                    err!(
                        NotFound,
                        "store {} has no generation before {}; list its generations",
                        self.path.display(),
                        current.generation
                    )
                })?;
                (*id, current.last)
            }
            (_, Err(e)) => return Err(e),
        };
        let options = OpenOptions { verify: Verify::Full, ..OpenOptions::default() };
        Snapshot::open(self, target, None, &options)?;
        let manifest = manifest::read::<Manifest>(&*self.disk, &self.manifest_path(target))?.checksum;
        let last = ids.iter().map(|id| id.0).fold(last, u64::max);
        let start = manifest.first_chunk().copied().unwrap_or_default();
        self.write_current(&Current { generation: target.0, last, manifest: start })?;
        Ok(target)
    }

    /// Removes all but the newest `keep` generations, never the current one, and the segments that no generation needs
    /// any more. Snapshots that are open keep what they mapped. Gives the generations removed, oldest first.
    ///
    /// # Errors
    /// `Locked` where somebody publishes; `Corrupt` where a manifest that stays cannot be read (nothing is removed
    /// then, because its segments are not known).
    pub fn prune(&self, keep: usize) -> Result<Vec<GenerationId>> {
        let _lock = self.lock()?;
        self.sweep()?;
        let current = self.read_current()?;
        let ids = self.ids()?;
        let (old, new) = ids.split_at_checked(ids.len().saturating_sub(keep)).unwrap_or((&ids, &[]));
        let (gone, spared): (Vec<_>, Vec<_>) = old.iter().copied().partition(|id| id.0 != current.generation);
        let mut needed = BTreeSet::new();
        for id in spared.iter().chain(new) {
            let manifest = manifest::read::<Manifest>(&*self.disk, &self.manifest_path(*id))?.value;
            needed.extend(manifest.sections.iter().map(|s| segment::file_name(&s.hash)));
        }
        let last = ids.iter().map(|id| id.0).fold(current.last, u64::max);
        if last > current.last && current.generation > 0 {
            self.write_current(&Current { last, ..current })?;
        }
        let remove = |path: PathBuf| match self.disk.remove(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("cannot remove", &path, e)),
            _ => Ok(()),
        };
        for id in &gone {
            remove(self.manifest_path(*id))?;
        }
        // A manifest must be gone for good before what it needs.
        self.sync_part(GENERATIONS)?;
        let generations = self.path.join(GENERATIONS);
        let kept: BTreeSet<String> = spared.iter().chain(new).map(|id| id.run_name()).collect();
        for name in self.disk.list(&generations).map_err(|e| Error::io("cannot list", &generations, e))? {
            if name.ends_with(".run") && !kept.contains(&name) {
                remove(generations.join(name))?;
            }
        }
        let segments = self.path.join(SEGMENTS);
        for name in self.disk.list(&segments).map_err(|e| Error::io("cannot list", &segments, e))? {
            if name.ends_with(".segment") && !needed.contains(&name) {
                remove(segments.join(name))?;
            }
        }
        self.sync_part(SEGMENTS)?;
        self.sync_part(GENERATIONS)?;
        Ok(gone)
    }

    /// Takes the store for writing. Only one publisher exists at a time, over all processes.
    ///
    /// # Errors
    /// `Locked`, at once, where there is another one; `PermissionDenied` where the directory cannot be written.
    pub fn publisher(&self) -> Result<Publisher> {
        let lock = self.lock()?;
        self.sweep()?;
        self.read_current()?;
        Ok(Publisher::new(self.clone(), lock))
    }

    /// Checks every byte of a generation (the current one, if none is given) through plain reads.
    ///
    /// # Errors
    /// `NotFound` where there is no such generation. What is damaged is in the report and not an error.
    pub fn verify(&self, generation: Option<GenerationId>) -> Result<VerifyReport> {
        let mut report = VerifyReport { ok: false, generation, bytes: 0, sections: 0, problems: Vec::new() };
        match self.verify_into(&mut report) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound) => return Err(e),
            Err(e) => report.problems.push(e.message().to_owned()),
            Ok(()) => {}
        }
        report.ok = report.problems.is_empty();
        Ok(report)
    }

    fn verify_into(&self, report: &mut VerifyReport) -> Result<()> {
        let current = self.read_current();
        let id = match (report.generation, &current) {
            (Some(id), _) => id,
            (None, Ok(c)) if c.generation > 0 => GenerationId(c.generation),
            (None, Ok(_)) => {
                return Err(err!(NotFound, "store {} has no generation yet; publish one", self.path.display()));
            }
            (None, Err(_)) => return current.map(|_| ()),
        };
        report.generation = Some(id);
        let path = self.manifest_path(id);
        let decoded = manifest::read::<Manifest>(&*self.disk, &path)?;
        report.bytes += decoded.file.len() as u64;
        decoded.value.check(&path)?;
        report.sections = decoded.value.sections.len() as u64;
        match current {
            Ok(c) if c.generation == id.0 && !decoded.checksum.starts_with(&c.manifest) => {
                let what = "it is not the one that CURRENT was written for";
                report.problems.push(corrupt(FileKind::Manifest, &path, what).message().to_owned());
            }
            Err(e) => report.problems.push(e.message().to_owned()),
            Ok(_) => {}
        }
        let run_path = self.run_path(id);
        match manifest::read::<RunFile>(&*self.disk, &run_path) {
            Ok(run) => {
                report.bytes += run.file.len() as u64;
                if run.value.generation != id.0 || run.value.manifest != decoded.checksum {
                    let what = "it belongs to another manifest";
                    report.problems.push(corrupt(FileKind::Run, &run_path, what).message().to_owned());
                }
            }
            Err(e) => report.problems.push(e.message().to_owned()),
        }
        let mut seen = BTreeSet::new();
        for section in &decoded.value.sections {
            if !seen.insert((section.hash, section.bytes)) {
                continue;
            }
            match check_segment_file(&*self.disk, &self.segment_path(&section.hash), section.bytes, &section.hash) {
                Ok(checked) => {
                    report.bytes += checked.bytes;
                    let name = &section.name;
                    report.problems.extend(checked.problems.iter().map(|p| format!("section {name}: {p}")));
                }
                Err(e) => report.problems.push(format!("section {}: {}", section.name, e.message())),
            }
        }
        Ok(())
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(super) fn manifest_path(&self, id: GenerationId) -> PathBuf {
        self.path.join(GENERATIONS).join(id.manifest_name())
    }

    pub(super) fn run_path(&self, id: GenerationId) -> PathBuf {
        self.path.join(GENERATIONS).join(id.run_name())
    }

    pub(super) fn segment_path(&self, hash: &[u8; 32]) -> PathBuf {
        self.path.join(SEGMENTS).join(segment::file_name(hash))
    }

    pub(super) fn sync_generations(&self) -> Result<()> {
        self.sync_part(GENERATIONS)
    }

    pub(super) fn sync_segments(&self) -> Result<()> {
        self.sync_part(SEGMENTS)
    }

    fn sync_part(&self, part: &str) -> Result<()> {
        let path = self.path.join(part);
        self.disk.sync_dir(&path).map_err(|e| Error::io("cannot sync", &path, e))
    }

    /// The numbers of all manifests, ascending.
    pub(super) fn ids(&self) -> Result<Vec<GenerationId>> {
        let path = self.path.join(GENERATIONS);
        let names = self.disk.list(&path).map_err(|e| Error::io("cannot list", &path, e))?;
        let mut ids: Vec<_> = names.iter().filter_map(|name| GenerationId::from_manifest_name(name)).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    pub(super) fn read_current(&self) -> Result<Current> {
        let path = self.path.join(CURRENT);
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => corrupt(FileKind::Current, &path, "it is missing"),
            _ => Error::io("cannot read", &path, e),
        };
        let file = self.disk.open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut bytes = vec![0; length.min(HEADER as u64 + 1) as usize];
        read_exact(&*self.disk, &file, &mut bytes, 0).map_err(failed)?;
        Current::decode(&path, &bytes)
    }

    /// Replaces CURRENT: the step at which a generation becomes the one being served.
    pub(super) fn write_current(&self, current: &Current) -> Result<(), WriteError> {
        let path = self.path.join(CURRENT);
        write_replacing(&*self.disk, &path, &current.encode())?;
        self.disk
            .sync_dir(&self.path)
            .map_err(|e| WriteError { error: Error::io("cannot sync", &self.path, e), sync: true })
    }

    /// Removes what interrupted writers left under temporary names. Only under the lock.
    fn sweep(&self) -> Result<()> {
        for directory in [self.path.clone(), self.path.join(GENERATIONS), self.path.join(SEGMENTS)] {
            for name in self.disk.list(&directory).map_err(|e| Error::io("cannot list", &directory, e))? {
                let path = directory.join(&name);
                if name.ends_with(".tmp") {
                    self.disk.remove(&path).map_err(|e| Error::io("cannot remove", &path, e))?;
                }
            }
        }
        Ok(())
    }

    fn lock(&self) -> Result<Lock> {
        let path = self.path.join(LOCK);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Error::io("cannot open", &path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(TryLockError::WouldBlock) => Err(err!(
                Locked,
                "store {} is being written by another publisher; wait for it or stop it",
                self.path.display()
            )),
            Err(TryLockError::Error(e)) => Err(Error::io("cannot lock", &path, e)),
        }
    }

    fn looks_like_a_store(&self) -> bool {
        self.path.join(CURRENT).exists()
    }

    /// Tells nothing, something else, and a store apart.
    fn check_directory(&self) -> Result<()> {
        let path = &self.path;
        match fs::metadata(path) {
            Err(e) => return Err(Error::io("cannot open the store", path, e)),
            Ok(m) if !m.is_dir() => {
                return Err(err!(NotDocent, "{} is a file, a store is a directory; check the path", path.display()));
            }
            Ok(_) => {}
        }
        let parts = [GENERATIONS, SEGMENTS].iter().filter(|part| path.join(part).is_dir()).count();
        if parts == 2 || self.looks_like_a_store() {
            return Ok(());
        }
        Err(err!(
            NotDocent,
            "{} is not a docent store: it has no CURRENT file; check the path, or train into it first",
            path.display()
        ))
    }
}
