//! Labelled outcomes of entities: what meta training learns from.

use crate::data::{Column, Dataset};
use crate::error::{Result, err};
use crate::schema::{FieldKind, ImpressionField, Timing};
use std::collections::HashMap;
use std::ops::Range;

/// Where the items of labelled outcomes were shown: a categorical request-time field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surface {
    /// The field's name.
    pub name: String,
    /// Its values; code `c` is `values[c - 1]`.
    pub values: Vec<String>,
    /// The code of each outcome, 0 is missing.
    pub codes: Vec<u32>,
}

impl Surface {
    /// The codes that values have in another vocabulary, `[values + 1]`; 0 for those that it does not have.
    pub(crate) fn recode(&self, values: &[String]) -> Vec<u32> {
        let theirs: HashMap<&String, u32> = values.iter().zip(1..).collect();
        std::iter::once(0).chain(self.values.iter().map(|v| theirs.get(v).copied().unwrap_or(0))).collect()
    }
}

/// Labelled outcomes, an entity's one after another, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Impressions {
    /// Entity `u` has `offsets[u]..offsets[u + 1]`.
    pub offsets: Vec<usize>,
    /// Item row of each.
    pub item: Vec<u32>,
    /// How many events of the entity's history came before it: its user vector reads these and no more.
    pub before: Vec<u32>,
    /// Label per head, 0 to 1, NaN is none, `[n, heads]`.
    pub labels: Vec<f32>,
    /// Numbers known when the item was shown, scaled by `impression_fields`, `[n, numbers]`.
    pub impression: Vec<f32>,
    /// When each happened, Unix milliseconds; empty where that is not known.
    pub time: Vec<i64>,
    /// Names of the heads.
    pub heads: Vec<String>,
    /// The impression features.
    pub impression_fields: Vec<ImpressionField>,
    /// The categorical request-time fields, any of which may be where the items were shown.
    pub surfaces: Vec<Surface>,
    /// The share of each entity's outcomes, the latest, that tests, besides those that the split keeps for the test.
    pub held_out: f32,
}

impl Impressions {
    /// The labelled events of a dataset: one head, `label`, no impression features; categorical request-time fields may
    /// be surfaces.
    ///
    /// # Errors
    /// `InvalidData` if the dataset has no labels.
    pub fn from_labels(data: &Dataset) -> Result<Self> {
        let mut found = Self { offsets: vec![0], heads: vec!["label".into()], ..Self::default() };
        let mut surfaces = surfaces(data);
        for entity in 0..data.entities.len() as u32 {
            let range = data.range(entity);
            for i in range.clone() {
                let (Some(item), Some(label)) = (data.events.item.get(i), data.events.label.get(i)) else { continue };
                if !label.is_nan() {
                    found.item.push(*item);
                    found.before.push((i - range.start) as u32);
                    found.labels.push(*label);
                    found.time.extend(data.events.time.get(i));
                    surfaces.iter_mut().for_each(|(s, codes)| s.codes.push(codes.get(i).copied().unwrap_or(0)));
                }
            }
            found.offsets.push(found.item.len());
        }
        found.surfaces = surfaces.into_iter().map(|(surface, _)| surface).collect();
        if found.item.is_empty() {
            return Err(err!(
                InvalidData,
                "dataset `{}` has no labelled events to learn from; declare `label` in [events]",
                data.schema.name
            ));
        }
        Ok(found)
    }

