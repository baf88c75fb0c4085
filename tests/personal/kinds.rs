//! A ranker of two kinds of entities in a generation: its table of items' embeddings, served and adapted anew.

use crate::scene::scene;
use docent::adapt::BatchAdapter;
use docent::model::sections::META_ITEM_EMBEDDINGS;
use docent::options::{ItemKind, RankerOptions};
use docent::progress::{Cancel, Silent};
use docent::serve::{Engine, EngineOptions, NewItem, Query};
use docent::store::{GenerationId, RunRecord, Store};
use docent::train::ranker::{Impressions, TrainedRanker};
use std::path::Path;

fn engine(path: &Path) -> Engine {
    Engine::open(path, &EngineOptions { live: true, ..EngineOptions::default() }).unwrap()
}

fn table(engine: &Engine) -> Vec<f32> {
    engine.current().snapshot().f32s(META_ITEM_EMBEDDINGS).unwrap().to_vec()
}

fn adapt(path: &Path, outcomes: &Impressions) -> (GenerationId, Vec<f32>) {
    let engine = engine(path);
    let adapter = BatchAdapter::new(engine.current(), &scene().data, outcomes).unwrap().threads(2);
    let adapted = adapter.run(&mut Silent, &Cancel::new()).unwrap().unwrap();
    let mut publisher = Store::open(path).unwrap().publisher().unwrap();
    let id = adapter.publish(&mut publisher, &adapted, &RunRecord::default()).unwrap();
    engine.reload().unwrap();
    (id, table(&engine))
}

#[test]
fn embeddings_of_items_are_published_served_and_adapted_anew() {
    let scene = scene();
    let both = scene.ranked(RankerOptions { items: ItemKind::Item, ..RankerOptions::default() });
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    scene.publish_with(&path("whole"), &both);
    // The control: the same weights, but for one item without its embedding.
    let width = both.ranker.shape.options.embedding as usize;
    let mut without = TrainedRanker { ..both.clone() };
    without.item_embeddings[7 * width..8 * width].fill(0.0);
    scene.publish_with(&path("without"), &without);
    let (whole, control) = (engine(&path("whole")), engine(&path("without")));
    assert_eq!(table(&whole), both.item_embeddings);
    let entity = scene.data.entities.id(scene.somebody(30));
    let items: Vec<&str> = scene.data.items.names().iter().map(String::as_str).collect();
    let query = Query::entity(entity);
    let (a, b) = (whole.probabilities(&query, &items).unwrap(), control.probabilities(&query, &items).unwrap());
    for (row, (a, b)) in a.iter().zip(&b).enumerate() {
        assert_eq!(a != b, row == 7, "item {row}: {a:?} and {b:?}");
    }
    // An item that was added since has no embedding, and an answer.
    whole.add_item(&NewItem { id: "new", ..NewItem::default() }).unwrap();
    let new = whole.probabilities(&query, &["new"]).unwrap();
    assert!(new[0][0] > 0.0 && new[0][0] < 1.0);
    drop((whole, control));
    std::fs::remove_file(path("whole").join("live.db")).unwrap();

    let (id, first) = adapt(&path("whole"), &scene.outcomes);
    assert_eq!((id, first.len()), (GenerationId(2), both.item_embeddings.len()));
    assert!(first != both.item_embeddings && first.iter().all(|x| x.is_finite()));
    let mut flipped = scene.outcomes.clone();
    flipped.labels.iter_mut().for_each(|l| *l = 1.0 - *l);
    let (_, second) = adapt(&path("whole"), &flipped);
    assert_ne!(first, second);
    assert_eq!(adapt(&path("whole"), &scene.outcomes).1, first, "the same outcomes give the same table");
    // Outcomes on another scale say nothing about these rows: the table is carried over.
    let mut scaled = scene.outcomes.clone();
    scaled.impression_fields[0].deviation *= 2.0;
    assert_eq!(adapt(&path("whole"), &scaled).1, first);
}

#[test]
fn a_ranker_of_items_alone_answers_everybody_alike() {
    let scene = scene();
    let items = scene.ranked(RankerOptions { person: false, items: ItemKind::Item, ..RankerOptions::default() });
    let folder = tempfile::tempdir().unwrap();
    scene.publish_with(folder.path().join("store").as_path(), &items);
    let (_, table) = adapt(&folder.path().join("store"), &scene.outcomes);
    assert!(table.iter().any(|x| *x != 0.0));
    let engine = engine(&folder.path().join("store"));
    let width = engine.current().meta_width();
    let people = engine.current().snapshot().f32s(docent::model::sections::META_EMBEDDINGS).unwrap().to_vec();
    assert!(people.len() == width * scene.data.entities.len() && people.iter().all(|x| *x == 0.0));
}
