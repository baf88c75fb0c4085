//! From piles of rows to a dataset: filter, sort, number, code.
#![expect(clippy::indexing_slicing, reason = "every index is a row that the builder itself gave out")]

use super::builder::{DatasetBuilder, Duplicates, EventFilter, EventPile, FieldPiles, RecordPile};
use super::column::{self, ABSENT};
use super::{Column, Dataset, Events, Vocabulary};
use crate::error::{Result, err};
use crate::schema::{EventField, Field, FieldKind, Schema};

impl DatasetBuilder {
    /// Filters and sorts what was pushed, codes every field, and checks the result.
    ///
    /// # Errors
    /// `InvalidData` where nothing is left, where a duplicate is found and [`Duplicates::Error`] was asked for, or
    /// where there are more than 65,535 actions.
    pub fn build(self) -> Result<Dataset> {
        assemble(self)
    }
}

fn assemble(builder: DatasetBuilder) -> Result<Dataset> {
    let DatasetBuilder { declaration, options, entity_names, item_names, actions, events, items, .. } = builder;
    let (mut titles, mut released, entities) = (builder.titles, builder.released, builder.entities);
    let names = Names { entities: &entity_names, items: &item_names };
    let pushed = events.item.len();
    let kept = keep(&events, &options.filter, &names)?;
    if kept.is_empty() {
        let why = if pushed == 0 { "no event was given" } else { "the filters drop every event" };
        return Err(err!(
            InvalidData,
            "dataset `{}` is empty: {why}; check the input and `[filter]`",
            declaration.name
        ));
    }

    // Number what is kept: entities by first appearance, items by their file and then by first appearance.
    let (entity_row, entity_order) = number(&kept, &events.entity, entity_names.len(), Vec::new());
    let mut used = vec![false; item_names.len()];
    kept.iter().for_each(|&e| used[events.item[e as usize] as usize] = true);
    let declared = items.rows.iter().copied().filter(|&i| options.filter.keep_unused_items || used[i as usize]);
    let (item_row, item_order) = number(&kept, &events.item, item_names.len(), declared.collect());

    let mut sorted = kept;
    sorted.sort_unstable_by_key(|&e| (entity_row[events.entity[e as usize] as usize], e));
    let mut offsets = vec![0u64; entity_order.len() + 1];
    for &e in &sorted {
        offsets[entity_row[events.entity[e as usize] as usize] as usize + 1] += 1;
    }
    for u in 1..offsets.len() {
        offsets[u] += offsets[u - 1];
    }
    for range in offsets.windows(2) {
        let of_entity = &mut sorted[range[0] as usize..range[1] as usize];
        of_entity.sort_by(|&a, &b| events.compare_within_entity(a, b));
    }

    let mut schema = Schema {
        name: declaration.name,
        has_time: declaration.time,
        has_label: declaration.label,
        ..Schema::default()
    };
    let gather_or_empty = |numbers: &[f32]| if numbers.is_empty() { Vec::new() } else { gather(numbers, &sorted) };
    let value = gather_or_empty(&events.value);
    schema.value = declaration.value.then(|| FieldKind::Numeric(column::bounds(&value, options.limits.buckets)));
    let mut action = Vec::new();
    if declaration.action {
        let raw = gather(&events.action, &sorted);
        let (names, map) = column::by_frequency(&actions, raw.iter().copied(), usize::MAX);
        if names.len() > usize::from(u16::MAX) {
            return Err(err!(
                InvalidData,
                "there are {} actions, at most {} fit; declare the column as a request field instead",
                names.len(),
                u16::MAX
            ));
        }
        action = raw.iter().map(|&code| (map[code as usize] - 1) as u16).collect();
        schema.actions = names;
    }
    let mut fields = Vec::new();
    for ((_, _, timing), (name, pile)) in declaration.event_fields.into_iter().zip(events.fields.0) {
        let (kind, column) = pile.finish(&sorted, &options.limits)?;
        schema.event_fields.push(EventField { field: Field { name, kind }, timing });
        fields.push(column);
    }
    let place_of = |pile: &RecordPile, order: &[u32]| -> Vec<u32> {
        order.iter().map(|&name| pile.place(name).unwrap_or(ABSENT)).collect()
    };
    let item_places = place_of(&items, &item_order);
    let entity_places = place_of(&entities, &entity_order);
    let item_columns;
    let entity_columns;
    (schema.item_fields, item_columns) = finish(items.fields, &item_places, &options.limits)?;
    (schema.entity_fields, entity_columns) = finish(entities.fields, &entity_places, &options.limits)?;
    if declaration.title {
        titles =
            item_places.iter().map(|&p| titles.get_mut(p as usize).map(std::mem::take).unwrap_or_default()).collect();
    }
    if declaration.released {
        released = item_places.iter().map(|&p| released.get(p as usize).copied().unwrap_or(i64::MIN)).collect();
    }

    let mut data = Dataset {
        schema,
        entities: vocabulary(&entity_names, &entity_order),
        items: vocabulary(&item_names, &item_order),
        events: Events {
            offsets,
            item: sorted.iter().map(|&e| item_row[events.item[e as usize] as usize]).collect(),
            time: if declaration.time { gather(&events.time, &sorted) } else { Vec::new() },
            action,
            value,
            label: gather_or_empty(&events.label),
            fields,
        },
        titles,
        released,
        item_columns,
        entity_columns,
        hash: [0; 32],
    };
    data.hash = data.content_hash();
    data.check()?;
    Ok(data)
}

