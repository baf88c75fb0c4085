//! The fused passes against the composed ones and against finite differences.

use super::Ranker;
use super::batch::{Batch, Gradients, Memory, Outer, Side, gradients};
#[cfg(feature = "candle")]
use super::composed::outer_loss;
use super::inputs::{Inputs, unit_backward};
use super::shape::RankerShape;
use super::trunk::{self, Passed};
use crate::kernels::heads::Work;
use crate::kernels::inner::logits;
use crate::options::{ItemKind, RankerOptions};
use crate::random::Rng;
use crate::schema::Schema;
#[cfg(feature = "candle")]
use candle_core::{Device, Tensor, Var};

fn shape(hidden: &[u32], heads: usize) -> RankerShape {
    let options = RankerOptions {
        embedding: 5,
        hidden: hidden.to_vec(),
        trunk: 7,
        gate: 6,
        item_width: 4,
        steps: 3,
        support: 16,
        prior_count: 1.5,
        rate_decay: 0.75,
        bound: 0.0,
        identity: true,
        person: true,
        items: ItemKind::Off,
        surface: String::new(),
    };
    RankerShape::new(&options, 9, 3, 2, heads, 0.4).unwrap()
}

/// The same with a meta block of items, seen from either.
fn two_kinds(hidden: &[u32], heads: usize) -> [RankerShape; 2] {
    let one = shape(hidden, heads);
    let options = RankerOptions { items: ItemKind::Item, ..one.options };
    let both = RankerShape::new(&options, 9, 3, 2, heads, 0.4).unwrap();
    let items = both.of_items().unwrap();
    [both, items]
}

/// The same with a block of persons on surfaces, seen from either.
fn on_surfaces(hidden: &[u32], heads: usize) -> [RankerShape; 2] {
    let one = shape(hidden, heads);
    let options = RankerOptions { surface: "device".into(), ..one.options };
    let both = RankerShape::new(&options, 9, 3, 2, heads, 0.4).unwrap();
    let surface = both.of_surface().unwrap();
    [both, surface]
}

fn side(shape: &RankerShape, lengths: &[usize], rng: &mut Rng) -> Side<f64> {
    let mut side = Side { offsets: vec![0], ..Side::default() };
    for n in lengths {
        side.offsets.push(side.offsets.last().unwrap() + n);
        for _ in 0..*n {
            side.candidates.extend((0..shape.candidate()).map(|_| rng.normal()));
            let label = |rng: &mut Rng| match rng.below(5) {
                0 => f64::NAN,
                1 => 0.3,
                x => f64::from(u8::from(x > 2)),
            };
            side.labels.extend((0..shape.heads).map(|_| label(rng)));
        }
    }
    side
}

fn batch(shape: &RankerShape, rng: &mut Rng) -> Batch<f64> {
    let entities = 4;
    let normal = |n: usize, rng: &mut Rng| (0..n).map(|_| rng.normal()).collect::<Vec<f64>>();
    Batch {
        inputs: normal(entities * shape.inputs, rng),
        shifts: normal(entities * 5, rng),
        support: side(shape, &[6, 0, 1, 9], rng),
        query: side(shape, &[3, 4, 5, 1], rng),
        vectors: true,
    }
}

fn outer(steps: &[f64], heads: usize, exact: bool) -> Outer<f64> {
    Outer { steps: steps.to_vec(), heads: (0..heads).map(|t| 1.0 + t as f64).collect(), scale: 0.2, exact }
}

fn dense(shape: &RankerShape, rng: &mut Rng) -> Vec<f64> {
    let start = shape.layout.start(rng);
    start.into_iter().map(|w| f64::from(w) + 0.1 * rng.normal()).collect()
}

fn fused(shape: &RankerShape, dense: &[f64], batch: &Batch<f64>, outer: &Outer<f64>) -> Gradients<f64> {
    gradients(shape, dense, batch, outer, &mut Memory::default())
}

#[cfg(feature = "candle")]
fn close(name: &str, a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len(), "{name}");
    let size = b.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= 1e-9 * size.max(1.0), "{name}[{i}]: {a} fused, {b} composed");
    }
}

