//! What an interrupted batch adaptation has done: a header, then chunks, each with a hash of its own. A chunk that is not whole
//! is done again.

use super::batch::{Adaptation, Kind};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 16] = b"docent.adapt\0\0\0\x01";
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

    /// Adds a chunk, durably.
    pub(super) fn append(&mut self, done: &[Adaptation]) -> Result<()> {
        let mut bytes = (done.len() as u32).to_le_bytes().to_vec();
        for one in done {
            bytes.push(one.kind as u8);
            one.vector.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
        }
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        written.map_err(|e| Error::io("cannot write", &self.path, e))
    }
}

/// The first chunk of `bytes`, if it is whole, and what follows it.
fn chunk(bytes: &[u8], width: usize) -> Option<(Vec<Adaptation>, &[u8])> {
    let (count, _) = bytes.split_first_chunk::<4>()?;
    let count = u32::from_le_bytes(*count);
    let one = 1 + 4 * width;
    let length = 4 + (count.min(MOST) as usize).checked_mul(one)?;
    let (body, rest) = bytes.split_at_checked(length)?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    if count == 0 || count > MOST || blake3::hash(body).as_bytes() != hash {
        return None;
    }
    let adaptation = |bytes: &[u8]| {
        let (kind, vector) = bytes.split_first()?;
        let kind = [Kind::Unlabelled, Kind::Refused, Kind::Adapted].into_iter().find(|k| *k as u8 == *kind)?;
        let number = |b: &[u8]| b.first_chunk::<4>().map_or(f32::NAN, |b| f32::from_le_bytes(*b));
        Some(Adaptation { vector: vector.chunks_exact(4).map(number).collect(), kind })
    };
    let chunk: Option<Vec<_>> = body.get(4..)?.chunks_exact(one).map(adaptation).collect();
    Some((chunk?, rest))
}
