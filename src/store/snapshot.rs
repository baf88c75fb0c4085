//! One generation, open for reading: its manifest in private memory, its sections in place.

use super::directory::Store;
use super::dtype::Dtype;
use super::format::{FileKind, HEADER, SegmentLayout, corrupt};
use super::fsio::read_exact;
use super::generation::GenerationId;
use super::manifest::{self, check_section};
use super::records::{ManifestContent, RunRecord, SectionInfo};
use super::region::{Element, Region, view};
use super::segment;
use super::sha256::sha256;
use super::wire::v1::{self, Manifest, RunFile};
use crate::error::{Error, ErrorKind, Result, err};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How much is checked when a snapshot is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// The manifest, and of every segment the length and the header. The time depends on the manifest alone; no page of
    /// a table is touched.
    #[default]
    Header,
    /// Every byte.
    Full,
}

/// How sections get into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadMode {
    /// Segments are mapped: shared between processes, read from disk where they are touched. Nobody may truncate or
    /// rewrite the files of the store by other means than this library.
    #[default]
    Map,
    /// Segments are read into private memory; what happens to the files afterwards does not matter. For network file
    /// systems, and for hosts that do not trust the files to stay.
    Copy,
}

/// How a snapshot is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// What is checked.
    pub verify: Verify,
    /// Where the bytes live.
    pub load: LoadMode,
    /// Which generation; `None` is the current one.
    pub generation: Option<GenerationId>,
    /// Where given, the SHA-256 that the manifest's file must have. Segments are bound to it by their hashes (checked
    /// under [`Verify::Full`]), so this pins a whole generation to a value that came by a trusted way.
    pub manifest_sha256: Option<[u8; 32]>,
    /// Reads every page in at once, so that no request waits for the disk.
    pub prefault: bool,
}

/// A generation, open for reading. Any number of threads may use it at once; its mappings end when it is dropped.
#[derive(Debug)]
pub struct Snapshot {
    generation: GenerationId,
    content: ManifestContent,
    run: RunRecord,
    manifest_sha256: [u8; 32],
    /// In ascending order of names.
    sections: Vec<Section>,
    segments: Vec<Segment>,
    bytes: u64,
}

#[derive(Debug)]
struct Section {
    info: SectionInfo,
    /// Which segment holds it.
    segment: usize,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    layout: SegmentLayout,
    hash: [u8; 32],
    region: Region,
}

impl Store {
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
                return Err(err!(NotFound, "store {} has no generation yet; publish one", self.path().display()));
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
}

