//! The ranker of a generation: what is kept of it besides what lies in its sections, and all of it, borrowed.

use super::columns::expect_length;
use super::support::Support;
use crate::error::{Result, err};
use crate::kernels::retrieve::finite;
use crate::model::sections;
use crate::options::RankerGoal;
use crate::ranker::{Evidence, Inputs, RankerShape, RankerView, SurfaceBlock, unseen};
use crate::store::{RankerRecord, Snapshot};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;

/// What a generation keeps of its ranker, besides what lies in its sections.
#[derive(Debug)]
pub(super) struct OpenedRanker {
    shape: RankerShape,
    inputs: Inputs,
    version: [u8; 32],
    /// The popularity of an item that nobody has met.
    unseen: f32,
    /// Whether batch adaptation has made a table.
    table: bool,
    /// The vector of an item that the ranker was not trained with.
    zero: Vec<f32>,
    surfaces: Option<Surfaces>,
}

/// The surfaces that a ranker tells apart.
#[derive(Debug)]
struct Surfaces {
    /// The ranker seen from the block of people on surfaces.
    shape: RankerShape,
    codes: HashMap<String, u32>,
    /// By code from 1, what is known of anybody there before any outcome; made when it is first asked for.
    starts: Vec<OnceLock<Vec<f32>>>,
}

/// A generation's ranker, borrowed once for a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublishedRanker<'a> {
    /// What the manifest says of it.
    pub record: &'a RankerRecord,
    /// Its weights.
    pub view: RankerView<'a>,
    /// What its meta block reads.
    pub inputs: &'a Inputs,
    opened: &'a OpenedRanker,
    snapshot: &'a Snapshot,
    popularity: &'a [f32],
    /// Empty where items have none.
    item_embeddings: &'a [f32],
}

impl OpenedRanker {
    /// The ranker of a snapshot, its sections checked against the manifest; `None` where there is none.
    pub(super) fn open(snapshot: &Snapshot) -> Result<Option<Self>> {
        let content = snapshot.manifest();
        let Some(record) = &content.ranker else { return Ok(None) };
        let heads = record.heads.len();
        if record.means.len() != heads || record.calibration.len() != heads {
            return Err(err!(
                Corrupt,
                "the ranker's {heads} heads have other numbers of means or calibrations; publish again"
            ));
        }
        let order = record.order;
        if order.head as usize >= heads || order.weight.is_some_and(|w| !(0.0..=RankerGoal::HEAVIEST).contains(&w)) {
            return Err(err!(
                Corrupt,
                "lists are ordered by head {} of {heads} with the weight {:?}; publish again",
                order.head,
                order.weight
            ));
        }
        let width = content.model.width as usize;
        let inputs = Inputs::new(&content.schema, width, &record.means);
        let numbers = 1 + record.impression.len();
        let shape = RankerShape::new(&record.shape, inputs.width(), width, numbers, heads, record.options.inner_rate)?;
        let counted = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let (n, e) = (counted(content.items), counted(content.entities));
        let (own, embedding) = (record.shape.item_width as usize, record.shape.embedding as usize);
        let floats = |name: &str, want: usize| expect_length(name, snapshot.f32s(name)?.len(), want);
        floats(sections::RANKER_WEIGHTS, shape.layout.size())?;
        floats(sections::RANKER_ITEMS, n.saturating_mul(own))?;
        floats(sections::RANKER_POPULARITY, n)?;
        if record.shape.identity {
            floats(sections::RANKER_ENTITIES, e.saturating_mul(embedding))?;
        }
        if record.shape.items.is_on() {
            floats(sections::META_ITEM_EMBEDDINGS, n.saturating_mul(embedding))?;
        }
        let table = snapshot.has(sections::META_EMBEDDINGS);
        let surfaces = Surfaces::of(record, &shape);
        if table {
            let offsets = |name: &str| expect_length(name, snapshot.u64s(name)?.len(), e.saturating_add(1));
            floats(sections::META_EMBEDDINGS, e.saturating_mul(embedding))?;
            floats(sections::META_EVIDENCE, e.saturating_mul(4 * heads))?;
            offsets(sections::META_OFFSETS)?;
            let outcomes = snapshot.u32s(sections::META_ITEMS)?.len();
            floats(sections::META_LABELS, outcomes.saturating_mul(heads))?;
            if !record.impression.is_empty() {
                floats(sections::META_IMPRESSION, outcomes.saturating_mul(record.impression.len()))?;
            }
            if content.schema.has_time {
                expect_length(sections::META_UNTIL, snapshot.i64s(sections::META_UNTIL)?.len(), e)?;
                if snapshot.has(sections::META_TIMES) {
                    expect_length(sections::META_TIMES, snapshot.i64s(sections::META_TIMES)?.len(), outcomes)?;
                }
            }
            if surfaces.is_some() {
                expect_length(sections::META_SURFACES, snapshot.u32s(sections::META_SURFACES)?.len(), outcomes)?;
                offsets(sections::META_SURFACE_OFFSETS)?;
                let pairs = snapshot.u32s(sections::META_SURFACE_CODES)?.len();
                floats(sections::META_SURFACE_EMBEDDINGS, pairs.saturating_mul(embedding))?;
            }
        }
        let unseen = unseen(snapshot.f32s(sections::RANKER_POPULARITY)?);
        let (version, zero) = (version(snapshot)?, vec![0.0; own]);
        Ok(Some(Self { shape, inputs, version, unseen, table, zero, surfaces }))
    }