#[cfg(feature = "candle")]
#[test]
fn fused_gradients_equal_those_of_tensor_operations_over_whole_matrices() {
    let mut rng = Rng::new(11);
    let sizes = [(&[][..], 1), (&[8][..], 1), (&[8, 6][..], 2)];
    let shapes = sizes.iter().map(|(hidden, heads)| shape(hidden, *heads));
    for shape in shapes.chain(two_kinds(&[8], 2)).chain(on_surfaces(&[8], 2)) {
        let (heads, hidden) = (shape.heads, &shape.options.hidden);
        for steps in [&[1.0][..], &[0.3, 0.7], &[0.2, 0.0, 0.5, 0.3]] {
            for exact in [true, false] {
                let (dense, batch) = (dense(&shape, &mut rng), batch(&shape, &mut rng));
                let outer = outer(steps, heads, exact);
                let found = fused(&shape, &dense, &batch, &outer);
                let var = |v: &[f64], columns: usize| {
                    Var::from_tensor(&Tensor::from_slice(v, (v.len() / columns, columns), &Device::Cpu).unwrap())
                        .unwrap()
                };
                let flat = Var::from_tensor(&Tensor::from_slice(&dense, dense.len(), &Device::Cpu).unwrap()).unwrap();
                let (support, query) = (
                    var(&batch.support.candidates, shape.candidate()),
                    var(&batch.query.candidates, shape.candidate()),
                );
                let shifts = var(&batch.shifts, 5);
                let loss = outer_loss(&shape, &flat, &batch, [&support, &query], &shifts, &outer).unwrap();
                let want = loss.to_scalar::<f64>().unwrap();
                assert!((found.loss - want).abs() < 1e-10, "{hidden:?} {steps:?}: {} and {want}", found.loss);
                let grads = loss.backward().unwrap();
                let of = |v: &Var| match grads.get(v) {
                    Some(g) => g.flatten_all().unwrap().to_vec1::<f64>().unwrap(),
                    // Without a step the support is not read.
                    None => vec![0.0; v.elem_count()],
                };
                close("dense", &found.dense, &of(&flat));
                close("shifts", &found.shifts, &of(&shifts));
                let own = |g: Vec<f64>| -> Vec<f64> {
                    g.chunks_exact(shape.candidate()).flat_map(|r| r[..4].to_vec()).collect()
                };
                close("query items", &found.query_items, &own(of(&query)));
                if exact {
                    close("support items", &found.support_items, &own(of(&support)));
                }
                // The columns behind are those of the foundation model's vectors.
                let vectors = |g: Vec<f64>| -> Vec<f64> {
                    g.chunks_exact(shape.candidate()).flat_map(|r| r[4..4 + 3 * 3].to_vec()).collect()
                };
                close("query vectors", &found.query_vectors, &vectors(of(&query)));
                if exact {
                    close("support vectors", &found.support_vectors, &vectors(of(&support)));
                }
                // TaskSet does not ask for them is given all else to the bit.
                let frozen = fused(&shape, &dense, &Batch { vectors: false, ..batch }, &outer);
                assert!(frozen.query_vectors.is_empty() && frozen.support_vectors.is_empty());
                let rest = (&found.dense, &found.query_items, &found.support_items, &found.shifts, found.loss);
                let same = (&frozen.dense, &frozen.query_items, &frozen.support_items, &frozen.shifts, frozen.loss);
                assert_eq!(rest, same);
            }
        }
    }
}

/// The largest relative error of a gradient against central differences.
fn error(found: f64, up: f64, down: f64, h: f64) -> f64 {
    let want = (up - down) / (2.0 * h);
    (found - want).abs() / want.abs().max(1e-3)
}

#[test]
fn exact_meta_gradients_equal_central_differences_for_every_parameter_group() {
    differences(&shape(&[8, 6], 2), "meta.2.rates", "");
}

#[test]
fn so_do_those_of_either_block_of_two_on_rows_that_the_other_shifts() {
    let [both, items] = two_kinds(&[8, 6], 2);
    differences(&both, "meta.2.rates", "items.");
    differences(&items, "items.2.rates", "meta.");
}

#[test]
fn so_do_those_of_the_block_of_persons_on_surfaces() {
    let [both, surface] = on_surfaces(&[8, 6], 2);
    differences(&both, "meta.2.rates", "surface.");
    differences(&surface, "surface.2.rates", "meta.");
}

