//! A store of the synthetic world, for what does not depend on how well a model learned.

use super::common::Result;
use docent::data::{Dataset, Protocol, Split, World};
use docent::model::{Inference, Weights};
use docent::options::{ModelOptions, RankerTrainOptions, TrainOptions};
use docent::progress::{Cancel, Silent};
use docent::store::{RunRecord, Store};
use docent::train::ranker::{FoundationModel, Impressions, Plan, RankerTrainer};
use docent::train::{Trainer, publish_ranked};
use std::path::Path;

/// Publishes a model with a ranker over the world, trained for a moment: what its weights are does not matter here.
pub fn publish_world(path: &Path, world: &World, model: ModelOptions) -> Result<(Dataset, Impressions)> {
    let data = world.dataset()?;
    let outcomes = Impressions::from_log(&data, &world.impression_log()?)?;
    let split = Split::new(&data, &Protocol::LeaveOneOut)?;
    let options = TrainOptions { epochs: 1, threads: 2, ..TrainOptions::default() };
    let trained = Trainer::new(&data, &split).model(model).options(options).run(&mut Silent, &Cancel::new())?;
    let inference = Inference::new(&data.schema, &trained.model)?;
    let weights = Weights { items: &trained.items, dense: &trained.dense, features: &trained.features, more: &() };
    let plan = Plan::new(&data, &outcomes, &split, FoundationModel { inference: &inference, weights }, 0.1, 1, 2)?;
    let options = RankerTrainOptions { epochs: 1, threads: 2, ..RankerTrainOptions::default() };
    let ranker = RankerTrainer::new(&plan).options(options).run(&mut Silent, &Cancel::new())?;
    drop(plan);
    let mut publisher = Store::create(path)?.publisher()?;
    publish_ranked(&mut publisher, &data, &split, &trained, Some(&ranker), &RunRecord::default())?;
    Ok((data, outcomes))
}
