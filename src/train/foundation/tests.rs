//! Whole trainings at small size.

use super::trainer::Trainer;
use crate::data::{Dataset, Protocol, Split, SyntheticOptions, World};
use crate::model::Features;
use crate::model::network::Network;
#[cfg(feature = "candle")]
use crate::options::Gbce;
use crate::options::TowerOptions;
use crate::options::{Auxiliary, Loss, ModelOptions, Negatives, Objective, TrainOptions, Utility};
use crate::progress::{Cancel, ProgressEvent};
#[cfg(feature = "candle")]
use crate::train::backend::Backend;

fn world() -> Dataset {
    let world = SyntheticOptions { entities: 160, items: 60, days: 60, events_per_entity: 12.0, ..Default::default() };
    World::new(&world, 1).unwrap().dataset().unwrap()
}

fn small() -> ModelOptions {
    ModelOptions { width: 16, hidden: 24, max_length: 12, field_width: 4, ..ModelOptions::default() }
}

#[cfg(feature = "candle")]
fn curve(trainer: &Trainer<'_>, backend: &Backend) -> Vec<f64> {
    let mut losses = Vec::new();
    let mut watch = |e: &ProgressEvent| {
        if let ProgressEvent::Step(step) = e {
            losses.push(step.loss);
        }
    };
    trainer.run_on(backend, &mut watch, &Cancel::new()).unwrap();
    losses
}

fn options(epochs: u32) -> TrainOptions {
    TrainOptions { epochs, batch: 16, warmup: 10, patience: 20, validate_every: epochs, ..TrainOptions::default() }
}

#[cfg(feature = "candle")]
fn same(data: &Dataset, model: ModelOptions, options: TrainOptions, learned: f64) {
    let split = Split::new(data, &Protocol::LeaveOneOut).unwrap();
    let trainer = Trainer::new(data, &split).model(model.clone()).options(options.clone());
    let composed = Backend::Composed(candle_core::Device::Cpu);
    let (fused, composed) = (curve(&trainer, &Backend::Fused), curve(&trainer, &composed));
    assert!(fused.len() >= 200 && fused.len() == composed.len());
    for (step, (a, b)) in fused.iter().zip(&composed).enumerate() {
        assert!((a - b).abs() <= 2e-4 * b.abs(), "{model:?} {options:?}, step {step}: {a} fused, {b} composed");
    }
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&fused[180..]) < learned * mean(&fused[..20]), "{model:?} {options:?} does not learn");
}

#[cfg(feature = "candle")]
#[test]
fn curves_of_fused_and_composed_training_coincide_for_200_steps() {
    let data = world();
    let gbce = Gbce { negatives: Negatives { log_q: true, ..Negatives::uniform(8) }, calibration: 0.75 };
    for (loss, normalized) in
        [(Loss::Full, false), (Loss::Sampled(Negatives::uniform(8)), true), (Loss::Gbce(gbce), false)]
    {
        let temperature = if normalized { 0.1 } else { 1.0 };
        let model = ModelOptions { normalized, temperature, ..small() };
        same(&data, model, TrainOptions { loss: Some(loss), ..options(20) }, 0.97);
    }
}

#[cfg(feature = "candle")]
#[test]
fn they_coincide_with_a_tower_every_head_and_several_targets() {
    let mut data = world();
    data.schema.has_label = true;
    data.events.label = (0..data.events.len()).map(|i| [1.0, 0.0, f32::NAN][i % 3]).collect();
    let head = |field: &str, hierarchical| Auxiliary { field: field.into(), weight: 0.3, hierarchical };
    let model = ModelOptions {
        tower: Some(TowerOptions { title_buckets: 32, ..TowerOptions::default() }),
        auxiliary: vec![head("tags", true), head("action", false), head("completion", false), head("minutes", true)],
        feedback: 0.5,
        temperature: 0.1,
        ..small()
    };
    let objective = Objective { utility: Utility::Field("completion".into()), window: 4, half_life: 200_000.0 };
    for loss in [Loss::Full, Loss::Sampled(Negatives::uniform(8))] {
        let options = TrainOptions { loss: Some(loss), objective: objective.clone(), ..options(20) };
        same(&data, model.clone(), options, 0.97);
    }
}