    /// The labelled events of another log, such as what was shown and whether it was clicked, beside the histories of
    /// `data`: one head, `label`; numeric request-time fields are impression features, categorical ones may be surfaces. An outcome comes after the events of its entity that are
    /// older. People and items that `data` does not have are left out.
    ///
    /// # Errors
    /// `InvalidData` if either has no times, the log no labels, or nothing is left.
    pub fn from_log(data: &Dataset, log: &Dataset) -> Result<Self> {
        if !data.schema.has_time || !log.schema.has_time {
            let which = if data.schema.has_time { &log.schema.name } else { &data.schema.name };
            return Err(err!(
                InvalidData,
                "outcomes of another log are placed into histories by time, and dataset `{which}` declares none; declare `time`, \
                 or label the events themselves"
            ));
        }
        let mut own: Vec<Vec<usize>> = vec![Vec::new(); data.entities.len()];
        for (entity, id) in (0u32..).zip(log.entities.names()) {
            let Some(mine) = data.entities.row(id).and_then(|row| own.get_mut(row as usize)) else { continue };
            let labelled = |i: &usize| log.events.label.get(*i).is_some_and(|l| !l.is_nan());
            mine.extend(log.range(entity).filter(labelled));
        }
        let rows: Vec<Option<u32>> = log.items.names().iter().map(|id| data.items.row(id)).collect();
        let numbers: Vec<(ImpressionField, &[f32])> = numbers(log);
        let mut surfaces = surfaces(log);
        let mut found = Self { offsets: vec![0], heads: vec!["label".into()], ..Self::default() };
        for (entity, own) in (0u32..).zip(&own) {
            let times = data.events.time.get(data.range(entity)).unwrap_or(&[]);
            for i in own {
                let item = log.events.item.get(*i).and_then(|item| rows.get(*item as usize)).copied().flatten();
                let (Some(item), Some(time)) = (item, log.events.time.get(*i)) else { continue };
                found.item.push(item);
                found.before.push(times.partition_point(|t| t < time) as u32);
                found.labels.push(log.events.label.get(*i).copied().unwrap_or(f32::NAN));
                found.impression.extend(numbers.iter().map(|(f, x)| f.scaled(x.get(*i).copied().unwrap_or(f32::NAN))));
                found.time.push(*time);
                surfaces.iter_mut().for_each(|(s, codes)| s.codes.push(codes.get(*i).copied().unwrap_or(0)));
            }
            found.offsets.push(found.item.len());
        }
        found.surfaces = surfaces.into_iter().map(|(surface, _)| surface).collect();
        found.impression_fields = numbers.into_iter().map(|(field, _)| field).collect();
        if found.item.is_empty() {
            return Err(err!(
                InvalidData,
                "dataset `{}` has no labelled event of a person and an item of dataset `{}`; declare `label` in its [events], or \
                 bring the log that belongs to it",
                log.schema.name,
                data.schema.name
            ));
        }
        Ok(found)
    }

