//! The fused operations against finite differences and their composed oracle, and inference against the network.

#[cfg(feature = "candle")]
mod oracle;

use super::features::Tokens;
use super::graph::Packed;
use super::network::{Dropouts, Network};
use super::tape::{Memory, Tape};
use super::*;
use crate::kernels::math::Real;
use crate::kernels::retrieve::dot;
use crate::kernels::softmax::{Candidates, Objective, Targets, cross_entropy, sampled_loss, set_cross_entropy};
use crate::options::{Auxiliary, Block, ModelOptions, Positions};
use crate::random::Rng;
use crate::schema::{EventField, Field, FieldKind, Schema, Timing};
use std::sync::Arc;

fn schema() -> Schema {
    let field = |name: &str, timing| EventField {
        field: Field { name: name.into(), kind: FieldKind::Categorical(vec!["a".into(), "b".into(), "c".into()]) },
        timing,
    };
    Schema {
        has_time: true,
        actions: vec!["view".into(), "like".into()],
        event_fields: vec![field("device", Timing::Request), field("answer", Timing::PostAction)],
        ..Schema::default()
    }
}

fn options(positions: Positions) -> ModelOptions {
    ModelOptions {
        width: 12,
        heads: 2,
        hidden: 20,
        blocks: 2,
        max_length: 90,
        field_width: 5,
        positions,
        normalized: false,
        temperature: 1.0,
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
    let network = Network::new(options, Features::new(&schema, options).unwrap());
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
            first: Vec::new(),
            action: (0..n).map(|_| rng.below(2) as u16).collect(),
            value: Vec::new(),
            fields: (0..2).map(|_| (0..n).map(|_| rng.below(4) as u32).collect()).collect(),
        }
    };
    let histories = [3, 1, 71, 80].map(history).into();
    World { network, inference, dense, items, tables, histories }
}

impl World {
    /// Packed tokens of all histories: leaf, embedded features, places, targets.
    fn batch(&self) -> (Vec<f32>, Vec<f32>, Arc<Packed>, Vec<u32>) {
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
        (x, fields, Arc::new(packed), targets)
    }
}

struct Outcome {
    loss: f64,
    grads: Vec<(String, Vec<f64>)>,
}

/// What a pass is run with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Full,
    Sampled(Objective, bool),
}

const KINDS: [Kind; 4] = [
    Kind::Full,
    Kind::Sampled(Objective::Softmax, false),
    Kind::Sampled(Objective::Softmax, true),
    Kind::Sampled(Objective::Binary { beta: 0.4 }, true),
];

const NEGATIVES: [u32; 5] = [1, 4, 7, 7, 20];
const DROP: Dropouts = Dropouts { key: 5, rate: 0.3, first: 0 };

fn weights(n: usize) -> Vec<f32> {
    (0..n).map(|i| 0.5 + (i % 3) as f32).collect()
}

/// The shifts of targets and negatives.
fn shifts(shifted: bool) -> Vec<f32> {
    if shifted { (0..NEGATIVES.len()).map(|i| -0.2 * (i % 5) as f32 - 0.4).collect() } else { Vec::new() }
}

/// Each row's own target and, for every second row, the next row's target as well.
fn sets(targets: &[u32]) -> Targets {
    let mut sets = Targets::default();
    for (i, weight) in weights(targets.len()).into_iter().enumerate() {
        sets.rows.push(targets[i]);
        sets.weights.push(weight);
        if i % 2 == 1 {
            sets.rows.push(targets[(i + 1) % targets.len()]);
            sets.weights.push(0.3 * weight);
        }
        sets.close();
    }
    sets
}

/// Classes of auxiliary head `i`: none for every third row.
fn classes(i: usize, n: usize) -> Targets {
    let mut sets = Targets::default();
    for row in 0..n {
        if row % 3 > 0 {
            sets.rows.extend([((row + i) % 2) as u32, 1]);
            sets.weights.extend([0.2, 0.1]);
        }
        sets.close();
    }
    sets
}

fn pick<T: Copy>(table: &[T], rows: &[u32], d: usize) -> Vec<T> {
    rows.iter().flat_map(|r| &table[*r as usize * d..(*r as usize + 1) * d]).copied().collect()
}

