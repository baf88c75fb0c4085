//! The foundation model in training beside the ranker: its gradient against finite differences, the same bytes on any number of
//! threads, and vectors that are those of the weights that come out.

use super::super::calibration::log_loss;
use super::super::tests::{model, options};
use super::super::{Predictor, RankerTrainer, TaskSet, TrainedRanker};
use super::*;
use crate::ErrorKind;
use crate::data::{Dataset, Protocol, SyntheticOptions, World};
use crate::options::{Block, ItemKind, ModelOptions, RankerTrainOptions, TowerOptions, TrainOptions};
use crate::progress::{Cancel, Silent};
use crate::random::Rng;
use crate::train::Trainer;
use crate::train::ranker::Impressions;

struct Scene {
    data: Dataset,
    impressions: Impressions,
    split: Split,
    trained: Trained,
    inference: Inference,
}

fn shape() -> ModelOptions {
    ModelOptions { width: 16, hidden: 32, max_length: 24, field_width: 4, blocks: 1, ..ModelOptions::default() }
}

impl Scene {
    /// `requests` says whether tokens read anything of the request.
    fn new(model: ModelOptions, requests: bool) -> Self {
        let options =
            SyntheticOptions { entities: 240, items: 60, days: 90, events_per_entity: 40.0, ..Default::default() };
        let world = World::new(&options, 2).unwrap();
        let mut data = world.dataset().unwrap();
        if !requests {
            data.schema.event_fields.clear();
            data.events.fields.clear();
        }
        let impressions = Impressions::from_log(&data, &world.impression_log().unwrap()).unwrap();
        let split = Split::new(&data, &Protocol::TimeSplit { test: 0.25, validation: 0.05 }).unwrap();
        let options = TrainOptions { epochs: 2, threads: 2, ema: 0.0, cooldown: 0.0, ..TrainOptions::default() };
        let trained =
            Trainer::new(&data, &split).model(model).options(options).run(&mut Silent, &Cancel::new()).unwrap();
        let inference = Inference::new(&data.schema, &trained.model).unwrap();
        Self { data, impressions, split, trained, inference }
    }

    fn plan<'s>(&'s self, t: &'s Trained) -> Plan<'s> {
        let weights = Weights { items: &t.items, dense: &t.dense, features: &t.features, more: &() };
        let features = FoundationModel { inference: &self.inference, weights };
        Plan::new(&self.data, &self.impressions, &self.split, features, 0.15, 1, 2).unwrap()
    }

    fn trainer<'s>(&'s self, plan: &'s Plan<'s>, finetune: f32) -> RankerTrainer<'s> {
        let options = RankerTrainOptions { epochs: 2, finetune, ..options() };
        RankerTrainer::new(plan).model(model(2)).options(options).foundation(&self.trained, &self.split)
    }
}

fn run(trainer: RankerTrainer<'_>) -> TrainedRanker {
    trainer.run(&mut Silent, &Cancel::new()).unwrap()
}

/// Gradients at the columns of candidates, drawn at random, and what they say of the candidates of some tasks as they are now.
struct Probe {
    places: Vec<u32>,
    own: Vec<f32>,
    shape: RankerShape,
    gradients: Gradients<f32>,
}

impl Probe {
    fn new(plan: &Plan<'_>, places: Vec<u32>) -> Self {
        let mut rng = Rng::new(4);
        let shape = RankerShape::new(&model(2), plan.inputs.width(), plan.width, plan.numbers(), 1, 2.0).unwrap();
        let mut normal = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal() as f32).collect() };
        let rows = |side: fn(&crate::train::ranker::Task) -> usize| -> usize {
            places.iter().map(|p| side(plan.task(*p))).sum()
        };
        let gradients = Gradients {
            query_vectors: normal(rows(|t| t.query.len()) * 3 * plan.width),
            support_vectors: normal(rows(|t| t.support.len()) * 3 * plan.width),
            ..Gradients::default()
        };
        let own = normal(plan.data.items.len() * 16);
        Self { places, own, shape, gradients }
    }

    fn batch(&self, plan: &Plan<'_>) -> (Batch<f32>, [Vec<u32>; 2]) {
        let (mut batch, mut items) = (Batch::default(), [Vec::new(), Vec::new()]);
        for (which, side) in [&mut batch.query, &mut batch.support].into_iter().enumerate() {
            side.offsets.push(0);
            for place in &self.places {
                let task = plan.task(*place);
                let range = [&task.query, &task.support][which].clone();
                plan.candidates(*place, range.clone(), &self.own, 16, &mut side.candidates);
                side.offsets.push(side.offsets[side.offsets.len() - 1] + range.len());
                items[which].extend_from_slice(&plan.impressions.item[range]);
            }
        }
        (batch, items)
    }

    /// The sum of the gradients' products with the columns, under the weights of this moment.
    fn value(&self, f: &mut JointModel<'_>) -> f64 {
        f.read(&self.places, u32::MAX, 2).unwrap();
        let (batch, _) = self.batch(&f.plan);
        let d = f.plan.width;
        let sides = [(&batch.query, &self.gradients.query_vectors), (&batch.support, &self.gradients.support_vectors)];
        let product = |(side, gradients): (&Side<f32>, &Vec<f32>)| -> f64 {
            let rows = side.candidates.chunks_exact(self.shape.candidate()).zip(gradients.chunks_exact(3 * d));
            let one = |(row, g): (&[f32], &[f32])| -> f64 {
                row[16..].iter().zip(g).map(|(x, g)| f64::from(*x) * f64::from(*g)).sum()
            };
            rows.map(one).sum()
        };
        sides.into_iter().map(product).sum()
    }
}

