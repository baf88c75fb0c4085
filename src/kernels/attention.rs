//! Causal self-attention over packed sequences with distance and time biases, forward and backward.
//!
//! Scores are made a block of rows at a time and never past the diagonal block, so no `L x L` matrix exists. The
//! backward pass makes them again instead of keeping them.

use super::dispatch::dispatch;

use super::math::{Real, add, dot_inline, multiply, scale, sigmoid, silu_slope};
use super::matmul::{View, matmul};
use super::softmax::softmax_inline;

/// Buckets of the distance in tokens: exact below [`EXACT`], then four per octave.
pub(crate) const DISTANCE_BUCKETS: usize = 64;
/// Buckets of the time gap: 0 is unknown, then one per octave of seconds.
pub(crate) const TIME_BUCKETS: usize = 34;
const EXACT: usize = 32;
const ROWS: usize = 64;

/// A time that is not known.
pub(crate) const NO_TIME: i64 = i64::MIN;

/// The bucket of a distance in tokens.
pub(crate) fn distance_bucket(distance: usize) -> usize {
    if distance < EXACT {
        return distance;
    }
    let quarter = (4.0 * (distance as f64 / EXACT as f64).log2()).floor() as usize;
    (EXACT + quarter).min(DISTANCE_BUCKETS - 1)
}

/// The bucket of the gap between two times in seconds; 0 if one is unknown. Negative gaps count as none.
#[inline(always)]
pub(crate) fn time_bucket(later: i64, earlier: i64) -> usize {
    if later == NO_TIME || earlier == NO_TIME {
        return 0;
    }
    let gap = later.saturating_sub(earlier).max(0) as u64;
    (1 + (64 - (gap + 1).leading_zeros() as usize - 1)).min(TIME_BUCKETS - 1)
}

/// What turns a row of scores into the weights of its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// The softmax of the row (Vaswani et al. 2017).
    Softmax,
    /// The SiLU of each score over the number of keys that the row sees (HSTU, Zhai et al. 2024, section 3.1). A weight may
    /// be negative and a row does not sum to 1.
    ///
    /// The published code divides by the longest length instead. The layer norm that follows takes any divisor out again, so
    /// only conditioning differs: a constant of 200 pushes the values of short histories below the norm's epsilon.
    Silu,
}

/// The shape of one attention layer. The bias table is `[heads, biases()]`: distance buckets, then time buckets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AttentionShape {
    /// Heads.
    pub heads: usize,
    /// Width of each head.
    pub head: usize,
    /// What scores become.
    pub activation: Activation,
    /// Whether queries and keys are rotated by their place.
    pub rotary: bool,
    /// Whether there is a bias per distance bucket.
    pub distance: bool,
    /// Whether there is a bias per time bucket.
    pub time: bool,
}

impl AttentionShape {
    /// Columns of the bias table; at least 1, so that the table is never empty.
    pub(crate) fn biases(&self) -> usize {
        let n = if self.distance { DISTANCE_BUCKETS } else { 0 } + if self.time { TIME_BUCKETS } else { 0 };
        n.max(1)
    }
}

/// When each token asks (`query`) and when what it holds happened (`key`), in seconds; empty without time bias.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times<'a> {
    /// Time of each token as a query.
    pub query: &'a [i64],
    /// Time of each token as a key.
    pub key: &'a [i64],
}

/// Buffers of one caller.
#[derive(Debug, Default)]
pub(crate) struct Workspace<T = f32> {
    q: Vec<T>,
    k: Vec<T>,
    v: Vec<T>,
    scores: Vec<T>,
    grads: Vec<T>,
    slopes: Vec<T>,
    distance: Vec<T>,
    ddistance: Vec<T>,
    dq: Vec<T>,
    dk: Vec<T>,
    dv: Vec<T>,
    turns: Vec<T>,
}

fn resize<T: Real>(v: &mut Vec<T>, n: usize) {
    if v.len() < n {
        v.resize(n, T::ZERO);
    }
}

