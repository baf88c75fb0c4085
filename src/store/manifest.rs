//! What a generation says about itself: the manifest, a pure function of what was published, and the run record, which
//! holds the facts of the wall clock.
//!
//! Both are rkyv archives behind a 64-byte header. They are read whole into private memory before anything is checked,
//! and an archive is accepted only if writing its content again gives the same bytes: there is one valid encoding.

use super::dtype::{Dtype, byte_length};
use super::format::{self, FileKind, HEADER, MANIFEST_CAP, SegmentLayout, corrupt};
use super::fsio::{Disk, read_exact};
use crate::error::{Error, Result, err};
use crate::options::{ModelOptions, RankerOptions, RankerTrainOptions, TrainOptions};
use crate::schema::{ImpressionField, Schema, TokenVocabulary};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use std::path::Path;

/// The most sections of a generation.
pub(super) const SECTION_CAP: usize = 4096;
/// The most dimensions of a section.
pub(super) const RANK_CAP: usize = 8;
/// The most bytes of a section's name.
pub(super) const NAME_CAP: usize = 200;

/// What is published besides the sections. The same content gives the same bytes, so nothing in here may depend on the
/// clock.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct ManifestContent {
    /// Declared fields and their vocabularies.
    pub schema: Schema,
    /// The shape of the model.
    pub model: ModelOptions,
    /// How events become tokens; `None`: each is one.
    pub tokenizer: Option<TokenVocabulary>,
    /// How the model was trained.
    pub training: TrainingRecord,
    /// The ranker that is adapted to each entity; `None` where none was trained.
    pub ranker: Option<RankerRecord>,
    /// Items in the catalogue.
    pub items: u64,
    /// Entities known by id.
    pub entities: u64,
    /// Stored events.
    pub events: u64,
}

/// How a model was trained, as far as it follows from data and options.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct TrainingRecord {
    /// The options, the seed among them.
    pub options: TrainOptions,
    /// Hash of the data that it was trained on.
    pub data_hash: [u8; 32],
    /// The split that validated it.
    pub protocol: String,
    /// Hash of the validation's targets.
    pub target_hash: [u8; 32],
    /// Validation metrics by key (`ndcg@10`) of the weights that were kept.
    pub validation: Vec<(String, f64)>,
    /// Mean training loss of each objective, by name, in the steps before the validation that was kept.
    pub losses: Vec<(String, f64)>,
    /// Epochs run.
    pub epochs: u32,
    /// The epoch whose weights were kept.
    pub best_epoch: u32,
    /// Optimiser steps.
    pub steps: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Trained numbers, tables included.
    pub parameters: u64,
    /// Why training ended: `patience`, `epochs`, `time` or `interrupted`.
    pub stopped: String,
    /// The version of docent that trained it.
    pub version: String,
}

/// What a ranker is, besides its sections.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct RankerRecord {
    /// Its shape.
    pub shape: RankerOptions,
    /// How it was trained.
    pub options: RankerTrainOptions,
    /// Its task heads, by name; lists are ranked by the first.
    pub heads: Vec<String>,
    /// Mean label by head over what it was trained on.
    pub means: Vec<f32>,
    /// Numbers read beside each candidate, after its popularity.
    pub impression: Vec<ImpressionField>,
    /// The surfaces that it tells apart: the values of the field that its shape names, by code from 1; empty without one.
    pub surfaces: Vec<String>,
    /// Slope and intercept per head that make its logits calibrated.
    pub calibration: Vec<[f32; 2]>,
    /// Metrics of its best validation by key: `logloss`, and `logloss@0` before any inner step.
    pub validation: Vec<(String, f64)>,
    /// Epochs run.
    pub epochs: u32,
    /// The epoch whose weights were kept.
    pub best_epoch: u32,
    /// Labelled outcomes of all entities that the dataset holds.
    pub outcomes: u64,
    /// The share of each entity's outcomes, the latest, that training left for the test.
    pub held_out: f32,
    /// Entities with a meta embedding of their own in this generation; 0 before any batch adaptation.
    pub adapted: u64,
}