/// Moves one of the arrays of the model along `direction`.
fn moved(f: &mut JointModel<'_>, which: usize, at: usize, direction: &[f32], by: f32) {
    let values = [&mut f.dense.values, &mut f.ids.rows.values, &mut f.features.rows.values];
    let to = &mut values.into_iter().nth(which).unwrap()[at..at + direction.len()];
    to.iter_mut().zip(direction).for_each(|(x, u)| *x += by * u);
}

/// The derivative along the gradient is its length: for every weight of the network, for the ID embeddings and the tables.
fn check(name: &str, scene: &Scene) {
    let plan = scene.plan(&scene.trained);
    let mut f = JointModel::new(&plan, &scene.trained, &scene.split, &model(2)).unwrap();
    // Several tasks of several persons, of histories from none to longer than the window.
    let before = |p: &u32| plan.impressions.before[plan.task(*p).support.end] as usize;
    let all = plan.places(TaskSet::Train);
    let busy: Vec<u32> = all.iter().filter(|p| before(p) > 2 * scene.inference.max_length()).take(4).copied().collect();
    let of_busy = |p: &&u32| busy.iter().any(|b| plan.task(*b).entity == plan.task(**p).entity);
    let (mut places, none): (Vec<u32>, _) =
        (all.iter().filter(of_busy).copied().collect(), all.iter().find(|p| before(p) == 0));
    places.push(*none.unwrap());
    assert!(places.len() > 30, "{}", places.len());
    let probe = Probe::new(&plan, places);
    let touched = f.read(&probe.places, u32::MAX, 2).unwrap();
    let (batch, items) = probe.batch(&f.plan);
    let [asked, known] = &items;
    let lesson = f.learn_from(&probe.shape, &probe.places, &batch, &probe.gradients, [asked, known]).unwrap();
    let g = f.sum(touched, [lesson].iter());
    let mut ids = vec![0.0; f.ids.rows.values.len()];
    for (row, from) in g.item_rows.iter().zip(g.items.chunks_exact(16)) {
        ids[*row as usize * 16..(*row as usize + 1) * 16].copy_from_slice(from);
    }
    let weights = f.network.layout.weights.clone();
    let mut parts: Vec<(String, usize, usize, Vec<f32>)> =
        weights.iter().map(|w| (w.name.clone(), 0, w.range.start, g.dense[w.range.clone()].to_vec())).collect();
    parts.push(("ids".into(), 1, 0, ids));
    parts.push(("features".into(), 2, 0, g.features.clone()));
    let mut with = 0;
    for (part, which, at, gradient) in parts {
        let length = gradient.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        if length < 1e-2 {
            continue;
        }
        let direction: Vec<f32> = gradient.iter().map(|x| (f64::from(*x) / length) as f32).collect();
        let step = 3e-3;
        moved(&mut f, which, at, &direction, step);
        let up = probe.value(&mut f);
        moved(&mut f, which, at, &direction, -2.0 * step);
        let down = probe.value(&mut f);
        moved(&mut f, which, at, &direction, step);
        let found = (up - down) / f64::from(2.0 * step);
        assert!((found - length).abs() < 0.01 * length + 0.01, "{name}, {part}: {length} and {found}");
        with += 1;
    }
    assert!(with + 2 >= weights.len(), "{name}: only {with} of {} weights are reached", weights.len());
}

#[test]
fn gradients_through_the_foundation_model_equal_finite_differences() {
    let described = ModelOptions { tower: Some(TowerOptions::default()), ..shape() };
    check("metadata", &Scene::new(described, true));
    check("plain vectors", &Scene::new(ModelOptions { normalized: false, temperature: 1.0, ..shape() }, true));
    let timeless = ModelOptions { block: Block::Hstu, time_bias: false, time_input: false, ..shape() };
    let scene = Scene::new(timeless, false);
    assert!(scene.inference.reads_together());
    check("one pass for a history", &scene);
}

