//! Training that can be taken up again to the bit: everything a step depends on, in one file that is replaced whole.
//!
//! Layout: magic, length of the record, the record (rkyv), the arrays in the order of the record's lengths (f32 or u64,
//! little-endian), BLAKE3 of all before it. Random choices are functions of the seed, the epoch and the step, so the place in the
//! data is all of the generator's state.

use crate::error::{Error, Result, err};
use crate::train::optimiser::{Moments, Table};
use rkyv::{Archive, Deserialize, Serialize};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 16] = b"\x89DOCENT-CKPT\r\n\x1a\x03";

/// Where training stands, besides the arrays.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
pub(crate) struct Progress {
    /// BLAKE3 of what must not change between a checkpoint and its resumption: data, split, options.
    pub identity: [u8; 32],
    /// Steps done.
    pub step: u64,
    /// The epoch that is under way.
    pub epoch: u32,
    /// Batches of that epoch that are done.
    pub batch: u64,
    /// Tokens read.
    pub tokens: u64,
    /// Seconds of training before this checkpoint.
    pub seconds: f64,
    /// Sums of each objective's losses of the steps since the last validation, and their number.
    pub losses: (Vec<f64>, u64),
    /// Mean losses of the objectives before the best validation.
    pub best_losses: Vec<f64>,
    /// Metrics of the best validation.
    pub best: Vec<(String, f64)>,
    /// The epoch of the best validation.
    pub best_epoch: u32,
    /// Validations since the best one.
    pub waited: u32,
}

/// The arrays of training.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Arrays {
    /// The flat dense array.
    pub dense: Moments,
    /// The item table.
    pub items: Table,
    /// The feature tables.
    pub features: Table,
    /// Dense, items and features as they were at the best validation; empty before the first.
    pub best: [Vec<f32>; 3],
}

impl Arrays {
    fn floats(&mut self) -> [&mut Vec<f32>; 15] {
        let [a, b, c] = &mut self.best;
        [
            &mut self.dense.values,
            &mut self.dense.first,
            &mut self.dense.second,
            &mut self.items.rows.values,
            &mut self.items.rows.first,
            &mut self.items.rows.second,
            &mut self.features.rows.values,
            &mut self.features.rows.first,
            &mut self.features.rows.second,
            &mut self.dense.average,
            &mut self.items.rows.average,
            &mut self.features.rows.average,
            a,
            b,
            c,
        ]
    }
}

/// The checkpoint file of a training directory.
pub(crate) fn path(directory: &Path) -> PathBuf {
    directory.join("training.checkpoint")
}

/// Replaces the checkpoint of `directory` (made if absent): written beside it, flushed to disk, renamed over it.
///
/// # Errors
/// `Io`, `NoSpace` or `PermissionDenied`; the earlier checkpoint stays.
pub(crate) fn save(directory: &Path, progress: &Progress, arrays: &mut Arrays) -> Result<()> {
    fs::create_dir_all(directory).map_err(|e| Error::io("cannot make the checkpoint directory", directory, e))?;
    let (to, draft) = (path(directory), directory.join("training.checkpoint.tmp"));
    let failed = |e| Error::io("cannot write the checkpoint", &draft, e);
    let record = rkyv::to_bytes::<rkyv::rancor::Error>(progress)
        .map_err(|e| err!(Internal, "cannot encode a checkpoint: {e}; this is a defect in docent, please report it"))?;
    let write = |draft: &Path, arrays: &mut Arrays| -> std::io::Result<()> {
        let mut out = Hashed { inner: std::io::BufWriter::new(fs::File::create(draft)?), hash: blake3::Hasher::new() };
        out.write_all(MAGIC)?;
        out.write_all(&(record.len() as u64).to_le_bytes())?;
        out.write_all(&record)?;
        let mut bytes = Vec::new();
        for array in arrays.floats() {
            out.write_all(&(array.len() as u64).to_le_bytes())?;
            for part in array.chunks(1 << 16) {
                bytes.clear();
                part.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
                out.write_all(&bytes)?;
            }
        }
        for table in [&arrays.items, &arrays.features] {
            out.write_all(&(table.last.len() as u64).to_le_bytes())?;
            bytes.clear();
            table.last.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
            out.write_all(&bytes)?;
        }
        let hash = *out.hash.finalize().as_bytes();
        out.inner.write_all(&hash)?;
        out.inner.into_inner().map_err(|e| e.into_error())?.sync_all()
    };
    let replaced = write(&draft, arrays)
        .map_err(failed)
        .and_then(|()| fs::rename(&draft, &to).map_err(|e| Error::io("cannot rename the checkpoint to", &to, e)));
    if replaced.is_err() {
        // What was written so far holds the space that the caller is asked to free.
        let _ = fs::remove_file(&draft);
    }
    replaced?;
    let flush = fs::File::open(directory).and_then(|d| d.sync_all());
    flush.map_err(|e| Error::io("cannot flush the directory", directory, e))
}