impl<T: Real> Workspace<T> {
    /// Cosine and sine of each place and pair, `[n, head / 2, 2]` (Su et al. 2021, base 10,000).
    fn prepare_turns(&mut self, n: usize, head: usize) {
        let half = head / 2;
        let have = self.turns.len() / (2 * half).max(1);
        for place in have..n {
            for i in 0..half {
                let angle = place as f64 * 10_000f64.powf(-(i as f64) / half as f64);
                self.turns.extend([angle.cos() as f32, angle.sin() as f32].map(|x| T::of(f64::from(x))));
            }
        }
    }

    /// Copies one head's part (0 queries, 1 keys, 2 values) of `qkv` into a dense matrix, rotated and scaled if asked.
    #[allow(clippy::too_many_arguments)]
    fn load(
        shape: &AttentionShape,
        qkv: &[T],
        n: usize,
        head: usize,
        part: usize,
        turns: &[T],
        factor: T,
        to: &mut [T],
    ) {
        let (d, w) = (shape.heads * shape.head, shape.head);
        for i in 0..n {
            let at = i * 3 * d + part * d + head * w;
            let (row, to) = (&qkv[at..at + w], &mut to[i * w..(i + 1) * w]);
            if shape.rotary && part < 2 {
                rotate(row, &turns[i * w..(i + 1) * w], factor, T::ONE, to);
            } else {
                to.iter_mut().zip(row).for_each(|(t, r)| *t = *r * factor);
            }
        }
    }

    fn load_distance(&mut self, shape: &AttentionShape, bias: &[T], n: usize, head: usize) {
        resize(&mut self.distance, n);
        if shape.distance {
            let row = &bias[head * shape.biases()..];
            for distance in 0..n {
                self.distance[n - 1 - distance] = row[distance_bucket(distance)];
            }
        }
    }
}

/// Rotates the pairs (i, i + half) of `row`; `direction` -1 turns back.
fn rotate<T: Real>(row: &[T], turns: &[T], factor: T, direction: T, to: &mut [T]) {
    let half = row.len() / 2;
    for i in 0..half {
        let (c, s) = (turns[2 * i], turns[2 * i + 1] * direction);
        to[i] = (row[i] * c - row[i + half] * s) * factor;
        to[i + half] = (row[i] * s + row[i + half] * c) * factor;
    }
}

/// The biases of one head's scores.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Biases<'a, T = f32> {
    /// By distance, the farthest first; empty without.
    distance: &'a [T],
    /// By time bucket; empty without.
    time: &'a [T],
    times: Times<'a>,
}

impl<T: Real> Biases<'_, T> {
    /// Adds to row `i` of the scores, which is as long as the row sees.
    #[inline(always)]
    fn add_to(self, i: usize, seen: &mut [T]) {
        let n = self.distance.len();
        if n > 0 {
            for (s, b) in seen.iter_mut().zip(&self.distance[n - 1 - i..]) {
                *s += *b;
            }
        }
        if !self.time.is_empty() {
            let now = self.times.query[i];
            for (s, &t) in seen.iter_mut().zip(self.times.key) {
                *s += self.time[time_bucket(now, t)];
            }
        }
    }
}

dispatch! {
    /// Adds the biases to rows `first..` of scores (`[rows, stride]`) and turns each causal row into its softmax.
    fn softmax_rows<T>(scores: &mut [T], stride: usize, first: usize, biases: Biases<'_, T>) {
        for (r, row) in scores.chunks_exact_mut(stride).enumerate() {
            let i = first + r;
            let (seen, hidden) = row.split_at_mut(i + 1);
            biases.add_to(i, seen);
            softmax_inline(seen);
            hidden.fill(T::ZERO);
        }
    }
}

