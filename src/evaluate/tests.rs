//! Few-shot and prequential evaluation at small size, in a synthetic world in which people prefer one half of the categories.

use super::*;
use crate::data::{Dataset, Protocol, Split, SyntheticOptions, Turn, World};
use crate::model::{Inference, Weights};
use crate::options::{ModelOptions, RankerOptions, RankerTrainOptions, TrainOptions};
use crate::progress::{Cancel, Silent};
use crate::ranker::Ranker;
use crate::train::ranker::{FoundationModel, Impressions, Plan, RankerTrainer, TaskSet};
use crate::train::{Trained, Trainer};
use std::sync::OnceLock;

struct Scene {
    options: SyntheticOptions,
    data: Dataset,
    split: Split,
    impressions: Impressions,
    inference: Inference,
    trained: Trained,
    ranker: Ranker,
}

/// The scene that all tests share.
fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| {
        let options = SyntheticOptions {
            entities: 400,
            items: 80,
            days: 90,
            events_per_entity: 50.0,
            poles: 2.5,
            ..Default::default()
        };
        let world = World::new(&options, 2).unwrap();
        let data = world.dataset().unwrap();
        let mut split = Split::new(&data, &Protocol::TimeSplit { test: 0.3, validation: 0.05 }).unwrap();
        for train in split.train.iter_mut().step_by(6) {
            *train = train.start..train.start;
        }
        let impressions = Impressions::from_log(&data, &world.impression_log().unwrap()).unwrap();
        let model = ModelOptions {
            width: 16,
            hidden: 32,
            max_length: 32,
            field_width: 4,
            blocks: 1,
            ..ModelOptions::default()
        };
        let train = TrainOptions { epochs: 2, threads: 2, ..TrainOptions::default() };
        let trained = Trainer::new(&data, &split).model(model).options(train).run(&mut Silent, &Cancel::new()).unwrap();
        let inference = Inference::new(&data.schema, &trained.model).unwrap();
        let plan = Plan::new(&data, &impressions, &split, features(&inference, &trained), 0.15, 1, 2).unwrap();
        let model = RankerOptions {
            embedding: 16,
            hidden: vec![32],
            trunk: 32,
            gate: 16,
            item_width: 16,
            ..Default::default()
        };
        let options_of = RankerTrainOptions {
            epochs: 6,
            batch: 64,
            first: 0.6,
            learning_rate: 4e-3,
            threads: 2,
            ..Default::default()
        };
        let trainer = RankerTrainer::new(&plan).model(model).options(options_of);
        let ranker = trainer.run(&mut Silent, &Cancel::new()).unwrap().ranker;
        drop(plan);
        Scene { options, data, split, impressions, inference, trained, ranker }
    })
}

fn features<'a>(inference: &'a Inference, t: &'a Trained) -> FoundationModel<'a> {
    FoundationModel {
        inference,
        weights: Weights { items: &t.items, dense: &t.dense, features: &t.features, more: &() },
    }
}

impl Scene {
    fn features(&self) -> FoundationModel<'_> {
        features(&self.inference, &self.trained)
    }

    fn plan<'a>(&'a self, impressions: &'a Impressions) -> Plan<'a> {
        Plan::new(&self.data, impressions, &self.split, self.features(), 0.15, 1, 2).unwrap()
    }
}