/// The fused pass in f32 or f64.
fn fused<T: Real>(w: &World, kind: Kind, dense: &[T], memory: &mut Memory<T>) -> Outcome {
    let (x, fields, packed, targets) = w.batch();
    let (x, fields, items) = (real::<T>(&x), real::<T>(&fields), real::<T>(&w.items));
    let (d, n) = (w.network.options.width as usize, targets.len());
    let mut tape = Tape::new(&w.network.layout, dense, n, memory);
    let (x, fields) = (tape.leaf(x), tape.leaf(fields));
    let out = w.network.forward(&mut tape, x, Some(&fields), &packed, Some(DROP)).unwrap();
    let h = out.user;
    let (mut dh, mut logits) = (vec![T::ZERO; n * d], Vec::new());
    let mut extra = Vec::new();
    let user = tape.value(h);
    let loss = match kind {
        Kind::Full => {
            let mut di = vec![T::ZERO; items.len()];
            let loss = cross_entropy(user, &items, &sets(&targets), d, &mut dh, &mut di, &mut logits);
            extra.push(("items", di));
            loss
        }
        Kind::Sampled(objective, shifted) => {
            let (p, k) = (pick(&items, &targets, d), pick(&items, &NEGATIVES, d));
            let (mut dp, mut dk) = (vec![T::ZERO; p.len()], vec![T::ZERO; k.len()]);
            let negative_shift = shifts(shifted);
            let candidates = Candidates { targets: &targets, rows: &NEGATIVES, negative_shift: &negative_shift };
            let weights = weights(n);
            let (dp_, dk_) = (&mut dp, &mut dk);
            let loss = sampled_loss(user, &p, &k, &candidates, objective, &weights, d, &mut dh, dp_, dk_, &mut logits);
            extra.extend([("positives", dp), ("negatives", dk)]);
            loss
        }
    };
    let mut ddense = vec![T::ZERO; dense.len()];
    let (mut seeds, mut loss) = (vec![(h, dh)], loss);
    for (i, node) in out.heads.iter().enumerate() {
        let mut gradient = tape.value(*node).to_vec();
        loss += set_cross_entropy(&mut gradient, w.network.features.heads[i].classes, &classes(i, n));
        seeds.push((*node, gradient));
    }
    let leaves = tape.backward(seeds, &mut ddense);
    let wide = |v: &[T]| v.iter().map(|x| x.wide()).collect::<Vec<f64>>();
    let mut grads: Vec<(String, Vec<f64>)> =
        ["x", "fields"].iter().zip(&leaves).map(|(name, g)| (name.to_string(), wide(g))).collect();
    for weight in &w.network.layout.weights {
        if weight.name != "opening" && weight.name != "positions" {
            grads.push((weight.name.clone(), wide(&ddense[weight.range.clone()])));
        }
    }
    grads.extend(extra.iter().map(|(name, g)| (name.to_string(), wide(g))));
    Outcome { loss, grads }
}

fn real<T: Real>(values: &[f32]) -> Vec<T> {
    values.iter().map(|v| T::of(f64::from(*v))).collect()
}

/// Small shapes of every form.
fn shapes() -> [ModelOptions; 6] {
    let head = |field: &str, hierarchical| Auxiliary { field: field.into(), weight: 0.5, hierarchical };
    let auxiliary = vec![head("answer", true), head("action", false), head("device", true)];
    let headed = ModelOptions { auxiliary, ..options(Positions::Learned) };
    let (learned, rotary) = (options(Positions::Learned), options(Positions::Rotary));
    let hstu = |shape: &ModelOptions| ModelOptions { block: Block::Hstu, ..shape.clone() };
    let cosine = |shape: ModelOptions| ModelOptions { normalized: true, temperature: 0.2, ..shape };
    [hstu(&learned), cosine(hstu(&rotary)), cosine(learned.clone()), learned, rotary, cosine(headed)]
}

#[test]
fn fused_gradients_equal_finite_differences() {
    let mut memory = Memory::<f64>::default();
    for (i, shape) in shapes().iter().enumerate() {
        let (w, kind) = (world(shape, 4), KINDS[i % KINDS.len()]);
        let dense = real::<f64>(&w.dense);
        let at = fused(&w, kind, &dense, &mut memory);
        let mut rng = Rng::new(11);
        for weight in &w.network.layout.weights {
            let Some((_, grad)) = at.grads.iter().find(|(n, _)| *n == weight.name) else { continue };
            let i = rng.below(weight.range.len());
            let mut loss = |step: f64| {
                let mut dense = dense.clone();
                dense[weight.range.start + i] += step;
                fused(&w, kind, &dense, &mut memory).loss
            };
            // Richardson's extrapolation of central differences: the error falls with the fourth power of the step.
            let mut slope = |step: f64| (loss(step) - loss(-step)) / (2.0 * step);
            let slope = (4.0 * slope(5e-4) - slope(1e-3)) / 3.0;
            let scale = grad.iter().fold(1e-3f64, |m, g| m.max(g.abs()));
            assert!((slope - grad[i]).abs() < 1e-7 * scale, "{}[{i}]: {slope} against {}", weight.name, grad[i]);
        }
    }
}

