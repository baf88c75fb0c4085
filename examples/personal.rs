//! From outcomes to a person: a ranker trained on what was shown and clicked, adapted to everybody, and to one person while
//! serving.
//!
//! `cargo run --release --example personal`

use docent::Event;
use docent::adapt::BatchAdapter;
use docent::data::{Protocol, Split, SyntheticOptions, World};
use docent::model::{Inference, Weights};
use docent::options::{ModelOptions, RankerTrainOptions, TrainOptions};
use docent::progress::{Cancel, Silent};
use docent::serve::{Engine, EngineOptions, Filter, Outcome, PersonalOptions, Query};
use docent::store::{RunRecord, Store};
use docent::train::ranker::{FoundationModel, Impressions, Plan, RankerTrainer};
use docent::train::{Trainer, publish_ranked};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Events, and a log of what was shown to whom, with clicks. Yours come from files (`data::DatasetFile`).
    let world = World::new(&SyntheticOptions { entities: 500, items: 200, ..SyntheticOptions::default() }, 2)?;
    let data = world.dataset()?;
    let shown = Impressions::from_log(&data, &world.impression_log()?)?;
    let split = Split::new(&data, &Protocol::LeaveOneOut)?;

    // The foundation model, then a ranker over its vectors.
    let model = ModelOptions { width: 32, blocks: 1, max_length: 50, hidden: 64, ..ModelOptions::default() };
    let options = TrainOptions { epochs: 4, threads: 2, ..TrainOptions::default() };
    let trained = Trainer::new(&data, &split).model(model).options(options).run(&mut Silent, &Cancel::new())?;
    let inference = Inference::new(&data.schema, &trained.model)?;
    let weights = Weights { items: &trained.items, dense: &trained.dense, features: &trained.features, more: &() };
    let plan = Plan::new(&data, &shown, &split, FoundationModel { inference: &inference, weights }, 0.1, 1, 2)?;
    let options = RankerTrainOptions { threads: 2, ..RankerTrainOptions::default() };
    let ranker = RankerTrainer::new(&plan).options(options).run(&mut Silent, &Cancel::new())?;
    println!("log loss on validation {:?}", ranker.validation);

    // One generation with both, and a second one in which the ranker is adapted to everybody.
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store");
    let mut publisher = Store::create(&path)?.publisher()?;
    publish_ranked(&mut publisher, &data, &split, &trained, Some(&ranker), &RunRecord::default())?;
    let personal = Some(PersonalOptions::default());
    let engine = Engine::open(&path, &EngineOptions { personal, ..EngineOptions::default() })?;
    let adapter = BatchAdapter::new(engine.current(), &data, &shown)?.threads(2);
    if let Some(adapted) = adapter.run(&mut Silent, &Cancel::new())? {
        adapter.publish(&mut publisher, &adapted, &RunRecord::default())?;
        println!("{} people adapted", adapted.adapted);
    }
    engine.reload()?;

    // A list, five of its items passed over, and the list after that.
    let query = Query::entity("p0007");
    let before = engine.recommend(&query, &Filter::default(), 8)?;
    for (n, item) in (0..).zip(&before.items[..5]) {
        let event = Event { time: Some(1_800_000_000_000 + n), ..Event::item(&item.id) };
        engine.observe("p0007", &Outcome::labelled(event, &[("label", 0.0)]))?;
    }
    let after = engine.recommend(&query, &Filter::default(), 8)?;
    for (b, a) in before.items.iter().zip(&after.items) {
        let title = |i: &docent::serve::Recommended| i.title.clone().unwrap_or_default();
        println!("{:.3} {:<34} {:.3} {}", b.score, title(b), a.score, title(a));
    }
    Ok(())
}
