//! Meta training at small size, in the synthetic world: persons click by quirks that their histories do not show.

use super::*;
use crate::data::{Dataset, Protocol, Split, SyntheticOptions, World};
use crate::model::{Inference, Weights};
use crate::options::{ModelOptions, RankerOptions, RankerTrainOptions, TrainOptions};
use crate::progress::{Cancel, Silent};
use crate::random::Rng;
use crate::train::{Trained, Trainer};

mod items;
mod surface;

#[derive(Clone)]
pub(super) struct Scene {
    data: Dataset,
    impressions: Impressions,
    split: Split,
    inference: Inference,
    trained: Trained,
}

/// The scene that all tests share.
pub(super) fn scene() -> &'static Scene {
    static SCENE: std::sync::OnceLock<Scene> = std::sync::OnceLock::new();
    SCENE.get_or_init(Scene::new)
}

impl Scene {
    pub(super) fn world() -> SyntheticOptions {
        SyntheticOptions { entities: 500, items: 80, days: 90, events_per_entity: 40.0, ..Default::default() }
    }

    fn new() -> Self {
        let world = World::new(&Self::world(), 2).unwrap();
        let data = world.dataset().unwrap();
        let mut split = Split::new(&data, &Protocol::TimeSplit { test: 0.25, validation: 0.05 }).unwrap();
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
        let options = TrainOptions { epochs: 2, threads: 2, ema: 0.0, cooldown: 0.0, ..TrainOptions::default() };
        let trained =
            Trainer::new(&data, &split).model(model).options(options).run(&mut Silent, &Cancel::new()).unwrap();
        let inference = Inference::new(&data.schema, &trained.model).unwrap();
        Self { data, impressions, split, inference, trained }
    }

    pub(super) fn features(&self) -> FoundationModel<'_> {
        let t = &self.trained;
        let weights = Weights { items: &t.items, dense: &t.dense, features: &t.features, more: &() };
        FoundationModel { inference: &self.inference, weights }
    }

    pub(super) fn plan(&self, threads: usize) -> Plan<'_> {
        Plan::new(&self.data, &self.impressions, &self.split, self.features(), 0.15, 1, threads).unwrap()
    }
}

pub(super) fn model(steps: u32) -> RankerOptions {
    RankerOptions {
        embedding: 16,
        hidden: vec![32],
        trunk: 32,
        gate: 16,
        item_width: 16,
        steps,
        support: 96,
        prior_count: 16.0,
        rate_decay: 0.6,
        ..Default::default()
    }
}

pub(super) fn options() -> RankerTrainOptions {
    RankerTrainOptions {
        epochs: 5,
        batch: 64,
        learning_rate: 4e-3,
        patience: 5,
        threads: 2,
        first: 0.25,
        ..Default::default()
    }
}

fn train(plan: &Plan<'_>, model: RankerOptions, options: RankerTrainOptions) -> TrainedRanker {
    RankerTrainer::new(plan).model(model).options(options).run(&mut Silent, &Cancel::new()).unwrap()
}

fn loss(plan: &Plan<'_>, trained: &TrainedRanker, who: TaskSet, steps: usize) -> f64 {
    let predictor = Predictor::new(plan, &trained.ranker, 2).unwrap();
    calibration::log_loss(&predictor.predict(who, &[steps]).unwrap()[0], &predictor.labels(who))
}

#[test]
fn every_outcome_is_asked_once_from_what_was_known_before_it() {
    let scene = scene();
    let plan = scene.plan(2);
    let mut asked = vec![0; plan.impressions.len()];
    for who in [TaskSet::Train, TaskSet::Validation, TaskSet::Known, TaskSet::HiddenCuts] {
        for task in plan.tasks(who) {
            let own = plan.impressions.range(task.entity);
            assert!(task.support.start == own.start && task.support.end == task.query.start);
            assert!(task.query.end <= own.end && !task.query.is_empty());
            task.query.clone().for_each(|i| asked[i] += 1);
        }
    }
    assert!(asked.iter().all(|n| *n == 1));
    let hidden: Vec<u32> = plan.tasks(TaskSet::HiddenCuts).map(|t| t.entity).collect();
    let trained = |u: &u32| !scene.split.train[*u as usize].is_empty();
    assert!(plan.tasks(TaskSet::Hidden).len() > 20 && !hidden.iter().any(trained));
    for who in [TaskSet::Train, TaskSet::Validation, TaskSet::Known] {
        assert!(plan.tasks(who).all(|t| !hidden.contains(&t.entity)));
    }
    // What is tested lies after everything that the foundation model was trained on.
    for task in plan.tasks(TaskSet::Known) {
        let first = plan.impressions.before[task.query.start] as usize;
        let range = scene.data.range(task.entity);
        assert!(range.start + first >= scene.split.train[task.entity as usize].end);
    }
}