#[test]
fn several_targets_reduce_to_the_next_one_to_the_bit() {
    let data = world();
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let weights = |window, half_life, loss| {
        let objective = Objective { window, half_life, ..Objective::default() };
        let options = TrainOptions { objective, loss: Some(loss), ..options(3) };
        let trained = Trainer::new(&data, &split).model(small()).options(options);
        let trained = trained.run(&mut crate::progress::Silent, &Cancel::new()).unwrap();
        (trained.dense, trained.items, trained.features)
    };
    for loss in [Loss::Full, Loss::Sampled(Negatives::uniform(8))] {
        let next = weights(1, 86_400.0, loss);
        assert!(next == weights(8, 0.0, loss), "half-life 0, {loss:?}");
        assert!(next == weights(8, 1e-9, loss), "half-life towards 0, {loss:?}");
        assert!(next != weights(8, 86_400.0, loss), "the window changes nothing, {loss:?}");
    }
}

#[test]
fn masked_items_move_the_tower_alone() {
    let data = world();
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    // One step, whose gradients are not scaled down together.
    let step = |masking, loss| {
        let tower =
            TowerOptions { title_buckets: 32, masking: Some(masking), masking_young: [0.0; 2], ..Default::default() };
        let model = ModelOptions { tower: Some(tower), ..small() };
        let options = TrainOptions { batch: 1000, clip: 0.0, loss: Some(loss), ..options(1) };
        let trainer = Trainer::new(&data, &split).model(model).options(options);
        let trained = trainer.run(&mut crate::progress::Silent, &Cancel::new()).unwrap();
        assert_eq!(trained.steps, 1);
        trained
    };
    for loss in [Loss::Full, Loss::Sampled(Negatives::uniform(8))] {
        let (none, some) = (step(0.0, loss), step(0.5, loss));
        let features = Features::new(&data.schema, &none.model).unwrap();
        let (events, layout) = (features.event_rows() * 4, Network::new(&none.model, features).layout);
        assert!(none.ids == some.ids && none.features[..events] == some.features[..events]);
        assert!(none.features[events..] != some.features[events..], "metadata learns");
        for w in &layout.weights {
            let same = none.dense[w.range.clone()] == some.dense[w.range.clone()];
            let moved = ["tower.project", "tower.unknown"].contains(&w.name.as_str());
            assert!(same != moved, "{loss:?}: {} of the tower alone", w.name);
        }
    }
}

#[test]
fn every_loss_is_reported_by_its_name() {
    let data = world();
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let head = Auxiliary { field: "category".into(), weight: 0.25, hierarchical: false };
    let model = ModelOptions { auxiliary: vec![head], ..small() };
    let mut seen = Vec::new();
    let mut watch = |e: &ProgressEvent| {
        if let ProgressEvent::Step(step) = e {
            let weighted = step.losses[0].1 + 0.25 * step.losses[1].1;
            assert!((weighted - step.loss).abs() < 1e-6 * step.loss, "{:?} of {}", step.losses, step.loss);
            seen.push(step.losses.iter().map(|l| l.0.clone()).collect::<Vec<_>>());
        }
    };
    Trainer::new(&data, &split).model(model).options(options(1)).run(&mut watch, &Cancel::new()).unwrap();
    assert_eq!(seen[0], ["next-item", "category"]);
}

#[test]
fn a_head_or_utility_that_is_not_declared_is_refused() {
    let data = world();
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let refuse = |model: ModelOptions, objective: Objective, part: &str| {
        let options = TrainOptions { objective, ..options(1) };
        let trainer = Trainer::new(&data, &split).model(model).options(options);
        let e = trainer.run(&mut crate::progress::Silent, &Cancel::new()).unwrap_err();
        assert!(e.kind() == crate::ErrorKind::InvalidConfig && e.message().contains(part), "{e}");
    };
    let head = Auxiliary { field: "mood".into(), weight: 0.25, hierarchical: false };
    refuse(ModelOptions { auxiliary: vec![head], ..small() }, Objective::default(), "mood");
    refuse(ModelOptions { feedback: 1.0, ..small() }, Objective::default(), "label");
    let utility = |utility| Objective { utility, ..Objective::default() };
    refuse(small(), utility(Utility::Field("device".into())), "device");
    refuse(small(), utility(Utility::Actions(vec![("buy".into(), 2.0)])), "buy");
    refuse(small(), utility(Utility::Actions(vec![("stream".into(), 0.0)])), "stream");
}
