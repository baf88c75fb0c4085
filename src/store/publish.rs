//! How a generation comes to be: every file is written under a temporary name, synced, read back, protected, renamed;
//! CURRENT is replaced last.

use super::directory::{Lock, Store};
use super::dtype::Dtype;
use super::format::{Current, FileKind, SegmentLayout, corrupt};
use super::fsio::{WriteError, check_same, write_new};
use super::generation::GenerationId;
use super::manifest::{self, SECTION_CAP, check_section};
use super::records::{ManifestContent, RunRecord, SectionInfo};
use super::region::{Element, bytes_of};
use super::segment::{self, check_segment_file};
use super::snapshot::Snapshot;
use super::wire::v1::{Manifest, RunFile};
use crate::error::{Result, err};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

/// The one writer of a store. Sections go to disk as they come; [`Publisher::publish`] makes them a generation. Dropped
/// before that, it leaves nothing behind.
#[derive(Debug)]
pub struct Publisher {
    store: Store,
    lock: Lock,
    sections: BTreeMap<String, SectionInfo>,
    /// Files that no generation refers to yet.
    written: Vec<PathBuf>,
    poisoned: bool,
}

impl Store {
    /// Takes the store for writing. Only one publisher exists at a time, over all processes.
    ///
    /// # Errors
    /// `Locked`, at once, where there is another one; `PermissionDenied` where the directory cannot be written.
    pub fn publisher(&self) -> Result<Publisher> {
        let lock = self.lock()?;
        self.sweep()?;
        self.read_current()?;
        Ok(Publisher { store: self.clone(), lock, sections: BTreeMap::new(), written: Vec::new(), poisoned: false })
    }
}

impl Publisher {
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
        let info =
            SectionInfo { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes: length, hash: hashes.root };
        self.sections.insert(name.to_owned(), info);
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
        self.sections.insert(name.to_owned(), section.clone());
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
        let sections = self.sections.values().cloned().map(Into::into).collect();
        let manifest = manifest::encode(&Manifest { content: content.clone().into(), sections })?;
        let before = self.store.read_current()?;
        let highest = self.store.ids()?.last().map_or(before.last, |id| id.0.max(before.last));
        let id = GenerationId(highest.checked_add(1).ok_or_else(|| {
            err!(InvalidArgument, "store {} has used up its numbers; make a new store", self.store.path().display())
        })?);
        let run =
            manifest::encode(&RunFile { generation: id.0, manifest: manifest.checksum, run: run.clone().into() })?;

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
        if !self.lock.is_ours() {
            return Err(err!(
                Forked,
                "this publisher of {} belongs to the parent of a fork; take one in this process",
                self.store.path().display()
            ));
        }
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
        if !self.lock.is_ours() {
            return;
        }
        // Manifest before segments: they were written in the opposite order.
        for path in self.written.iter().rev() {
            // Whatever stays is not referred to and goes with the next prune.
            let _ = self.store.disk().remove(path);
        }
    }
}