impl Snapshot {
    /// Opens generation `id`; `checksum`, where given, is the start of the manifest's checksum according to CURRENT.
    pub(super) fn open(
        store: &Store,
        id: GenerationId,
        checksum: Option<[u8; 16]>,
        options: &OpenOptions,
    ) -> Result<Self> {
        let manifest_path = store.manifest_path(id);
        let decoded = manifest::read::<Manifest>(store.disk(), &manifest_path)
            .map_err(|e| if e.kind() == ErrorKind::NotFound { missing_generation(store, id) } else { e })?;
        if checksum.is_some_and(|c| !decoded.checksum.starts_with(&c)) {
            return Err(corrupt(FileKind::Manifest, &manifest_path, "it is not the one that CURRENT was written for"));
        }
        let manifest_sha256 = sha256(&decoded.file);
        if options.manifest_sha256.is_some_and(|expected| expected != manifest_sha256) {
            return Err(err!(
                Corrupt,
                "manifest {} has not the SHA-256 that the caller expects; do not use it unless you know why",
                manifest_path.display()
            ));
        }
        let manifest = decoded.value;
        manifest::check(&manifest_path, &manifest)?;
        let run_path = store.run_path(id);
        let run = manifest::read::<RunFile>(store.disk(), &run_path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => corrupt(FileKind::Run, &run_path, "it is missing"),
            _ => e,
        })?;
        if run.value.generation != id.0 || run.value.manifest != decoded.checksum {
            return Err(corrupt(FileKind::Run, &run_path, "it belongs to another manifest"));
        }
        let mut snapshot = Self {
            generation: id,
            content: manifest::content(&manifest_path, manifest.content)?,
            run: run.value.run.into(),
            manifest_sha256,
            sections: Vec::with_capacity(manifest.sections.len()),
            segments: Vec::new(),
            bytes: (decoded.file.len() + run.file.len()) as u64,
        };
        let mut by_hash = BTreeMap::new();
        for record in manifest.sections {
            snapshot.add(store, options, record, &manifest_path, &mut by_hash)?;
        }
        if options.verify == Verify::Full
            && let Some(problem) = snapshot.verify()?.into_iter().next()
        {
            return Err(Error::new(ErrorKind::Corrupt, problem));
        }
        Ok(snapshot)
    }

    fn add(
        &mut self,
        store: &Store,
        options: &OpenOptions,
        record: v1::Section,
        manifest: &Path,
        by_hash: &mut BTreeMap<[u8; 32], usize>,
    ) -> Result<()> {
        let v1::Section { name, dtype, shape, bytes, hash } = record;
        let (dtype, layout) =
            check_section(&name, dtype, &shape, bytes).map_err(|what| corrupt(FileKind::Manifest, manifest, what))?;
        let segment = match by_hash.get(&hash) {
            Some(index) => *index,
            None => {
                self.segments.push(Segment::open(store, layout, hash, options)?);
                self.bytes = self.bytes.saturating_add(layout.file);
                by_hash.insert(hash, self.segments.len() - 1);
                self.segments.len() - 1
            }
        };
        if self.segments.get(segment).is_none_or(|s| s.layout != layout) {
            let what = format!("section {name} shares a segment with a section of another length");
            return Err(corrupt(FileKind::Manifest, manifest, what));
        }
        self.sections.push(Section { info: SectionInfo { name, dtype, shape, bytes, hash }, segment });
        Ok(())
    }

    /// The generation.
    pub fn generation(&self) -> GenerationId {
        self.generation
    }

    /// The manifest: schema, model, training record, counts.
    pub fn manifest(&self) -> &ManifestContent {
        &self.content
    }

    /// When and how it was published.
    pub fn run(&self) -> &RunRecord {
        &self.run
    }

    /// SHA-256 of the manifest's file, for [`OpenOptions::manifest_sha256`].
    pub fn manifest_sha256(&self) -> [u8; 32] {
        self.manifest_sha256
    }

    /// Bytes of all files of this generation.
    pub fn total_bytes(&self) -> u64 {
        self.bytes
    }

    /// All sections, in ascending order of their names.
    pub fn sections(&self) -> impl ExactSizeIterator<Item = &SectionInfo> {
        self.sections.iter().map(|s| &s.info)
    }

    /// The names of all sections, ascending.
    pub fn section_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.sections.iter().map(|s| s.info.name.as_str())
    }

    /// Whether there is a section of this name.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// What is known about a section.
    ///
    /// # Errors
    /// `NotFound` where there is none of this name.
    pub fn section(&self, name: &str) -> Result<&SectionInfo> {
        self.get(name).map(|s| &s.info)
    }

    /// The dimensions of a section, slowest first.
    ///
    /// # Errors
    /// `NotFound` where there is none of this name.
    pub fn shape(&self, name: &str) -> Result<&[u64]> {
        self.get(name).map(|s| s.info.shape.as_slice())
    }

    /// The bytes of a section of any type, in place.
    ///
    /// # Errors
    /// `NotFound` where there is none of this name.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        self.payload(self.get(name)?)
    }

    /// The SHA-256 of a section's elements, computed by reading them all: what other tools compare.
    ///
    /// # Errors
    /// `NotFound` where there is none of this name.
    pub fn section_sha256(&self, name: &str) -> Result<[u8; 32]> {
        self.bytes(name).map(sha256)
    }

    /// The elements of a section, in place, with no copy. `T` must be its type; half-precision sections are read by
    /// [`Snapshot::bits16`].
    ///
    /// # Errors
    /// `NotFound` where there is none of this name; `Corrupt` where it has another type.
    pub fn slice<T: Element>(&self, name: &str) -> Result<&[T]> {
        self.typed(name, &[T::DTYPE])
    }

    /// The elements of an `f32` section, in place.
    ///
    /// # Errors
    /// As [`Snapshot::slice`].
    pub fn f32s(&self, name: &str) -> Result<&[f32]> {
        self.slice(name)
    }

    /// The elements of a `u16` section, in place.
    ///
    /// # Errors
    /// As [`Snapshot::slice`].
    pub fn u16s(&self, name: &str) -> Result<&[u16]> {
        self.slice(name)
    }

    /// The elements of a `u32` section, in place.
    ///
    /// # Errors
    /// As [`Snapshot::slice`].
    pub fn u32s(&self, name: &str) -> Result<&[u32]> {
        self.slice(name)
    }

    /// The elements of a `u64` section, in place.
    ///
    /// # Errors
    /// As [`Snapshot::slice`].
    pub fn u64s(&self, name: &str) -> Result<&[u64]> {
        self.slice(name)
    }

    /// The elements of an `i64` section, in place.
    ///
    /// # Errors
    /// As [`Snapshot::slice`].
    pub fn i64s(&self, name: &str) -> Result<&[i64]> {
        self.slice(name)
    }

    /// The elements of an `i8` section, in place.
    ///
    /// # Errors
    /// As [`Snapshot::slice`].
    pub fn i8s(&self, name: &str) -> Result<&[i8]> {
        self.slice(name)
    }

    /// The bit patterns of an `f16` or `bf16` section, in place.
    ///
    /// # Errors
    /// As [`Snapshot::slice`].
    pub fn bits16(&self, name: &str) -> Result<&[u16]> {
        self.typed(name, &[Dtype::F16, Dtype::BF16])
    }

    /// SHA-256 of a section's elements; reads all of them.
    ///
    /// # Errors
    /// `NotFound` where there is none of this name.
    pub fn sha256(&self, name: &str) -> Result<[u8; 32]> {
        self.bytes(name).map(sha256)
    }

    /// Checks every byte of every segment and gives the problems found, none if all is well.
    ///
    /// # Errors
    /// `Io` where reading fails.
    pub fn verify(&self) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        for segment in &self.segments {
            let bytes = segment.region.bytes();
            problems.extend(segment::verify(&segment.path, &segment.layout, &segment.hash, |to, offset| {
                let part = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)?.get(..to.len()));
                to.copy_from_slice(part.ok_or(std::io::ErrorKind::UnexpectedEof)?);
                Ok(())
            })?);
        }
        Ok(problems)
    }

    fn find(&self, name: &str) -> Option<&Section> {
        let at = self.sections.binary_search_by(|s| s.info.name.as_str().cmp(name)).ok()?;
        self.sections.get(at)
    }

    fn get(&self, name: &str) -> Result<&Section> {
        self.find(name)
            .ok_or_else(|| err!(NotFound, "generation {} has no section {name:?}; publish it again", self.generation))
    }

    fn payload(&self, section: &Section) -> Result<&[u8]> {
        let part = || {
            let segment = self.segments.get(section.segment)?;
            let start = usize::try_from(segment.layout.payload_offset).ok()?;
            let length = usize::try_from(segment.layout.payload).ok()?;
            segment.region.bytes().get(start..)?.get(..length)
        };
        part().ok_or_else(|| err!(Internal, "section {} lies outside of its segment; report it", section.info.name))
    }

    fn typed<T: Element>(&self, name: &str, accepted: &[Dtype]) -> Result<&[T]> {
        let section = self.get(name)?;
        let dtype = section.info.dtype;
        if !accepted.contains(&dtype) {
            return Err(err!(
                Corrupt,
                "section {name} of generation {} holds {dtype}, not {}; publish it again",
                self.generation,
                accepted.iter().map(|d| d.name()).collect::<Vec<_>>().join(" or ")
            ));
        }
        view(self.payload(section)?)
            .ok_or_else(|| err!(Internal, "section {name} is not aligned for {dtype}; report it"))
    }
}

