//! A section's bytes in a file of their own, named by their hash.
//!
//! One section per file: a generation whose table did not change shares the file with the one before, whatever else
//! changed, and nothing has to be packed again. Each block of 1 MiB is hashed by itself, so that blocks can be checked
//! one by one and in parallel; the root hash covers the length and the hashes of the blocks.

use super::format::{BLOCK, FileKind, HEADER, SegmentLayout, corrupt};
use super::fsio::{Disk, read_exact};
use crate::error::{Error, Result};
use std::io;
use std::path::Path;

/// Domain of the root hash.
const ROOT_CONTEXT: &str = "docent 2026-11 segment root v1";

/// The hashes of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hashes {
    /// Root hash: the segment's name.
    pub(super) root: [u8; 32],
    /// Hash of each block, one after another: the segment's tail.
    pub(super) tail: Vec<u8>,
}

fn root(payload: u64, tail: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(ROOT_CONTEXT);
    hasher.update(&payload.to_le_bytes()).update(tail);
    *hasher.finalize().as_bytes()
}

/// Hashes a payload.
pub(super) fn hashes(payload: &[u8]) -> Hashes {
    let tail: Vec<u8> = payload.chunks(BLOCK as usize).flat_map(|block| *blake3::hash(block).as_bytes()).collect();
    Hashes { root: root(payload.len() as u64, &tail), tail }
}

/// The file name of the segment with this root hash.
pub(super) fn file_name(root: &[u8; 32]) -> String {
    format!("{}.segment", blake3::Hash::from_bytes(*root).to_hex())
}

/// Checks every byte of a segment: header, padding, blocks, tail. `read` fills a buffer from an offset. Gives the
/// problems found, none if the segment is whole.
///
/// # Errors
/// `Io` where reading fails.
pub(super) fn verify(
    path: &Path,
    layout: &SegmentLayout,
    expected: &[u8; 32],
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
) -> Result<Vec<String>> {
    let mut fill = |bytes: &mut [u8], offset: u64| read(bytes, offset).map_err(|e| Error::io("cannot read", path, e));
    let mut problems = Vec::new();
    let mut problem = |what: String| problems.push(corrupt(FileKind::Segment, path, what).message().to_owned());

    let mut header = [0; HEADER];
    fill(&mut header, 0)?;
    if let Err(e) = layout.check_header(path, &header) {
        problem(e.message().to_owned());
    }
    let payload_end = layout.payload_offset + layout.payload;
    for (from, to) in [(HEADER as u64, layout.payload_offset), (payload_end, layout.tail_offset)] {
        let mut padding = vec![0; (to - from) as usize];
        fill(&mut padding, from)?;
        if let Some(at) = padding.iter().position(|b| *b != 0) {
            problem(format!("the padding byte at offset {} is not zero", from + at as u64));
        }
    }
    let mut tail = vec![0; (layout.file - layout.tail_offset) as usize];
    fill(&mut tail, layout.tail_offset)?;
    let whole_tail = root(layout.payload, &tail) == *expected;
    if !whole_tail {
        problem("its block hashes do not give the hash in its name".to_owned());
    }
    let mut buffer = vec![0; layout.payload.min(BLOCK) as usize];
    let mut offset = 0;
    for hash in tail.chunks_exact(32) {
        let length = (layout.payload - offset).min(BLOCK);
        let Some(block) = buffer.get_mut(..length as usize) else { break };
        fill(block, layout.payload_offset + offset)?;
        if whole_tail && blake3::hash(block).as_bytes() != hash {
            problem(format!("the block at offset {} ({length} bytes) is damaged", layout.payload_offset + offset));
        }
        offset += length;
    }
    Ok(problems)
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
    let problems = verify(path, &layout, root, |bytes, offset| read_exact(disk, &file, bytes, offset))?;
    Ok(Checked { bytes: length, problems })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_depends_on_every_byte_and_on_the_length() {
        let payload = vec![1u8; (BLOCK + 5) as usize];
        let whole = hashes(&payload);
        assert_eq!(whole.tail.len(), 64);
        for i in [0, BLOCK as usize - 1, BLOCK as usize, payload.len() - 1] {
            let mut other = payload.clone();
            other[i] ^= 1;
            assert_ne!(hashes(&other).root, whole.root);
        }
        assert_ne!(hashes(&payload[1..]).root, whole.root);
        assert_ne!(hashes(&[]).root, hashes(&[0]).root);
        assert!(hashes(&[]).tail.is_empty());
    }
}
