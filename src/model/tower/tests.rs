//! Gradients, one item against many, the gate.

use super::gate::{AGES, INPUTS, gate_inputs};
use super::*;
use crate::kernels::norm::scale_rows;
use crate::model::features::Features;
use crate::model::layout::Layout;
use crate::model::weights::Weights;
use crate::options::Gate;
use crate::options::{ModelOptions, TowerOptions};
use crate::random::Rng;
use crate::schema::{Field, FieldKind, Schema};

fn schema() -> Schema {
    let names = |n: usize| (0..n).map(|i| format!("v{i}")).collect::<Vec<_>>();
    let field = |name: &str, kind| Field { name: name.into(), kind };
    Schema {
        item_fields: vec![
            field("studio", FieldKind::Categorical(names(3))),
            field("poster", FieldKind::Vector(4)),
            field("genres", FieldKind::MultiValued(names(5))),
            field("minutes", FieldKind::Numeric(vec![60.0, 120.0])),
        ],
        ..Schema::default()
    }
}

struct World {
    tower: Tower,
    metadata: Metadata,
    dense: Vec<f64>,
    features: Vec<f64>,
    ids: Vec<f64>,
    standings: Vec<Standing>,
    items: Vec<u32>,
}

const TOWER: TowerOptions =
    TowerOptions { title_buckets: 16, gate: Gate::Learned, masking: None, masking_young: [0.7, 0.5] };

fn world(normalized: bool) -> World {
    let schema = schema();
    let options =
        ModelOptions { width: 6, heads: 1, field_width: 3, normalized, tower: Some(TOWER), ..Default::default() };
    let features = Features::new(&schema, &options).unwrap();
    let layout = Layout::new(&options, &features);
    let tower = Tower::new(&schema, &options, &features, &layout).unwrap().unwrap();
    let mut metadata = Metadata::default();
    let values = |codes: &'static [u32], minutes, poster: &'static [f32]| {
        [Value::Codes(&codes[..1]), Value::Vector(poster), Value::Codes(codes), Value::Number(minutes)]
    };
    tower.slots.push(&mut metadata, "The Long Night", &values(&[1, 2, 5], 90.0, &[0.5, -1.0, 2.0, 0.1]));
    tower.slots.push(&mut metadata, "long day", &values(&[3], f32::NAN, &[1.0, 1.0, 0.3, -0.7]));
    tower.slots.push(&mut metadata, "", &[]);
    let mut rng = Rng::new(5);
    let mut normal = |n: usize| (0..n).map(|_| rng.normal()).collect::<Vec<f64>>();
    let standing = |age, evidence, known| Standing { age, evidence, known };
    World {
        dense: normal(layout.size()),
        features: normal(features.rows() * 3),
        ids: normal(4 * 6),
        standings: vec![
            standing(Some(3.0), 2, true),
            standing(None, 40_000, true),
            standing(Some(400.0), 0, false),
            standing(Some(0.0), 7, false),
        ],
        items: vec![0, 2, 1, 0],
        tower,
        metadata,
    }
}

