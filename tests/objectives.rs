//! What the foundation model's own mechanisms do, end to end at small size: the leakage rule, time, metadata, cold items.
//! docs/mechanisms.md has the commands that measure them at full size.

use docent::data::{
    BuildOptions, Dataset, DatasetBuilder, Declaration, EventRow, Kind, Protocol, Split, SyntheticOptions, World,
};
use docent::evaluate::{EngineScorer, EvaluateOptions, Evaluation, Resampling, evaluate, evaluate_heads};
use docent::model::Standing;
use docent::options::{ModelOptions, TowerOptions, TrainOptions};
use docent::progress::{Cancel, Silent};
use docent::random::Rng;
use docent::schema::Timing;
use docent::serve::{Engine, EngineOptions, Filter, Generation, Query, Source, WithoutStates};
use docent::store::{RunRecord, Store};
use docent::train::{Trained, Trainer, publish};
use docent::{Cell, Event};
use std::sync::Arc;

fn model() -> ModelOptions {
    ModelOptions { width: 16, heads: 2, hidden: 32, max_length: 16, field_width: 8, ..ModelOptions::default() }
}

/// The weights of the last epoch are kept: what a head learns is not chosen by the lists of small worlds.
fn options(epochs: u32) -> TrainOptions {
    TrainOptions {
        epochs,
        batch: 32,
        warmup: 20,
        validate_every: epochs,
        dropout: 0.1,
        learning_rate: 3e-3,
        ..TrainOptions::default()
    }
}

