//! From trained weights to a generation of a store: the sections that docs/format.md lists.

use super::foundation::corpus::encode_events;
use super::foundation::popularity::{by_profile, popularity};
use super::foundation::trainer::Trained;
use super::ranker::TrainedRanker;
use crate::data::{Column, Dataset, Split};
use crate::error::{Result, err};
use crate::model::sections::*;
use crate::options::ServeOptions;
use crate::store::{GenerationId, ManifestContent, Publisher, RankerRecord, RunRecord, TrainingRecord};

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
    publish_ranked(publisher, data, split, trained, None, run)
}

/// As [`publish`], with the ranker that was trained over the vectors of `trained`; where the foundation model learned along
/// ([`TrainedRanker::foundation`]), it is published as it then was.
///
/// # Errors
/// Those of [`Publisher::publish`]; `StateMismatch` where the ranker was trained with other items.
pub fn publish_ranked(
    publisher: &mut Publisher,
    data: &Dataset,
    split: &Split,
    trained: &Trained,
    ranker: Option<&TrainedRanker>,
    run: &RunRecord,
) -> Result<GenerationId> {
    let trained = ranker.and_then(|r| r.foundation.as_ref()).unwrap_or(trained);
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
        field(publisher, &format!("{ITEM_FIELD}.{i}"), n, column)?;
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
    for (i, (column, declared)) in data.entity_columns.iter().zip(&data.schema.entity_fields).enumerate() {
        field(publisher, &format!("{ENTITY_FIELD}.{i}"), e, column)?;
        if let Some(found) = by_profile(data, split, &declared.kind, column) {
            let name = |part: &str| format!("{PROFILE_POPULARITY}.{i}.{part}");
            publisher.slice(&name("weights"), &[found.weights.len() as u64], &found.weights)?;
            publisher.slice(&name("offsets"), &[found.offsets.len() as u64], &found.offsets)?;
            publisher.slice(&name("rows"), &[found.rows.len() as u64], &found.rows)?;
            publisher.slice(&name("shares"), &[found.shares.len() as u64], &found.shares)?;
        }
    }
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
    let ranker = ranker.map(|ranker| put_ranker(publisher, data, ranker)).transpose()?;
    let parameters = trained.ids.len() + trained.dense.len() + trained.features.len();
    let content = ManifestContent {
        schema: data.schema.clone(),
        model: trained.model.clone(),
        serve: ServeOptions { seen: split.seen },
        tokenizer: trained.tokenizer.clone(),
        training: TrainingRecord {
            options: trained.options.clone(),
            data_hash: data.hash,
            protocol: split.protocol.to_string(),
            target_hash: split.target_hash,
            validation: trained.validation.clone(),
            losses: trained.losses.clone(),
            epochs: trained.epochs,
            best_epoch: trained.best_epoch,
            steps: trained.steps,
            tokens: trained.tokens,
            parameters: parameters as u64,
            stopped: trained.stopped.as_str().into(),
            version: env!("CARGO_PKG_VERSION").into(),
        },
        kept: Default::default(),
        ranker,
        items: n,
        entities: e,
        events: m,
    };
    publisher.publish(&content, run)
}

/// Writes the sections of a ranker and gives its record.
fn put_ranker(publisher: &mut Publisher, data: &Dataset, trained: &TrainedRanker) -> Result<RankerRecord> {
    let (n, e) = (data.items.len() as u64, data.entities.len() as u64);
    let ranker = &trained.ranker;
    let options = &ranker.shape.options;
    if ranker.items.len() as u64 != n * u64::from(options.item_width) || trained.popularity.len() as u64 != n {
        return Err(err!(
            StateMismatch,
            "the ranker was trained with other items than the {n} of dataset {}; train it on the same dataset",
            data.schema.name
        ));
    }
    publisher.slice(RANKER_WEIGHTS, &[ranker.dense.len() as u64], &ranker.dense)?;
    publisher.slice(RANKER_ITEMS, &[n, u64::from(options.item_width)], &ranker.items)?;
    publisher.slice(RANKER_POPULARITY, &[n], &trained.popularity)?;
    if options.identity {
        publisher.slice(RANKER_ENTITIES, &[e, u64::from(options.embedding)], &ranker.entities)?;
    }
    if options.items.is_on() {
        if trained.item_embeddings.len() as u64 != n * u64::from(options.embedding) {
            return Err(err!(
                StateMismatch,
                "the ranker has {} numbers of item embeddings, {n} items of dataset {} need {} each; train it on the same dataset",
                trained.item_embeddings.len(),
                data.schema.name,
                options.embedding
            ));
        }
        publisher.slice(META_ITEM_EMBEDDINGS, &[n, u64::from(options.embedding)], &trained.item_embeddings)?;
    }
    Ok(RankerRecord {
        shape: options.clone(),
        order: trained.order,
        options: trained.options.clone(),
        heads: trained.heads.clone(),
        means: trained.means.clone(),
        impression: trained.impression.clone(),
        surfaces: trained.surfaces.clone(),
        calibration: ranker.calibration.clone(),
        validation: trained.validation.clone(),
        epochs: trained.epochs,
        best_epoch: trained.best_epoch,
        outcomes: trained.outcomes,
        held_out: trained.held_out,
        adapted: 0,
    })
}

/// A metadata or profile column of `rows` rows.
fn field(publisher: &mut Publisher, prefix: &str, rows: u64, column: &Column) -> Result<()> {
    let name = |part: &str| format!("{prefix}.{part}");
    match column {
        Column::Codes(codes) => publisher.slice(&name("codes"), &[rows], codes),
        Column::Lists { offsets, codes } => {
            publisher.slice(&name("offsets"), &[rows + 1], offsets)?;
            publisher.slice(&name("codes"), &[codes.len() as u64], codes)
        }
        Column::Numbers(values) => publisher.slice(&name("numbers"), &[rows], values),
        Column::Vectors { dim, values } => publisher.slice(&name("vectors"), &[rows, u64::from(*dim)], values),
    }
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