    /// The surface of this name.
    ///
    /// # Errors
    /// `InvalidConfig` for a field that outcomes do not have, or one that is not categorical and known when a request is made,
    /// naming those that are.
    pub fn surface(&self, name: &str) -> Result<&Surface> {
        self.surfaces.iter().find(|s| s.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.surfaces.iter().map(|s| s.name.as_str()).collect();
            err!(
                InvalidConfig,
                "the ranker's surface is {name:?}, the outcomes' categorical request-time fields are {known:?}; bring outcomes that \
                 have it, declared as categorical in [events] of their description, such as request = [{name:?}], or train with \
                 another ranker.surface"
            )
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.item.len()
    }

    /// How many are not held out ([`Impressions::kept`]); the split may keep more of them for the test.
    pub fn kept_total(&self) -> usize {
        (0..self.offsets.len().saturating_sub(1) as u32).map(|u| self.kept(u).len()).sum()
    }

    /// How many entities have at least one.
    pub fn entities(&self) -> usize {
        self.offsets.windows(2).filter(|w| w[1] > w[0]).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.item.is_empty()
    }

    /// Those of an entity.
    pub fn range(&self, entity: u32) -> Range<usize> {
        let u = entity as usize;
        match (self.offsets.get(u), self.offsets.get(u + 1)) {
            (Some(a), Some(z)) => *a..*z,
            _ => 0..0,
        }
    }

    /// The same, the latest `share` of each entity's outcomes kept for the test.
    ///
    /// # Errors
    /// `InvalidArgument` for a share that is not 0 to below 1.
    pub fn holding_out(self, share: f32) -> Result<Self> {
        match (0.0..1.0).contains(&share) {
            true => Ok(Self { held_out: share, ..self }),
            false => Err(err!(InvalidArgument, "the share of outcomes to hold out is {share}; choose 0 to below 1")),
        }
    }

    /// Those of an entity that are not held out.
    pub fn kept(&self, entity: u32) -> Range<usize> {
        let all = self.range(entity);
        let tests = (f64::from(self.held_out) * all.len() as f64).round() as usize;
        all.start..all.end - tests.min(all.len().saturating_sub(1))
    }

    /// The labels of one by head.
    pub fn label(&self, i: usize) -> &[f32] {
        &self.labels[i * self.heads.len()..(i + 1) * self.heads.len()]
    }

    /// The same, a surface coded by the values of another vocabulary; what that does not have is missing.
    pub(crate) fn coded_by(&self, name: &str, values: &[String]) -> Self {
        let mut found = self.clone();
        for surface in found.surfaces.iter_mut().filter(|s| s.name == name) {
            let codes = surface.recode(values);
            surface.codes.iter_mut().for_each(|c| *c = codes.get(*c as usize).copied().unwrap_or(0));
            surface.values = values.to_vec();
        }
        found
    }

    /// Checks lengths and ranges against a dataset.
    ///
    /// # Errors
    /// `InvalidData` naming what does not fit.
    pub fn check(&self, data: &Dataset) -> Result<()> {
        let n = self.item.len();
        let fail = |what: &str| Err(err!(InvalidData, "the labelled outcomes are unusable: {what}; build them anew"));
        if self.heads.is_empty() {
            return fail("they have no head");
        }
        if self.offsets.len() != data.entities.len() + 1 || !self.offsets.is_sorted() || self.offsets.last() != Some(&n)
        {
            return fail("their offsets do not divide them by entity");
        }
        if self.before.len() != n
            || self.labels.len() != n * self.heads.len()
            || self.impression.len() != n * self.impression_fields.len()
            || !(self.time.is_empty() || self.time.len() == n)
            || self.surfaces.iter().any(|s| s.codes.len() != n)
        {
            return fail("their columns differ in length");
        }
        if self.item.iter().any(|i| *i as usize >= data.items.len()) {
            return fail("one names an item that is not in the dataset");
        }
        if self.surfaces.iter().any(|s| s.codes.iter().any(|c| *c as usize > s.values.len())) {
            return fail("one has a surface that is not in the vocabulary");
        }
        if self.labels.iter().any(|l| !l.is_nan() && !(0.0..=1.0).contains(l)) {
            return Err(err!(
                InvalidData,
                "a label of dataset `{}` lies outside of 0 to 1; say in [events] what is positive and negative, such as label = \
                 {{ column = \"stars\", positive = \">= 4\", negative = \"<= 2\" }}",
                data.schema.name
            ));
        }
        if self.impression.iter().any(|c| !c.is_finite()) {
            return fail("a number of impression is not finite");
        }
        for u in 0..data.entities.len() as u32 {
            let own = &self.before[self.range(u)];
            if !own.is_sorted() || own.last().is_some_and(|b| *b as usize > data.range(u).len()) {
                return fail("they are not in the order of the entity's history");
            }
        }
        Ok(())
    }
}

/// The categorical request-time fields of a log, without codes, and the codes of its events. Values stand in alphabetical order: a
/// dataset has the frequent ones first, and logs of the same surfaces must agree.
fn surfaces(log: &Dataset) -> Vec<(Surface, Vec<u32>)> {
    let fields = log.schema.event_fields.iter().zip(&log.events.fields);
    let categorical = fields.filter_map(|(f, column)| match (&f.field.kind, f.timing, column) {
        (FieldKind::Categorical(values), Timing::Request, Column::Codes(codes)) => {
            let theirs = Surface { name: f.field.name.clone(), values: values.clone(), codes: Vec::new() };
            let mut values = values.clone();
            values.sort_unstable();
            let places = theirs.recode(&values);
            let codes = codes.iter().map(|c| places.get(*c as usize).copied().unwrap_or(0)).collect();
            Some((Surface { values, ..theirs }, codes))
        }
        _ => None,
    });
    categorical.collect()
}

/// The numeric request-time fields of a log, with the scale of each.
fn numbers(log: &Dataset) -> Vec<(ImpressionField, &[f32])> {
    let fields = log.schema.event_fields.iter().zip(&log.events.fields);
    let numeric = fields.filter_map(|(f, column)| match (&f.field.kind, f.timing, column) {
        (FieldKind::Numeric(_), Timing::Request, Column::Numbers(values)) => Some((&f.field.name, values)),
        _ => None,
    });
    numeric
        .map(|(name, values)| {
            let known = || values.iter().filter(|v| v.is_finite()).map(|v| f64::from(*v));
            let n = known().count().max(1) as f64;
            let mean = known().sum::<f64>() / n;
            let deviation = (known().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt().max(1e-6);
            let field = ImpressionField { name: name.clone(), mean: mean as f32, deviation: deviation as f32 };
            (field, values.as_slice())
        })
        .collect()
}