/// Facts of the run that published a generation: what a second, equal run would not repeat.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
pub struct RunRecord {
    /// When, in Unix milliseconds.
    pub created_ms: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// Tokens per second of training.
    pub tokens_per_second: f64,
    /// Most resident memory, in bytes.
    pub peak_rss_bytes: u64,
    /// The command, or a word for the caller.
    pub command: String,
    /// The device.
    pub device: String,
}

/// One section, as in the manifest.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub(super) struct SectionRecord {
    pub(super) name: String,
    /// [`Dtype::code`].
    pub(super) dtype: u8,
    pub(super) shape: Vec<u64>,
    /// Bytes of the payload; the product of shape and element size.
    pub(super) bytes: u64,
    /// Root hash of the payload (`segment.rs`): the segment's name.
    pub(super) hash: [u8; 32],
}

/// The root of the manifest's archive.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub(super) struct Manifest {
    pub(super) content: ManifestContent,
    /// In strictly ascending order of their names.
    pub(super) sections: Vec<SectionRecord>,
}

/// The root of the run record's archive: bound to the generation and the manifest that it belongs to.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub(super) struct RunFile {
    pub(super) generation: u64,
    pub(super) manifest: [u8; 32],
    pub(super) run: RunRecord,
}

// Features of rkyv that another crate in the build switches on would change the layout of stored files without a word.
const _: () = assert!(
    size_of::<rkyv::string::ArchivedString>() == 8 && size_of::<rkyv::vec::ArchivedVec<u8>>() == 8,
    "docent's files need rkyv without its features pointer_width_16 and pointer_width_64; another crate enables one"
);
const _: () = assert!(
    align_of::<rkyv::primitive::ArchivedU64>() == 8 && align_of::<ArchivedManifest>() == 8,
    "docent's files need rkyv without its feature unaligned; another crate enables it"
);
/// Does not compile where another crate in the build enables rkyv's feature `big_endian`, which docent's format excludes.
const _RKYV_MUST_BE_LITTLE_ENDIAN: fn(rkyv::primitive::ArchivedU64) -> rkyv::rend::u64_le = |number| number;

/// A value that is stored as an archive.
pub(super) trait Record: Sized {
    const KIND: FileKind;
    /// Size of the archive's root: differs where the layout does.
    const FINGERPRINT: u32;
}
impl Record for Manifest {
    const KIND: FileKind = FileKind::Manifest;
    const FINGERPRINT: u32 = size_of::<ArchivedManifest>() as u32;
}
impl Record for RunFile {
    const KIND: FileKind = FileKind::Run;
    const FINGERPRINT: u32 = size_of::<ArchivedRunFile>() as u32;
}

/// A whole file, and its checksum.
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    pub(super) checksum: [u8; 32],
}

fn archive<T>(value: &T) -> Result<AlignedVec>
where
    T: Record + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
{
    rkyv::to_bytes::<rancor::Error>(value).map_err(|e| {
        err!(
            InvalidArgument,
            "a {} cannot be encoded: {e}; it must stay below 32 MiB, so shorten the vocabularies",
            T::KIND.name()
        )
    })
}

/// The bytes of the file that stores `value`.
pub(super) fn encode<T>(value: &T) -> Result<Encoded>
where
    T: Record + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
{
    let archive = archive(value)?;
    if archive.len() as u64 > MANIFEST_CAP {
        return Err(err!(
            InvalidArgument,
            "the {} has {} bytes, more than 32 MiB; shorten the vocabularies",
            T::KIND.name(),
            archive.len()
        ));
    }
    let (header, checksum) = format::archive_header(T::KIND, T::FINGERPRINT, &archive);
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(&archive);
    Ok(Encoded { bytes, checksum })
}

/// A decoded file.
pub(super) struct Decoded<T> {
    pub(super) value: T,
    pub(super) checksum: [u8; 32],
    /// The file as it was read.
    pub(super) file: AlignedVec,
}

