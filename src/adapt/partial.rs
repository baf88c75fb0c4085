//! What an interrupted batch adaptation has done: a header, then chunks, each with a hash of its own. A chunk that is not whole
//! is done again. `docs/format.md` has every byte.

use super::adaptation::{Adaptation, Kind};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The last byte is the version. What another one wrote is done again.
const MAGIC: &[u8; 16] = b"docent.adapt\0\0\0\x02";
/// Most entities of a chunk.
const MOST: u32 = 1 << 20;

/// The file, open at its end.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    /// Opens the file, or makes it, and reads what it holds of the run `fingerprint` into `done`; what is not of that run, or not
    /// whole, is cut off.
    pub(super) fn open(path: &Path, fingerprint: &[u8; 32], width: usize, done: &mut Vec<Adaptation>) -> Result<Self> {
        let failed = |e| Error::io("cannot open", path, e);
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| Error::io("cannot read", path, e))?;
        let header = [MAGIC.as_slice(), fingerprint, &(width as u64).to_le_bytes()].concat();
        let mut end = 0;
        if let Some(mut rest) = bytes.strip_prefix(header.as_slice()) {
            end = header.len();
            while let Some((chunk, after)) = chunk(rest, width) {
                done.extend(chunk);
                end += rest.len() - after.len();
                rest = after;
            }
        }
        let write = |e| Error::io("cannot write", path, e);
        file.set_len(end as u64).map_err(write)?;
        file.seek(SeekFrom::End(0)).map_err(write)?;
        if end == 0 {
            file.write_all(&header).map_err(write)?;
        }
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Adds a chunk, durably: how many entities and bytes, the entities, a hash.
    pub(super) fn append(&mut self, done: &[Adaptation]) -> Result<()> {
        let mut body = Vec::new();
        for one in done {
            body.push(one.kind as u8);
            put(&mut body, &one.vector);
            body.extend_from_slice(&(one.surfaces.len() as u32).to_le_bytes());
            for (code, part) in &one.surfaces {
                body.extend_from_slice(&code.to_le_bytes());
                put(&mut body, part);
            }
        }
        let mut bytes = (done.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.append(&mut body);
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        written.map_err(|e| Error::io("cannot write", &self.path, e))
    }
}

fn put(bytes: &mut Vec<u8>, numbers: &[f32]) {
    numbers.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
}

/// The first chunk of `bytes`, if it is whole, and what follows it.
fn chunk(bytes: &[u8], width: usize) -> Option<(Vec<Adaptation>, &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let count = u32::from_le_bytes(*count);
    let (mut body, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    let whole = bytes.get(..12 + body.len())?;
    if count == 0 || count > MOST || blake3::hash(whole).as_bytes() != hash {
        return None;
    }
    let mut found = Vec::new();
    for _ in 0..count {
        found.push(take(&mut body, width)?);
    }
    body.is_empty().then_some((found, rest))
}

/// The first entity of a chunk's body, which then begins with the next.
fn take(body: &mut &[u8], width: usize) -> Option<Adaptation> {
    let mut bytes = |n: usize| {
        let (own, rest) = body.split_at_checked(n)?;
        *body = rest;
        Some(own)
    };
    let number = |b: &[u8]| b.first_chunk::<4>().map_or(f32::NAN, |b| f32::from_le_bytes(*b));
    let whole = |b: &[u8]| b.first_chunk::<4>().map(|b| u32::from_le_bytes(*b));
    let numbers = |bytes: &[u8]| bytes.chunks_exact(4).map(number).collect();
    let kind = bytes(1)?.first().copied()?;
    let kind = [Kind::Unlabelled, Kind::Refused, Kind::Adapted].into_iter().find(|k| *k as u8 == kind)?;
    let vector = numbers(bytes(width.checked_mul(4)?)?);
    let mut surfaces = Vec::new();
    for _ in 0..whole(bytes(4)?)? {
        let code = whole(bytes(4)?)?;
        surfaces.push((code, numbers(bytes(width.checked_mul(4)?)?)));
    }
    Some(Adaptation { vector, surfaces, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_frozen_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("partial");
        let one = |kind, x: f32, surfaces| Adaptation { vector: vec![x, -x], surfaces, kind };
        let first = [one(Kind::Adapted, 0.5, vec![(3, vec![1.0, 2.0])]), one(Kind::Refused, 1.5, Vec::new())];
        let second = [one(Kind::Unlabelled, 2.5, Vec::new())];
        let open = |fingerprint: u8| {
            let mut done = Vec::new();
            (Partial::open(&path, &[fingerprint; 32], 2, &mut done).unwrap(), done)
        };
        let (mut partial, done) = open(7);
        assert!(done.is_empty());
        partial.append(&first).unwrap();
        partial.append(&second).unwrap();
        drop(partial);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(
            blake3::hash(&bytes).to_hex()[..16],
            *include_str!("../../tests/fixtures/partial.v2.txt").trim(),
            "the layout changed: raise the version in MAGIC"
        );
        assert_eq!(open(7).1, [&first[..], &second].concat());
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(open(7).1, first);
        // Of another run, or another version: nothing is taken.
        assert!(open(8).1.is_empty());
        let mut other = bytes;
        other[15] = 1;
        std::fs::write(&path, &other).unwrap();
        assert!(open(7).1.is_empty());
    }
}
