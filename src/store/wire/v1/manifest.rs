//! The manifest and the run record.

use super::frozen;
use super::schema::{ImpressionField, Merge, Schema};
use crate::error::{Result, err};
use crate::options::text::Lines;
use crate::options::{
    ListOrder, ModelOptions, RankerOptions, RankerTrainOptions, ServeOptions, TokenizerOptions, TrainOptions,
};
use crate::schema::TokenVocabulary;
use crate::store::records::{ManifestContent, RankerRecord, RunRecord, SectionInfo, TrainingRecord};
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeMap;

/// The root of a manifest.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[rkyv(derive(Debug))]
pub(crate) struct Manifest {
    pub(crate) content: Content,
    /// In strictly ascending order of their names.
    pub(crate) sections: Vec<Section>,
}

/// One section.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[rkyv(derive(Debug))]
pub(crate) struct Section {
    pub(crate) name: String,
    /// [`crate::store::Dtype::code`].
    pub(crate) dtype: u8,
    pub(crate) shape: Vec<u64>,
    /// Bytes of the payload; the product of shape and element size.
    pub(crate) bytes: u64,
    /// Root hash of the payload (`segment.rs`): the segment's name.
    pub(crate) hash: [u8; 32],
}

/// What a generation says of itself. Options are lines of a key and a value, in strictly ascending order of the keys.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[rkyv(derive(Debug))]
pub(crate) struct Content {
    pub(crate) binding: Vec<(String, String)>,
    pub(crate) informative: Vec<(String, String)>,
    pub(crate) schema: Schema,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) training: Training,
    pub(crate) ranker: Option<Ranker>,
    pub(crate) items: u64,
    pub(crate) entities: u64,
    pub(crate) events: u64,
}

/// What a tokenizer learned.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[rkyv(derive(Debug))]
pub(crate) struct Tokens {
    pub(crate) version: u32,
    pub(crate) merges: Vec<Merge>,
    pub(crate) value: Vec<f32>,
    pub(crate) count: Vec<f32>,
    pub(crate) span: Vec<f32>,
}

/// How a model was trained, but for the options.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[rkyv(derive(Debug))]
pub(crate) struct Training {
    pub(crate) data_hash: [u8; 32],
    pub(crate) protocol: String,
    pub(crate) target_hash: [u8; 32],
    pub(crate) validation: Vec<(String, f64)>,
    pub(crate) losses: Vec<(String, f64)>,
    pub(crate) epochs: u32,
    pub(crate) best_epoch: u32,
    pub(crate) steps: u64,
    pub(crate) tokens: u64,
    pub(crate) parameters: u64,
    pub(crate) stopped: String,
    pub(crate) version: String,
}

/// What a ranker is, but for the options.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[rkyv(derive(Debug))]
pub(crate) struct Ranker {
    pub(crate) heads: Vec<String>,
    pub(crate) means: Vec<f32>,
    pub(crate) impression: Vec<ImpressionField>,
    pub(crate) surfaces: Vec<String>,
    pub(crate) calibration: Vec<[f32; 2]>,
    pub(crate) validation: Vec<(String, f64)>,
    pub(crate) epochs: u32,
    pub(crate) best_epoch: u32,
    pub(crate) outcomes: u64,
    pub(crate) held_out: f32,
    pub(crate) adapted: u64,
}

frozen!(Run = RunRecord {
    plain created_ms: u64,
    plain seconds: f64,
    plain tokens_per_second: f64,
    plain peak_rss_bytes: u64,
    plain command: String,
    plain device: String,
});

/// The root of a run record: bound to the generation and the manifest that it belongs to.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[rkyv(derive(Debug))]
pub(crate) struct RunFile {
    pub(crate) generation: u64,
    pub(crate) manifest: [u8; 32],
    pub(crate) run: Run,
}

impl From<SectionInfo> for Section {
    fn from(SectionInfo { name, dtype, shape, bytes, hash }: SectionInfo) -> Self {
        Self { name, dtype: dtype.code(), shape, bytes, hash }
    }
}

