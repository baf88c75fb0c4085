//! What is popular: among all people, and among those with one value of a profile field.

use crate::data::{Column, Dataset, Split};
use crate::schema::FieldKind;
use std::collections::BTreeMap;

/// Events lose half of their weight in popularity over this share of the time that the training events span.
const HALF_LIFE: f64 = 1.0 / 8.0;
/// Items that are kept of each profile value's popularity.
const PROFILE_ITEMS: usize = 256;

/// The weight of each training event, by recency: 1 for the newest, and for all where there is no time.
struct Recency<'a> {
    time: &'a [i64],
    newest: i64,
    half_life: f64,
}

impl<'a> Recency<'a> {
    fn new(data: &'a Dataset, split: &Split) -> Self {
        let time = &data.events.time;
        let times = || split.train.iter().cloned().flatten().filter_map(|i| time.get(i).copied());
        let (newest, oldest) = (times().max().unwrap_or(0), times().min().unwrap_or(0));
        Self { time, newest, half_life: ((newest - oldest) as f64 * HALF_LIFE).max(1.0) }
    }

    fn weight(&self, event: usize) -> f64 {
        self.time.get(event).map_or(1.0, |t| (-((self.newest - t) as f64) / self.half_life).exp2())
    }
}

/// Item and weight of each training event of an entity whose item is not hidden.
fn events<'a>(
    data: &'a Dataset,
    split: &'a Split,
    recency: &'a Recency<'_>,
    entity: usize,
) -> impl Iterator<Item = (u32, f64)> + 'a {
    let own = split.train.get(entity).cloned().unwrap_or_default();
    own.filter_map(move |i| {
        let item = *data.events.item.get(i)?;
        let hidden = split.hidden.get(item as usize).copied().unwrap_or(false);
        (!hidden).then(|| (item, recency.weight(i)))
    })
}

/// Each item's share of the training events, those weighted by 2^(-age / half-life) where there is time.
pub(crate) fn popularity(data: &Dataset, split: &Split) -> Vec<f32> {
    let recency = Recency::new(data, split);
    let mut share = vec![0.0f64; data.items.len()];
    for entity in 0..split.train.len() {
        for (item, weight) in events(data, split, &recency, entity) {
            if let Some(share) = share.get_mut(item as usize) {
                *share += weight;
            }
        }
    }
    let total: f64 = share.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    share.iter().map(|s| (s / total) as f32).collect()
}

/// The popularity among the people with each code of a profile field.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ProfilePopularity {
    /// Weight of the events of each code's people, in events of now.
    pub weights: Vec<f32>,
    /// The items of code `c` are `offsets[c]..offsets[c + 1]` of the following.
    pub offsets: Vec<u32>,
    /// Item rows, the most popular first.
    pub rows: Vec<u32>,
    /// Their shares of the code's events.
    pub shares: Vec<f32>,
}

/// The popularity by the codes of one entity field; `None` for fields without codes.
pub(crate) fn by_profile(
    data: &Dataset,
    split: &Split,
    kind: &FieldKind,
    column: &Column,
) -> Option<ProfilePopularity> {
    let recency = Recency::new(data, split);
    let codes = Some(kind.codes()).filter(|n| *n > 0)?;
    let mut counts = vec![BTreeMap::<u32, f64>::new(); codes];
    for entity in 0..data.entities.len() {
        for code in codes_of(kind, column, entity) {
            // Code 0 is missing, which nobody can ask for.
            let Some(counts) = counts.get_mut(code as usize).filter(|_| code > 0) else { continue };
            for (item, weight) in events(data, split, &recency, entity) {
                *counts.entry(item).or_default() += weight;
            }
        }
    }
    let mut found = ProfilePopularity { offsets: vec![0], ..ProfilePopularity::default() };
    for counts in counts {
        let total: f64 = counts.values().sum();
        let mut best: Vec<(u32, f64)> = counts.into_iter().collect();
        best.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        best.truncate(PROFILE_ITEMS);
        found.weights.push(total as f32);
        found.rows.extend(best.iter().map(|(row, _)| *row));
        found.shares.extend(best.iter().map(|(_, weight)| (weight / total.max(f64::MIN_POSITIVE)) as f32));
        found.offsets.push(found.rows.len() as u32);
    }
    Some(found)
}

/// The codes of one row of a column.
fn codes_of(kind: &FieldKind, column: &Column, row: usize) -> Vec<u32> {
    match column {
        Column::Codes(codes) => codes.get(row).copied().into_iter().collect(),
        Column::Lists { offsets, codes } => {
            let bounds = offsets.get(row).zip(offsets.get(row + 1));
            bounds.and_then(|(a, z)| codes.get(*a as usize..*z as usize)).unwrap_or_default().to_vec()
        }
        Column::Numbers(numbers) => numbers.get(row).map(|x| kind.bucket(*x)).into_iter().collect(),
        Column::Vectors { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{BuildOptions, DatasetBuilder, Declaration, EventRow, Kind, Protocol};
    use crate::event::{Cell, Event};

    #[test]
    fn each_profile_value_has_its_own_popularity() {
        let mut declaration = Declaration::new("by profile").with_time();
        declaration.entity_fields = vec![("country".into(), Kind::Categorical), ("age".into(), Kind::Numeric)];
        let mut builder = DatasetBuilder::new(declaration, BuildOptions::default()).unwrap();
        for (person, country, item) in
            [("a", "nl", "cheese"), ("b", "nl", "cheese"), ("c", "fr", "bread"), ("d", "", "x")]
        {
            let age = Cell::Number(if person == "c" { 70.0 } else { 20.0 });
            builder.push_entity(person, &[("country", Cell::Text(country)), ("age", age)]).unwrap();
            for day in 0..3 {
                let event = Event::item(if day == 2 { "common" } else { item });
                let event = Event { time: Some(day * 86_400_000), ..event };
                builder.push_event(&EventRow::new(person, event)).unwrap();
            }
        }
        let data = builder.build().unwrap();
        let split = Split::new(&data, &Protocol::Everything).unwrap();
        let country = &data.schema.entity_fields[0].kind;
        let found = by_profile(&data, &split, country, &data.entity_columns[0]).unwrap();
        let list = |text: &str| {
            let code = country.code(text) as usize;
            let range = found.offsets[code] as usize..found.offsets[code + 1] as usize;
            let rows = found.rows[range.clone()].iter().map(|row| data.items.id(*row).to_owned());
            (rows.collect::<Vec<_>>(), found.shares[range].iter().sum::<f32>(), found.weights[code])
        };
        let (dutch, sum, weight) = list("nl");
        assert_eq!(dutch, ["common", "cheese"], "the newer one weighs more than two old ones");
        assert!((sum - 1.0).abs() < 1e-6);
        let (french, _, less) = list("fr");
        assert_eq!(french, ["common", "bread"]);
        assert!((weight - 2.0 * less).abs() < 1e-5 && less > 1.0 && less < 3.0);
        assert_eq!(found.offsets[..2], [0, 0], "nobody has the value that is missing");
        let ages = by_profile(&data, &split, &data.schema.entity_fields[1].kind, &data.entity_columns[1]).unwrap();
        assert_eq!(ages.weights.len(), data.schema.entity_fields[1].kind.codes());
        let all = popularity(&data, &split);
        assert!((all.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