/// `held` is the last layer's rates, which the first order knows too; `other` the block that is not adapted.
fn differences(shape: &RankerShape, held: &str, other: &str) {
    let mut rng = Rng::new(5);
    let (mut dense, mut batch) = (dense(shape, &mut rng), batch(shape, &mut rng));
    let outer = outer(&[0.1, 0.1, 0.3, 0.5], 2, true);
    let found = fused(shape, &dense, &batch, &outer);
    let first = fused(shape, &dense, &batch, &Outer { exact: false, ..outer.clone() });
    let h = 1e-5;
    for w in shape.layout.weights.clone() {
        let mut apart = 0.0f64;
        for i in w.range.clone() {
            let was = dense[i];
            dense[i] = was + h;
            let up = fused(shape, &dense, &batch, &outer).loss;
            dense[i] = was - h;
            let down = fused(shape, &dense, &batch, &outer).loss;
            dense[i] = was;
            let e = error(found.dense[i], up, down, h);
            assert!(e <= 1e-4, "{}: {} is off by {e}", w.name, found.dense[i]);
            apart = apart.max((first.dense[i] - found.dense[i]).abs());
        }
        // What the first order leaves out is there to be found.
        let whole = w.name.starts_with(held) || !other.is_empty() && w.name.starts_with(other);
        assert!(apart > 1e-6 || whole, "{}: {apart}", w.name);
    }
    for i in (0..batch.shifts.len()).step_by(3) {
        let was = batch.shifts[i];
        batch.shifts[i] = was + h;
        let up = fused(shape, &dense, &batch, &outer).loss;
        batch.shifts[i] = was - h;
        let down = fused(shape, &dense, &batch, &outer).loss;
        batch.shifts[i] = was;
        assert!(error(found.shifts[i], up, down, h) <= 1e-4, "shift {i}");
    }
    for n in 0..batch.support.offsets[4] {
        let (i, g) = (n * shape.candidate() + n % 4, found.support_items[n * 4 + n % 4]);
        let was = batch.support.candidates[i];
        batch.support.candidates[i] = was + h;
        let up = fused(shape, &dense, &batch, &outer).loss;
        batch.support.candidates[i] = was - h;
        let down = fused(shape, &dense, &batch, &outer).loss;
        batch.support.candidates[i] = was;
        assert!(error(g, up, down, h) <= 1e-4, "support row {n}");
    }
}

/// The vectors of users (`[entities, state]`) and of items (`[items, state]`), and which items each row shows.
struct Vectors {
    users: Vec<f64>,
    items: Vec<f64>,
    shown: [Vec<usize>; 2],
}

/// Writes the columns that vectors make into the candidates of a batch.
fn place(inputs: &Inputs, shape: &RankerShape, vectors: &Vectors, batch: &mut Batch<f64>) {
    let (d, width) = (shape.state, shape.candidate());
    for (side, shown) in [&mut batch.support, &mut batch.query].into_iter().zip(&vectors.shown) {
        for s in 0..side.offsets.len() - 1 {
            for n in side.range(s) {
                let (item, mut made) = (shown[n] * d..(shown[n] + 1) * d, Vec::new());
                inputs.candidate(&[], &vectors.items[item], &vectors.users[s * d..(s + 1) * d], &[], &mut made);
                side.candidates[n * width + 4..n * width + 4 + 3 * d].copy_from_slice(&made);
            }
        }
    }
}

#[test]
fn gradients_at_user_and_item_vectors_equal_central_differences() {
    let mut rng = Rng::new(23);
    let inputs = Inputs::new(&Schema::default(), 3, &[0.5, 0.5]);
    let [both, _] = two_kinds(&[8, 6], 2);
    for shape in [shape(&[8, 6], 2), both] {
        let d = shape.state;
        let (dense, mut batch) = (dense(&shape, &mut rng), batch(&shape, &mut rng));
        let mut normal = |n: usize| (0..n).map(|_| rng.normal()).collect::<Vec<f64>>();
        let (users, items) = (normal(4 * d), normal(5 * d));
        let shown =
            [&batch.support, &batch.query].map(|side| (0..side.offsets[4]).map(|n| (7 * n + n / 3) % 5).collect());
        let mut vectors = Vectors { users, items, shown };
        let outer = outer(&[0.1, 0.1, 0.3, 0.5], 2, true);
        place(&inputs, &shape, &vectors, &mut batch);
        let found = fused(&shape, &dense, &batch, &outer);
        let (mut towards_items, mut towards_users) = (vec![0.0; 5 * d], vec![0.0; 4 * d]);
        let sides = [(&batch.support, &found.support_vectors), (&batch.query, &found.query_vectors)];
        for ((side, g), shown) in sides.into_iter().zip(&vectors.shown) {
            let mut rows = Vec::new();
            for s in 0..4 {
                let r = side.range(s);
                let candidates = &side.candidates[r.start * shape.candidate()..r.end * shape.candidate()];
                let (g, to) = (&g[r.start * 3 * d..r.end * 3 * d], &mut towards_users[s * d..(s + 1) * d]);
                inputs.candidates_backward(candidates, [4, shape.candidate()], g, &mut rows, to);
            }
            for (item, g) in shown.iter().zip(rows.chunks_exact(d)) {
                towards_items[item * d..(item + 1) * d].iter_mut().zip(g).for_each(|(t, g)| *t += g);
            }
        }
        let (mut of_users, mut of_items) = (vec![0.0; 4 * d], vec![0.0; 5 * d]);
        unit_backward(&vectors.users, d, &towards_users, &mut of_users);
        unit_backward(&vectors.items, d, &towards_items, &mut of_items);
        let h = 1e-5;
        for i in 0..9 * d {
            let mut loss = |by: f64| {
                let vectors = &mut vectors;
                match i.checked_sub(4 * d) {
                    None => vectors.users[i] += by,
                    Some(i) => vectors.items[i] += by,
                }
                place(&inputs, &shape, vectors, &mut batch);
                fused(&shape, &dense, &batch, &outer).loss
            };
            let (up, down) = (loss(h), loss(-2.0 * h));
            loss(h);
            let found = if i < 4 * d { of_users[i] } else { of_items[i - 4 * d] };
            assert!(found.abs() > 1e-9, "number {i} is not reached");
            assert!(error(found, up, down, h) <= 1e-4, "number {i}: {found} and {}", (up - down) / (2.0 * h));
        }
    }
}