#[test]
fn user_vectors_of_tasks_do_not_see_their_queries() {
    let mut scene = scene().clone();
    let before = scene.plan(1);
    let places: Vec<u32> = before.places(TaskSet::Known).to_vec();
    let states: Vec<Vec<f32>> = places.iter().map(|p| before.state(*p).to_vec()).collect();
    let firsts: Vec<(u32, usize)> = places
        .iter()
        .map(|p| before.task(*p))
        .map(|t| (t.entity, scene.impressions.before[t.query.start] as usize))
        .collect();
    drop(before);
    for (entity, first) in &firsts {
        let range = scene.data.range(*entity);
        scene.data.events.item[range.start + first..range.end].fill(3);
    }
    let after = scene.plan(2);
    assert!(places.len() > 100);
    for (place, state) in places.iter().zip(&states) {
        assert_eq!(after.state(*place), state.as_slice());
    }
}

#[test]
fn vectors_of_many_prefixes_are_those_of_each() {
    let scene = scene();
    let plan = scene.plan(2);
    let mut scratch = crate::model::Scratch::default();
    let mut vector = vec![0.0; plan.width];
    let mut long = 0;
    for place in plan.places(TaskSet::HiddenCuts).iter().step_by(3) {
        let task = plan.task(*place);
        let range = scene.data.range(task.entity);
        let before = plan.impressions.before[task.query.start] as usize;
        long += usize::from(before >= scene.inference.max_length());
        let history = crate::train::foundation::corpus::encode_events(&scene.data, range.start..range.start + before);
        let (inference, request) = (&scene.inference, crate::model::Request::default());
        inference.user_vector(scene.features().weights, &history, &request, &mut scratch, &mut vector).unwrap();
        for (a, b) in plan.state(*place).iter().zip(&vector) {
            assert!((a - b).abs() < 1e-3, "task {place}: {a} and {b}");
        }
    }
    assert!(long > 0, "no history outgrows the window");
}

#[test]
fn adaptation_helps_known_and_hidden_entities_and_shuffled_labels_do_not() {
    let scene = scene();
    let plan = scene.plan(2);
    let meta = train(&plan, model(3), options());
    let global = train(&plan, model(0), options());
    for who in [TaskSet::Known, TaskSet::Hidden] {
        let (adapted, still, alone) =
            (loss(&plan, &meta, who, 3), loss(&plan, &meta, who, 0), loss(&plan, &global, who, 0));
        let most = if who == TaskSet::Known { 0.985 } else { 0.999 };
        assert!(adapted < most * alone, "{who:?}: {adapted} adapted, {alone} global");
        assert!(adapted < still && still < 1.06 * alone, "{who:?}: {still} before any step, {alone} global");
        // More steps than were trained do not collapse.
        let many = loss(&plan, &meta, who, 10);
        assert!(many < 1.005 * alone, "{who:?}: {many} after 10 steps, {alone} global");
    }
    let mut labels = plan.impressions.labels.clone();
    Rng::new(3).shuffle(&mut labels);
    let control = RankerTrainer::new(&plan).model(model(3)).options(options()).adapting_to(&labels);
    let control = control.run(&mut Silent, &Cancel::new()).unwrap();
    let predictor = Predictor::new(&plan, &control.ranker, 2).unwrap().adapting_to(&labels);
    let found = predictor.predict(TaskSet::Known, &[3, 0]).unwrap();
    let labels = predictor.labels(TaskSet::Known);
    let [shuffled, unmoved] = [0, 1].map(|k| calibration::log_loss(&found[k], &labels));
    let alone = loss(&plan, &global, TaskSet::Known, 0);
    // What the training makes of inner steps that know nothing is little, and less than of those that do.
    assert!(shuffled > 0.98 * alone, "{shuffled} adapted to shuffled labels, {unmoved} before, {alone} global");
    assert!(loss(&plan, &meta, TaskSet::Known, 3) < shuffled - 0.002, "{shuffled} adapted to shuffled labels");
    // Meta learning itself matters: the same steps from the global model gain less.
    let mut before = global.clone();
    before.ranker.shape.options.steps = 3;
    let found = search_inner_rate(&plan, &mut before.ranker, &[0.01, 0.1, 1.0, 10.0], 3, 2).unwrap();
    assert!(
        found.tried.len() == 4
            && found.tried.iter().all(|(_, loss)| *loss >= found.tried.iter().find(|t| t.0 == found.rate).unwrap().1)
    );
    let pre_trained = loss(&plan, &before, TaskSet::Hidden, 3);
    assert!(loss(&plan, &meta, TaskSet::Hidden, 3) < pre_trained, "pre-trained {pre_trained}");
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let scene = scene();
    let plan = scene.plan(2);
    assert_eq!(scene.plan(1).state(5), plan.state(5));
    let small = |threads, seed, exact| {
        let options = RankerTrainOptions { epochs: 1, threads, seed, exact, ..options() };
        train(&plan, RankerOptions { identity: true, ..model(2) }, options).ranker
    };
    assert_eq!(small(1, 1, true), small(3, 1, true));
    assert_eq!(small(1, 1, false), small(2, 1, false));
    assert_ne!(small(2, 1, true).dense, small(2, 2, true).dense);
    assert!(small(2, 1, true).entities.iter().any(|x| *x != 0.0));
}

