//! Persons on surfaces, at small size: tasks that hold what they should, one training on any number of threads, a part that finds
//! what is planted and adds nothing where nothing is known.

use super::super::tasks::SurfaceTasks;
use super::super::*;
use super::{Scene, model, options, scene};
use crate::data::{SyntheticOptions, World};
use crate::error::ErrorKind;
use crate::options::{ItemKind, RankerOptions, RankerTrainOptions};
use crate::progress::{Cancel, Silent};
use crate::random::Rng;
use crate::ranker::{Ranker, RankerShape};
use std::sync::OnceLock;

/// The scene whose persons click otherwise on each device.
fn planted() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| {
        let mut scene = scene().clone();
        let world = World::new(&SyntheticOptions { poles: 1.5, surface: 2.0, ..Scene::world() }, 2).unwrap();
        scene.impressions = Impressions::from_log(&scene.data, &world.impression_log().unwrap()).unwrap();
        scene
    })
}

fn kinds(person: bool, items: ItemKind, surface: &str) -> RankerOptions {
    RankerOptions { person, items, surface: surface.into(), ..model(2) }
}

fn train(plan: &Plan<'_>, model: RankerOptions, epochs: u32, threads: u32) -> TrainedRanker {
    let options = RankerTrainOptions { epochs, threads, ..options() };
    RankerTrainer::new(plan).model(model).options(options).run(&mut Silent, &Cancel::new()).unwrap()
}

fn answers(plan: &Plan<'_>, ranker: &Ranker, who: TaskSet) -> Vec<f32> {
    Predictor::new(plan, ranker, 2).unwrap().predict(who, &[2]).unwrap().swap_remove(0)
}

fn loss(plan: &Plan<'_>, trained: &TrainedRanker, who: TaskSet) -> f64 {
    calibration::log_loss(&answers(plan, &trained.ranker, who), &plan.query_labels(who))
}

#[test]
fn supports_hold_earlier_outcomes_of_the_same_person_on_the_same_surface() {
    let mut scene = planted().clone();
    // Some surfaces are missing.
    scene.impressions.surfaces[0].codes.iter_mut().step_by(11).for_each(|code| *code = 0);
    let plan = scene.plan(2);
    let surface = plan.impressions.surface("device").unwrap();
    assert_eq!(surface.values.len(), 3);
    let wanted = kinds(true, ItemKind::Off, "device");
    let tasks = SurfaceTasks::new(&plan, surface, wanted.support);
    let (mut asked, mut known) = (vec![0; plan.impressions.len()], 0);
    for (task, (place, code)) in tasks.keys.iter().enumerate() {
        let own = plan.task(*place);
        let support: Vec<usize> = tasks.supports.get(task).iter().map(|i| *i as usize).collect();
        let queries: Vec<usize> = tasks.queries.get(task).iter().map(|i| *i as usize).collect();
        assert!(*code > 0 && support.len() + queries.len() > 0 && support.is_sorted());
        let read = plan.latest(*place, wanted.support);
        for i in &support {
            assert!(read.contains(i) && *i < own.query.start && surface.codes[*i] == *code);
        }
        for i in &queries {
            assert!(own.query.contains(i) && surface.codes[*i] == *code);
            asked[*i] += 1;
        }
        known += support.len();
    }
    for who in [TaskSet::Train, TaskSet::Validation, TaskSet::Known, TaskSet::HiddenCuts] {
        let trained = matches!(who, TaskSet::Train | TaskSet::Validation);
        for i in plan.tasks(who).flat_map(|t| t.query.clone()) {
            assert_eq!(asked[i], u32::from(trained && surface.codes[i] > 0));
        }
    }
    assert!(known > 10_000, "{known}");
}

#[test]
fn labels_of_the_test_change_no_answer_to_it() {
    let mut scene = planted().clone();
    let plan = scene.plan(2);
    let trained = train(&plan, kinds(true, ItemKind::Item, "device"), 1, 2);
    let parts = [TaskSet::Known, TaskSet::Hidden];
    let before = parts.map(|who| answers(&plan, &trained.ranker, who));
    let tests: Vec<usize> = parts.iter().flat_map(|who| plan.tasks(*who)).flat_map(|t| t.query.clone()).collect();
    // One that is trained on, of a person who is tested on that surface.
    let surface = plan.impressions.surface("device").unwrap();
    let seen = plan.tasks(TaskSet::Known).find_map(|t| {
        let asked = surface.codes[t.query.start];
        t.support.clone().rev().take(20).find(|i| surface.codes[*i] == asked)
    });
    drop(plan);
    tests.iter().for_each(|i| scene.impressions.labels[*i] = 1.0 - scene.impressions.labels[*i]);
    assert!(tests.len() > 500);
    assert_eq!(parts.map(|who| answers(&scene.plan(2), &trained.ranker, who)), before);
    assert_eq!(train(&scene.plan(2), kinds(true, ItemKind::Item, "device"), 1, 2).ranker, trained.ranker);
    // The control.
    let seen = seen.unwrap();
    scene.impressions.labels[seen] = 1.0 - scene.impressions.labels[seen];
    assert_ne!(parts.map(|who| answers(&scene.plan(2), &trained.ranker, who)), before);
}

