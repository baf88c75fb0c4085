//! A small world in which people click by quirks that their histories do not show, and a model with a ranker of it.

use docent::data::{Dataset, Protocol, Split, SyntheticOptions, World};
use docent::model::{Inference, Weights};
use docent::options::{ModelOptions, RankerOptions, RankerTrainOptions, TowerOptions, TrainOptions};
use docent::progress::{Cancel, Silent};
use docent::serve::{Engine, EngineOptions, PersonalOptions};
use docent::store::{RunRecord, Store};
use docent::train::ranker::{
    FoundationModel, Impressions, Plan, Predictor, RankerTrainer, Task, TaskSet, TrainedRanker,
};
use docent::train::{Trained, Trainer, publish_ranked};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub struct Scene {
    pub data: Dataset,
    pub outcomes: Impressions,
    split: Split,
    trained: Trained,
    ranker: TrainedRanker,
}

/// The scene that all tests share.
pub fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| Scene::new(1))
}

/// The same data, another model.
pub fn other() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| Scene::new(2))
}

impl Scene {
    fn new(seed: u64) -> Self {
        let options =
            SyntheticOptions { entities: 400, items: 80, days: 90, events_per_entity: 40.0, ..Default::default() };
        let world = World::new(&options, 2).unwrap();
        let data = world.dataset().unwrap();
        let outcomes = Impressions::from_log(&data, &world.impression_log().unwrap()).unwrap();
        let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
        let model = ModelOptions {
            width: 16,
            hidden: 32,
            max_length: 32,
            field_width: 4,
            blocks: 1,
            tower: Some(TowerOptions::default()),
            ..ModelOptions::default()
        };
        let options = TrainOptions { epochs: 2, threads: 2, seed, ..TrainOptions::default() };
        let trained =
            Trainer::new(&data, &split).model(model).options(options).run(&mut Silent, &Cancel::new()).unwrap();
        let inference = Inference::new(&data.schema, &trained.model).unwrap();
        let weights = Weights { items: &trained.items, dense: &trained.dense, features: &trained.features, more: &() };
        let plan =
            Plan::new(&data, &outcomes, &split, FoundationModel { inference: &inference, weights }, 0.1, seed, 2)
                .unwrap();
        let options = RankerTrainOptions { epochs: 4, threads: 2, seed, ..RankerTrainOptions::default() };
        let ranker = RankerTrainer::new(&plan).options(options).run(&mut Silent, &Cancel::new()).unwrap();
        drop(plan);
        Self { data, outcomes, split, trained, ranker }
    }

    /// Publishes the model as the next generation of the store in `path`.
    pub fn publish(&self, path: &Path) {
        self.publish_with(path, &self.ranker);
    }

    /// The same with another ranker.
    pub fn publish_with(&self, path: &Path, ranker: &TrainedRanker) {
        let mut publisher = Store::create(path).unwrap().publisher().unwrap();
        let ranker = Some(ranker);
        publish_ranked(&mut publisher, &self.data, &self.split, &self.trained, ranker, &RunRecord::default()).unwrap();
    }

    /// A ranker of another shape over the same foundation model.
    pub fn ranked(&self, model: RankerOptions) -> TrainedRanker {
        self.ranked_with(model, 0.0)
    }

    /// The same, with the foundation model learning along at a share of its rate.
    pub fn ranked_with(&self, model: RankerOptions, finetune: f32) -> TrainedRanker {
        self.trained_on(&self.outcomes, model, finetune)
    }

    /// A ranker of another shape, trained on these outcomes.
    pub fn ranked_on(&self, outcomes: &Impressions, model: RankerOptions) -> TrainedRanker {
        self.trained_on(outcomes, model, 0.0)
    }

    fn trained_on(&self, outcomes: &Impressions, model: RankerOptions, finetune: f32) -> TrainedRanker {
        self.plan_of(&self.trained, outcomes, |plan| {
            let options = RankerTrainOptions { epochs: 1, threads: 2, finetune, ..RankerTrainOptions::default() };
            let trainer = RankerTrainer::new(plan).model(model.clone()).options(options);
            trainer.foundation(&self.trained, &self.split).run(&mut Silent, &Cancel::new()).unwrap()
        })
    }

    /// What `f` makes of the tasks of outcomes, read with the vectors of a foundation model.
    pub fn plan_of<R>(&self, t: &Trained, outcomes: &Impressions, f: impl Fn(&Plan<'_>) -> R) -> R {
        let inference = Inference::new(&self.data.schema, &t.model).unwrap();
        let features = features(&inference, t);
        f(&Plan::new(&self.data, outcomes, &self.split, features, 0.1, 1, 2).unwrap())
    }

    /// The foundation model as it was before any ranker.
    pub fn foundation(&self) -> &Trained {
        &self.trained
    }

    /// Calibrated probabilities of outcomes that are held out, each person's asked together from those that are not.
    pub fn predicted(&self, ranker: &TrainedRanker, outcomes: &Impressions) -> Vec<(usize, f32)> {
        let t = &self.trained;
        let inference = Inference::new(&self.data.schema, &t.model).unwrap();
        let weights = Weights { items: &t.items, dense: &t.dense, features: &t.features, more: &() };
        let features = FoundationModel { inference: &inference, weights };
        let task = |entity: u32| {
            let (kept, all) = (outcomes.kept(entity), outcomes.range(entity));
            (kept.end < all.end).then_some(Task { entity, support: kept.clone(), query: kept.end..all.end })
        };
        let tasks: Vec<Task> = (0..self.data.entities.len() as u32).filter_map(task).collect();
        let asked: Vec<usize> = tasks.iter().flat_map(|t| t.query.clone()).collect();
        let plan = Plan::new(&self.data, outcomes, &self.split, features, 0.1, 1, 2).unwrap();
        let plan = plan.asking(tasks, features, 2).unwrap();
        let steps = ranker.ranker.shape.options.steps as usize;
        let logits = Predictor::new(&plan, &ranker.ranker, 2).unwrap().predict(TaskSet::Hidden, &[steps]).unwrap();
        let probability = |logit: &f32| ranker.ranker.view().probability(0, *logit);
        asked.into_iter().zip(logits[0].iter().map(probability)).collect()
    }

    /// Somebody with so many outcomes at least, by row.
    pub fn somebody(&self, outcomes: usize) -> u32 {
        let rows = 0..self.data.entities.len() as u32;
        rows.into_iter().find(|u| self.outcomes.range(*u).len() >= outcomes).unwrap()
    }
}

/// A foundation model, to be read.
pub fn features<'a>(inference: &'a Inference, t: &'a Trained) -> FoundationModel<'a> {
    let weights = Weights { items: &t.items, dense: &t.dense, features: &t.features, more: &() };
    FoundationModel { inference, weights }
}

/// A store in a folder of its own.
pub struct Place {
    _folder: tempfile::TempDir,
    pub path: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        scene().publish(&path);
        Self { _folder: folder, path }
    }

    pub fn plain(&self) -> Engine {
        Engine::open(&self.path, &EngineOptions::default()).unwrap()
    }

    pub fn personal(&self, options: PersonalOptions) -> Engine {
        Engine::open(&self.path, &EngineOptions { personal: Some(options), ..EngineOptions::default() }).unwrap()
    }
}