#[test]
fn inference_equals_the_network() {
    for options in shapes() {
        let w = world(&options, 5);
        let d = w.network.options.width as usize;
        let (x, fields, packed, targets) = w.batch();
        let n = targets.len();
        let weights = Weights { items: &w.items, dense: &w.dense, features: &w.tables, more: &() };
        let mut memory = Memory::<f32>::default();
        let mut tape = Tape::new(&w.network.layout, &w.dense, n, &mut memory);
        let leaves = (tape.leaf(x.clone()), tape.leaf(fields.clone()));
        let h = w.network.forward(&mut tape, leaves.0, Some(&leaves.1), &packed, None).unwrap().user;
        let fused: Vec<Vec<f32>> = tape.value(h).chunks(d).map(<[f32]>::to_vec).collect();
        #[cfg(feature = "candle")]
        let found = [fused, oracle::users(&w, x, fields, &packed)];
        #[cfg(not(feature = "candle"))]
        let found = [fused];
        let mut scratch = Scratch::default();
        for h in found {
            for (s, full) in w.histories.iter().enumerate() {
                let n = full.items.len() - 1;
                let history = History {
                    items: full.items[..n].to_vec(),
                    time: full.time[..n].to_vec(),
                    first: Vec::new(),
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
    let options = ModelOptions { max_length: 8, ..options(Positions::Learned) };
    let w = world(&options, 6);
    let weights = Weights { items: &w.items, dense: &w.dense, features: &w.tables, more: &() };
    let full = &w.histories[2];
    let tail = |from: usize| History {
        items: full.items[from..].to_vec(),
        time: full.time[from..].to_vec(),
        first: Vec::new(),
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
    let weights = Weights { items: &w.items, dense: &w.dense, features: &w.tables, more: &() };
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

fn attribute(
    w: &World,
    options: &ModelOptions,
    history: &History,
    items: &[usize],
) -> crate::model::attribute::Attributed {
    let weights = Weights { items: &w.items, dense: &w.dense, features: &w.tables, more: &() };
    let d = options.width as usize;
    let vectors: Vec<&[f32]> = items.iter().map(|i| &w.items[i * d..(i + 1) * d]).collect();
    Attribution::new(&schema(), options).unwrap().attribute(weights, history, &Request::default(), &vectors).unwrap()
}

#[test]
fn attributions_add_up_to_the_score_less_the_base() {
    for block in [Block::Gated, Block::Hstu] {
        for (normalized, temperature, max_length) in [(false, 1.0, 90), (true, 0.05, 90), (true, 0.05, 20)] {
            let options = ModelOptions { block, normalized, temperature, max_length, ..options(Positions::Learned) };
            let w = world(&options, 9);
            let weights = Weights { items: &w.items, dense: &w.dense, features: &w.tables, more: &() };
            for history in &w.histories {
                let n = history.items.len();
                let found = attribute(&w, &options, history, &[0, 5, 22]);
                assert_eq!(found.events, n.saturating_sub(max_length as usize)..n);
                let mut user = vec![0.0; options.width as usize];
                let request = Request::default();
                w.inference.user_vector(weights, history, &request, &mut Scratch::default(), &mut user).unwrap();
                for ((by_event, score), base) in found.weights.iter().zip(&found.scores).zip(&found.bases) {
                    assert_eq!(by_event.len(), found.events.len());
                    let sum: f32 = by_event.iter().sum();
                    let miss = (sum - (score - base)).abs() / score.abs().max(base.abs());
                    assert!(miss <= 0.02, "{block:?}, {n} events: {sum} against {score} - {base}");
                }
                let own = dot(&user, &w.items[..options.width as usize]);
                assert!((found.scores[0] - own).abs() < 1e-4 * own.abs().max(1.0));
            }
        }
    }
}

#[test]
fn an_event_that_the_answer_does_not_depend_on_has_no_weight() {
    let options = options(Positions::Learned);
    let mut w = world(&options, 10);
    // Without what attention brings, a token knows of its own event alone: the last one.
    for b in 0..options.blocks {
        w.dense[w.network.layout.range(&format!("block.{b}.attention.out")).unwrap()].fill(0.0);
    }
    let found = attribute(&w, &options, &w.histories[2], &[3, 4]);
    for weights in &found.weights {
        let (last, others) = weights.split_last().unwrap();
        assert!(last.abs() > 1e-3, "{last}");
        assert!(others.iter().all(|x| *x == 0.0));
    }
    // With it, taking an event out of the sum moves the answer the way that its weight says, for the heaviest ones.
    let w = world(&options, 11);
    let weights = Weights { items: &w.items, dense: &w.dense, features: &w.tables, more: &() };
    let history = &w.histories[0];
    let found = attribute(&w, &options, history, &[7]);
    let none = MoreRow(vec![0.0; options.width as usize]);
    let with_none = Weights { more: &none, ..weights };
    let score = |h: &History| {
        let mut user = vec![0.0; options.width as usize];
        w.inference.user_vector(with_none, h, &Request::default(), &mut Scratch::default(), &mut user).unwrap();
        dot(&user, &w.items[7 * options.width as usize..8 * options.width as usize])
    };
    let drop = |event: usize| {
        let mut without = history.clone();
        without.items[event] = ITEMS as u32;
        score(history) - score(&without)
    };
    let heaviest = (0..3).max_by(|a, b| found.weights[0][*a].abs().total_cmp(&found.weights[0][*b].abs())).unwrap();
    assert_eq!(drop(heaviest).is_sign_positive(), found.weights[0][heaviest].is_sign_positive());
}

/// One further item.
#[derive(Debug)]
struct MoreRow(Vec<f32>);

impl MoreItems for MoreRow {
    fn count(&self) -> usize {
        1
    }
    fn vector(&self, at: usize) -> Option<&[f32]> {
        (at == 0).then_some(&self.0)
    }
}
