//! The fixed 64-byte headers of every file in a store, byte by byte (docs/format.md).

use crate::error::{Error, Result, err};
use std::path::Path;

#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!("docent maps its files in place: it needs a little-endian target with 64-bit addresses");

/// The format version that this build writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// The most bytes that a manifest's archive may have.
pub const MANIFEST_CAP: u64 = 32 << 20;

/// The name of the live file. Not `.tmp`: publishers remove those.
pub(super) const LIVE: &str = "live.db";
/// What SQLite keeps beside it while it is open.
pub(super) const LIVE_SIDES: [&str; 2] = ["live.db-wal", "live.db-shm"];
/// What stands beside it while it is made.
pub(super) const LIVE_JOURNAL: &str = "live.db-journal";
/// Where versions before kept what is in [`LIVE`] now, and what one of them left of an interrupted compaction.
pub(super) const LIVE_BEFORE: [&str; 2] = ["live.redb", "live.redb.new"];

/// Bytes of every header.
pub(super) const HEADER: usize = 64;
/// Bytes per block that is hashed by itself.
pub(super) const BLOCK: u64 = 1 << 20;
/// Reads as 01 02 03 04 where bytes are in the right order.
const BYTE_ORDER: u32 = 0x0403_0201;
/// Payloads of this length and more start on a page.
const PAGED: u64 = 1 << 20;

/// The four kinds of file in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Current,
    Manifest,
    Run,
    Segment,
}

impl FileKind {
    const ALL: [Self; 4] = [Self::Current, Self::Manifest, Self::Run, Self::Segment];

    /// The first eight bytes. As in PNG, they show a stripped eighth bit and both translations of line ends.
    pub(super) fn magic(self) -> [u8; 8] {
        let letter = match self {
            Self::Current => b'C',
            Self::Manifest => b'M',
            Self::Run => b'R',
            Self::Segment => b'S',
        };
        [0x89, b'D', b'C', letter, b'\r', b'\n', 0x1a, b'\n']
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Current => "CURRENT file",
            Self::Manifest => "manifest",
            Self::Run => "run record",
            Self::Segment => "segment",
        }
    }
}

/// A damaged file: what is wrong with it, and what can be done.
pub(super) fn corrupt(kind: FileKind, path: &Path, what: impl std::fmt::Display) -> Error {
    err!(
        Corrupt,
        "{} {}: {what}; restore the file from a copy or roll back to another generation",
        kind.name(),
        path.display()
    )
}

/// Checks the first 16 bytes that all kinds of file share: magic, format version, byte order.
pub(super) fn check_start(kind: FileKind, path: &Path, bytes: &[u8]) -> Result<()> {
    let magic = kind.magic();
    if !bytes.starts_with(&magic) {
        return Err(wrong_magic(kind, path, bytes));
    }
    let version = u32_at(bytes, 8).ok_or_else(|| corrupt(kind, path, "it is shorter than its header"))?;
    if version > FORMAT_VERSION {
        return Err(err!(
            UpgradeRequired,
            "{} {} has format version {version}, this build reads up to {FORMAT_VERSION}; upgrade docent",
            kind.name(),
            path.display()
        ));
    }
    if version == 0 {
        return Err(corrupt(kind, path, "its format version is 0"));
    }
    if u32_at(bytes, 12) != Some(BYTE_ORDER) {
        return Err(corrupt(kind, path, "its byte-order mark is not 01 02 03 04"));
    }
    if bytes.len() < HEADER {
        return Err(corrupt(kind, path, "it is shorter than its header"));
    }
    Ok(())
}

fn wrong_magic(kind: FileKind, path: &Path, bytes: &[u8]) -> Error {
    if bytes.is_empty() {
        return corrupt(kind, path, "it is empty");
    }
    if let Some(other) = FileKind::ALL.into_iter().find(|k| bytes.starts_with(&k.magic())) {
        return corrupt(kind, path, format_args!("it is a {} of docent", other.name()));
    }
    for start in FileKind::ALL.map(FileKind::magic) {
        let stripped = start.map(|b| b & 0x7f);
        let unix: Vec<u8> = start.iter().copied().filter(|b| *b != b'\r').collect();
        let mut dos = Vec::new();
        for byte in start {
            if byte == b'\n' {
                dos.push(b'\r');
            }
            dos.push(byte);
        }
        let mut dos_once = start.to_vec();
        dos_once.insert(7, b'\r');
        if [&stripped[..], &unix, &dos, &dos_once].iter().any(|m| bytes.starts_with(m)) {
            return corrupt(kind, path, "a transfer in text mode changed its bytes (copy it again in binary mode)");
        }
    }
    err!(
        NotDocent,
        "{} is not a {} of docent: its first bytes are foreign; check the path",
        path.display(),
        kind.name()
    )
}

