//! From trained weights to a generation of a store: the sections that docs/format.md lists.

use super::corpus::encode_events;
use super::trainer::Trained;
use crate::data::{Column, Dataset, Split};
use crate::error::Result;
use crate::model::sections::*;
use crate::store::{GenerationId, ManifestContent, Publisher, RunRecord, TrainingRecord};

/// Events lose half of their weight in popularity over this share of the time that the training events span.
const HALF_LIFE: f64 = 1.0 / 8.0;

/// Publishes `trained` as the next generation: weights, catalogue, histories (every event of the dataset, held-out ones
/// included: what a person did is known to whoever serves them), and popularity (of the training events, recent ones weigh
/// more). The bytes of all but the run record are a function of data, split and weights.
///
/// # Errors
/// Those of [`Publisher::publish`].
pub fn publish(
    publisher: &mut Publisher,
    data: &Dataset,
    split: &Split,
    trained: &Trained,
    run: &RunRecord,
) -> Result<GenerationId> {
    let (n, e, m) = (data.items.len() as u64, data.entities.len() as u64, data.events.len() as u64);
    let d = u64::from(trained.model.width);
    ids(publisher, ITEM_IDS, data.items.names())?;
    ids(publisher, ENTITY_IDS, data.entities.names())?;
    if !data.titles.is_empty() {
        texts(publisher, ITEM_TITLES, &data.titles)?;
    }
    if !data.released.is_empty() {
        publisher.slice(ITEM_RELEASED, &[n], &data.released)?;
    }
    for (i, column) in data.item_columns.iter().enumerate() {
        let name = |part: &str| format!("{ITEM_FIELD}.{i}.{part}");
        match column {
            Column::Codes(codes) => publisher.slice(&name("codes"), &[n], codes)?,
            Column::Lists { offsets, codes } => {
                publisher.slice(&name("offsets"), &[n + 1], offsets)?;
                publisher.slice(&name("codes"), &[codes.len() as u64], codes)?;
            }
            Column::Numbers(values) => publisher.slice(&name("numbers"), &[n], values)?,
            Column::Vectors { dim, values } => publisher.slice(&name("vectors"), &[n, u64::from(*dim)], values)?,
        }
    }
    publisher.slice(ITEM_VECTORS, &[n, d], &trained.items)?;
    if !trained.standings.is_empty() {
        let evidence: Vec<u32> = trained.standings.iter().map(|s| s.evidence).collect();
        let age: Vec<f32> = trained.standings.iter().map(|s| s.age.unwrap_or(f32::NAN)).collect();
        publisher.slice(ITEM_EMBEDDINGS, &[n, d], &trained.ids)?;
        publisher.slice(ITEM_EVIDENCE, &[n], &evidence)?;
        publisher.slice(ITEM_AGE, &[n], &age)?;
    }
    publisher.slice(WEIGHTS, &[trained.dense.len() as u64], &trained.dense)?;
    publisher.slice(FEATURES, &[trained.features.len() as u64], &trained.features)?;
    let popularity = popularity(data, split);
    let mut popular: Vec<u32> = (0..data.items.len() as u32).collect();
    popular.sort_by(|a, b| {
        let share = |row: &u32| popularity.get(*row as usize).copied().unwrap_or(0.0);
        share(b).total_cmp(&share(a)).then(a.cmp(b))
    });
    publisher.slice(ITEM_POPULARITY, &[n], &popularity)?;
    publisher.slice(ITEM_POPULAR, &[n], &popular)?;
    let history = encode_events(data, 0..data.events.len());
    publisher.slice(HISTORY_OFFSETS, &[e + 1], &data.events.offsets)?;
    publisher.slice(HISTORY_ITEMS, &[m], &history.items)?;
    if data.schema.has_time {
        publisher.slice(HISTORY_TIME, &[m], &history.time)?;
    }
    if !data.schema.actions.is_empty() {
        publisher.slice(HISTORY_ACTION, &[m], &history.action)?;
    }
    if data.schema.value.is_some() {
        publisher.slice(HISTORY_VALUE, &[m], &history.value)?;
    }
    for (i, codes) in history.fields.iter().enumerate() {
        publisher.slice(&format!("{HISTORY_FIELD}.{i}"), &[m], codes)?;
    }
    let parameters = trained.ids.len() + trained.dense.len() + trained.features.len();
    let content = ManifestContent {
        schema: data.schema.clone(),
        model: trained.model.clone(),
        training: TrainingRecord {
            options: trained.options.clone(),
            data_hash: data.hash,
            protocol: split.describe(),
            target_hash: split.target_hash,
            validation: trained.validation.clone(),
            epochs: trained.epochs,
            best_epoch: trained.best_epoch,
            steps: trained.steps,
            tokens: trained.tokens,
            parameters: parameters as u64,
            stopped: trained.stopped.as_str().into(),
            version: env!("CARGO_PKG_VERSION").into(),
        },
        items: n,
        entities: e,
        events: m,
    };
    publisher.publish(&content, run)
}

fn texts(publisher: &mut Publisher, prefix: &str, names: &[String]) -> Result<()> {
    let mut offsets = vec![0u64];
    let mut bytes = Vec::new();
    for name in names {
        bytes.extend_from_slice(name.as_bytes());
        offsets.push(bytes.len() as u64);
    }
    publisher.slice(&format!("{prefix}.offsets"), &[offsets.len() as u64], &offsets)?;
    publisher.slice(&format!("{prefix}.bytes"), &[bytes.len() as u64], &bytes)
}

fn ids(publisher: &mut Publisher, prefix: &str, names: &[String]) -> Result<()> {
    texts(publisher, prefix, names)?;
    let mut sorted: Vec<u32> = (0..names.len() as u32).collect();
    sorted.sort_by_key(|row| names.get(*row as usize).map(String::as_bytes));
    publisher.slice(&format!("{prefix}.sorted"), &[sorted.len() as u64], &sorted)
}

/// Each item's share of the training events, those weighted by 2^(-age / half-life) where there is time.
fn popularity(data: &Dataset, split: &Split) -> Vec<f32> {
    let events = || split.train.iter().cloned().flatten();
    let time = |i: usize| data.events.time.get(i).copied();
    let newest = events().filter_map(time).max().unwrap_or(0);
    let oldest = events().filter_map(time).min().unwrap_or(0);
    let half_life = ((newest - oldest) as f64 * HALF_LIFE).max(1.0);
    let mut share = vec![0.0f64; data.items.len()];
    for i in events() {
        let item = data.events.item.get(i).map_or(usize::MAX, |row| *row as usize);
        if split.hidden.get(item).copied().unwrap_or(false) {
            continue;
        }
        if let Some(share) = share.get_mut(item) {
            *share += time(i).map_or(1.0, |t| (-((newest - t) as f64) / half_life).exp2());
        }
    }
    let total: f64 = share.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    share.iter().map(|s| (s / total) as f32).collect()
}
