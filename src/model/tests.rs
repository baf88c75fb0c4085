//! The fused operations against their composed oracle, and inference against the network.

use super::features::Tokens;
use super::network::{Dropouts, Network, Parameters};
use super::operations::{Packed, Path, full_loss, sampled_loss};
use super::*;
use crate::options::{Block, ModelOptions, Positions};
use crate::random::Rng;
use crate::schema::{EventField, Field, FieldKind, Schema, Timing};
use candle_core::{DType, Device, Tensor, Var};
use std::sync::Arc;

fn schema() -> Schema {
    let field = |name: &str, timing| EventField {
        field: Field { name: name.into(), kind: FieldKind::Categorical(vec!["a".into(), "b".into(), "c".into()]) },
        timing,
    };
    Schema {
        has_time: true,
        actions: vec!["view".into(), "like".into()],
        event_fields: vec![field("device", Timing::Request), field("answer", Timing::Outcome)],
        ..Schema::default()
    }
}

/// Small shapes of every form.
fn shapes() -> impl Iterator<Item = ModelOptions> {
    [Block::Gated, Block::Hstu].into_iter().flat_map(|block| {
        [Positions::Learned, Positions::Rotary].map(|positions| ModelOptions { block, ..options(positions) })
    })
}

fn options(positions: Positions) -> ModelOptions {
    ModelOptions {
        width: 12,
        heads: 2,
        hidden: 20,
        blocks: 2,
        context: 90,
        field_width: 5,
        positions,
        ..ModelOptions::default()
    }
}

const ITEMS: usize = 23;

struct World {
    network: Network,
    inference: Inference,
    dense: Vec<f32>,
    items: Vec<f32>,
    tables: Vec<f32>,
    histories: Vec<History>,
}

fn world(options: &ModelOptions, seed: u64) -> World {
    let schema = schema();
    let mut rng = Rng::new(seed);
    let network = Network::new(options, Features::new(&schema, options));
    let inference = Inference::new(&schema, options).unwrap();
    let mut normal = |n: usize, s: f32| -> Vec<f32> { (0..n).map(|_| rng.normal() as f32 * s).collect() };
    let (dense, tables) = inference.sizes();
    // Every weight away from its start, biases and gains included, so that no gradient hides behind a zero.
    let dense = network.layout.start(&mut Rng::new(seed)).iter().zip(normal(dense, 0.2)).map(|(a, b)| a + b).collect();
    let (items, tables) = (normal(ITEMS * options.width as usize, 0.3), normal(tables, 0.3));
    let history = |n: usize| {
        let mut time = 1_000_000_000_000i64;
        History {
            items: (0..n).map(|_| rng.below(ITEMS) as u32).collect(),
            time: (0..n)
                .map(|_| {
                    time += rng.below(50_000_000) as i64;
                    time
                })
                .collect(),
            action: (0..n).map(|_| rng.below(2) as u16).collect(),
            value: Vec::new(),
            fields: (0..2).map(|_| (0..n).map(|_| rng.below(4) as u32).collect()).collect(),
        }
    };
    let histories = [3, 1, 71, 80].map(history).into();
    World { network, inference, dense, items, tables, histories }
}

