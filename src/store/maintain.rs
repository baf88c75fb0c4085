//! What is done to a whole store: its generations are listed, checked, removed, made current again.

use super::directory::{GENERATIONS, SEGMENTS, Store};
use super::format::{Current, FileKind, corrupt};
use super::generation::{GenerationId, GenerationInfo, VerifyReport};
use super::manifest;
use super::segment::{self, check_segment_file};
use super::snapshot::{OpenOptions, Snapshot, Verify};
use super::wire::v1::{Manifest, RunFile};
use crate::error::{Error, ErrorKind, Result, err};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

impl Store {
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
        let decoded = manifest::read::<Manifest>(self.disk(), &path)?;
        manifest::check(&path, &decoded.value)?;
        let hashes: BTreeSet<[u8; 32]> = decoded.value.sections.iter().map(|s| s.hash).collect();
        info.validation = manifest::content(&path, decoded.value.content)?.training.validation;
        let run_path = self.run_path(info.id);
        info.bytes = decoded.file.len() as u64;
        for file in hashes.iter().map(|hash| self.segment_path(hash)).chain([run_path.clone()]) {
            info.bytes += fs::metadata(&file).map_err(|e| Error::io("cannot read", &file, e))?.len();
        }
        info.created_ms = manifest::read::<RunFile>(self.disk(), &run_path)?.value.run.created_ms;
        Ok(())
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
                        self.path().display(),
                        current.generation
                    )
                })?;
                (*id, current.last)
            }
            (_, Err(e)) => return Err(e),
        };
        let options = OpenOptions { verify: Verify::Full, ..OpenOptions::default() };
        Snapshot::open(self, target, None, &options)?;
        let manifest = manifest::read::<Manifest>(self.disk(), &self.manifest_path(target))?.checksum;
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
            let manifest = manifest::read::<Manifest>(self.disk(), &self.manifest_path(*id))?.value;
            needed.extend(manifest.sections.iter().map(|s| segment::file_name(&s.hash)));
        }
        let last = ids.iter().map(|id| id.0).fold(current.last, u64::max);
        if last > current.last && current.generation > 0 {
            self.write_current(&Current { last, ..current })?;
        }
        let remove = |path: PathBuf| match self.disk().remove(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("cannot remove", &path, e)),
            _ => Ok(()),
        };
        for id in &gone {
            remove(self.manifest_path(*id))?;
        }
        // A manifest must be gone for good before what it needs.
        self.sync_part(GENERATIONS)?;
        let generations = self.path().join(GENERATIONS);
        let kept: BTreeSet<String> = spared.iter().chain(new).map(|id| id.run_name()).collect();
        for name in self.disk().list(&generations).map_err(|e| Error::io("cannot list", &generations, e))? {
            if name.ends_with(".run") && !kept.contains(&name) {
                remove(generations.join(name))?;
            }
        }
        let segments = self.path().join(SEGMENTS);
        for name in self.disk().list(&segments).map_err(|e| Error::io("cannot list", &segments, e))? {
            if name.ends_with(".segment") && !needed.contains(&name) {
                remove(segments.join(name))?;
            }
        }
        self.sync_part(SEGMENTS)?;
        self.sync_part(GENERATIONS)?;
        Ok(gone)
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

    /// The same of every generation that is kept, the current one first, whatever CURRENT says of it.
    ///
    /// # Errors
    /// As [`Store::verify`]; input and output errors on the directory.
    pub fn verify_all(&self) -> Result<Vec<VerifyReport>> {
        let first = self.verify(None)?;
        let mut all = Vec::new();
        for id in self.ids()?.into_iter().filter(|id| Some(*id) != first.generation) {
            match self.verify(Some(id)) {
                Ok(mut other) => {
                    if first.generation.is_none() {
                        // A CURRENT that cannot be read is no fault of the others.
                        other.problems.retain(|problem| !first.problems.contains(problem));
                        other.ok = other.problems.is_empty();
                    }
                    all.push(other);
                }
                // Pruned meanwhile.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        all.insert(0, first);
        Ok(all)
    }

    fn verify_into(&self, report: &mut VerifyReport) -> Result<()> {
        let current = self.read_current();
        let id = match (report.generation, &current) {
            (Some(id), _) => id,
            (None, Ok(c)) if c.generation > 0 => GenerationId(c.generation),
            (None, Ok(_)) => {
                return Err(err!(NotFound, "store {} has no generation yet; publish one", self.path().display()));
            }
            (None, Err(_)) => return current.map(|_| ()),
        };
        report.generation = Some(id);
        let path = self.manifest_path(id);
        let decoded = manifest::read::<Manifest>(self.disk(), &path)?;
        report.bytes += decoded.file.len() as u64;
        manifest::check(&path, &decoded.value)?;
        if let Err(e) = manifest::content(&path, decoded.value.content.clone()) {
            report.problems.push(e.message().to_owned());
        }
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
        match manifest::read::<RunFile>(self.disk(), &run_path) {
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
            match check_segment_file(self.disk(), &self.segment_path(&section.hash), section.bytes, &section.hash) {
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
}