impl From<ManifestContent> for Content {
    fn from(content: ManifestContent) -> Self {
        let ManifestContent { schema, model, serve, tokenizer, training, kept, ranker, items, entities, events } =
            content;
        let mut lines = Lines { informative: kept, ..Lines::default() };
        lines.put(&model);
        lines.put(&serve);
        let tokens = tokenizer.map(|tokenizer| {
            let TokenVocabulary { version, options, merges, value, count, span } = tokenizer;
            lines.put(&options);
            Tokens { version, merges: merges.into_iter().map(Into::into).collect(), value, count, span }
        });
        let t = training;
        lines.put(&t.options);
        let training = Training {
            data_hash: t.data_hash,
            protocol: t.protocol,
            target_hash: t.target_hash,
            validation: t.validation,
            losses: t.losses,
            epochs: t.epochs,
            best_epoch: t.best_epoch,
            steps: t.steps,
            tokens: t.tokens,
            parameters: t.parameters,
            stopped: t.stopped,
            version: t.version,
        };
        let ranker = ranker.map(|r| {
            lines.put(&r.shape);
            lines.put(&r.options);
            lines.put(&r.order);
            Ranker {
                heads: r.heads,
                means: r.means,
                impression: r.impression.into_iter().map(Into::into).collect(),
                surfaces: r.surfaces,
                calibration: r.calibration,
                validation: r.validation,
                epochs: r.epochs,
                best_epoch: r.best_epoch,
                outcomes: r.outcomes,
                held_out: r.held_out,
                adapted: r.adapted,
            }
        });
        let [binding, informative] = [lines.binding, lines.informative].map(|lines| lines.into_iter().collect());
        Self { binding, informative, schema: schema.into(), tokens, training, ranker, items, entities, events }
    }
}

impl TryFrom<Content> for ManifestContent {
    type Error = crate::Error;
    /// Fails with `UpgradeRequired` for options of a later version, and `Corrupt` for lines that are none.
    fn try_from(content: Content) -> Result<Self> {
        let mut lines = Lines { binding: by_key(content.binding)?, informative: by_key(content.informative)? };
        let mut model = ModelOptions::default();
        lines.take(&mut model)?;
        let mut serve = ServeOptions::default();
        lines.take(&mut serve)?;
        let mut options = TrainOptions::default();
        lines.take(&mut options)?;
        let t = content.training;
        let training = TrainingRecord {
            options,
            data_hash: t.data_hash,
            protocol: t.protocol,
            target_hash: t.target_hash,
            validation: t.validation,
            losses: t.losses,
            epochs: t.epochs,
            best_epoch: t.best_epoch,
            steps: t.steps,
            tokens: t.tokens,
            parameters: t.parameters,
            stopped: t.stopped,
            version: t.version,
        };
        let tokenizer = match content.tokens {
            None => None,
            Some(Tokens { version, merges, value, count, span }) => {
                let mut options = TokenizerOptions::default();
                lines.take(&mut options)?;
                let merges = merges.into_iter().map(Into::into).collect();
                Some(TokenVocabulary { version, options, merges, value, count, span })
            }
        };
        let ranker = match content.ranker {
            None => None,
            Some(r) => {
                let (mut shape, mut options) = (RankerOptions::default(), RankerTrainOptions::default());
                lines.take(&mut shape)?;
                lines.take(&mut options)?;
                let mut order = ListOrder::default();
                lines.take(&mut order)?;
                Some(RankerRecord {
                    order,
                    shape,
                    options,
                    heads: r.heads,
                    means: r.means,
                    impression: r.impression.into_iter().map(Into::into).collect(),
                    surfaces: r.surfaces,
                    calibration: r.calibration,
                    validation: r.validation,
                    epochs: r.epochs,
                    best_epoch: r.best_epoch,
                    outcomes: r.outcomes,
                    held_out: r.held_out,
                    adapted: r.adapted,
                })
            }
        };
        Ok(Self {
            schema: content.schema.into(),
            model,
            serve,
            tokenizer,
            training,
            kept: lines.rest()?,
            ranker,
            items: content.items,
            entities: content.entities,
            events: content.events,
        })
    }
}

fn by_key(lines: Vec<(String, String)>) -> Result<BTreeMap<String, String>> {
    match lines.is_sorted_by(|a, b| a.0 < b.0) {
        true => Ok(lines.into_iter().collect()),
        false => Err(err!(Corrupt, "its options are out of order")),
    }
}
