//! The files that say what a generation is: the manifest, a pure function of what was published, and the run record, which holds the
//! facts of the wall clock.
//!
//! Both are archives (`wire`) behind a 64-byte header. They are read whole into private memory before anything is checked, and an
//! archive is accepted only if writing its content again gives the same bytes: there is one valid encoding.

use super::dtype::{Dtype, byte_length};
use super::format::{self, FileKind, HEADER, MANIFEST_CAP, SegmentLayout, corrupt};
use super::fsio::{Disk, read_exact};
use super::records::ManifestContent;
use super::wire::codec::{self, Read, Write};
use super::wire::v1::{Content, Manifest, RunFile};
use crate::error::{Error, ErrorKind, Result, err};
use rkyv::util::AlignedVec;
use std::path::Path;

/// The most sections of a generation.
pub(super) const SECTION_CAP: usize = 4096;
/// The most dimensions of a section.
pub(super) const RANK_CAP: usize = 8;
/// The most bytes of a section's name.
pub(super) const NAME_CAP: usize = 200;

/// A record that is a file of its own.
pub(super) trait Record: Write + Read {
    const KIND: FileKind;
}
impl Record for Manifest {
    const KIND: FileKind = FileKind::Manifest;
}
impl Record for RunFile {
    const KIND: FileKind = FileKind::Run;
}

/// A whole file, and its checksum.
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    pub(super) checksum: [u8; 32],
}

fn archive<T: Record>(value: &T) -> Result<AlignedVec> {
    let kind = T::KIND.name();
    codec::archive(value).map_err(|e| {
        err!(InvalidArgument, "a {kind} cannot be encoded: {e}; it must stay below 32 MiB, so shorten the vocabularies")
    })
}

/// The bytes of the file that stores `value`.
pub(super) fn encode<T: Record>(value: &T) -> Result<Encoded> {
    let archive = archive(value)?;
    let (kind, length) = (T::KIND.name(), archive.len());
    if length as u64 > MANIFEST_CAP {
        return Err(err!(InvalidArgument, "the {kind} has {length} bytes, more than 32 MiB; shorten the vocabularies"));
    }
    let (header, checksum) = format::archive_header(T::KIND, &archive);
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
pub(super) fn read<T: Record>(disk: &dyn Disk, path: &Path) -> Result<Decoded<T>> {
    let failed = |e| Error::io("cannot read", path, e);
    let input = disk.open(path).map_err(failed)?;
    let length = input.metadata().map_err(failed)?.len();
    let mut header = [0; HEADER];
    let start = header.get_mut(..length.min(HEADER as u64) as usize).unwrap_or_default();
    read_exact(disk, &input, start, 0).map_err(failed)?;
    let parsed = format::check_archive_header(T::KIND, path, start, length)?;
    let mut file = AlignedVec::<16>::with_capacity(length as usize);
    file.extend_from_slice(&header);
    file.resize(length as usize, 0);
    let archive = file.get_mut(HEADER..).unwrap_or_default();
    read_exact(disk, &input, archive, HEADER as u64).map_err(failed)?;
    parsed.check(T::KIND, path, &header, archive)?;
    let value = decode::<T>(path, archive)?;
    Ok(Decoded { value, checksum: parsed.checksum, file })
}

fn decode<T: Record>(path: &Path, bytes: &[u8]) -> Result<T> {
    let value: T =
        codec::read(bytes).map_err(|e| corrupt(T::KIND, path, format_args!("its archive is not valid ({e})")))?;
    if archive(&value)?.as_slice() != bytes {
        return Err(corrupt(T::KIND, path, "its archive is not in the one valid encoding"));
    }
    Ok(value)
}

/// What the manifest in `path` says, in the types that are computed with.
///
/// # Errors
/// `UpgradeRequired` where it has options of a later version that change what is computed; `Corrupt` where they are damaged.
pub(super) fn content(path: &Path, content: Content) -> Result<ManifestContent> {
    ManifestContent::try_from(content).map_err(|e| match e.kind() {
        ErrorKind::Corrupt => corrupt(FileKind::Manifest, path, e.message()),
        kind => Error::new(kind, format!("manifest {}: {}", path.display(), e.message())),
    })
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

/// The checks of a manifest that hold whatever the checksums say.
pub(super) fn check(path: &Path, manifest: &Manifest) -> Result<()> {
    let sections = &manifest.sections;
    let bad = |what: String| corrupt(FileKind::Manifest, path, what);
    if sections.len() > SECTION_CAP {
        return Err(bad(format!("it lists {} sections, more than {SECTION_CAP}", sections.len())));
    }
    for section in sections {
        check_section(&section.name, section.dtype, &section.shape, section.bytes).map_err(bad)?;
    }
    let pairs = sections.iter().zip(sections.iter().skip(1)).map(|(a, b)| (&a.name, &b.name));
    if let Some((a, b)) = pairs.into_iter().find(|(a, b)| a >= b) {
        return Err(bad(format!("sections {a:?} and {b:?} are equal or out of order")));
    }
    Ok(())
}
