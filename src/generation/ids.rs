//! Ids and titles in place: texts by row, and rows by text through binary search in the map.

use crate::error::{Result, err};
use crate::store::Snapshot;

/// Texts by row. Contents are not verified when a snapshot is opened, so every access is checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Texts<'a> {
    prefix: &'static str,
    offsets: &'a [u64],
    bytes: &'a [u8],
}

impl<'a> Texts<'a> {
    /// The sections `names` = `[offsets, bytes]` of `rows` texts.
    pub(super) fn open(
        snapshot: &'a Snapshot,
        prefix: &'static str,
        names: [&'static str; 2],
        rows: usize,
    ) -> Result<Self> {
        let [offsets, bytes] = names;
        let texts = Self { prefix, offsets: snapshot.u64s(offsets)?, bytes: snapshot.slice::<u8>(bytes)? };
        if texts.offsets.len() != rows.saturating_add(1) {
            let have = texts.offsets.len();
            return Err(err!(Corrupt, "section {offsets} has {have} entries for {rows} rows; publish again"));
        }
        Ok(texts)
    }

    fn raw(&self, row: u32) -> Option<&'a [u8]> {
        let row = row as usize;
        let start = usize::try_from(*self.offsets.get(row)?).ok()?;
        let end = usize::try_from(*self.offsets.get(row.checked_add(1)?)?).ok()?;
        self.bytes.get(start..end)
    }

    /// The text of `row`.
    pub(super) fn get(&self, row: u32) -> Result<&'a str> {
        self.raw(row).and_then(|b| std::str::from_utf8(b).ok()).ok_or_else(|| {
            err!(Corrupt, "{} has no readable text at row {row}; verify the store and roll back", self.prefix)
        })
    }
}

/// Ids by row and rows by id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids<'a> {
    texts: Texts<'a>,
    sorted: &'a [u32],
}

impl<'a> Ids<'a> {
    /// The sections `names` = `[offsets, bytes, sorted]` of `rows` ids.
    pub(super) fn open(
        snapshot: &'a Snapshot,
        prefix: &'static str,
        names: [&'static str; 3],
        rows: usize,
    ) -> Result<Self> {
        let [offsets, bytes, sorted_name] = names;
        let sorted = snapshot.u32s(sorted_name)?;
        if sorted.len() != rows {
            let have = sorted.len();
            return Err(err!(Corrupt, "section {sorted_name} has {have} entries for {rows} ids; publish again"));
        }
        Ok(Self { texts: Texts::open(snapshot, prefix, [offsets, bytes], rows)?, sorted })
    }

    /// The id of `row`.
    pub(super) fn get(&self, row: u32) -> Result<&'a str> {
        self.texts.get(row)
    }

    /// The row of `id`, if it is known.
    pub(super) fn find(&self, id: &str) -> Result<Option<u32>> {
        let (mut low, mut high) = (0, self.sorted.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let row = self.sorted.get(middle).copied();
            let Some((row, text)) = row.and_then(|row| Some((row, self.texts.raw(row)?))) else {
                let prefix = self.texts.prefix;
                return Err(err!(Corrupt, "{prefix}.sorted is damaged at {middle}; verify the store and roll back"));
            };
            match text.cmp(id.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(Some(row)),
            }
        }
        Ok(None)
    }
}
