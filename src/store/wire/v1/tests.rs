//! The bytes of records, held against committed ones: a field that is added, removed, moved or given another type makes another record,
//! which belongs into another version.

use super::super::codec::archive;
use super::manifest::Run;
use super::*;
use crate::options::{ListOrder, RankerOptions, RankerTrainOptions};
use crate::schema::{EventField, Field, FieldKind, ImpressionField, Timing};
use crate::store::records::*;
use crate::store::tests::content;
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
        order: ListOrder::default(),
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

/// The content of a manifest in which no two fields have one value, under lines that no default changes.
fn distinct() -> Content {
    let mut full = full();
    let ManifestContent { training: t, items, entities, events, .. } = &mut full;
    (*items, *entities, *events) = (6, 7, 8);
    (t.epochs, t.best_epoch, t.steps, t.tokens, t.parameters) = (11, 12, 13, 14, 15);
    (t.data_hash, t.target_hash) = ([1; 32], [2; 32]);
    t.validation = vec![("ndcg@10".into(), 0.25)];
    t.losses = vec![("next-item".into(), 1.5)];
    (t.protocol, t.stopped, t.version) = ("leave-one-out".into(), "patience".into(), "0.1.0".into());
    let mut content = Content::from(full);
    content.binding = vec![("model.width".into(), "64".into())];
    content.informative = vec![("train.seed".into(), "1".into())];
    content
}

/// BLAKE3 of the archive of [`distinct`], and of the run record of the test.
const CONTENT: &str = "f21ef758ca8c0aea38aab47df383390353e5a76518b80251d7dcb5b6202de065";
const RUN: &str = "479ee62795890f6de14b44514d925b8ed338027cbe97aab561beeac37ae990f4";

/// The archive of a record of an earlier build.
fn before(name: &str) -> Vec<u8> {
    let (_, _, bytes) = crate::store::tests::before().into_iter().find(|(table, ..)| *table == name).unwrap();
    match name {
        // Magic and version, the length of the record, the record.
        "ckpt" => {
            let length = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) as usize;
            bytes[24..24 + length].to_vec()
        }
        // A hash, the record.
        _ => bytes[16..].to_vec(),
    }
}

/// Records of the live file and of checkpoints have the bytes that builds wrote before the first release, manifests and run records those
/// that version 1 was settled with.
#[test]
fn records_of_version_1_are_frozen() {
    let outcome = Outcome {
        item: "item-1".into(),
        time: Some(1),
        action: Some("view".into()),
        value: Some(0.5),
        fields: vec![("device".into(), "phone".into())],
        labels: vec![("click".into(), 1.0), ("like".into(), 0.0)],
        impression: vec![("position".into(), 1.0), ("hour".into(), -1.5)],
        in_history: false,
    };
    let adapted = Embedding {
        model: [3; 32],
        embedding: vec![0.25, -3.5, 1e-20],
        surfaces: vec![("home".into(), vec![0.5, 0.0, -1.0])],
        outcomes: 3,
        made: 9,
    };
    let none = (None, Vec::new(), Vec::new(), Vec::new());
    let (action, fields, labels, impression) = none;
    let bare =
        Outcome { item: "x".into(), time: None, action, value: None, fields, labels, impression, in_history: false };
    let state = State { outcomes: vec![outcome, bare], seen: 2, touched: 9, adapted: Some(adapted) };
    let item = StoredItem {
        sequence: 1,
        id: "i1".into(),
        title: Some("One".into()),
        released: Some(5),
        added: Some(7),
        fields: vec![
            ("genre".into(), StoredValue::Text("drama".into())),
            ("tags".into(), StoredValue::Texts(vec!["a".into(), "a longer tag".into()])),
            ("price".into(), StoredValue::Number(2.5)),
            ("look".into(), StoredValue::Vector(vec![0.5, -1.0])),
        ],
    };
    let progress = Progress {
        identity: [7; 32],
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
    };
    assert_eq!(*archive(&state).unwrap(), *before("entities"));
    assert_eq!(*archive(&Item::from(item.clone())).unwrap(), *before("items.added"));
    assert_eq!(*archive(&progress).unwrap(), *before("ckpt"));
    let run = RunRecord {
        created_ms: 1,
        seconds: 2.5,
        tokens_per_second: 3.5,
        peak_rss_bytes: 4,
        command: "train".into(),
        device: "cpu".into(),
    };
    let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
    let hashes = [hash(&archive(&distinct()).unwrap()), hash(&archive(&Run::from(run.clone())).unwrap())];
    assert_eq!(hashes, [CONTENT, RUN], "the content of a manifest, a run record");
    // And the other way round nothing is lost.
    assert_eq!(RunRecord::from(Run::from(run.clone())), run);
    assert_eq!(StoredItem::from(Item::from(item.clone())), item);
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
