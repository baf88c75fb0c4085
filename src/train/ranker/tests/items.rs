//! Two kinds of entities at once, at small size: supports that hold nothing of what they are asked, one training on any number of
//! threads, and tables that are made of what they should be.

use super::super::embeddings::adapt_items;
use super::super::tasks::ItemTasks;
use super::super::*;
use super::{Scene, model, options, scene};
use crate::options::{ItemKind, RankerOptions, RankerTrainOptions};
use crate::progress::{Cancel, Silent};
use std::collections::HashSet;

/// The scene without the times of its outcomes.
fn untimed() -> Scene {
    let mut scene = scene().clone();
    scene.impressions.time.clear();
    scene
}

fn kinds(person: bool, items: ItemKind) -> RankerOptions {
    RankerOptions { person, items, ..model(2) }
}

fn train(plan: &Plan<'_>, model: RankerOptions, threads: u32) -> TrainedRanker {
    let options = RankerTrainOptions { epochs: 1, threads, ..options() };
    RankerTrainer::new(plan).model(model).options(options).run(&mut Silent, &Cancel::new()).unwrap()
}

fn category() -> ItemKind {
    ItemKind::Field("category".into())
}

#[test]
fn supports_hold_earlier_trained_outcomes_of_other_persons_alone() {
    let without = untimed();
    for (scene, has_time) in [(scene(), true), (&without, false)] {
        let plan = scene.plan(2);
        assert_eq!(!plan.impressions.time.is_empty(), has_time);
        let mut known = vec![false; plan.impressions.len()];
        let mut trained = vec![false; plan.impressions.len()];
        for set in [TaskSet::Train, TaskSet::Validation] {
            for i in plan.tasks(set).flat_map(|t| t.query.clone()) {
                (known[i], trained[i]) = (true, set == TaskSet::Train);
            }
        }
        let mut person = vec![0; plan.impressions.len()];
        for u in 0..plan.data.entities.len() as u32 {
            plan.impressions.range(u).for_each(|i| person[i] = u);
        }
        for kind in [ItemKind::Item, category()] {
            let tasks = ItemTasks::new(&plan, &kind).unwrap();
            let mut asked = vec![0; plan.impressions.len()];
            let mut sizes = HashSet::new();
            for task in 0..tasks.keys.len() {
                sizes.insert(tasks.supports.get(task).len());
                tasks.queries.get(task).iter().for_each(|i| asked[*i as usize] += 1);
            }
            for i in 0..plan.impressions.len() {
                let item = plan.impressions.item[i];
                assert_eq!(asked[i], if trained[i] { tasks.of_item.get(item as usize).len() } else { 0 });
                assert_eq!(tasks.tasks_of.get(i).len(), tasks.of_item.get(item as usize).len());
                for task in tasks.tasks_of.get(i) {
                    let task = *task as usize;
                    assert!(tasks.of_item.get(item as usize).contains(&tasks.keys[task]));
                    for o in tasks.supports.get(task).iter().map(|o| *o as usize) {
                        assert!(known[o] && person[o] != person[i]);
                        assert!(tasks.of_item.get(plan.impressions.item[o] as usize).contains(&tasks.keys[task]));
                        assert!(!has_time || plan.impressions.time[o] < plan.impressions.time[i]);
                    }
                }
            }
            let most = sizes.iter().max().unwrap();
            assert!(*most > 50 && (!has_time || sizes.contains(&0) && sizes.len() > 10), "{kind}: {sizes:?}");
        }
    }
}

#[test]
fn labels_of_the_test_change_no_answer_to_it() {
    let mut scene = scene().clone();
    let plan = scene.plan(2);
    let trained = train(&plan, kinds(true, ItemKind::Item), 2);
    let parts = [TaskSet::Known, TaskSet::Hidden];
    let answers = |plan: &Plan<'_>| {
        let predictor = Predictor::new(plan, &trained.ranker, 2).unwrap();
        parts.map(|set| predictor.predict(set, &[2]).unwrap())
    };
    let before = answers(&plan);
    let table = trained.item_embeddings.clone();
    let tests: Vec<usize> = parts.iter().flat_map(|set| plan.tasks(*set)).flat_map(|t| t.query.clone()).collect();
    let one = plan.tasks(TaskSet::Train).map(|t| t.query.start).nth(7).unwrap();
    drop(plan);
    tests.iter().for_each(|i| scene.impressions.labels[*i] = 1.0 - scene.impressions.labels[*i]);
    assert!(tests.len() > 500);
    let plan = scene.plan(2);
    assert_eq!(answers(&plan), before);
    assert_eq!(train(&plan, kinds(true, ItemKind::Item), 2).item_embeddings, table);
    drop(plan);
    // The control: one that is trained on does.
    scene.impressions.labels[one] = 1.0 - scene.impressions.labels[one];
    assert_ne!(answers(&scene.plan(2)), before);
}

#[test]
fn the_same_seed_gives_the_same_bytes_of_both_kinds_on_any_number_of_threads() {
    let scene = scene().clone();
    let plan = scene.plan(2);
    for (person, kind) in [(true, ItemKind::Item), (false, ItemKind::Item), (true, category())] {
        let (one, three) = (train(&plan, kinds(person, kind.clone()), 1), train(&plan, kinds(person, kind), 3));
        assert_eq!(one.ranker, three.ranker);
        assert_eq!(one.item_embeddings, three.item_embeddings);
        assert_eq!(one.item_embeddings.len(), plan.data.items.len() * 16);
        assert!(one.item_embeddings.iter().all(|x| x.is_finite()));
        assert!(one.item_embeddings.iter().any(|x| x.abs() > 1e-3));
    }
}

#[test]
fn a_part_that_is_off_is_not_there() {
    let scene = scene().clone();
    let plan = scene.plan(2);
    let alone = train(&plan, kinds(true, ItemKind::Off), 2);
    assert!(alone.item_embeddings.is_empty() && adapt_items(&plan, &alone.ranker, 1).unwrap().is_empty());
    assert_eq!(
        alone.ranker.shape.candidate() + 16,
        train(&plan, kinds(true, ItemKind::Item), 2).ranker.shape.candidate()
    );
    // Without the person, inner steps change nothing, outcomes of items do.
    let items = train(&plan, kinds(false, ItemKind::Item), 2);
    let predictor = Predictor::new(&plan, &items.ranker, 2).unwrap();
    let found = predictor.predict(TaskSet::Known, &[0, 2]).unwrap();
    assert_eq!(found[0], found[1]);
    let mut others = plan.impressions.labels.clone();
    others.iter_mut().for_each(|l| *l = 1.0 - *l);
    let changed = Predictor::new(&plan, &items.ranker, 2).unwrap().adapting_to(&others);
    assert_ne!(changed.predict(TaskSet::Known, &[2]).unwrap()[0], found[1]);
    let unknown = kinds(true, ItemKind::Field("maker".into()));
    let refused = RankerTrainer::new(&plan).model(unknown).run(&mut Silent, &Cancel::new()).unwrap_err();
    assert!(refused.to_string().contains("category"), "{refused}");
    assert!(RankerTrainer::new(&plan).model(kinds(false, ItemKind::Off)).run(&mut Silent, &Cancel::new()).is_err());
}