#[test]
fn the_same_seed_gives_the_same_bytes_of_all_kinds_on_any_number_of_threads() {
    let plan = planted().plan(2);
    for (person, kind) in
        [(true, ItemKind::Off), (false, ItemKind::Off), (true, ItemKind::Item), (false, ItemKind::Item)]
    {
        let options = kinds(person, kind, "device");
        let (one, three) = (train(&plan, options.clone(), 1, 1), train(&plan, options.clone(), 1, 3));
        assert_eq!(one.ranker, three.ranker);
        assert_eq!(one.item_embeddings, three.item_embeddings);
        assert_eq!(one.surfaces, plan.impressions.surface("device").unwrap().values);
        let at = one.ranker.shape.layout.range("surface.1").unwrap();
        assert!(one.ranker.dense[at].iter().any(|x| x.abs() > 1e-3));
        let predicted = |threads| {
            let predictor = Predictor::new(&plan, &one.ranker, threads).unwrap();
            predictor.predict(TaskSet::Known, &[0, 2]).unwrap()
        };
        let found = predicted(1);
        assert_eq!(found, predicted(3));
        assert_ne!(found[0], found[1]);
    }
}

#[test]
fn both_find_what_is_planted_and_shuffled_surfaces_do_not() {
    let mut scene = planted().clone();
    let plan = scene.plan(2);
    let [both, person, surface] = [(true, "device"), (true, ""), (false, "device")]
        .map(|(person, surface)| train(&plan, kinds(person, ItemKind::Off, surface), 5, 2));
    let [of_both, of_person, of_surface] = [&both, &person, &surface].map(|t| loss(&plan, t, TaskSet::Known));
    // Which of those that know the surface is better is measured in benches/experiments/meta_surface.rs.
    assert!(of_both < 0.97 * of_person, "{of_both} both, {of_person} of persons alone");
    assert!(of_surface < 0.97 * of_person, "{of_surface} on surfaces alone, {of_person} of persons alone");
    assert!(loss(&plan, &both, TaskSet::Hidden) < 0.98 * loss(&plan, &person, TaskSet::Hidden));
    drop(plan);
    // The control: surfaces that say nothing gain nothing.
    Rng::new(5).shuffle(&mut scene.impressions.surfaces[0].codes);
    let plan = scene.plan(2);
    let shuffled = loss(&plan, &train(&plan, kinds(true, ItemKind::Off, "device"), 5, 2), TaskSet::Known);
    assert!(shuffled > 0.99 * of_person, "{shuffled} on shuffled surfaces, {of_person} of persons alone");
}

#[test]
fn where_no_surface_is_known_the_answer_is_that_of_the_person_to_the_bit() {
    let mut scene = planted().clone();
    let trained = train(&scene.plan(2), kinds(true, ItemKind::Off, "device"), 1, 2);
    // The weights without the block, which lies behind all others.
    let mut alone = trained.ranker.clone();
    alone.shape = {
        let plan = scene.plan(1);
        let options = RankerOptions { surface: String::new(), ..trained.ranker.shape.options.clone() };
        RankerShape::new(&options, plan.inputs.width(), plan.width, plan.numbers(), 1, 1.0).unwrap()
    };
    alone.dense.truncate(alone.shape.layout.size());
    assert!(alone.dense.len() < trained.ranker.dense.len());
    let named = answers(&scene.plan(2), &trained.ranker, TaskSet::Known);
    assert_ne!(named, answers(&scene.plan(2), &alone, TaskSet::Known));
    scene.impressions.surfaces[0].codes.fill(0);
    let unnamed = answers(&scene.plan(2), &trained.ranker, TaskSet::Known);
    assert_eq!(unnamed, answers(&scene.plan(2), &alone, TaskSet::Known));
}

#[test]
fn names_that_are_no_surface_are_refused() {
    let mut scene = planted().clone();
    for name in ["position", "weather"] {
        let plan = scene.plan(2);
        let refused = RankerTrainer::new(&plan).model(kinds(true, ItemKind::Off, name));
        let refused = refused.run(&mut Silent, &Cancel::new()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidConfig);
        assert!(refused.to_string().contains(name) && refused.to_string().contains("device"), "{refused}");
    }
    assert!(kinds(false, ItemKind::Off, "").check().unwrap_err().to_string().contains("ranker.surface"));
    assert!(kinds(false, ItemKind::Off, "device").check().is_ok());
    scene.impressions.surfaces[0].codes[0] = 9;
    assert_eq!(scene.impressions.check(&scene.data).unwrap_err().kind(), ErrorKind::InvalidData);
    // Labelled events name their own.
    let mut labelled = scene.data.clone();
    labelled.events.label = (0..labelled.events.len()).map(|i| (i % 2) as f32).collect();
    let found = Impressions::from_labels(&labelled).unwrap();
    assert_eq!(found.surface("device").unwrap().codes.len(), found.len());
    assert!(found.surface("completion").is_err());
}