#[test]
fn the_model_that_comes_out_is_the_one_that_was_trained_on_any_number_of_threads() {
    for (requests, exact) in [(true, true), (false, false)] {
        let model = ModelOptions { tower: Some(TowerOptions::default()), ..shape() };
        let model = match requests {
            true => model,
            false => ModelOptions { time_bias: false, time_input: false, ..model },
        };
        let scene = Scene::new(model, requests);
        let plan = scene.plan(&scene.trained);
        let train = |threads: u32| {
            let options = RankerTrainOptions { epochs: 2, finetune: 0.3, threads, exact, ..options() };
            let found = run(scene.trainer(&plan, 0.3).options(options));
            TrainedRanker { seconds: 0.0, options: RankerTrainOptions::default(), ..found }
        };
        let found = train(1);
        assert!(found == train(2) && found == train(3), "requests {requests}");
        let tuned = found.foundation.clone().unwrap();
        for (a, b) in [
            (&tuned.dense, &scene.trained.dense),
            (&tuned.ids, &scene.trained.ids),
            (&tuned.features, &scene.trained.features),
            (&tuned.items, &scene.trained.items),
        ] {
            assert!(a != b && a.iter().all(|x| x.is_finite()));
        }
        assert_ne!(tuned.validation, scene.trained.validation);
        assert_eq!(tuned.validation.len(), 3);
        // The vectors of the weights that come out, read anew, give the very validation that training reported.
        let after = scene.plan(&tuned);
        let loss = |plan: &Plan<'_>, steps: usize| {
            let predictor = Predictor::new(plan, &found.ranker, 2).unwrap();
            log_loss(
                &predictor.predict(TaskSet::Validation, &[steps]).unwrap()[0],
                &predictor.labels(TaskSet::Validation),
            )
        };
        assert_eq!(loss(&after, 2), found.validation[0].1);
        assert_ne!(loss(&plan, 2), found.validation[0].1);
    }
}

#[test]
fn the_best_epoch_is_kept_of_both() {
    let scene = Scene::new(shape(), true);
    let plan = scene.plan(&scene.trained);
    // So fast that it gets worse.
    let options = RankerTrainOptions { epochs: 5, finetune: 5.0, learning_rate: 1e-2, cold_items: 0.0, ..options() };
    let found = run(scene.trainer(&plan, 5.0).options(options));
    assert!(found.best_epoch + 1 < found.epochs, "{} of {}", found.best_epoch, found.epochs);
    let after = scene.plan(found.foundation.as_ref().unwrap());
    let predictor = Predictor::new(&after, &found.ranker, 2).unwrap();
    let logits = predictor.predict(TaskSet::Validation, &[2]).unwrap().swap_remove(0);
    let labels = predictor.labels(TaskSet::Validation);
    assert_eq!(log_loss(&logits, &labels), found.validation[0].1);
    let calibration = super::super::calibration::calibrate(logits.iter().copied().zip(labels.iter().copied()));
    assert_eq!(found.ranker.calibration, [calibration]);
}

#[test]
fn a_foundation_model_that_is_not_to_learn_changes_nothing() {
    let scene = Scene::new(shape(), true);
    let plan = scene.plan(&scene.trained);
    let frozen = run(scene.trainer(&plan, 0.0));
    let alone = run(RankerTrainer::new(&plan).model(model(2)).options(frozen.options.clone()));
    assert_eq!(frozen.foundation, None);
    assert_eq!((&frozen.ranker, &frozen.validation), (&alone.ranker, &alone.validation));
    let refused = |trainer: RankerTrainer<'_>| trainer.run(&mut Silent, &Cancel::new()).unwrap_err().kind();
    let options = RankerTrainOptions { finetune: 0.1, ..options() };
    assert_eq!(refused(RankerTrainer::new(&plan).options(options)), ErrorKind::InvalidConfig);
    let items = RankerOptions { person: false, items: ItemKind::Item, ..model(2) };
    assert_eq!(refused(scene.trainer(&plan, 0.1).model(items)), ErrorKind::InvalidConfig);
    let blind = plan.clone().without_vectors();
    assert_eq!(refused(scene.trainer(&blind, 0.1)), ErrorKind::StateMismatch);
    assert_eq!(refused(scene.trainer(&plan, -0.1)), ErrorKind::InvalidConfig);
    // Another kind of entity goes along.
    let both = RankerOptions { items: ItemKind::Item, ..model(2) };
    let found = run(scene.trainer(&plan, 0.1).model(both.clone()));
    let after = scene.plan(found.foundation.as_ref().unwrap());
    let predictor = Predictor::new(&after, &found.ranker, 2).unwrap();
    let logits = predictor.predict(TaskSet::Validation, &[2]).unwrap().swap_remove(0);
    assert_eq!(log_loss(&logits, &predictor.labels(TaskSet::Validation)), found.validation[0].1);
}
