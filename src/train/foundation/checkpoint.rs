//! Training that can be taken up again to the bit: everything a step depends on, in one file that is replaced whole.
//!
//! Layout: magic, version (a byte), length of the record (u64), the record ([`v1::Progress`]), the arrays, each after its length (f32,
//! then u64, little-endian), the epochs before the cooldown (u64), BLAKE3 of all before it. Random choices are functions of the seed,
//! the epoch and the step, so the place in the data is all of the generator's state.

use crate::data::Protocol;
use crate::error::{Error, Result, err};
use crate::options::text::Lines;
use crate::options::{Device, ModelOptions, TokenizerOptions, TrainOptions};
use crate::store::wire::{codec, v1};
use crate::train::optimiser::{Moments, Table};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 15] = b"\x89DOCENT-CKPT\r\n\x1a";
/// The version that is written. Version 4 had no cooldown, version 3 another hash of what it belongs to besides.
const VERSION: u8 = 5;
const WITHOUT_COOLDOWN: u8 = 4;
const BEFORE: u8 = 3;

/// What must be the same for a checkpoint to be continued. Limits of time and place, and the threads, are no part of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub data: &'a [u8; 32],
    pub targets: &'a [u8; 32],
    pub protocol: &'a Protocol,
    /// Whether events are no targets because they repeat items.
    pub excluded: bool,
    pub model: &'a ModelOptions,
    pub options: &'a TrainOptions,
    pub tokenizer: &'a TokenizerOptions,
    pub device: Device,
}

impl Identity<'_> {
    /// A hash of it, by the text of the options.
    pub(crate) fn hash(&self) -> [u8; 32] {
        let mut lines = Lines::default();
        lines.put(self.model);
        lines.put(&TrainOptions { max_seconds: 0, checkpoint_every: 0, ..self.options.clone() });
        if self.tokenizer.is_on() {
            lines.put(self.tokenizer);
        }
        let mut text = format!("{}\n{}\n", self.protocol, self.device);
        if self.excluded {
            text.push_str("seen = excluded\n");
        }
        for (key, value) in lines.binding.iter().chain(&lines.informative) {
            text.push_str(&format!("{key} = {value:?}\n"));
        }
        self.hash_of(&text)
    }

    /// The same as version 3 had it.
    fn before(&self) -> [u8; 32] {
        let Self { protocol, model: m, options: o, device, .. } = self;
        let tower = m.tower.map(|t| {
            let (buckets, masking, young) = (t.title_buckets, t.masking, t.masking_young);
            format!("TowerOptions {{ title_buckets: {buckets}, masking: {masking:?}, masking_young: {young:?} }}")
        });
        let mut text = format!(
            "{protocol:?} ModelOptions {{ width: {:?}, block: {:?}, blocks: {:?}, heads: {:?}, hidden: {:?}, context: {:?}, \
             positions: {:?}, distance_bias: {:?}, time_bias: {:?}, time_input: {:?}, field_width: {:?}, normalized: {:?}, \
             temperature: {:?}, tower: {:?}, auxiliary: {:?}, feedback: {:?} }} TrainOptions {{ seed: {:?}, threads: 0, loss: {:?}, \
             objective: {:?}, epochs: {:?}, batch: {:?}, learning_rate: {:?}, warmup: {:?}, final_rate: {:?}, weight_decay: {:?}, \
             clip: {:?}, dropout: {:?}, patience: {:?}, validate_every: {:?}, ema: {:?}, window_share: {:?}, checkpoint_every: 0, \
             max_seconds: 0 }} {device:?}",
            m.width,
            m.block,
            m.blocks,
            m.heads,
            m.hidden,
            m.max_length,
            m.positions,
            m.distance_bias,
            m.time_bias,
            m.time_input,
            m.field_width,
            m.normalized,
            m.temperature,
            format_args!("{}", tower.map_or("None".into(), |t| format!("Some({t})"))),
            m.auxiliary,
            m.feedback,
            o.seed,
            o.loss,
            o.objective,
            o.epochs,
            o.batch,
            o.learning_rate,
            o.warmup,
            o.final_rate,
            o.weight_decay,
            o.clip,
            o.dropout,
            o.patience,
            o.validate_every,
            o.ema,
            o.window_share
        );
        if self.tokenizer.is_on() {
            text.push_str(&format!("{:?}", self.tokenizer));
        }
        self.hash_of(&text)
    }

    fn hash_of(&self, text: &str) -> [u8; 32] {
        *blake3::Hasher::new().update(self.data).update(self.targets).update(text.as_bytes()).finalize().as_bytes()
    }
}