    /// What the adapted embeddings of this ranker belong to.
    pub(super) fn version(&self) -> [u8; 32] {
        self.version
    }

    /// The ranker with its sections.
    pub(super) fn borrow<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        record: &'a RankerRecord,
    ) -> Result<PublishedRanker<'a>> {
        let options = &self.shape.options;
        let optional = |there: bool, name: &str| if there { snapshot.f32s(name) } else { Ok(&[][..]) };
        let view = RankerView {
            shape: &self.shape,
            dense: snapshot.f32s(sections::RANKER_WEIGHTS)?,
            items: snapshot.f32s(sections::RANKER_ITEMS)?,
            entities: optional(options.identity, sections::RANKER_ENTITIES)?,
            calibration: &record.calibration,
        };
        Ok(PublishedRanker {
            record,
            view,
            inputs: &self.inputs,
            opened: self,
            snapshot,
            popularity: snapshot.f32s(sections::RANKER_POPULARITY)?,
            item_embeddings: optional(options.items.is_on(), sections::META_ITEM_EMBEDDINGS)?,
        })
    }
}

impl Surfaces {
    fn of(record: &RankerRecord, shape: &RankerShape) -> Option<Self> {
        let codes = record.surfaces.iter().cloned().zip(1..).collect();
        let starts = record.surfaces.iter().map(|_| OnceLock::new()).collect();
        shape.of_surface().map(|shape| Self { shape, codes, starts })
    }
}

/// What an adapted embedding belongs to: the hash of all weights that it depends on. Generations that differ in their meta
/// embeddings alone, those of items included, have the same: beside newer ones of items an entity's own is older, not meaningless.
fn version(snapshot: &Snapshot) -> Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let mut names =
        vec![sections::ITEM_IDS.to_owned() + ".bytes", sections::ITEM_VECTORS.into(), sections::WEIGHTS.into()];
    names.extend([sections::FEATURES, sections::RANKER_WEIGHTS, sections::RANKER_ITEMS].map(str::to_owned));
    names.push(sections::RANKER_POPULARITY.into());
    if snapshot.has(sections::RANKER_ENTITIES) {
        names.push(sections::RANKER_ENTITIES.into());
    }
    for name in names {
        hasher.update(&snapshot.section(&name)?.hash);
    }
    Ok(*hasher.finalize().as_bytes())
}

impl<'a> PublishedRanker<'a> {
    /// What embeddings that are adapted with it belong to.
    pub(crate) fn version(&self) -> [u8; 32] {
        self.opened.version
    }

    /// Width of embeddings.
    pub(crate) fn width(&self) -> usize {
        self.view.shape.options.embedding as usize
    }

    /// The most outcomes that an adaptation reads.
    pub(crate) fn support(&self) -> usize {
        self.view.shape.options.support as usize
    }