impl World {
    /// Packed tokens of all histories as tensors: leaf, embedded features, places.
    fn batch(&self, dtype: DType) -> (Tensor, Tensor, Arc<Packed>, Vec<u32>) {
        let d = self.network.options.width as usize;
        let width = self.network.options.field_width as usize;
        let mut tokens = Tokens::default();
        let mut packed = Packed { offsets: vec![0], ..Packed::default() };
        let (mut x, mut targets) = (Vec::new(), Vec::new());
        for h in &self.histories {
            let first = tokens.items.len();
            self.network.features.encode(h, 0, 0..h.items.len(), &Request::default(), &mut tokens);
            targets.extend(&h.items);
            for (place, &item) in tokens.items[first..].iter().enumerate() {
                let row = match item {
                    Tokens::OPENING => &self.dense[self.network.layout.range("opening").unwrap()],
                    i => &self.items[i as usize * d..(i as usize + 1) * d],
                };
                let position = self.network.layout.range("positions").ok().map(|r| &self.dense[r][place * d..]);
                x.extend((0..d).map(|c| row[c] + position.map_or(0.0, |p| p[c])));
            }
            packed.offsets.push(tokens.items.len());
        }
        (packed.query, packed.key) = (tokens.query.clone(), tokens.key.clone());
        let features = self.network.features.list.len();
        let mut fields = Vec::new();
        let mut start = 0;
        let starts: Vec<usize> = self
            .network
            .features
            .list
            .iter()
            .map(|f| {
                start += f.codes;
                start - f.codes
            })
            .collect();
        for (i, &c) in tokens.codes.iter().enumerate() {
            let at = (starts[i % features] + c as usize) * width;
            fields.extend_from_slice(&self.tables[at..at + width]);
        }
        let n = tokens.items.len();
        let tensor = |v, c| Tensor::from_vec(v, (n, c), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        (tensor(x, d), tensor(fields, features * width), Arc::new(packed), targets)
    }
}

struct Outcome {
    loss: f64,
    grads: Vec<(String, Vec<f64>)>,
}

fn numbers(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn pass(w: &World, path: Path, dtype: DType, sampled: bool, dense: &[f32]) -> Outcome {
    let (x, fields, packed, targets) = w.batch(dtype);
    let parameters = Parameters::new(&w.network.layout, dense, &Device::Cpu).unwrap();
    let parameters = if dtype == DType::F64 { parameters.to_f64() } else { parameters };
    let (x, fields) = (Var::from_tensor(&x).unwrap(), Var::from_tensor(&fields).unwrap());
    let drop = Dropouts { key: 5, rate: 0.3, first: 0 };
    let h = w.network.forward(path, &parameters, &x, Some(&fields), &packed, Some(drop)).unwrap();
    let d = w.network.options.width as usize;
    let items = Tensor::from_slice(&w.items, (ITEMS, d), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    let weights = Arc::new((0..targets.len()).map(|i| 0.5 + (i % 3) as f32).collect::<Vec<f32>>());
    let targets = Arc::new(targets);
    let mut named: Vec<(String, Var)> = vec![("x".into(), x), ("fields".into(), fields)];
    for (weight, var) in w.network.layout.weights.iter().zip(parameters.vars()) {
        named.push((weight.name.clone(), var.clone()));
    }
    let loss = if sampled {
        let negatives = Arc::new(vec![1u32, 4, 7, 7, 20]);
        let pick = |rows: &[u32]| {
            let index = Tensor::from_slice(rows, rows.len(), &Device::Cpu).unwrap();
            Var::from_tensor(&items.index_select(&index, 0).unwrap()).unwrap()
        };
        let (p, n) = (pick(&targets), pick(&negatives));
        let loss = sampled_loss(path, &h, &p, &n, &targets, &negatives, &weights).unwrap();
        named.extend([("positives".to_string(), p), ("negatives".to_string(), n)]);
        loss
    } else {
        let items = Var::from_tensor(&items).unwrap();
        let loss = full_loss(path, &h, &items, &targets, &weights).unwrap();
        named.push(("items".into(), items));
        loss
    };
    let store = loss.backward().unwrap();
    let mut grads = Vec::new();
    for (name, var) in named {
        // "opening" and "positions" are part of the leaf `x` and get their gradients from it.
        if name == "opening" || name == "positions" {
            continue;
        }
        let grad = store.get(&var).unwrap_or_else(|| panic!("{name} gets no gradient"));
        grads.push((name, numbers(grad)));
    }
    Outcome { loss: numbers(&loss)[0], grads }
}

fn compare(a: &Outcome, b: &Outcome, tolerance: f64) {
    assert!((a.loss - b.loss).abs() <= tolerance * b.loss.abs(), "loss {} against {}", a.loss, b.loss);
    for ((name, x), (_, y)) in a.grads.iter().zip(&b.grads) {
        let norm = y.iter().map(|v| v * v).sum::<f64>().sqrt();
        let off = x.iter().zip(y).map(|(p, q)| (p - q).powi(2)).sum::<f64>().sqrt();
        assert!(off <= tolerance * norm + 1e-6, "gradient of {name}: off by {off} of {norm}");
    }
}

#[test]
fn fused_operations_equal_their_oracle() {
    for shape in shapes() {
        let w = world(&shape, 3);
        for sampled in [false, true] {
            let oracle = pass(&w, Path::Composed, DType::F64, sampled, &w.dense);
            compare(&pass(&w, Path::Fused, DType::F32, sampled, &w.dense), &oracle, 1e-5);
        }
    }
}

#[test]
fn the_oracle_equals_finite_differences() {
    for shape in shapes() {
        gradients_equal_finite_differences(&world(&shape, 4));
    }
}

fn gradients_equal_finite_differences(w: &World) {
    let at = pass(w, Path::Composed, DType::F64, false, &w.dense);
    let mut rng = Rng::new(11);
    for weight in &w.network.layout.weights {
        let Some((_, grad)) = at.grads.iter().find(|(n, _)| *n == weight.name) else { continue };
        let i = rng.below(weight.range.len());
        let loss = |step: f32| {
            let mut dense = w.dense.clone();
            dense[weight.range.start + i] += step;
            // The step that was really taken, in f32.
            let taken = f64::from(dense[weight.range.start + i]) - f64::from(w.dense[weight.range.start + i]);
            (pass(w, Path::Composed, DType::F64, false, &dense).loss, taken)
        };
        let ((up, a), (down, b)) = (loss(1e-3), loss(-1e-3));
        let slope = (up - down) / (a - b);
        let scale = grad.iter().fold(1e-3f64, |m, g| m.max(g.abs()));
        assert!((slope - grad[i]).abs() < 1e-3 * scale, "{}[{i}]: {slope} against {}", weight.name, grad[i]);
    }
}

#[test]
fn inference_equals_the_network() {
    for shape in shapes() {
        let w = world(&shape, 5);
        let d = w.network.options.width as usize;
        let (x, fields, packed, _) = w.batch(DType::F32);
        let parameters = Parameters::new(&w.network.layout, &w.dense, &Device::Cpu).unwrap();
        let weights = Weights { items: &w.items, dense: &w.dense, features: &w.tables };
        let mut scratch = Scratch::default();
        for path in [Path::Fused, Path::Composed] {
            let h = w.network.forward(path, &parameters, &x, Some(&fields), &packed, None).unwrap();
            let h: Vec<Vec<f32>> = h.to_vec2().unwrap();
            for (s, full) in w.histories.iter().enumerate() {
                let n = full.items.len() - 1;
                let history = History {
                    items: full.items[..n].to_vec(),
                    time: full.time[..n].to_vec(),
                    action: full.action[..n].to_vec(),
                    value: Vec::new(),
                    fields: full.fields.iter().map(|f| f[..n].to_vec()).collect(),
                };
                let fields = full.fields.iter().map(|f| f[n]).collect();
                let request = Request { time: Some(full.time[n]), fields };
                let mut got = vec![0.0; d];
                w.inference.user_vector(weights, &history, &request, &mut scratch, &mut got).unwrap();
                let want = &h[packed.offsets[s + 1] - 1];
                for (g, v) in got.iter().zip(want) {
                    assert!((g - v).abs() < 1e-5 * (1.0 + v.abs()), "history {s}: {g} against {v}");
                }
            }
        }
    }
}

#[test]
fn a_longer_history_is_read_from_its_newest_end() {
    let options = ModelOptions { context: 8, ..options(Positions::Learned) };
    let w = world(&options, 6);
    let weights = Weights { items: &w.items, dense: &w.dense, features: &w.tables };
    let full = &w.histories[2];
    let tail = |from: usize| History {
        items: full.items[from..].to_vec(),
        time: full.time[from..].to_vec(),
        action: full.action[from..].to_vec(),
        value: Vec::new(),
        fields: full.fields.iter().map(|f| f[from..].to_vec()).collect(),
    };
    let vector = |h: &History| {
        let mut out = vec![0.0; options.width as usize];
        let mut scratch = Scratch::default();
        w.inference.user_vector(weights, h, &Request::default(), &mut scratch, &mut out).unwrap();
        out
    };
    let n = full.items.len();
    assert_eq!(vector(full), vector(&tail(n - 8)));
    assert_ne!(vector(full), vector(&tail(n - 7)));
}

#[test]
fn codes_and_rows_out_of_range_are_refused() {
    let w = world(&options(Positions::Learned), 7);
    let weights = Weights { items: &w.items, dense: &w.dense, features: &w.tables };
    let mut out = vec![0.0; 12];
    let mut refuse = |h: History, r: Request| {
        let e = w.inference.user_vector(weights, &h, &r, &mut Scratch::default(), &mut out).unwrap_err();
        assert_eq!(e.kind(), crate::ErrorKind::InvalidArgument, "{e}");
    };
    refuse(History { items: vec![ITEMS as u32], ..History::default() }, Request::default());
    refuse(History { items: vec![1], action: vec![2], ..History::default() }, Request::default());
    refuse(History { items: vec![1], time: vec![1, 2], ..History::default() }, Request::default());
    refuse(History { items: vec![1], fields: vec![vec![4]], ..History::default() }, Request::default());
    refuse(History::default(), Request { time: None, fields: vec![4] });
    let short = Weights { dense: &w.dense[1..], ..weights };
    let e = w.inference.user_vector(short, &History::default(), &Request::default(), &mut Scratch::default(), &mut out);
    assert_eq!(e.unwrap_err().kind(), crate::ErrorKind::Corrupt);
}