impl World {
    fn batch(&self) -> Batch<'_> {
        Batch { standings: &self.standings, metadata: &self.metadata, items: &self.items }
    }

    fn loss(&self) -> f64 {
        let tables = Tables { dense: &self.dense, features: &self.features };
        let pass = self.tower.forward(&self.ids, self.batch(), tables);
        pass.vectors.iter().enumerate().map(|(i, v)| v * (0.3 + (i as f64 * 0.7).sin())).sum()
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for normalized in [true, false] {
        let mut w = world(normalized);
        let tables = Tables { dense: &w.dense, features: &w.features };
        let pass = w.tower.forward(&w.ids, w.batch(), tables);
        let gradient: Vec<f64> = (0..pass.vectors.len()).map(|i| 0.3 + (i as f64 * 0.7).sin()).collect();
        let (mut dense, mut features) = (vec![0.0; w.dense.len()], vec![0.0; w.features.len()]);
        let mut to = TowerGradients { dense: &mut dense, features: &mut features };
        let ids = w.tower.backward(&pass, w.batch(), tables, &gradient, &mut to);
        let mut checked = 0;
        for (which, grads) in [(0, dense), (1, features), (2, ids)] {
            for (i, grad) in grads.iter().enumerate() {
                let mut at = |step: f64| {
                    let slot = match which {
                        0 => &mut w.dense[i],
                        1 => &mut w.features[i],
                        _ => &mut w.ids[i],
                    };
                    *slot += step;
                    let loss = w.loss();
                    match which {
                        0 => w.dense[i] -= step,
                        1 => w.features[i] -= step,
                        _ => w.ids[i] -= step,
                    }
                    loss
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!((slope - grad).abs() < 1e-6 * (1.0 + slope.abs()), "{which}[{i}]: {slope}, {grad}");
                checked += usize::from(slope.abs() > 1e-9);
            }
        }
        assert!(checked > 100, "{checked} gradients were not zero");
    }
}

#[test]
fn one_item_is_the_same_as_one_of_many() {
    let w = world(true);
    let narrow = |v: &[f64]| v.iter().map(|x| *x as f32).collect::<Vec<f32>>();
    let (dense, features, ids) = (narrow(&w.dense), narrow(&w.features), narrow(&w.ids));
    let tables = Tables { dense: &dense, features: &features };
    let mut all = w.tower.forward(&ids, w.batch(), tables).vectors;
    scale_rows(&mut all, 6, true, 1.0);
    let values =
        [Value::Codes(&[3]), Value::Vector(&[1.0, 1.0, 0.3, -0.7]), Value::Codes(&[3]), Value::Number(f32::NAN)];
    let one = w.tower.describe("Long DAY!", &values);
    let weights = Weights { items: &[], dense: &dense, features: &features, more: &() };
    let mut out = [0.0; 6];
    w.tower.vector(weights, &one, None, Standing::unseen(Some(400.0)), &mut out).unwrap();
    for (a, b) in out.iter().zip(&all[12..18]) {
        assert!((a - b).abs() < 1e-6, "{out:?} against {:?}", &all[12..18]);
    }
    let parts = w.tower.parts_of(weights, &one, None, Standing::unseen(Some(400.0))).unwrap();
    assert!(parts.id.iter().zip(&parts.metadata).zip(&out).all(|((a, b), o)| (a + b - o).abs() < 1e-6));
    let short = Weights { dense: &dense[1..], ..weights };
    assert!(w.tower.vector(short, &one, None, Standing::unseen(None), &mut out).is_err());
}

#[test]
fn the_gate_interpolates_between_its_knots() {
    let mut to = [0.0f64; INPUTS];
    gate_inputs(Standing { age: Some(2.0), evidence: 1_000_000, known: true }, true, &mut to);
    let ages = &to[..AGES.len()];
    assert!(ages[1] > 0.0 && ages[2] > 0.0 && (ages.iter().sum::<f64>() - 1.0).abs() < 1e-6);
    assert_eq!(to[AGES.len() + 8], 1.0);
    assert_eq!(to[INPUTS - 2..], [0.0, 1.0]);
}

#[test]
fn a_fixed_gate_gives_an_item_to_its_metadata_until_something_was_seen_of_it() {
    let World { tower, metadata, .. } = world(true);
    let options = ModelOptions { width: 6, heads: 1, field_width: 3, tower: Some(TOWER), ..Default::default() };
    let features = Features::new(&schema(), &options).unwrap();
    let layout = Layout::new(&options, &features);
    let mut dense = layout.start(&mut Rng::new(1));
    let gate = ["tower.gate.in", "tower.gate.out", "tower.gate.out.bias"].map(|name| layout.range(name).unwrap());
    let [inputs, outputs, bias] = dense.get_disjoint_mut(gate).unwrap();
    fix_gate(inputs, outputs, bias);
    let tables = Tables { dense: &dense, features: &vec![0.1; features.rows() * 3] };
    let share = |age, evidence| {
        let standings = [Standing { age, evidence, known: evidence > 0 }];
        let batch = Batch { standings: &standings, metadata: &metadata, items: &[0] };
        tower.forward(&[0.1; 6], batch, tables).weights[1]
    };
    for (age, evidence, expected) in
        [(None, 0, 0.881), (Some(365.0), 0, 0.753), (None, 1, 0.414), (None, 14, 0.205), (Some(365.0), 300, 0.023)]
    {
        let found: f32 = share(age, evidence);
        assert!((found - expected).abs() < 2e-3, "age {age:?}, {evidence} events: {found}");
    }
}