struct Hashed<W> {
    inner: W,
    hash: blake3::Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..n).unwrap_or(bytes));
        Ok(n)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Reads the checkpoint of `directory`; `widths` are the row widths of the item and the feature tables. `None` if there is none.
///
/// # Errors
/// `Corrupt` for a damaged file, `StateMismatch` if it belongs to other data or options.
pub(crate) fn load(directory: &Path, identity: &[u8; 32], widths: [usize; 2]) -> Result<Option<(Progress, Arrays)>> {
    let from = path(directory);
    let mut bytes = Vec::new();
    match fs::File::open(&from) {
        Ok(mut file) => file.read_to_end(&mut bytes).map_err(|e| Error::io("cannot read the checkpoint", &from, e))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("cannot open the checkpoint", &from, e)),
    };
    let damaged =
        |what: &str| err!(Corrupt, "checkpoint {}: {what}; delete it and train without --resume", from.display());
    let (body, hash) = bytes.split_last_chunk::<32>().ok_or_else(|| damaged("it is too short"))?;
    if body.get(..MAGIC.len()) != Some(MAGIC) {
        return Err(damaged("it is not a checkpoint of this version"));
    }
    if blake3::hash(body).as_bytes() != hash {
        return Err(damaged("its checksum does not match"));
    }
    let mut rest = body.get(MAGIC.len()..).unwrap_or(&[]);
    let mut take = |n: usize| -> Result<&[u8]> {
        let (head, tail) = rest.split_at_checked(n).ok_or_else(|| damaged("it ends early"))?;
        rest = tail;
        Ok(head)
    };
    let length = |b: &[u8]| b.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b) as usize);
    let n = length(take(8)?);
    let mut record = rkyv::util::AlignedVec::<16>::new();
    record.extend_from_slice(take(n)?);
    let progress: Progress =
        rkyv::from_bytes::<Progress, rkyv::rancor::Error>(&record).map_err(|e| damaged(&e.to_string()))?;
    if progress.identity != *identity {
        return Err(err!(
            StateMismatch,
            "checkpoint {}: it belongs to other data, another split or other options; train with those it was made with, \
             or without --resume to start anew",
            from.display()
        ));
    }
    let mut arrays = Arrays::default();
    for array in arrays.floats() {
        let n = length(take(8)?);
        let raw = take(n.checked_mul(4).ok_or_else(|| damaged("an array is too long"))?)?;
        *array = raw.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    }
    for (table, width) in [&mut arrays.items, &mut arrays.features].into_iter().zip(widths) {
        let n = length(take(8)?);
        let raw = take(n.checked_mul(8).ok_or_else(|| damaged("an array is too long"))?)?;
        table.last = raw.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
        table.width = width;
    }
    Ok(Some((progress, arrays)))
}

/// Removes the checkpoint of `directory`, if there is one.
///
/// # Errors
/// `Io` or `PermissionDenied`.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    match fs::remove_file(path(directory)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("cannot remove the checkpoint", &path(directory), e))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (Progress, Arrays) {
        let progress = Progress { identity: [7; 32], step: 3, best: vec![("mrr".into(), 0.5)], ..Progress::default() };
        let mut arrays = Arrays { items: Table::new(vec![1.5, f32::MIN_POSITIVE], 1, true), ..Arrays::default() };
        arrays.items.last[1] = 9;
        arrays.features.width = 4;
        arrays.best = [vec![2.0], vec![3.0], Vec::new()];
        (progress, arrays)
    }

    #[test]
    fn what_was_saved_comes_back_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (progress, mut arrays) = state();
        assert!(load(dir.path(), &[7; 32], [1, 4]).unwrap().is_none());
        save(dir.path(), &progress, &mut arrays).unwrap();
        assert_eq!(load(dir.path(), &[7; 32], [1, 4]).unwrap().unwrap(), (progress, arrays));
        let e = load(dir.path(), &[8; 32], [1, 4]).unwrap_err();
        assert_eq!(e.kind(), crate::ErrorKind::StateMismatch);
        let whole = fs::read(path(dir.path())).unwrap();
        for i in 0..whole.len() {
            let mut bad = whole.clone();
            bad[i] ^= 0x10;
            fs::write(path(dir.path()), &bad).unwrap();
            assert_eq!(load(dir.path(), &[7; 32], [1, 4]).unwrap_err().kind(), crate::ErrorKind::Corrupt, "byte {i}");
            fs::write(path(dir.path()), &whole[..i]).unwrap();
            assert_eq!(load(dir.path(), &[7; 32], [1, 4]).unwrap_err().kind(), crate::ErrorKind::Corrupt, "length {i}");
        }
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
    }

    #[test]
    fn a_checkpoint_that_cannot_be_written_leaves_no_draft() {
        let dir = tempfile::tempdir().unwrap();
        let (progress, mut arrays) = state();
        fs::create_dir_all(path(dir.path()).join("in the way")).unwrap();
        assert!(save(dir.path(), &progress, &mut arrays).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
