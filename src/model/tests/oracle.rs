//! The same by candle's operations.

use super::*;
use crate::model::composed::{self, Composed};
use candle_core::{DType, Device, Tensor, Var};

fn numbers(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The composed pass in one of candle's types.
fn oracle(w: &World, dtype: DType, kind: Kind, dense: &[f32]) -> Outcome {
    let (x, fields, packed, targets) = w.batch();
    let (d, n) = (w.network.options.width as usize, targets.len());
    let var = |v: &[f32], rows: usize| {
        let t = Tensor::from_slice(v, (rows, v.len() / rows), &Device::Cpu).unwrap();
        Var::from_tensor(&t.to_dtype(dtype).unwrap()).unwrap()
    };
    let parameters = Composed::new(&w.network.layout, dense, &Device::Cpu).unwrap();
    let mut parameters = if dtype == DType::F64 { parameters.to_f64() } else { parameters };
    let (x, fields) = (var(&x, n), var(&fields, n));
    let out = w.network.forward(&mut parameters, x.as_tensor().clone(), Some(&fields), &packed, Some(DROP)).unwrap();
    let h = &out.user;
    let mut named: Vec<(String, Var)> = vec![("x".into(), x), ("fields".into(), fields)];
    for (weight, var) in w.network.layout.weights.iter().zip(parameters.vars()) {
        // "opening" and "positions" are part of the leaf `x` and get their gradients from it.
        if weight.name != "opening" && weight.name != "positions" {
            named.push((weight.name.clone(), var.clone()));
        }
    }
    let loss = match kind {
        Kind::Full => {
            let items = var(&w.items, ITEMS);
            named.push(("items".into(), items.clone()));
            composed::full_loss(h, &items, &sets(&targets)).unwrap()
        }
        Kind::Sampled(objective, shifted) => {
            let (p, k) = (var(&pick(&w.items, &targets, d), n), var(&pick(&w.items, &NEGATIVES, d), NEGATIVES.len()));
            let negative_shift = shifts(shifted);
            let candidates = Candidates { targets: &targets, rows: &NEGATIVES, negative_shift: &negative_shift };
            named.extend([("positives".to_string(), p.clone()), ("negatives".to_string(), k.clone())]);
            composed::sampled_loss(h, &p, &k, &candidates, objective, &weights(n)).unwrap()
        }
    };
    let mut loss = loss;
    for (i, logits) in out.heads.iter().enumerate() {
        let head = composed::set_loss(logits, &classes(i, n)).unwrap();
        loss = (loss + head).unwrap();
    }
    let store = loss.backward().unwrap();
    let grads = named.into_iter().map(|(name, var)| {
        let grad = store.get(&var).unwrap_or_else(|| panic!("{name} gets no gradient"));
        (name, numbers(grad))
    });
    Outcome { loss: numbers(&loss)[0], grads: grads.collect() }
}

/// The user vectors of packed tokens, without dropout.
pub(super) fn users(w: &World, x: Vec<f32>, fields: Vec<f32>, packed: &Arc<Packed>) -> Vec<Vec<f32>> {
    let n = packed.offsets[packed.offsets.len() - 1];
    let tensor = |v: Vec<f32>| Tensor::from_vec(v.clone(), (n, v.len() / n), &Device::Cpu).unwrap();
    let mut parameters = Composed::new(&w.network.layout, &w.dense, &Device::Cpu).unwrap();
    let out = w.network.forward(&mut parameters, tensor(x), Some(&tensor(fields)), packed, None);
    out.unwrap().user.to_vec2().unwrap()
}

fn compare(a: &Outcome, b: &Outcome, tolerance: f64) {
    assert!((a.loss - b.loss).abs() <= tolerance * b.loss.abs(), "loss {} against {}", a.loss, b.loss);
    for ((name, x), (_, y)) in a.grads.iter().zip(&b.grads) {
        let norm = y.iter().map(|v| v * v).sum::<f64>().sqrt();
        let off = x.iter().zip(y).map(|(p, q)| (p - q).powi(2)).sum::<f64>().sqrt();
        assert!(off <= tolerance * (norm + 0.1), "gradient of {name}: off by {off} of {norm}");
    }
}

#[test]
fn fused_operations_equal_their_oracle() {
    // The buffers of one pass are the next one's: nothing that is left in them may be read.
    let (mut narrow, mut wide) = (Memory::<f32>::default(), Memory::<f64>::default());
    for shape in shapes() {
        let w = world(&shape, 3);
        for kind in KINDS {
            let oracle = oracle(&w, DType::F64, kind, &w.dense);
            compare(&fused(&w, kind, &w.dense, &mut narrow), &oracle, 1e-5);
            compare(&fused(&w, kind, &real::<f64>(&w.dense), &mut wide), &oracle, 1e-8);
        }
    }
}