/// A trained model and its generation; the folder must live as long.
fn published(
    data: &Dataset,
    split: &Split,
    model: ModelOptions,
    options: TrainOptions,
) -> (tempfile::TempDir, Trained, Arc<Generation>) {
    let trained = Trainer::new(data, split).model(model).options(options).run(&mut Silent, &Cancel::new()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut publisher = Store::create(&path).unwrap().publisher().unwrap();
    publish(&mut publisher, data, split, &trained, &RunRecord::default()).unwrap();
    let generation = Engine::open(&path, &EngineOptions::default()).unwrap().current();
    (folder, trained, generation)
}

fn judged(data: &Dataset, split: &Split, generation: &Arc<Generation>) -> Evaluation {
    let scorer = EngineScorer::new(Arc::clone(generation), data).unwrap();
    let options =
        EvaluateOptions { resampling: Resampling { resamples: 0, ..Resampling::default() }, ..Default::default() };
    evaluate(data, split, &[&scorer], &options, &mut Silent, &Cancel::new()).unwrap()
}

/// People who meet items at random and like half of them at random; `copy` repeats each label, known at `timing`.
fn copied(timing: Timing) -> Dataset {
    let declaration = Declaration {
        label: true,
        event_fields: vec![("copy".into(), Kind::Categorical, timing)],
        ..Declaration::new("copied")
    };
    let mut builder = DatasetBuilder::new(declaration, BuildOptions::default()).unwrap();
    let mut rng = Rng::new(3);
    for entity in 0..300 {
        for _ in 0..9 {
            let label = rng.below(2);
            let fields = [("copy", Cell::Text(["no", "yes"][label]))];
            let (entity, item) = (format!("p{entity}"), format!("i{}", rng.below(30)));
            let event = Event { fields: &fields, ..Event::item(&item) };
            builder.push_event(&EventRow { label: Some(label as f32), ..EventRow::new(&entity, event) }).unwrap();
        }
    }
    builder.build().unwrap()
}

#[test]
fn a_copy_of_the_label_helps_only_where_it_is_known_in_time() {
    let auc = |timing| {
        let data = copied(timing);
        let split = Split::new(&data, &Protocol::LeaveTwoOut).unwrap();
        let (_folder, _, generation) = published(&data, &split, ModelOptions { feedback: 2.0, ..model() }, options(25));
        let scorer = EngineScorer::new(generation, &data).unwrap();
        let heads = evaluate_heads(&scorer, &data, &split).unwrap();
        assert_eq!((heads[0].name.as_str(), heads[0].questions), ("feedback", 600));
        heads[0].metrics.auc.unwrap()
    };
    // The standard error of an area over 600 coin tosses is 0.024.
    let (after, before) = (auc(Timing::PostAction), auc(Timing::Request));
    assert!((after - 0.5).abs() < 0.08, "an outcome tells {after} of itself");
    assert!(before > 0.999, "a request-time field tells only {before}");
}

#[test]
fn a_weekly_habit_is_learned_by_time_alone() {
    let mut builder = DatasetBuilder::new(Declaration::new("weekly").with_time(), BuildOptions::default()).unwrap();
    let mut rng = Rng::new(7);
    for entity in 0..1000 {
        let mut time = 1_700_000_000_000i64 + rng.below(30 * 86_400) as i64 * 1000;
        for _ in 0..8 {
            time += rng.below(21 * 86_400) as i64 * 1000 + 86_400_000;
            let day = (time.div_euclid(86_400_000) + 3).rem_euclid(7);
            let (entity, item) = (format!("p{entity}"), format!("i{}", day * 10 + rng.below(10) as i64));
            let event = Event { time: Some(time), ..Event::item(&item) };
            builder.push_event(&EventRow::new(&entity, event)).unwrap();
        }
    }
    let data = builder.build().unwrap();
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let hit = |on| {
        let model = ModelOptions { time_input: on, time_bias: on, ..model() };
        let (_folder, _, generation) = published(&data, &split, model, options(30));
        judged(&data, &split, &generation).rows[0].metric("hr@10").unwrap()
    };
    let (with, without) = (hit(true), hit(false));
    assert!(with >= 0.9, "{with} of the optimum, which is 1");
    assert!((without - 10.0 / 63.0).abs() < 0.04, "{without} without time, chance is 10 of the 63 not met before");
}

fn world() -> Dataset {
    let options =
        SyntheticOptions { entities: 400, items: 150, days: 60, events_per_entity: 25.0, ..Default::default() };
    World::new(&options, 1).unwrap().dataset().unwrap()
}

#[test]
fn items_that_nobody_has_touched_are_known_by_their_metadata() {
    let data = world();
    let split = Split::new(&data, &Protocol::ColdItems { share: 0.2, seed: 2 }).unwrap();
    let cold = |tower| {
        let (_folder, trained, generation) = published(&data, &split, ModelOptions { tower, ..model() }, options(20));
        let found = judged(&data, &split, &generation);
        let hidden = found.cuts.iter().find(|c| c.by == "candidates").unwrap().rows[0].metric("hr@10").unwrap();
        let weights = |row: u32| {
            let with = |evidence| Standing { age: Some(100.0), evidence, known: evidence > 0 };
            let weight =
                |evidence| generation.item_parts(row, Some(with(evidence))).unwrap().map(|p| p.metadata_weight);
            (weight(0), weight(60))
        };
        let stands =
            (0..data.items.len()).all(|i| trained.standings.get(i).is_none_or(|s| !split.hidden[i] || !s.known));
        assert!(stands, "a hidden item has evidence");
        (hidden, found.rows[0].metric("hr@10").unwrap(), weights(3))
    };
    let (by_id, by_metadata) = (cold(None), cold(Some(TowerOptions::default())));
    let random = 10.0 / split.hidden.iter().filter(|h| **h).count() as f64;
    assert!(by_metadata.0 > 1.4 * random, "{by_metadata:?} among hidden items, {random} at random");
    assert!(by_metadata.1 > 3.0 * by_id.1, "{by_metadata:?} against {by_id:?} in the full catalogue");
    let (Some(new), Some(old)) = by_metadata.2 else { panic!("a model with a tower has parts") };
    assert!(new > old + 0.1, "metadata weighs {new} for a new item and {old} for an old one");
    assert_eq!(by_id.2, (None, None));
}

#[test]
fn the_parts_of_an_item_add_up_to_its_vector() {
    let data = world();
    let split = Split::new(&data, &Protocol::ColdItems { share: 0.2, seed: 2 }).unwrap();
    let model = ModelOptions { tower: Some(TowerOptions::default()), ..model() };
    let (_folder, _, generation) = published(&data, &split, model, options(2));
    for row in 0..generation.items() as u32 {
        let parts = generation.item_parts(row, None).unwrap().unwrap();
        for ((a, b), v) in parts.id.iter().zip(&parts.metadata).zip(generation.item_vector(row).unwrap()) {
            assert!((a + b - v).abs() < 1e-5, "row {row}: {a} + {b} is not {v}");
        }
        assert!((0.0..=1.0).contains(&parts.metadata_weight));
    }
    assert!(generation.item_parts(generation.items() as u32, None).is_err());
}

#[test]
fn one_event_is_enough_for_a_list_of_ones_own() {
    let data = world();
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let (_folder, _, generation) = published(&data, &split, model(), options(8));
    let list = |query: &Query<'_>| {
        let list = WithoutStates(&generation).recommend(query, &Filter::default(), 10).unwrap();
        (list.source, list.items.into_iter().map(|i| i.id).collect::<Vec<_>>())
    };
    let (source, popular) = list(&Query::entity("nobody"));
    assert_eq!((source, popular.len()), (Source::Popularity, 10));
    let mut lists = std::collections::HashSet::new();
    for item in data.items.names().iter().take(20) {
        let (source, own) = list(&Query::items(&[item]));
        assert_eq!((source, own.len()), (Source::Model, 10));
        assert!(!own.contains(item));
        lists.insert(own);
    }
    assert!(lists.len() >= 15, "twenty first items lead to {} lists", lists.len());
}

#[test]
fn late_lists_are_asked_for_before_anything_of_the_target_is_known() {
    let data = world();
    let late = Split::new(&data, &Protocol::parse("stale:hours=48").unwrap()).unwrap();
    let fresh = Split::new(&data, &Protocol::parse("time-split").unwrap()).unwrap();
    assert!(late.test.len() > 100 && late.test.len() <= fresh.test.len());
    assert_eq!((&late.train, late.protocol.trained_as()), (&fresh.train, fresh.protocol.clone()));
    for case in &late.test {
        let at = case.at.unwrap();
        assert_eq!(data.events.time[case.target] - at, 48 * 3_600_000);
        assert!(!case.history.is_empty() && data.events.time[case.history.end - 1] <= at);
        assert!(case.history.end == case.target || data.events.time[case.history.end] > at);
    }
}