    /// An item's own vector; zeros for one that the ranker was not trained with.
    pub(crate) fn item(&self, row: u32) -> &'a [f32] {
        self.view.item(row).unwrap_or(&self.opened.zero)
    }

    /// An item's popularity.
    pub(crate) fn popularity(&self, row: u32) -> f32 {
        self.popularity.get(row as usize).copied().unwrap_or(self.opened.unseen)
    }

    /// An item's embedding; `None` for one added since, and where items have none.
    pub(crate) fn item_embedding(&self, row: u32) -> Option<&'a [f32]> {
        let (width, row) = (self.width(), row as usize);
        self.item_embeddings.get(row.checked_mul(width)?..row.checked_add(1)?.checked_mul(width)?)
    }

    /// The meta embedding that batch adaptation made for an entity; `None` where it made none.
    pub(crate) fn embedding(&self, entity: u32) -> Result<Option<&'a [f32]>> {
        if !self.opened.table {
            return Ok(None);
        }
        let (width, row) = (self.width(), entity as usize);
        match self.snapshot.f32s(sections::META_EMBEDDINGS)?.get(row * width..(row + 1) * width) {
            Some(vector) if finite(vector) => Ok(Some(vector)),
            _ => {
                Err(err!(Corrupt, "the meta embedding of entity row {row} is damaged; verify the store and roll back"))
            }
        }
    }

    /// When the newest outcome happened that the generation holds of an entity.
    pub(crate) fn until(&self, entity: Option<u32>) -> Result<Option<i64>> {
        let timed = self.opened.table && self.snapshot.manifest().schema.has_time;
        let Some(row) = entity.filter(|_| timed) else { return Ok(None) };
        Ok(self.snapshot.i64s(sections::META_UNTIL)?.get(row as usize).copied().filter(|t| *t != i64::MIN))
    }

    /// What the generation holds of an entity's outcomes; nothing of one that it does not know.
    pub(crate) fn outcomes(&self, entity: Option<u32>) -> Result<Support> {
        let (heads, snapshot) = (self.view.shape.heads, self.snapshot);
        let wide = self.record.impression.len();
        let mut known = Support::none(heads);
        let Some(row) = entity.filter(|_| self.opened.table).map(|row| row as usize) else { return Ok(known) };
        let damaged = || err!(Corrupt, "the outcomes of entity row {row} are damaged; verify the store and roll back");
        let of = |section: &'static str, width: usize, range: Range<usize>| -> Result<&[f32]> {
            snapshot.f32s(section)?.get(range.start * width..range.end * width).ok_or_else(damaged)
        };
        let evidence = of(sections::META_EVIDENCE, 4 * heads, row..row + 1)?;
        for (to, from) in known.evidence.iter_mut().zip(evidence.chunks_exact(4)) {
            if let [count, sum, recent_count, recent_sum] = *from {
                *to = Evidence { count, sum, recent_count, recent_sum };
            }
        }
        let range = range_at(snapshot.u64s(sections::META_OFFSETS)?, row).ok_or_else(damaged)?;
        known.rows = snapshot.u32s(sections::META_ITEMS)?.get(range.clone()).ok_or_else(damaged)?.to_vec();
        known.labels = of(sections::META_LABELS, heads, range.clone())?.to_vec();
        if wide > 0 {
            known.impression = of(sections::META_IMPRESSION, wide, range.clone())?.to_vec();
        }
        known.times = match self.times()? {
            Some(times) => times.get(range.clone()).ok_or_else(damaged)?.to_vec(),
            None => vec![i64::MIN; known.rows.len()],
        };
        known.surfaces = match self.opened.surfaces.is_some() {
            true => snapshot.u32s(sections::META_SURFACES)?.get(range).ok_or_else(damaged)?.to_vec(),
            false => vec![0; known.rows.len()],
        };
        known.until = self.until(entity)?;
        let sound = |e: &Evidence| e.count.is_finite() && e.sum.is_finite() && e.recent_count.is_finite();
        let labels = known.labels.iter().all(|l| l.is_nan() || (0.0..=1.0).contains(l));
        let rows = known.rows.iter().all(|row| u64::from(*row) < snapshot.manifest().items);
        let surfaces = known.surfaces.iter().all(|code| *code as usize <= self.record.surfaces.len());
        match labels
            && rows
            && surfaces
            && known.times.is_sorted()
            && finite(&known.impression)
            && known.evidence.iter().all(sound)
        {
            true => Ok(known),
            false => Err(damaged()),
        }
    }

    /// When the outcomes of all entities happened; `None` where that is not kept.
    fn times(&self) -> Result<Option<&'a [i64]>> {
        let is_kept = self.opened.table && self.snapshot.has(sections::META_TIMES);
        is_kept.then(|| self.snapshot.i64s(sections::META_TIMES)).transpose()
    }

    /// Whether an outcome of an entity is among those that its published embedding was adapted to: the same item at the same time, or one from
    /// before the oldest of the outcomes that are kept. Where no times are kept, each that is not newer than the newest.
    pub(crate) fn is_published(&self, entity: Option<u32>, item: u32, time: Option<i64>) -> Result<bool> {
        let until = self.until(entity)?;
        let Some((row, time)) = entity.zip(time).filter(|(_, time)| until.is_some_and(|until| *time <= until)) else {
            return Ok(false);
        };
        let Some(times) = self.times()? else { return Ok(true) };
        let damaged = || err!(Corrupt, "the outcomes of entity row {row} are damaged; verify the store and roll back");
        let range = range_at(self.snapshot.u64s(sections::META_OFFSETS)?, row as usize).ok_or_else(damaged)?;
        let times = times.get(range.clone()).ok_or_else(damaged)?;
        let items = self.snapshot.u32s(sections::META_ITEMS)?.get(range).ok_or_else(damaged)?;
        let is_full = times.len() >= self.support();
        let is_before = is_full && times.first().is_some_and(|first| time < *first);
        Ok(is_before || times.iter().zip(items).any(|(t, i)| *t == time && *i == item))
    }

    /// Whether a field of this name says where an item is shown.
    pub(crate) fn is_surface(&self, name: &str) -> bool {
        self.opened.surfaces.as_ref().is_some_and(|s| s.shape.options.surface == name)
    }

    /// The code of a surface; 0 where it is not known.
    pub(crate) fn surface_code(&self, value: &str) -> u32 {
        self.opened.surfaces.as_ref().and_then(|s| s.codes.get(value)).copied().unwrap_or(0)
    }

    /// The name of a surface.
    pub(crate) fn surface_name(&self, code: u32) -> &'a str {
        self.record.surfaces.get((code as usize).wrapping_sub(1)).map_or("", String::as_str)
    }

    /// The code of the surface that fields name, 0 where they name none that is known; of several the last one.
    pub(crate) fn surface_of<'f>(&self, fields: impl DoubleEndedIterator<Item = (&'f str, &'f str)>) -> u32 {
        let named = fields.rev().find(|(name, _)| self.is_surface(name));
        named.map_or(0, |(_, value)| self.surface_code(value))
    }

    /// The block that adapts people on surfaces, and the ranker's shape seen from it; `None` where none are told apart.
    pub(crate) fn surface_block(&self) -> Result<Option<(SurfaceBlock<'a>, &'a RankerShape)>> {
        let Some(surfaces) = &self.opened.surfaces else { return Ok(None) };
        let view = RankerView { shape: &surfaces.shape, entities: &[], ..self.view };
        Ok(Some((SurfaceBlock::new(view, &self.record.means)?, &surfaces.shape)))
    }

    /// What is known of anybody on a surface before any outcome there; `None` for one that the ranker does not know.
    pub(crate) fn surface_start(&self, code: u32) -> Result<Option<&'a [f32]>> {
        let surfaces = self.opened.surfaces.as_ref();
        let Some(slot) = surfaces.and_then(|s| s.starts.get((code as usize).wrapping_sub(1))) else { return Ok(None) };
        if let Some(start) = slot.get() {
            return Ok(Some(start));
        }
        let Some((mut block, _)) = self.surface_block()? else { return Ok(None) };
        let start = block.start(code)?.to_vec();
        Ok(Some(slot.get_or_init(|| start)))
    }

    /// The parts of an entity on surfaces that batch adaptation made, with their codes; none where it made none.
    pub(crate) fn surface_parts(&self, entity: u32) -> Result<impl Iterator<Item = (u32, &'a [f32])> + use<'a>> {
        let (snapshot, width, row) = (self.snapshot, self.width(), entity as usize);
        let found = || -> Result<Option<(&'a [u32], &'a [f32])>> {
            let range = range_at(snapshot.u64s(sections::META_SURFACE_OFFSETS)?, row);
            let (codes, parts) =
                (snapshot.u32s(sections::META_SURFACE_CODES)?, snapshot.f32s(sections::META_SURFACE_EMBEDDINGS)?);
            let own = range.and_then(|r| Some((codes.get(r.clone())?, parts.get(r.start * width..r.end * width)?)));
            Ok(own.filter(|(_, parts)| finite(parts)))
        };
        let damaged = || {
            err!(Corrupt, "the embeddings of entity row {row} on surfaces are damaged; verify the store and roll back")
        };
        let (codes, parts) = match self.opened.surfaces.is_some() && self.opened.table {
            true => found()?.ok_or_else(damaged)?,
            false => Default::default(),
        };
        Ok(codes.iter().copied().zip(parts.chunks_exact(width.max(1))))
    }
}

/// Where the elements of a row lie.
fn range_at(offsets: &[u64], row: usize) -> Option<Range<usize>> {
    let at = |row: usize| usize::try_from(*offsets.get(row)?).ok();
    Some(at(row)?..at(row.checked_add(1)?)?)
}