#[test]
fn a_stored_vector_scores_as_the_adapted_block_does_to_the_bit() {
    let scene = scene();
    let plan = scene.plan(2);
    let trained = train(&plan, model(3), RankerTrainOptions { epochs: 1, ..options() });
    let (ranker, width) = (&trained.ranker, 16);
    let mut shared = ranker.adapter().unwrap();
    let mut stored = Vec::new();
    let answer = |place: u32, adapter: &mut crate::ranker::Adapter<'_>| {
        let task = plan.task(place);
        let mut input = vec![0.0; ranker.shape.inputs];
        plan.input(place, &plan.impressions.labels, false, &mut input).unwrap();
        let (mut support, mut query) = (Vec::new(), Vec::new());
        plan.candidates(place, task.support.clone(), &ranker.items, width, &mut support);
        plan.candidates(place, task.query.clone(), &ranker.items, width, &mut query);
        let labels = &plan.impressions.labels[task.support.clone()];
        let embedding = adapter.adapt(&input, None, &support, labels, 3).unwrap().embedding.to_vec();
        let mut scores = vec![0.0; task.query.len()];
        adapter.score(&embedding, &query, &mut scores).unwrap();
        (embedding, query, scores)
    };
    for place in plan.places(TaskSet::Known).iter().take(40) {
        stored.push((*place, answer(*place, &mut shared)));
    }
    // Other adaptations in between change nothing, nor does a fresh adapter.
    for (place, (embedding, query, scores)) in &stored {
        let mut fresh = ranker.adapter().unwrap();
        assert_eq!(&answer(*place, &mut fresh), &(embedding.clone(), query.clone(), scores.clone()));
        let mut again = vec![0.0; scores.len()];
        shared.score(embedding, query, &mut again).unwrap();
        assert_eq!(&again, scores);
    }
    assert!(shared.adapt(&[0.0; 3], None, &[], &[], 3).is_err());
    assert!(shared.score(&[0.0; 3], &[], &mut []).is_err());
}

#[test]
fn baselines_learn_what_they_can() {
    let scene = scene();
    let plan = scene.plan(2);
    let labels = plan.query_labels(TaskSet::Known);
    let base = f64::from(plan.means[0]);
    let nothing = -(base * base.ln() + (1.0 - base) * (1.0 - base).ln());
    let biases = calibration::log_loss(&Biases::tuned(&plan).predict(&plan, TaskSet::Known), &labels);
    assert!(biases < 0.99 * nothing, "{biases} against {nothing}");
    let options = FactorizationOptions { learning_rate: 0.01, ..FactorizationOptions::default() };
    let machine = FactorizationMachine::train(&plan, &options, &Cancel::new()).unwrap();
    let factors = calibration::log_loss(&machine.predict(&plan, TaskSet::Known), &labels);
    assert!(factors < 0.99 * nothing, "{factors} against {nothing}");
}

#[test]
fn calibration_finds_slope_and_intercept() {
    let mut rng = Rng::new(8);
    let pairs: Vec<(f32, f32)> = (0..20_000)
        .map(|_| {
            let x = 2.0 * rng.normal();
            let p = 1.0 / (1.0 + (-(0.5 * x + 0.7)).exp());
            (x as f32, f32::from(u8::from(rng.uniform() < p)))
        })
        .collect();
    let [slope, intercept] = calibration::calibrate(pairs.iter().copied());
    assert!((slope - 0.5).abs() < 0.03 && (intercept - 0.7).abs() < 0.06, "{slope} {intercept}");
    assert_eq!(calibration::calibrate([].into_iter()), [1.0, 0.0]);
}