impl Segment {
    fn open(store: &Store, layout: SegmentLayout, hash: [u8; 32], options: &OpenOptions) -> Result<Self> {
        let path = store.segment_path(&hash);
        let failed = |e| Error::io("cannot open", &path, e);
        let disk = store.disk();
        let file = disk.open(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => corrupt(FileKind::Segment, &path, "it is missing"),
            _ => failed(e),
        })?;
        let length = file.metadata().map_err(failed)?.len();
        let mut header = [0; HEADER];
        let start = header.get_mut(..length.min(HEADER as u64) as usize).unwrap_or_default();
        read_exact(disk, &file, start, 0).map_err(failed)?;
        layout.check_header(&path, start)?;
        if length != layout.file {
            let what = format!("it has {length} bytes instead of {} (truncated or extended)", layout.file);
            return Err(corrupt(FileKind::Segment, &path, what));
        }
        let size =
            usize::try_from(length).map_err(|_| corrupt(FileKind::Segment, &path, "it is too long to be mapped"))?;
        let region = match options.load {
            LoadMode::Map => Region::map(&file, size),
            LoadMode::Copy => Region::copy(size, |bytes| read_exact(disk, &file, bytes, 0)),
        }
        .map_err(|e| Error::io("cannot load", &path, e))?;
        if options.prefault {
            region.populate().map_err(|e| Error::io("cannot read in", &path, e))?;
        }
        Ok(Self { path, layout, hash, region })
    }
}

fn missing_generation(store: &Store, id: GenerationId) -> Error {
    err!(NotFound, "store {} has no generation {id}; list its generations", store.path().display())
}

const _: fn() = || {
    fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Snapshot>();
};