/// Where training stands, besides the arrays.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Progress {
    /// [`Identity::hash`].
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
    /// Epochs before the cooldown; 0: it has not begun.
    pub held: u32,
}

impl From<Progress> for v1::Progress {
    fn from(p: Progress) -> Self {
        Self {
            identity: p.identity,
            step: p.step,
            epoch: p.epoch,
            batch: p.batch,
            tokens: p.tokens,
            seconds: p.seconds,
            losses: p.losses,
            best_losses: p.best_losses,
            best: p.best,
            best_epoch: p.best_epoch,
            waited: p.waited,
        }
    }
}

impl From<v1::Progress> for Progress {
    fn from(p: v1::Progress) -> Self {
        Self {
            identity: p.identity,
            step: p.step,
            epoch: p.epoch,
            batch: p.batch,
            tokens: p.tokens,
            seconds: p.seconds,
            losses: p.losses,
            best_losses: p.best_losses,
            best: p.best,
            best_epoch: p.best_epoch,
            waited: p.waited,
            held: 0,
        }
    }
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
    let record = codec::archive(&v1::Progress::from(progress.clone()))
        .map_err(|e| err!(Internal, "cannot encode a checkpoint: {e}; this is a defect in docent, please report it"))?;
    let write = |draft: &Path, arrays: &mut Arrays| -> std::io::Result<()> {
        let mut out = Hashed { inner: std::io::BufWriter::new(fs::File::create(draft)?), hash: blake3::Hasher::new() };
        out.write_all(MAGIC)?;
        out.write_all(&[VERSION])?;
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
        out.write_all(&u64::from(progress.held).to_le_bytes())?;
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
/// `Corrupt` for a damaged file, `UpgradeRequired` for one of another version, `StateMismatch` if it belongs to other data or options.
pub(crate) fn load(
    directory: &Path,
    identity: &Identity<'_>,
    widths: [usize; 2],
) -> Result<Option<(Progress, Arrays)>> {
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
    let Some((version, mut rest)) = body.strip_prefix(MAGIC).and_then(|rest| rest.split_first()) else {
        return Err(damaged("it is not a checkpoint"));
    };
    if blake3::hash(body).as_bytes() != hash {
        return Err(damaged("its checksum does not match"));
    }
    if !(BEFORE..=VERSION).contains(version) {
        let from = from.display();
        let message = "this build reads 3 to 5; resume with the version that wrote it, or train without --resume";
        return Err(err!(UpgradeRequired, "checkpoint {from} has version {version}, {message}"));
    }
    let mut take = |n: usize| -> Result<&[u8]> {
        let (head, tail) = rest.split_at_checked(n).ok_or_else(|| damaged("it ends early"))?;
        rest = tail;
        Ok(head)
    };
    let length = |b: &[u8]| b.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b) as usize);
    let n = length(take(8)?);
    let mut progress: Progress =
        codec::read::<v1::Progress>(&codec::aligned(take(n)?)).map_err(|e| damaged(&e))?.into();
    let expected = if *version == BEFORE { identity.before() } else { identity.hash() };
    // Before, every event was a target, and nothing had a cooldown.
    let other = *version == BEFORE && (identity.excluded || identity.options.cooldown != 0.0);
    if std::mem::replace(&mut progress.identity, identity.hash()) != expected || other {
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
    if *version > WITHOUT_COOLDOWN {
        progress.held = length(take(8)?) as u32;
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

    /// What a training is that differs in its seed alone.
    fn with<T>(seed: u64, look: impl FnOnce(&Identity<'_>) -> T) -> T {
        let (model, tokenizer) = (ModelOptions::default(), TokenizerOptions::default());
        let options = TrainOptions { seed, cooldown: 0.0, ..TrainOptions::default() };
        look(&Identity {
            data: &[1; 32],
            targets: &[2; 32],
            protocol: &Protocol::LeaveOneOut,
            excluded: false,
            model: &model,
            options: &options,
            tokenizer: &tokenizer,
            device: Device::Cpu,
        })
    }

    fn again(directory: &Path, seed: u64) -> Result<Option<(Progress, Arrays)>> {
        with(seed, |identity| load(directory, identity, [1, 4]))
    }

    fn state() -> (Progress, Arrays) {
        let identity = with(7, |identity| identity.hash());
        let progress = Progress { identity, step: 3, held: 3, best: vec![("mrr".into(), 0.5)], ..Progress::default() };
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
        assert!(again(dir.path(), 7).unwrap().is_none());
        save(dir.path(), &progress, &mut arrays).unwrap();
        assert_eq!(again(dir.path(), 7).unwrap().unwrap(), (progress, arrays));
        let e = again(dir.path(), 8).unwrap_err();
        assert_eq!(e.kind(), crate::ErrorKind::StateMismatch);
        let whole = fs::read(path(dir.path())).unwrap();
        for i in 0..whole.len() {
            let mut bad = whole.clone();
            bad[i] ^= 0x10;
            fs::write(path(dir.path()), &bad).unwrap();
            assert_eq!(again(dir.path(), 7).unwrap_err().kind(), crate::ErrorKind::Corrupt, "byte {i}");
            fs::write(path(dir.path()), &whole[..i]).unwrap();
            assert_eq!(again(dir.path(), 7).unwrap_err().kind(), crate::ErrorKind::Corrupt, "length {i}");
        }
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
    }

    #[test]
    fn limits_and_threads_are_no_part_of_an_identity() {
        with(7, |identity| {
            let same = TrainOptions { threads: 9, max_seconds: 3, checkpoint_every: 1, ..identity.options.clone() };
            assert_eq!(Identity { options: &same, ..*identity }.hash(), identity.hash());
            let other = ModelOptions { temperature: 0.06, ..identity.model.clone() };
            assert_ne!(Identity { model: &other, ..*identity }.hash(), identity.hash());
            let tokenizer = TokenizerOptions { max_gap: 5, ..TokenizerOptions::default() };
            assert_ne!(Identity { tokenizer: &tokenizer, ..*identity }.hash(), identity.hash());
        });
    }

    /// A file as version 3 wrote it, but for the identity, which depends on the training.
    fn of_version_3(seed: u64) -> Vec<u8> {
        let text = include_str!("../../../tests/fixtures/before-v1.txt");
        let hex = text.lines().find_map(|line| line.strip_prefix("ckpt ")).unwrap();
        let pairs = hex.as_bytes().as_chunks::<2>().0.iter();
        let mut bytes: Vec<u8> =
            pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
        let at = bytes.windows(32).position(|part| part == [7; 32]).unwrap();
        bytes[at..at + 32].copy_from_slice(&with(seed, |identity| identity.before()));
        let body = bytes.len() - 32;
        let hash = blake3::hash(&bytes[..body]);
        bytes[body..].copy_from_slice(hash.as_bytes());
        bytes
    }

    #[test]
    fn a_checkpoint_of_the_version_before_is_taken_up_and_one_of_another_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = of_version_3(7);
        fs::write(path(dir.path()), &bytes).unwrap();
        let (progress, mut arrays) = again(dir.path(), 7).unwrap().unwrap();
        let expected = Progress {
            identity: with(7, |identity| identity.hash()),
            step: 3,
            epoch: 2,
            batch: 5,
            tokens: 77,
            seconds: 1.5,
            losses: (vec![0.25, 2.0], 4),
            best_losses: vec![1.0, 3.0],
            best: vec![("mrr".into(), 0.5)],
            best_epoch: 1,
            waited: 6,
            held: 0,
        };
        assert_eq!((&progress, &arrays), (&expected, &state().1));
        assert_eq!(again(dir.path(), 8).unwrap_err().kind(), crate::ErrorKind::StateMismatch);
        let cooled = |identity: &Identity<'_>| {
            let options = TrainOptions { cooldown: 0.2, ..identity.options.clone() };
            load(dir.path(), &Identity { options: &options, ..*identity }, [1, 4]).unwrap_err().kind()
        };
        assert_eq!(with(7, cooled), crate::ErrorKind::StateMismatch, "it had a cosine");
        save(dir.path(), &progress, &mut arrays).unwrap();
        let last = again(dir.path(), 7).unwrap().unwrap();
        assert_eq!(last, (expected, arrays));
        // Version 4 lacks the last number and is otherwise as this one.
        let mut four = fs::read(path(dir.path())).unwrap();
        four.drain(four.len() - 40..four.len() - 32);
        four[MAGIC.len()] = WITHOUT_COOLDOWN;
        let body = four.len() - 32;
        let hash = blake3::hash(&four[..body]);
        four[body..].copy_from_slice(hash.as_bytes());
        fs::write(path(dir.path()), &four).unwrap();
        assert_eq!(again(dir.path(), 7).unwrap().unwrap(), last);
        for version in [0, 2, 6, 255] {
            bytes[MAGIC.len()] = version;
            let body = bytes.len() - 32;
            let hash = blake3::hash(&bytes[..body]);
            bytes[body..].copy_from_slice(hash.as_bytes());
            fs::write(path(dir.path()), &bytes).unwrap();
            let error = again(dir.path(), 7).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::UpgradeRequired, "{error}");
        }
    }