dispatch! {
    /// As [`softmax_rows`], with the weights of [`Activation::Silu`]. `slopes` gets their derivatives, unless it is empty.
    fn silu_rows<T>(scores: &mut [T], slopes: &mut [T], stride: usize, first: usize, biases: Biases<'_, T>) {
        let mut slopes = slopes.chunks_exact_mut(stride);
        for (r, row) in scores.chunks_exact_mut(stride).enumerate() {
            let i = first + r;
            let share = T::ONE / T::of((i + 1) as f64);
            let (seen, hidden) = row.split_at_mut(i + 1);
            biases.add_to(i, seen);
            if let Some(slopes) = slopes.next() {
                let (slopes, hidden) = slopes.split_at_mut(i + 1);
                for (d, s) in slopes.iter_mut().zip(seen.iter()) {
                    *d = silu_slope(*s) * share;
                }
                hidden.fill(T::ZERO);
            }
            for s in seen.iter_mut() {
                *s = *s * sigmoid(*s) * share;
            }
            hidden.fill(T::ZERO);
        }
    }
}

dispatch! {
    /// Turns the gradients of probabilities into those of scores, row by row, in place.
    fn softmax_rows_backward<T>(probabilities: &[T], grads: &mut [T], stride: usize) {
        for (p, g) in probabilities.chunks_exact(stride).zip(grads.chunks_exact_mut(stride)) {
            let delta = dot_inline(p, g);
            for (g, p) in g.iter_mut().zip(p) {
                *g = *p * (*g - delta);
            }
        }
    }
}

/// Attention of one sequence of `n` tokens: `qkv` is `[n, 3 d]`, `bias` as [`AttentionShape::biases`] says, `out` is `[n, d]`, of
/// which rows before `from` are left alone.
pub(crate) fn attention<T: Real>(
    shape: &AttentionShape,
    qkv: &[T],
    bias: &[T],
    times: Times<'_>,
    from: usize,
    out: &mut [T],
    ws: &mut Workspace<T>,
) {
    let (w, d) = (shape.head, shape.heads * shape.head);
    let n = qkv.len() / (3 * d);
    prepare(shape, n, ws);
    for head in 0..shape.heads {
        load_head(shape, qkv, bias, n, head, ws);
        let biases = head_biases(shape, &ws.distance[..n], bias, times, head);
        let mut first = from;
        while first < n {
            let last = (first + ROWS).min(n);
            let rows = last - first;
            let scores = &mut ws.scores[..rows * last];
            let q = View::dense(&ws.q[first * w..], rows, w);
            matmul(q, View::dense(&ws.k, last, w).t(), scores, last, false);
            match shape.activation {
                Activation::Softmax => softmax_rows(scores, last, first, biases),
                Activation::Silu => silu_rows(scores, &mut [], last, first, biases),
            }
            let (weights, v) = (View::dense(scores, rows, last), View::dense(&ws.v, last, w));
            matmul(weights, v, &mut out[first * d + head * w..], d, false);
            first = last;
        }
    }
}

fn prepare<T: Real>(shape: &AttentionShape, n: usize, ws: &mut Workspace<T>) {
    let w = shape.head;
    [&mut ws.q, &mut ws.k, &mut ws.v].into_iter().for_each(|b| resize(b, n * w));
    resize(&mut ws.scores, ROWS.min(n) * n);
    if shape.rotary {
        ws.prepare_turns(n, w);
    }
}

fn load_head<T: Real>(shape: &AttentionShape, qkv: &[T], bias: &[T], n: usize, head: usize, ws: &mut Workspace<T>) {
    let factor = T::ONE / T::of(shape.head as f64).sqrt();
    Workspace::load(shape, qkv, n, head, 0, &ws.turns, factor, &mut ws.q);
    Workspace::load(shape, qkv, n, head, 1, &ws.turns, T::ONE, &mut ws.k);
    Workspace::load(shape, qkv, n, head, 2, &ws.turns, T::ONE, &mut ws.v);
    ws.load_distance(shape, bias, n, head);
}