/// Reads the file into private memory, checks everything, and decodes it.
pub(super) fn read<T>(disk: &dyn Disk, path: &Path) -> Result<Decoded<T>>
where
    T: Record + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + Deserialize<T, HighDeserializer<rancor::Error>>,
{
    let failed = |e| Error::io("cannot read", path, e);
    let input = disk.open(path).map_err(failed)?;
    let length = input.metadata().map_err(failed)?.len();
    let mut header = [0; HEADER];
    let start = header.get_mut(..length.min(HEADER as u64) as usize).unwrap_or_default();
    read_exact(disk, &input, start, 0).map_err(failed)?;
    let parsed = format::check_archive_header(T::KIND, T::FINGERPRINT, path, start, length)?;
    let mut file = AlignedVec::<16>::with_capacity(length as usize);
    file.extend_from_slice(&header);
    file.resize(length as usize, 0);
    let archive = file.get_mut(HEADER..).unwrap_or_default();
    read_exact(disk, &input, archive, HEADER as u64).map_err(failed)?;
    parsed.check(T::KIND, path, &header, archive)?;
    let value = decode::<T>(path, archive)?;
    Ok(Decoded { value, checksum: parsed.checksum, file })
}

fn decode<T>(path: &Path, bytes: &[u8]) -> Result<T>
where
    T: Record + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + Deserialize<T, HighDeserializer<rancor::Error>>,
{
    let value: T = rkyv::from_bytes::<T, rancor::Error>(bytes)
        .map_err(|e| corrupt(T::KIND, path, format_args!("its archive is not valid ({e})")))?;
    if archive(&value)?.as_slice() != bytes {
        return Err(corrupt(T::KIND, path, "its archive is not in the one valid encoding"));
    }
    Ok(value)
}

/// Checks a section's name, shape and length, and gives its type and its segment's layout.
///
/// # Errors
/// The reason, in words.
pub(super) fn check_section(
    name: &str,
    dtype: u8,
    shape: &[u64],
    bytes: u64,
) -> Result<(Dtype, SegmentLayout), String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > NAME_CAP || !name.bytes().all(allowed) {
        return Err(format!("section name {name:?} is not 1 to {NAME_CAP} of the characters a-z 0-9 . _ -"));
    }
    let Some(kind) = Dtype::from_code(dtype) else {
        return Err(format!("section {name} has the unknown element type {dtype}"));
    };
    if shape.len() > RANK_CAP {
        return Err(format!("section {name} has {} dimensions, more than {RANK_CAP}", shape.len()));
    }
    match byte_length(kind, shape) {
        Some(length) if length == bytes => {}
        Some(length) => {
            return Err(format!("section {name} of shape {shape:?} ({kind}) must have {length} bytes and has {bytes}"));
        }
        None => return Err(format!("section {name} of shape {shape:?} ({kind}) has more bytes than can be addressed")),
    }
    let Some(layout) = SegmentLayout::of(bytes) else {
        return Err(format!("section {name} has {bytes} bytes, more than can be addressed"));
    };
    Ok((kind, layout))
}

impl Manifest {
    /// The checks that hold whatever the checksums say.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        let bad = |what: String| corrupt(FileKind::Manifest, path, what);
        if self.sections.len() > SECTION_CAP {
            return Err(bad(format!("it lists {} sections, more than {SECTION_CAP}", self.sections.len())));
        }
        for section in &self.sections {
            check_section(&section.name, section.dtype, &section.shape, section.bytes).map_err(bad)?;
        }
        let mut names = self.sections.iter().map(|s| s.name.as_str());
        let mut next = self.sections.iter().skip(1).map(|s| s.name.as_str());
        if let Some((a, b)) = names.by_ref().zip(next.by_ref()).find(|(a, b)| a >= b) {
            return Err(bad(format!("sections {a:?} and {b:?} are equal or out of order")));
        }
        Ok(())
    }
}