    #[test]
    fn the_identity_of_version_3_is_frozen() {
        let text = "LeaveOneOut ModelOptions { width: 64, block: Gated, blocks: 2, heads: 2, hidden: 256, context: 200, positions: \
                    Learned, distance_bias: true, time_bias: true, time_input: true, field_width: 16, normalized: true, \
                    temperature: 0.05, tower: Some(TowerOptions { title_buckets: 4096, masking: None, masking_young: [0.7, 0.5] \
                    }), auxiliary: [], feedback: 0.0 } TrainOptions { seed: 7, threads: 0, loss: None, objective: Objective { \
                    utility: Equal, window: 1, half_life: 86400.0 }, epochs: 30, batch: 32, learning_rate: 0.001, warmup: 100, \
                    final_rate: 0.1, weight_decay: 0.0, clip: 1.0, dropout: 0.2, patience: 10, validate_every: 1, ema: 0.0, \
                    window_share: 0.5, checkpoint_every: 0, max_seconds: 0 } CpuTokenizerOptions { max_gap: 60, surface: \"\", \
                    terminal: [], merges: 32, budget: 1, dropout: 0.0 }";
        with(7, |identity| {
            let tower =
                Some(crate::options::TowerOptions { gate: crate::options::Gate::Learned, ..Default::default() });
            let model = ModelOptions {
                width: 64,
                blocks: 2,
                heads: 2,
                hidden: 256,
                max_length: 200,
                tower,
                ..identity.model.clone()
            };
            let options = TrainOptions {
                epochs: 30,
                batch: 32,
                patience: 10,
                ema: 0.0,
                threads: 4,
                max_seconds: 9,
                ..identity.options.clone()
            };
            let tokenizer = TokenizerOptions { max_gap: 60, ..TokenizerOptions::default() };
            let identity = Identity { model: &model, options: &options, tokenizer: &tokenizer, ..*identity };
            assert_eq!(identity.before(), identity.hash_of(text));
        });
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