fn head_biases<'a, T: Real>(
    shape: &AttentionShape,
    distance: &'a [T],
    bias: &'a [T],
    times: Times<'a>,
    head: usize,
) -> Biases<'a, T> {
    let start = head * shape.biases() + if shape.distance { DISTANCE_BUCKETS } else { 0 };
    Biases {
        distance: if shape.distance { distance } else { &[] },
        time: if shape.time { &bias[start..start + TIME_BUCKETS] } else { &[] },
        times,
    }
}

/// Gradients of [`attention`] over a whole sequence: `dqkv` is overwritten, `dbias` is added to.
#[allow(clippy::too_many_arguments)]
pub(crate) fn attention_backward<T: Real>(
    shape: &AttentionShape,
    qkv: &[T],
    bias: &[T],
    times: Times<'_>,
    dout: &[T],
    dqkv: &mut [T],
    dbias: &mut [T],
    ws: &mut Workspace<T>,
) {
    let (w, d) = (shape.head, shape.heads * shape.head);
    let n = qkv.len() / (3 * d);
    prepare(shape, n, ws);
    resize(&mut ws.grads, ROWS.min(n) * n);
    if shape.activation == Activation::Silu {
        resize(&mut ws.slopes, ROWS.min(n) * n);
    }
    [&mut ws.dq, &mut ws.dk, &mut ws.dv].into_iter().for_each(|b| resize(b, n * w));
    resize(&mut ws.ddistance, n);
    for head in 0..shape.heads {
        load_head(shape, qkv, bias, n, head, ws);
        ws.dk[..n * w].fill(T::ZERO);
        ws.dv[..n * w].fill(T::ZERO);
        ws.ddistance[..n].fill(T::ZERO);
        let biases = head_biases(shape, &ws.distance[..n], bias, times, head);
        let mut dtime = [T::ZERO; TIME_BUCKETS];
        let mut first = 0;
        while first < n {
            let last = (first + ROWS).min(n);
            let rows = last - first;
            let scores = &mut ws.scores[..rows * last];
            let grads = &mut ws.grads[..rows * last];
            let q = View::dense(&ws.q[first * w..], rows, w);
            matmul(q, View::dense(&ws.k, last, w).t(), scores, last, false);
            match shape.activation {
                Activation::Softmax => softmax_rows(scores, last, first, biases),
                Activation::Silu => silu_rows(scores, &mut ws.slopes[..rows * last], last, first, biases),
            }
            let dout = View::rows(&dout[first * d + head * w..], rows, w, d);
            matmul(dout, View::dense(&ws.v, last, w).t(), grads, last, false);
            matmul(View::dense(scores, rows, last).t(), dout, &mut ws.dv, w, true);
            match shape.activation {
                Activation::Softmax => softmax_rows_backward(scores, grads, last),
                Activation::Silu => multiply(grads, &ws.slopes[..rows * last]),
            }
            if shape.distance {
                for (r, row) in grads.chunks_exact(last).enumerate() {
                    let i = first + r;
                    add(&mut ws.ddistance[n - 1 - i..n], &row[..=i]);
                }
            }
            if shape.time {
                for (r, row) in grads.chunks_exact(last).enumerate() {
                    let now = times.query[first + r];
                    for (g, &t) in row[..=first + r].iter().zip(times.key) {
                        dtime[time_bucket(now, t)] += *g;
                    }
                }
            }
            let ds = View::dense(grads, rows, last);
            matmul(ds, View::dense(&ws.k, last, w), &mut ws.dq[first * w..], w, false);
            matmul(ds.t(), q, &mut ws.dk, w, true);
            first = last;
        }
        scale(&mut ws.dq[..n * w], T::ONE / T::of(w as f64).sqrt());
        for (part, grad) in [&ws.dq, &ws.dk, &ws.dv].into_iter().enumerate() {
            for i in 0..n {
                let at = i * 3 * d + part * d + head * w;
                let (from, to) = (&grad[i * w..(i + 1) * w], &mut dqkv[at..at + w]);
                if shape.rotary && part < 2 {
                    rotate(from, &ws.turns[i * w..(i + 1) * w], T::ONE, -T::ONE, to);
                } else {
                    to.copy_from_slice(from);
                }
            }
        }
        let dbias = &mut dbias[head * shape.biases()..(head + 1) * shape.biases()];
        if shape.distance {
            for distance in 0..n {
                dbias[distance_bucket(distance)] += ws.ddistance[n - 1 - distance];
            }
        }
        if shape.time {
            let start = if shape.distance { DISTANCE_BUCKETS } else { 0 };
            add(&mut dbias[start..], &dtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attention by its definition, in f64.
    fn defined(shape: &AttentionShape, qkv: &[f32], bias: &[f32], times: Times<'_>) -> Vec<f64> {
        let (w, d) = (shape.head, shape.heads * shape.head);
        let n = qkv.len() / (3 * d);
        let mut out = vec![0.0; n * d];
        for (head, i) in (0..shape.heads).flat_map(|head| (0..n).map(move |i| (head, i))) {
            let at = |token: usize, part: usize, c: usize| f64::from(qkv[token * 3 * d + part * d + head * w + c]);
            let score = |j: usize| {
                let mut score = (0..w).map(|c| at(i, 0, c) * at(j, 1, c)).sum::<f64>() / (w as f64).sqrt();
                let row = &bias[head * shape.biases()..];
                if shape.distance {
                    score += f64::from(row[distance_bucket(i - j)]);
                }
                if shape.time {
                    let first = if shape.distance { DISTANCE_BUCKETS } else { 0 };
                    score += f64::from(row[first + time_bucket(times.query[i], times.key[j])]);
                }
                score
            };
            let total: f64 = (0..=i).map(|j| score(j).exp()).sum();
            for j in 0..=i {
                let weight = match shape.activation {
                    Activation::Softmax => score(j).exp() / total,
                    Activation::Silu => score(j) / (1.0 + (-score(j)).exp()) / (i + 1) as f64,
                };
                (0..w).for_each(|c| out[i * d + head * w + c] += weight * at(j, 2, c));
            }
        }
        out
    }

    #[test]
    fn attention_equals_its_definition_with_and_without_biases() {
        let n = 2 * ROWS + 7;
        let mut rng = crate::random::Rng::new(8);
        let mut normal = |n: usize| (0..n).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
        let qkv = normal(n * 3 * 10);
        let key: Vec<i64> = (0..n as i64).map(|i| i * i * 50).collect();
        let query: Vec<i64> = key.iter().map(|t| t + 900).collect();
        for activation in [Activation::Softmax, Activation::Silu] {
            for (distance, time) in [(false, false), (true, false), (false, true), (true, true)] {
                let shape = AttentionShape { heads: 2, head: 5, activation, rotary: false, distance, time };
                let bias = normal(2 * shape.biases());
                let times = if time { Times { query: &query, key: &key } } else { Times::default() };
                let want = defined(&shape, &qkv, &bias, times);
                let mut ws = Workspace::default();
                for from in [0, 70] {
                    let mut got = vec![9.0; n * 10];
                    attention(&shape, &qkv, &bias, times, from, &mut got, &mut ws);
                    assert!(got[..from * 10].iter().all(|v| *v == 9.0));
                    for (g, w) in got.iter().zip(&want).skip(from * 10) {
                        assert!((f64::from(*g) - w).abs() < 1e-5, "{shape:?} from {from}: {g} against {w}");
                    }
                }
            }
        }
    }

    #[test]
    fn buckets_grow_with_their_argument_and_stay_in_range() {
        let mut before = 0;
        for distance in 0..100_000 {
            let b = distance_bucket(distance);
            assert!(b >= before && b < DISTANCE_BUCKETS);
            before = b;
        }
        assert_eq!(time_bucket(NO_TIME, 3), 0);
        assert_eq!(time_bucket(5, 5), 1);
        assert_eq!(time_bucket(6, 5), 2);
        assert_eq!(time_bucket(3, 5), 1);
        assert_eq!(time_bucket(i64::MAX, i64::MIN + 1), TIME_BUCKETS - 1);
    }
}
