//! A model store: a directory of generations, one of which is current.

use super::format::{Current, FileKind, HEADER, LIVE, LIVE_BEFORE, LIVE_JOURNAL, LIVE_SIDES, corrupt};
use super::fsio::{Disk, RealDisk, WriteError, read_exact, write_replacing};
use super::generation::GenerationId;
use super::segment;
use crate::error::{Error, ErrorKind, Result, err};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) const GENERATIONS: &str = "generations";
pub(super) const SEGMENTS: &str = "segments";
const CURRENT: &str = "CURRENT";
const LOCK: &str = "LOCK";

/// A directory that holds generations. Cheap to clone; holds no lock and no open file.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
    disk: Arc<dyn Disk>,
}

/// A process, told from the copies of itself that a fork makes: what they share by accident is the first one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process(u32);

impl Process {
    /// The one that asks.
    pub(super) fn this() -> Self {
        Self(std::process::id())
    }

    /// Its number.
    pub(super) fn id(self) -> u32 {
        self.0
    }

    /// Whether it is the one that asks.
    pub(super) fn is_this(self) -> bool {
        self == Self::this()
    }
}

/// The right to write to a store.
#[derive(Debug)]
pub(super) struct Lock(File, Process);

impl Lock {
    /// Whether this process took it.
    pub(super) fn is_ours(&self) -> bool {
        self.1.is_this()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // After a fork both have the same lock, and the first process needs it.
        if !self.1.is_this() {
            return;
        }
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
            let live = [LIVE, LIVE_JOURNAL].into_iter().chain(LIVE_SIDES).chain(LIVE_BEFORE);
            let ours: Vec<&str> = [GENERATIONS, SEGMENTS, LOCK, "CURRENT.tmp"].into_iter().chain(live).collect();
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

    pub(super) fn sync_part(&self, part: &str) -> Result<()> {
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
    pub(super) fn sweep(&self) -> Result<()> {
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

    pub(super) fn lock(&self) -> Result<Lock> {
        let path = self.path.join(LOCK);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Error::io("cannot open", &path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file, Process::this())),
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
