//! Writes the golden stores of version 1 and what they answer, where there are none:
//!
//! `cargo run --release --example golden_write`
//!
//! Fixtures of a version that was released are never written again: every later build must give the same answers from them.

#[allow(dead_code, reason = "the test uses the rest")]
mod ask;

use docent::adapt::BatchAdapter;
use docent::data::{Protocol, Split, SyntheticOptions, World};
use docent::model::{Inference, Weights};
use docent::options::{
    ItemKind, ModelOptions, RankerOptions, RankerTrainOptions, TokenizerOptions, TowerOptions, TrainOptions,
};
use docent::progress::{Cancel, Silent};
use docent::serve::{Engine, EngineOptions, NewItem, Outcome, PersonalOptions};
use docent::store::{RunRecord, Store};
use docent::train::ranker::{FoundationModel, Impressions, Plan, RankerTrainer};
use docent::train::{Trainer, publish, publish_ranked};
use docent::{Cell, Event};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    docent::force_scalar(true);
    let to = ask::fixtures();
    if to.exists() {
        return Err(format!("{} is there already, and fixtures are never overwritten", to.display()).into());
    }
    let folder = tempfile::tempdir()?;
    write(folder.path())?;
    // Before the questions, which open the live file.
    let asked = tempfile::tempdir()?;
    ask::copy(folder.path(), asked.path())?;
    ask::copy(folder.path(), &to)?;
    let answers = ask::ask(asked.path())?;
    std::fs::write(to.join("answers.txt"), ask::text(&answers))?;
    println!("{} answers in {}", answers.len(), to.display());
    Ok(())
}

fn write(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let options =
        SyntheticOptions { entities: 40, items: 50, days: 60, events_per_entity: 12.0, ..SyntheticOptions::default() };
    let world = World::new(&options, 1)?;
    let data = world.dataset()?;
    let shown = Impressions::from_log(&data, &world.impression_log()?)?;
    let split = Split::new(&data, &Protocol::LeaveOneOut)?;
    let (run, never) = (RunRecord::default(), Cancel::new());
    let model = ModelOptions {
        width: 8,
        heads: 2,
        hidden: 12,
        max_length: 12,
        field_width: 2,
        blocks: 1,
        tower: Some(TowerOptions { title_buckets: 32, ..TowerOptions::default() }),
        ..ModelOptions::default()
    };
    let train = TrainOptions { epochs: 3, ..TrainOptions::default() };

    let trained = Trainer::new(&data, &split).model(model.clone()).options(train.clone()).run(&mut Silent, &never)?;
    let inference = Inference::new(&data.schema, &trained.model)?;
    let weights = Weights { items: &trained.items, dense: &trained.dense, features: &trained.features, more: &() };
    let plan = Plan::new(&data, &shown, &split, FoundationModel { inference: &inference, weights }, 0.1, 1, 1)?;
    let shape = RankerOptions {
        embedding: 6,
        hidden: vec![8],
        trunk: 8,
        gate: 6,
        item_width: 4,
        steps: 3,
        support: 16,
        items: ItemKind::Item,
        surface: "device".into(),
        ..RankerOptions::default()
    };
    let options = RankerTrainOptions { epochs: 2, batch: 16, ..RankerTrainOptions::default() };
    let ranker = RankerTrainer::new(&plan).model(shape).options(options).run(&mut Silent, &never)?;
    let store = folder.join("ranker");
    let mut publisher = Store::create(&store)?.publisher()?;
    publish_ranked(&mut publisher, &data, &split, &trained, Some(&ranker), &run)?;
    let options = EngineOptions { live: true, personal: Some(PersonalOptions::default()), ..EngineOptions::default() };
    let engine = Engine::open(&store, &options)?;
    let adapter = BatchAdapter::new(engine.current(), &data, &shown)?;
    let adapted = adapter.run(&mut Silent, &never)?.ok_or("nothing cancels this")?;
    adapter.publish(&mut publisher, &adapted, &run)?;
    engine.reload()?;
    drop(publisher);
    let now = 1_800_000_000_000;
    engine.add_item(&NewItem {
        title: Some("A new one"),
        now: Some(now),
        ..NewItem { id: "new", ..NewItem::default() }
    })?;
    engine.remove_item("i0007")?;
    let phone = [("device", Cell::Text("phone"))];
    for (n, (item, label)) in [("i0001", 1.0), ("i0004", 0.0), ("new", 1.0)].into_iter().enumerate() {
        let event = Event { time: Some(now + n as i64), fields: &phone, ..Event::item(item) };
        let (labels, impression) = ([("label", label)], [("position", n as f32)]);
        let outcome = Outcome { impression: &impression, ..Outcome::labelled(event, &labels) };
        engine.observe("p0002", &outcome)?;
    }
    engine.observe("p0005", &Outcome::event(Event { time: Some(now), ..Event::item("i0009") }))?;
    drop(engine);

    let tokenizer = TokenizerOptions { max_gap: 86_400, merges: 4, ..TokenizerOptions::default() };
    let trainer = Trainer::new(&data, &split).model(model).options(train).tokenizer(tokenizer);
    let trained = trainer.run(&mut Silent, &never)?;
    let mut publisher = Store::create(folder.join("tokenizer"))?.publisher()?;
    publish(&mut publisher, &data, &split, &trained, &run)?;
    Ok(())
}
