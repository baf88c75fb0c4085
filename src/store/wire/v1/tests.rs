//! The bytes of every record, held against a committed hash: a field that is added, removed, moved or given another type is another
//! record, and belongs into another version.

use super::super::codec::{Write, archive};
use super::*;
use crate::options::{RankerOptions, RankerTrainOptions};
use crate::schema::{EventField, Field, FieldKind, ImpressionField, Timing};
use crate::store::records::*;
use crate::store::tests::content;
use crate::store::{Dtype, records};
use crate::{Error, ErrorKind};

/// A manifest that has everything that one can have.
fn full() -> ManifestContent {
    let mut full = content(5);
    let field = |name: &str, kind| Field { name: name.into(), kind };
    full.schema.value = Some(FieldKind::Numeric(vec![0.5]));
    full.schema.event_fields = vec![
        EventField { field: field("device", FieldKind::Categorical(vec!["tv".into()])), timing: Timing::Request },
        EventField { field: field("seconds", FieldKind::Numeric(vec![1.0])), timing: Timing::PostAction },
    ];
    full.schema.item_fields.push(field("tags", FieldKind::MultiValued(vec!["new".into(), "old".into()])));
    full.schema.entity_fields = vec![field("look", FieldKind::Vector(3))];
    full.ranker = Some(RankerRecord {
        shape: RankerOptions::default(),
        options: RankerTrainOptions::default(),
        heads: vec!["click".into()],
        means: vec![0.25],
        impression: vec![ImpressionField { name: "position".into(), mean: 1.5, deviation: 2.5 }],
        surfaces: vec!["home".into()],
        calibration: vec![[1.0, 0.5]],
        validation: vec![("logloss".into(), 0.5)],
        epochs: 4,
        best_epoch: 3,
        outcomes: 20,
        held_out: 0.125,
        adapted: 2,
    });
    full.kept.insert("train.colour".into(), "red".into());
    full
}

fn hash(record: &impl Write) -> String {
    blake3::hash(&archive(record).unwrap()).to_hex()[..16].to_owned()
}

#[test]
fn records_of_version_1_are_frozen() {
    let info = SectionInfo { name: "a".into(), dtype: Dtype::F32, shape: vec![2, 3], bytes: 24, hash: [4; 32] };
    let lines = |key: &str| vec![(key.to_owned(), "64".to_owned())];
    // The lines of options are frozen by a test of their own.
    let content = Content { binding: lines("model.width"), informative: lines("train.epochs"), ..full().into() };
    let manifest = Manifest { content, sections: vec![info.into()] };
    let run = RunRecord {
        created_ms: 1,
        seconds: 2.5,
        tokens_per_second: 3.5,
        peak_rss_bytes: 4,
        command: "docent train".into(),
        device: "cpu".into(),
    };
    let outcome = StoredOutcome {
        item: "item".into(),
        time: Some(1),
        action: Some("view".into()),
        value: Some(0.5),
        fields: vec![("device".into(), "phone".into())],
        labels: vec![("click".into(), 1.0)],
        impression: vec![("position".into(), 2.0)],
        in_history: true,
    };
    let adapted = StoredEmbedding {
        model: [3; 32],
        embedding: vec![0.25, -3.5],
        surfaces: vec![("home".into(), vec![0.5])],
        outcomes: 3,
        made: 9,
    };
    let state = EntityState { outcomes: vec![outcome], seen: 2, touched: 9, adapted: Some(adapted) };
    let item = StoredItem {
        sequence: 1,
        id: "i1".into(),
        title: Some("One".into()),
        released: Some(5),
        added: Some(7),
        fields: vec![
            ("genre".into(), StoredValue::Text("drama".into())),
            ("tags".into(), StoredValue::Texts(vec!["a".into()])),
            ("price".into(), StoredValue::Number(2.5)),
            ("look".into(), StoredValue::Vector(vec![0.5, -1.0])),
        ],
    };
    let progress = Progress {
        identity: [7; 32],
        step: 1,
        epoch: 2,
        batch: 3,
        tokens: 4,
        seconds: 5.5,
        losses: (vec![6.5], 7),
        best_losses: vec![8.5],
        best: vec![("mrr".into(), 0.5)],
        best_epoch: 9,
        waited: 10,
    };
    let found = [
        ("manifest", hash(&manifest)),
        ("run", hash(&RunFile { generation: 1, manifest: [5; 32], run: run.into() })),
        ("state", hash(&State::from(state.clone()))),
        ("item", hash(&Item::from(item.clone()))),
        ("progress", hash(&progress)),
    ];
    let found: String = found.iter().map(|(name, hash)| format!("{name} {hash}\n")).collect();
    assert_eq!(found, include_str!("../../../../tests/fixtures/records.v1.txt"));
    // And the other way round nothing is lost.
    assert_eq!(records::EntityState::from(State::from(state.clone())), state);
    assert_eq!(records::StoredItem::from(Item::from(item.clone())), item);
    assert_eq!(ManifestContent::try_from(Content::from(full())).unwrap(), full());
}

/// The three rules of docs/format.md, for a whole manifest.
#[test]
fn options_of_a_later_version_are_refused_or_kept() {
    let content = |change: fn(&mut Content)| {
        let mut content = Content::from(full());
        change(&mut content);
        ManifestContent::try_from(content)
    };
    let line = |key: &str| (key.to_owned(), "1".to_owned());
    let kept = content(|c| c.informative.insert(0, ("a.later".into(), "1".into()))).unwrap();
    assert_eq!(kept.kept.into_iter().collect::<Vec<_>>(), [line("a.later"), ("train.colour".into(), "red".into())]);
    let told = |outcome: Result<ManifestContent, Error>, kind, word: &str| {
        let error = outcome.unwrap_err();
        assert!(error.kind() == kind && error.message().contains(word), "{error}");
    };
    told(content(|c| c.binding.insert(0, ("a.later".into(), "1".into()))), ErrorKind::UpgradeRequired, "a.later");
    told(content(|c| drop(c.binding.remove(3))), ErrorKind::Corrupt, "is missing");
    told(content(|c| c.informative.reverse()), ErrorKind::Corrupt, "order");
    told(content(|c| c.binding.insert(0, c.binding[0].clone())), ErrorKind::Corrupt, "order");
}

#[test]
fn thread_counts_change_no_byte() {
    let bytes = |threads: u32| {
        let mut content = full();
        content.training.options.threads = threads;
        content.ranker.iter_mut().for_each(|ranker| ranker.options.threads = threads);
        archive(&Content::from(content)).unwrap().to_vec()
    };
    assert_eq!(bytes(1), bytes(16));
}