#[test]
fn the_first_order_update_is_that_of_a_small_step_of_the_weights() {
    let scene = scene();
    let plan = scene.plan(2);
    let mut trained = train(&plan, model(1), RankerTrainOptions { epochs: 1, ..options() });
    // Rates so small that one step of the weights is as good as its derivative.
    for [_, _, rates] in trained.ranker.shape.layer_ranges().to_vec() {
        trained.ranker.dense[rates].iter_mut().for_each(|r| *r -= (1e3f32).ln());
    }
    let ranker = &trained.ranker;
    let mut adapter = ranker.adapter().unwrap();
    for place in plan.places(TaskSet::Known).iter().take(20) {
        let task = plan.task(*place);
        let mut input = vec![0.0; ranker.shape.inputs];
        plan.input(*place, &plan.impressions.labels, false, &mut input).unwrap();
        let mut support = Vec::new();
        plan.candidates(*place, task.support.clone(), &ranker.items, 16, &mut support);
        let labels = &plan.impressions.labels[task.support.clone()];
        let adapted = adapter.adapt(&input, None, &support, labels, 1).unwrap().embedding.to_vec();
        let start = adapter.embedding_after(0).to_vec();
        let updated = adapter.first_order(&input, None, &start, &support, labels, 0).unwrap().to_vec();
        let moved = |e: &[f32]| e.iter().zip(&start).map(|(a, b)| a - b).collect::<Vec<f32>>();
        let (a, n) = (moved(&adapted), moved(&updated));
        let size = a.iter().map(|x| x * x).sum::<f32>().sqrt();
        let apart = a.iter().zip(&n).map(|(a, n)| (a - n) * (a - n)).sum::<f32>().sqrt();
        assert!(labels.is_empty() || (size > 0.0 && apart < 0.02 * size), "{apart} of {size}");
    }
    assert!(adapter.first_order(&[0.0; 3], None, &[], &[], &[], 0).is_err());
}

#[test]
fn a_bound_keeps_adapted_embeddings_near_the_start() {
    let scene = scene();
    let plan = scene.plan(2);
    let mut trained = train(&plan, model(3), RankerTrainOptions { epochs: 1, ..options() });
    trained.ranker.shape.options.bound = 0.05;
    let ranker = &trained.ranker;
    let mut adapter = ranker.adapter().unwrap();
    let mut at_bound = 0;
    for place in plan.places(TaskSet::Known).iter().take(40) {
        let task = plan.task(*place);
        let mut input = vec![0.0; ranker.shape.inputs];
        plan.input(*place, &plan.impressions.labels, false, &mut input).unwrap();
        let mut support = Vec::new();
        plan.candidates(*place, task.support.clone(), &ranker.items, 16, &mut support);
        let labels = &plan.impressions.labels[task.support.clone()];
        let adapted = adapter.adapt(&input, None, &support, labels, 3).unwrap().embedding.to_vec();
        let start = adapter.embedding_after(0).to_vec();
        let length = |v: Vec<f32>| v.iter().map(|x| x * x).sum::<f32>().sqrt();
        let far = |e: &[f32]| length(e.iter().zip(&start).map(|(a, b)| a - b).collect()) / length(start.clone());
        assert!(far(&adapted) < 0.0501, "{}", far(&adapted));
        at_bound += usize::from(far(&adapted) > 0.049);
        let updated = adapter.first_order(&input, None, &adapted, &support, labels, 0).unwrap().to_vec();
        assert!(far(&updated) < 0.0501);
    }
    assert!(at_bound > 20, "the bound was hardly ever met: {at_bound} of 40");
}

#[test]
fn a_ranker_earns_its_place_by_what_labels_say_and_not_by_chance() {
    let scene = scene();
    // Many validate, so that the difference is beyond doubt.
    let cut = |outcomes| Plan::new(&scene.data, outcomes, &scene.split, scene.features(), 0.5, 1, 2).unwrap();
    let plan = cut(&scene.impressions);
    let trained = train(&plan, model(3), options());
    let worth = judge(&plan, &trained.ranker, 2).unwrap();
    assert!(worth[0].is_earned(), "{worth:?}");
    let loss = loss(&plan, &trained, TaskSet::Validation, 3);
    assert!((loss - worth[0].logloss).abs() < 1e-9 && worth[0].outcomes > 100, "{worth:?}, {loss}");

    let mut shuffled = scene.impressions.clone();
    Rng::new(3).shuffle(&mut shuffled.labels);
    let plan = cut(&shuffled);
    let worth = judge(&plan, &train(&plan, model(3), options()).ranker, 2).unwrap();
    assert!(!worth[0].is_earned(), "{worth:?}");
}