#[test]
fn more_outcomes_teach_more_about_the_same_questions() {
    let scene = scene();
    let plan = scene.plan(&scene.impressions);
    let mut still = scene.ranker.clone();
    still.shape.options.steps = 0;
    let resampling = Resampling { resamples: 0, ..Resampling::default() };
    let options = FewShotOptions { supports: vec![0, 2, 10], steps: vec![0, 1, 5], threads: 2, resampling };
    let methods = [
        FewShotMethod { name: "adapted".into(), runs: vec![&scene.ranker] },
        FewShotMethod { name: "still".into(), runs: vec![&still] },
    ];
    let found = few_shot(&plan, scene.features(), &methods, &options).unwrap();
    let auc = |size: usize, method: usize| found.sizes[size].judged.rows[method].metric("auc").unwrap();
    assert!(found.sizes.iter().all(|s| s.judged.targets == found.sizes[0].judged.targets && s.judged.targets > 500));
    // Without outcomes nothing is adapted; the curve over steps is flat there, and rises where there are some.
    assert_eq!(auc(0, 0), auc(0, 1));
    assert_eq!(found.sizes[0].curve[0].1, found.sizes[0].curve[2].1);
    assert!(auc(2, 0) > auc(0, 0) + 0.03 && auc(2, 0) > auc(2, 1) + 0.03, "{}", found.table());
    assert!(auc(1, 0) > auc(0, 0), "{}", found.table());
    assert_eq!(found.sizes[2].curve[2].1, auc(2, 0));
    assert!(few_shot(&plan, scene.features(), &[], &options).is_err());
    let none = FewShotOptions { supports: vec![100_000], ..options };
    assert!(few_shot(&plan, scene.features(), &methods, &none).is_err());
}

#[test]
fn a_change_of_taste_is_followed_within_five_outcomes_and_a_table_does_not() {
    let scene = scene();
    let case = |c: &crate::data::Case| scene.data.events.time[scene.data.range(c.entity).start + c.history.len()];
    let time = scene.split.test.iter().map(case).min().unwrap();
    let turned =
        World::new(&SyntheticOptions { turn: Some(Turn { time, share: 1.0 }), ..scene.options.clone() }, 2).unwrap();
    let after = Impressions::from_log(&scene.data, &turned.impression_log().unwrap()).unwrap();
    assert_ne!(after.labels, scene.impressions.labels);
    assert_eq!((&after.item, &after.before), (&scene.impressions.item, &scene.impressions.before));
    let resampling = Resampling { resamples: 0, ..Resampling::default() };
    let options = PrequentialOptions { most: 30, threads: 2, resampling, ..PrequentialOptions::default() };
    let walk = |impressions: &Impressions| {
        prequential(&scene.plan(impressions), scene.features(), &scene.ranker, TaskSet::Known, &options).unwrap()
    };
    let at = |found: &Prequential, places: &str, policy: Policy| {
        let bucket = found.walk.iter().find(|b| b.places == places).unwrap();
        bucket.losses[Policy::ALL.iter().position(|p| *p == policy).unwrap()]
    };
    let (stays, turns) = (walk(&scene.impressions), walk(&after));
    let text = format!("{}\n{}", stays.table(), turns.table());
    let (drift_aware, table) = (at(&turns, "6-10", Policy::DriftAware), at(&turns, "6-10", Policy::Table));
    // What is lost to a stale table, and how much of it is won back from the sixth outcome on.
    let lost = table - at(&stays, "6-10", Policy::Table);
    assert!(lost > 0.05, "{text}");
    assert!(table - drift_aware > 0.7 * lost, "{text}");
    assert!(drift_aware < at(&turns, "6-10", Policy::Unadapted), "{text}");
    assert!(at(&turns, "11-20", Policy::Table) > at(&turns, "11-20", Policy::Unadapted), "{text}");
    // Where taste stays, the guard costs next to nothing, and the direct step keeps up with adaptation anew.
    let all = |name: &str| stays.judged.rows.iter().find(|r| r.name == name).unwrap().metric("logloss").unwrap();
    assert!(all("drift-aware") < all("re-adapted") + 0.01, "{text}");
    assert!(all("first-order") < all("re-adapted") + 0.01, "{text}");
    // The same walk on one thread is the same to the bit.
    let alone = PrequentialOptions { threads: 1, ..options.clone() };
    let again = prequential(&scene.plan(&after), scene.features(), &scene.ranker, TaskSet::Known, &alone).unwrap();
    assert_eq!(again, turns);
    let none = PrequentialOptions { policies: Vec::new(), ..options.clone() };
    assert!(prequential(&scene.plan(&after), scene.features(), &scene.ranker, TaskSet::Known, &none).is_err());
}