#[test]
fn a_shifted_row_answers_as_the_sum_of_the_embeddings_does() {
    let mut rng = Rng::new(17);
    let (alone, [both, _]) = (shape(&[8], 2), two_kinds(&[8], 2));
    let start = dense(&both, &mut rng);
    let (heads, e) = (vec![1.0; 2], 5);
    let of = |shape: &RankerShape, name: &str| shape.layout.range(name).unwrap();
    let mut same = vec![0.0; alone.layout.size()];
    for w in &alone.layout.weights {
        same[w.range.clone()].copy_from_slice(&start[of(&both, &w.name)]);
    }
    let (mut rows, mut passed, mut work) = (Vec::new(), Passed::default(), Work::default());
    for _ in 0..20 {
        let candidate: Vec<f64> = (0..both.candidate()).map(|_| rng.normal()).collect();
        let (read, other) = candidate.split_at(alone.candidate());
        let own: Vec<f64> = (0..e).map(|_| rng.normal()).collect();
        let sum: Vec<f64> = own.iter().zip(other).map(|(a, b)| a + b).collect();
        let mut answer = |shape: &RankerShape, dense: &[f64], candidate: &[f64], e: &[f64]| {
            let mut out = [0.0; 2];
            trunk::forward(shape, dense, candidate, &mut rows, &mut passed);
            logits(&shape.heads_of(dense, &heads), &rows, e, &mut work, &mut out);
            out
        };
        let (shifted, summed) = (answer(&both, &start, &candidate, &own), answer(&alone, &same, read, &sum));
        assert!(shifted.iter().zip(&summed).all(|(a, b)| (a - b).abs() < 1e-12), "{shifted:?} and {summed:?}");
        let plain = answer(&alone, &same, read, &own);
        assert!(plain.iter().zip(&shifted).all(|(a, b)| (a - b).abs() > 1e-6));
        // No embedding of the other kind is no shift, to the bit.
        let still: Vec<f64> = read.iter().copied().chain([0.0; 5]).collect();
        assert_eq!(answer(&both, &start, &still, &own), plain);
    }
}

/// Weights so large that the inner steps overshoot: what they would make is refused, and the embedding is the one before any step.
#[test]
fn an_adaptation_that_makes_it_worse_is_refused() {
    let shape = shape(&[8], 2);
    let (mut refused, mut taken) = (0, 0);
    for (seed, scale) in (0..60).flat_map(|seed| [1.0f32, 10.0, 1e4, 1e19].map(|scale| (seed, scale))) {
        let mut rng = Rng::new(seed);
        let dense = dense(&shape, &mut rng).into_iter().map(|w| w as f32 * scale).collect();
        let (items, entities) = (vec![0.0; 4], vec![0.0; 5]);
        let ranker = Ranker { shape: shape.clone(), dense, items, entities, calibration: vec![[1.0, 0.0]; 2] };
        let mut numbers = |n: usize| (0..n).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
        let (input, candidates) = (numbers(shape.inputs), numbers(6 * shape.candidate()));
        let labels = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, f32::NAN, 1.0, 0.0, 0.0, 0.0];
        let mut adapter = ranker.adapter().unwrap();
        let start = adapter.adapt(&input, None, &[], &[], 3).unwrap().embedding.to_vec();
        let adapted = adapter.adapt(&input, None, &candidates, &labels, 3).unwrap();
        match adapted.accepted {
            true => assert!(adapted.after <= adapted.before && adapted.embedding.iter().all(|x| x.is_finite())),
            false => assert!(adapted.embedding.iter().map(|x| x.to_bits()).eq(start.iter().map(|x| x.to_bits()))),
        }
        taken += usize::from(adapted.accepted && adapted.embedding != start);
        refused += usize::from(!adapted.accepted);
    }
    assert!(refused > 10 && taken > 10, "{refused} refused, {taken} taken");
}
