//! How a generation comes to be: every file is written under a temporary name, synced, read back, protected, renamed;
//! CURRENT is replaced last.

use super::directory::{Lock, Store};
use super::dtype::Dtype;
use super::format::{Current, FileKind, SegmentLayout, corrupt};
use super::fsio::{Disk, read_exact, temporary};
use super::generation::GenerationId;
use super::manifest::{self, Manifest, ManifestContent, RunFile, RunRecord, SECTION_CAP, SectionRecord, check_section};
use super::region::{Element, bytes_of};
use super::segment;
use super::snapshot::Snapshot;
use crate::error::{Error, Result, err};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The one writer of a store. Sections go to disk as they come; [`Publisher::publish`] makes them a generation. Dropped
/// before that, it leaves nothing behind.
#[derive(Debug)]
pub struct Publisher {
    store: Store,
    _lock: Lock,
    sections: BTreeMap<String, SectionRecord>,
    /// Files that no generation refers to yet.
    written: Vec<PathBuf>,
    poisoned: bool,
}

impl Publisher {
    pub(super) fn new(store: Store, lock: Lock) -> Self {
        Self { store, _lock: lock, sections: BTreeMap::new(), written: Vec::new(), poisoned: false }
    }

    /// Writes a section: `bytes` are `shape` elements of type `dtype`, little-endian, the last dimension fastest. A
    /// section that an earlier generation holds with the same bytes is shared with it and not written again.
    ///
    /// # Errors
    /// `InvalidArgument` where the name is used twice or is not made of `a-z 0-9 . _ -`, or where shape and length
    /// disagree; `NoSpace` and other output errors; `Poisoned` after a failed sync.
    pub fn section(&mut self, name: &str, dtype: Dtype, shape: &[u64], bytes: &[u8]) -> Result<()> {
        self.usable()?;
        let length = bytes.len() as u64;
        let (_, layout) = check_section(name, dtype.code(), shape, length)
            .map_err(|what| err!(InvalidArgument, "{what}; correct the call"))?;
        if self.sections.contains_key(name) {
            return Err(err!(InvalidArgument, "section {name} was written before; write each section once"));
        }
        if self.sections.len() >= SECTION_CAP {
            return Err(err!(InvalidArgument, "section {name} is one more than the {SECTION_CAP} of a generation"));
        }
        let hashes = segment::hashes(bytes);
        let path = self.store.segment_path(&hashes.root);
        let disk = self.store.disk();
        // A damaged file under this name is replaced: readers that mapped it keep the old one.
        let present = check_segment_file(disk, &path, length, &hashes.root).is_ok_and(|c| c.problems.is_empty());
        if !present {
            // One that is there already may belong to a generation, whatever is wrong with it: it stays if we give up.
            let fresh = fs::symlink_metadata(&path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
            let lead = layout.payload_offset.saturating_sub(64);
            let gap = layout.tail_offset.saturating_sub(layout.payload_offset).saturating_sub(length);
            let (lead, gap) = (vec![0; lead as usize], vec![0; gap as usize]);
            let written = write_new(disk, &path, &[&layout.header(), &lead, bytes, &gap, &hashes.tail], |temporary| {
                let checked = check_segment_file(disk, temporary, length, &hashes.root)?;
                checked.problems.into_iter().next().map_or(Ok(()), |p| Err(err!(Io, "after writing: {p}")))
            });
            self.note(written)?;
            if fresh {
                self.written.push(path);
            }
        }
        let record = SectionRecord {
            name: name.to_owned(),
            dtype: dtype.code(),
            shape: shape.to_vec(),
            bytes: length,
            hash: hashes.root,
        };
        self.sections.insert(name.to_owned(), record);
        Ok(())
    }

    /// Writes a section from a typed slice; see [`Publisher::section`].
    ///
    /// # Errors
    /// As [`Publisher::section`].
    pub fn slice<T: Element>(&mut self, name: &str, shape: &[u64], values: &[T]) -> Result<()> {
        self.section(name, T::DTYPE, shape, bytes_of(values))
    }

    /// The store's current generation; nobody else can change it while this publisher lives.
    ///
    /// # Errors
    /// `Corrupt` where CURRENT is damaged; input errors.
    pub fn current(&self) -> Result<Option<GenerationId>> {
        self.store.current()
    }

    /// Takes a section over from a generation of the same store, whose segment both share: nothing is written or read.
    ///
    /// # Errors
    /// `InvalidArgument` where the name is used twice; `NotFound` where the snapshot has no such section; `Corrupt` where its
    /// segment is missing or has another length.
    pub fn carry(&mut self, from: &Snapshot, name: &str) -> Result<()> {
        self.usable()?;
        let section = from.section(name)?;
        if self.sections.contains_key(name) {
            return Err(err!(InvalidArgument, "section {name} was written before; write each section once"));
        }
        let path = self.store.segment_path(&section.hash);
        let expected = SegmentLayout::of(section.bytes).map(|layout| layout.file);
        let found = fs::metadata(&path).map(|m| m.len()).ok();
        if found.is_none() || found != expected {
            return Err(corrupt(FileKind::Segment, &path, "it is missing or has another length"));
        }
        let record = SectionRecord {
            name: name.to_owned(),
            dtype: section.dtype.code(),
            shape: section.shape.clone(),
            bytes: section.bytes,
            hash: section.hash,
        };
        self.sections.insert(name.to_owned(), record);
        Ok(())
    }

    /// Makes the sections written so far a generation, and that generation the current one. When this returns, it
    /// survives a power cut. The publisher is empty then and can be used for another generation.
    ///
    /// # Errors
    /// `NoSpace` and other output errors: the generation before stays current. After a failed sync every further call
    /// gives `Poisoned`, because what reached the disk is not known; take a new publisher.
    pub fn publish(&mut self, content: &ManifestContent, run: &RunRecord) -> Result<GenerationId> {
        self.usable()?;
        let sections = self.sections.values().cloned().collect();
        let manifest = manifest::encode(&Manifest { content: content.clone(), sections })?;
        let before = self.store.read_current()?;
        let highest = self.store.ids()?.last().map_or(before.last, |id| id.0.max(before.last));
        let id = GenerationId(highest.checked_add(1).ok_or_else(|| {
            err!(InvalidArgument, "store {} has used up its numbers; make a new store", self.store.path().display())
        })?);
        let run = manifest::encode(&RunFile { generation: id.0, manifest: manifest.checksum, run: run.clone() })?;

        let synced = self.store.sync_segments();
        self.synced(synced)?;
        for (path, encoded) in [(self.store.run_path(id), &run), (self.store.manifest_path(id), &manifest)] {
            let disk = self.store.disk();
            let written = write_new(disk, &path, &[&encoded.bytes], |t| check_same(disk, t, &encoded.bytes));
            self.note(written)?;
            self.written.push(path);
            let synced = self.store.sync_generations();
            self.synced(synced)?;
        }
        let start = manifest.checksum.first_chunk().copied().unwrap_or_default();
        let current = Current { generation: id.0, last: id.0, manifest: start };
        if let Err(failure) = self.store.write_current(&current) {
            if self.store.read_current().is_ok_and(|now| now == before) {
                self.withdraw(id);
            } else {
                // It was renamed all the same: the files that CURRENT names now must stay.
                self.written.clear();
            }
            return self.note(Err(failure)).map(|()| id);
        }
        self.written.clear();
        self.sections.clear();
        Ok(id)
    }

    /// Takes back the files of a generation that did not become current.
    fn withdraw(&mut self, id: GenerationId) {
        for path in [self.store.manifest_path(id), self.store.run_path(id)] {
            // What cannot be removed now is tried again when the publisher is dropped.
            if self.store.disk().remove(&path).is_ok() {
                self.written.retain(|written| *written != path);
            }
        }
    }

    fn usable(&self) -> Result<()> {
        if self.poisoned {
            return Err(err!(
                Poisoned,
                "this publisher of {} could not sync to disk and writes no more; check the disk, then take a new one",
                self.store.path().display()
            ));
        }
        Ok(())
    }

    fn note(&mut self, written: Result<(), WriteError>) -> Result<()> {
        written.map_err(|e| {
            self.poisoned |= e.sync;
            e.error
        })
    }

    fn synced(&mut self, synced: Result<()>) -> Result<()> {
        self.poisoned |= synced.is_err();
        synced
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // Manifest before segments: they were written in the opposite order.
        for path in self.written.iter().rev() {
            // Whatever stays is not referred to and goes with the next prune.
            let _ = self.store.disk().remove(path);
        }
    }
}

/// A failure to write a file.
pub(super) struct WriteError {
    pub(super) error: Error,
    /// Whether it was the sync that failed.
    pub(super) sync: bool,
}

impl From<WriteError> for Error {
    fn from(e: WriteError) -> Self {
        e.error
    }
}

/// Writes `parts` under a temporary name, syncs, checks, protects, and renames to `path`. Leaves no temporary file.
fn write_new(
    disk: &dyn Disk,
    path: &Path,
    parts: &[&[u8]],
    check: impl FnOnce(&Path) -> Result<()>,
) -> Result<(), WriteError> {
    let temporary = temporary(path);
    let written = write_checked(disk, &temporary, parts, check).and_then(|()| {
        disk.protect(&temporary)
            .map_err(|e| Error::io("cannot protect", &temporary, e))
            .and_then(|()| disk.rename(&temporary, path).map_err(|e| Error::io("cannot rename to", path, e)))
            .map_err(|error| WriteError { error, sync: false })
    });
    if written.is_err() {
        // It may not exist; what cannot be removed is swept by the next publisher.
        let _ = disk.remove(&temporary);
    }
    written
}

/// As [`write_new`], for CURRENT: small, and replaced by every generation, so its mode stays writable.
pub(super) fn write_replacing(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let temporary = temporary(path);
    let written = write_checked(disk, &temporary, &[bytes], |t| check_same(disk, t, bytes)).and_then(|()| {
        disk.rename(&temporary, path)
            .map_err(|e| WriteError { error: Error::io("cannot rename to", path, e), sync: false })
    });
    if written.is_err() {
        // As above.
        let _ = disk.remove(&temporary);
    }
    written
}

fn write_checked(
    disk: &dyn Disk,
    path: &Path,
    parts: &[&[u8]],
    check: impl FnOnce(&Path) -> Result<()>,
) -> Result<(), WriteError> {
    let failed = |what: &str, sync: bool| {
        let what = what.to_owned();
        move |e| WriteError { error: Error::io(&what, path, e), sync }
    };
    let mut output = disk.create(path).map_err(failed("cannot create", false))?;
    for part in parts {
        output.write_all(part).map_err(failed("cannot write", false))?;
    }
    output.sync().map_err(failed("cannot sync", true))?;
    drop(output);
    check(path).map_err(|error| WriteError { error, sync: false })
}

/// Reads a file back and compares.
fn check_same(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e: io::Error| Error::io("cannot read back", path, e);
    let file = disk.open(path).map_err(failed)?;
    let mut found = vec![0; bytes.len()];
    if file.metadata().map_err(failed)?.len() == bytes.len() as u64 {
        read_exact(disk, &file, &mut found, 0).map_err(failed)?;
        if found == bytes {
            return Ok(());
        }
    }
    Err(err!(Io, "{} does not read back as it was written; check the disk", path.display()))
}

/// What reading a whole segment found.
pub(super) struct Checked {
    pub(super) bytes: u64,
    pub(super) problems: Vec<String>,
}

/// Reads a whole segment and checks every byte against its root hash.
pub(super) fn check_segment_file(disk: &dyn Disk, path: &Path, payload: u64, root: &[u8; 32]) -> Result<Checked> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => corrupt(FileKind::Segment, path, "it is missing"),
        _ => Error::io("cannot read", path, e),
    };
    let layout =
        SegmentLayout::of(payload).ok_or_else(|| corrupt(FileKind::Segment, path, "its length cannot be addressed"))?;
    let file = disk.open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length != layout.file {
        let what = format!("it has {length} bytes instead of {} (truncated or extended)", layout.file);
        return Ok(Checked {
            bytes: length,
            problems: vec![corrupt(FileKind::Segment, path, what).message().to_owned()],
        });
    }
    let problems = segment::verify(path, &layout, root, |bytes, offset| read_exact(disk, &file, bytes, offset))?;
    Ok(Checked { bytes: length, problems })
}