fn start(kind: FileKind) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    put(&mut header, 0, &kind.magic());
    put(&mut header, 8, &FORMAT_VERSION.to_le_bytes());
    put(&mut header, 12, &BYTE_ORDER.to_le_bytes());
    header
}

/// Copies `bytes` to `offset`; both are constants of this file.
fn put(header: &mut [u8; HEADER], offset: usize, bytes: &[u8]) {
    for (to, from) in header.iter_mut().skip(offset).zip(bytes) {
        *to = *from;
    }
}

pub(super) fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array_at(bytes, offset).map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array_at(bytes, offset).map(u64::from_le_bytes)
}

/// The first half of the BLAKE3 hash.
fn short_hash(bytes: &[u8]) -> [u8; 16] {
    array_at(blake3::hash(bytes).as_bytes(), 0).unwrap_or_default()
}

/// Where the parts of a segment are. Everything follows from the payload's length, so a header cannot describe an
/// overlap or a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentLayout {
    pub(super) payload_offset: u64,
    pub(super) payload: u64,
    pub(super) tail_offset: u64,
    pub(super) file: u64,
}

impl SegmentLayout {
    /// The layout for a payload of this many bytes; `None` where it would pass 2^63.
    pub(super) fn of(payload: u64) -> Option<Self> {
        let payload_offset = if payload >= PAGED { 4096 } else { HEADER as u64 };
        let tail_offset = payload_offset.checked_add(payload)?.checked_next_multiple_of(64)?;
        let file = tail_offset.checked_add(payload.div_ceil(BLOCK).checked_mul(32)?)?;
        (file < 1 << 63).then_some(Self { payload_offset, payload, tail_offset, file })
    }

    /// The only valid header of a segment with this layout.
    pub(super) fn header(&self) -> [u8; HEADER] {
        let mut header = start(FileKind::Segment);
        put(&mut header, 16, &self.payload_offset.to_le_bytes());
        put(&mut header, 24, &self.payload.to_le_bytes());
        put(&mut header, 32, &self.tail_offset.to_le_bytes());
        put(&mut header, 40, &self.file.to_le_bytes());
        let hash = short_hash(header.get(..48).unwrap_or_default());
        put(&mut header, 48, &hash);
        header
    }

    /// Compares a header with the only valid one.
    pub(super) fn check_header(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        check_start(FileKind::Segment, path, bytes)?;
        if bytes != self.header() {
            return Err(corrupt(FileKind::Segment, path, "its header is damaged or belongs to another length"));
        }
        Ok(())
    }
}

/// What CURRENT says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Current {
    /// The generation to serve; 0 before the first one.
    pub(super) generation: u64,
    /// The highest number ever published, so that none is used twice.
    pub(super) last: u64,
    /// The first half of the served manifest's checksum; zero before the first one.
    pub(super) manifest: [u8; 16],
}

impl Current {
    pub(super) const EMPTY: Self = Self { generation: 0, last: 0, manifest: [0; 16] };

    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut header = start(FileKind::Current);
        put(&mut header, 16, &self.generation.to_le_bytes());
        put(&mut header, 24, &self.last.to_le_bytes());
        put(&mut header, 32, &self.manifest);
        let hash = short_hash(header.get(..48).unwrap_or_default());
        put(&mut header, 48, &hash);
        header
    }

    pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        check_start(FileKind::Current, path, bytes)?;
        let bad = |what: &str| corrupt(FileKind::Current, path, what);
        let parsed =
            || Some(Self { generation: u64_at(bytes, 16)?, last: u64_at(bytes, 24)?, manifest: array_at(bytes, 32)? });
        let current = parsed().ok_or_else(|| bad("it is shorter than its header"))?;
        if bytes.len() != HEADER {
            return Err(bad("it does not have 64 bytes"));
        }
        if bytes != current.encode() {
            return Err(bad("its checksum does not match"));
        }
        if current.generation > current.last || (current.generation == 0 && current != Self::EMPTY) {
            return Err(bad("its generation numbers contradict each other"));
        }
        Ok(current)
    }
}

/// The header of a file that holds an archive.
pub(super) struct ArchiveHeader {
    /// BLAKE3 of the header's first 32 bytes and the archive.
    pub(super) checksum: [u8; 32],
    /// Whether it was written before version 1 was settled: such files have a number other than 0 at offset 16.
    unsettled: bool,
}

/// The header and the checksum of an archive.
pub(super) fn archive_header(kind: FileKind, archive: &[u8]) -> ([u8; HEADER], [u8; 32]) {
    let mut header = start(kind);
    put(&mut header, 24, &(archive.len() as u64).to_le_bytes());
    let checksum = archive_checksum(&header, archive);
    put(&mut header, 32, &checksum);
    (header, checksum)
}