struct Names<'a> {
    entities: &'a Vocabulary,
    items: &'a Vocabulary,
}

impl EventPile {
    /// Time to the nanosecond, then order, then place in the input.
    fn compare_within_entity(&self, a: u32, b: u32) -> std::cmp::Ordering {
        use std::cmp::Ordering::Equal;
        let (i, j) = (a as usize, b as usize);
        let time = if self.time.is_empty() { Equal } else { self.time[i].cmp(&self.time[j]) };
        let nanos = if self.nanos.is_empty() { Equal } else { self.nanos[i].cmp(&self.nanos[j]) };
        let order = || if self.order.is_empty() { Equal } else { self.order[i].total_cmp(&self.order[j]) };
        time.then(nanos).then_with(order).then(a.cmp(&b))
    }
}

/// The events that the filter leaves, in the order of the input.
fn keep(events: &EventPile, filter: &EventFilter, names: &Names<'_>) -> Result<Vec<u32>> {
    let mut kept: Vec<u32> = (0..events.item.len() as u32).collect();
    if filter.from.is_some() || filter.to.is_some() {
        kept.retain(|&e| {
            let time = events.time[e as usize];
            filter.from.is_none_or(|from| time >= from) && filter.to.is_none_or(|to| time < to)
        });
    }
    if filter.duplicates != Duplicates::KeepAll {
        let pair = |e: u32| (events.entity[e as usize], events.item[e as usize]);
        kept.sort_by(|&a, &b| pair(a).cmp(&pair(b)).then_with(|| events.compare_within_entity(a, b)));
        match filter.duplicates {
            Duplicates::KeepAll | Duplicates::KeepFirst => kept.dedup_by_key(|e| pair(*e)),
            Duplicates::KeepLast => {
                kept.reverse();
                kept.dedup_by_key(|e| pair(*e));
            }
            Duplicates::Error => {
                if let Some(twice) = kept.windows(2).find(|w| pair(w[0]) == pair(w[1])) {
                    let (entity, item) = pair(twice[0]);
                    return Err(err!(
                        InvalidData,
                        "entity `{}` has two events with item `{}` (the {}th and the {}th of the input); remove one, or \
                         choose another policy for duplicates",
                        names.entities.id(entity),
                        names.items.id(item),
                        twice[0].min(twice[1]) + 1,
                        twice[0].max(twice[1]) + 1
                    ));
                }
            }
        }
        kept.sort_unstable();
    }
    if filter.min_entity_events > 1 || filter.min_item_events > 1 {
        loop {
            let before = kept.len();
            let entities = count(&kept, &events.entity, names.entities.len());
            let items = count(&kept, &events.item, names.items.len());
            kept.retain(|&e| {
                entities[events.entity[e as usize] as usize] >= filter.min_entity_events
                    && items[events.item[e as usize] as usize] >= filter.min_item_events
            });
            if !filter.iterate || kept.len() == before {
                break;
            }
        }
    }
    Ok(kept)
}

fn count(kept: &[u32], names: &[u32], len: usize) -> Vec<u64> {
    let mut counts = vec![0; len];
    kept.iter().for_each(|&e| counts[names[e as usize] as usize] += 1);
    counts
}

/// Numbers names: those in `order` first, then the others by first appearance in the kept events. Returns the new row
/// of every name ([`ABSENT`] where it has none) and the name of every new row.
fn number(kept: &[u32], names: &[u32], len: usize, mut order: Vec<u32>) -> (Vec<u32>, Vec<u32>) {
    let mut rows = vec![ABSENT; len];
    order.iter().enumerate().for_each(|(row, &name)| rows[name as usize] = row as u32);
    for &e in kept {
        let name = names[e as usize];
        if rows[name as usize] == ABSENT {
            rows[name as usize] = order.len() as u32;
            order.push(name);
        }
    }
    (rows, order)
}

fn gather<T: Copy>(values: &[T], order: &[u32]) -> Vec<T> {
    order.iter().map(|&e| values[e as usize]).collect()
}

fn vocabulary(names: &Vocabulary, order: &[u32]) -> Vocabulary {
    let mut kept = Vocabulary::default();
    order.iter().for_each(|&name| {
        kept.intern(names.id(name));
    });
    kept
}

fn finish(piles: FieldPiles, places: &[u32], limits: &column::Limits) -> Result<(Vec<Field>, Vec<Column>)> {
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (name, pile) in piles.0 {
        let (kind, column) = pile.finish(places, limits)?;
        fields.push(Field { name, kind });
        columns.push(column);
    }
    Ok((fields, columns))
}