fn archive_checksum(header: &[u8; HEADER], archive: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header.get(..32).unwrap_or_default()).update(archive);
    *hasher.finalize().as_bytes()
}

/// Checks what can be known from the header and the file's length alone.
pub(super) fn check_archive_header(kind: FileKind, path: &Path, header: &[u8], file: u64) -> Result<ArchiveHeader> {
    check_start(kind, path, header)?;
    let bad = |what: &str| corrupt(kind, path, what);
    if u32_at(header, 20) != Some(0) {
        return Err(bad("its header is damaged"));
    }
    let parsed = || Some((u64_at(header, 24)?, array_at(header, 32)?));
    let (length, checksum) = parsed().ok_or_else(|| bad("it is shorter than its header"))?;
    if length > MANIFEST_CAP {
        return Err(bad("its header claims more than 32 MiB"));
    }
    if file.checked_sub(HEADER as u64) != Some(length) {
        return Err(bad("its length is not the one in its header (truncated or extended)"));
    }
    Ok(ArchiveHeader { checksum, unsettled: u32_at(header, 16) != Some(0) })
}

impl ArchiveHeader {
    /// Compares the checksum of the header and the archive.
    ///
    /// # Errors
    /// `Corrupt` where it does not match; `UpgradeRequired` where the archive has a layout that was never released.
    pub(super) fn check(&self, kind: FileKind, path: &Path, header: &[u8; HEADER], archive: &[u8]) -> Result<()> {
        if archive_checksum(header, archive) != self.checksum {
            return Err(corrupt(kind, path, "its checksum does not match"));
        }
        match self.unsettled {
            false => Ok(()),
            true => Err(err!(
                UpgradeRequired,
                "{} {} was written by a version of docent from before the first release, which this one does not read; train \
                 again with this version (the same store will do)",
                kind.name(),
                path.display()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn layouts_are_aligned_and_checked() {
        for payload in [0, 1, 63, 64, 65, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 30] {
            let l = SegmentLayout::of(payload).unwrap();
            assert_eq!(l.payload_offset, if payload >= 1 << 20 { 4096 } else { 64 });
            assert_eq!(l.tail_offset % 64, 0);
            assert!(l.tail_offset >= l.payload_offset + payload && l.tail_offset < l.payload_offset + payload + 64);
            assert_eq!(l.file - l.tail_offset, payload.div_ceil(1 << 20) * 32);
        }
        for payload in [u64::MAX, u64::MAX - 4096, 1 << 63, (1 << 63) - 4096] {
            assert_eq!(SegmentLayout::of(payload), None);
        }
    }

    #[test]
    fn starts_are_told_apart() {
        let path = Path::new("x");
        let check = |bytes: &[u8]| check_start(FileKind::Segment, path, bytes).unwrap_err();
        let good = SegmentLayout::of(7).unwrap().header();
        assert!(check_start(FileKind::Segment, path, &good).is_ok());
        let mut future = good;
        future[8] = 2;
        assert_eq!(check(&future).kind(), ErrorKind::UpgradeRequired);
        assert!(check(&future).message().contains("version 2") && check(&future).message().contains("up to 1"));
        assert_eq!(check(b"PK\x03\x04 a zip file").kind(), ErrorKind::NotDocent);
        assert!(check(&Current::EMPTY.encode()).message().contains("it is a CURRENT file"));
        assert!(check(b"").message().contains("empty"));
        let text: Vec<Vec<u8>> = vec![
            good.iter().map(|b| b & 0x7f).collect(),
            good.iter().copied().filter(|b| *b != b'\r').collect(),
            good.iter().flat_map(|b| if *b == b'\n' { vec![b'\r', b'\n'] } else { vec![*b] }).collect(),
        ];
        for mangled in text {
            assert!(check(&mangled).message().contains("text mode"), "{}", check(&mangled));
        }
        let mut swapped = good;
        swapped[12..16].reverse();
        assert!(check(&swapped).message().contains("byte-order"));
    }

    #[test]
    fn current_has_one_encoding() {
        let path = Path::new("CURRENT");
        let current = Current { generation: 3, last: 5, manifest: [9; 16] };
        let bytes = current.encode();
        assert_eq!(Current::decode(path, &bytes).unwrap(), current);
        for i in 0..bytes.len() {
            let mut bad = bytes;
            bad[i] ^= 1;
            assert!(Current::decode(path, &bad).is_err(), "byte {i}");
        }
        for n in 0..bytes.len() {
            assert!(Current::decode(path, &bytes[..n]).is_err(), "length {n}");
        }
        for contradiction in [
            Current { generation: 6, last: 5, manifest: [9; 16] },
            Current { generation: 0, last: 5, manifest: [0; 16] },
            Current { generation: 0, last: 0, manifest: [1; 16] },
        ] {
            assert_eq!(Current::decode(path, &contradiction.encode()).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}
