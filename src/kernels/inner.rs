//! The inner loop of meta learning (LiMAML; MAML, Finn et al. 2017): K gradient steps of the meta block on one entity's support
//! rows, and the gradient through them.
//!
//! The block is a multilayer perceptron that an entity passes with a single input `x`. So a step changes layer `l`'s matrix
//! by an outer product, and after k steps (rates `f_j alpha` of matrices and `f_j beta` of biases in step j, `f_j = rate_decay^j`)
//!
//! ```text
//! W_k a_k + b_k = W a_k + b - sum_{j<k} f_j (alpha (a_j . a_k) + beta) d_j
//! W_k^T d_k     = W^T d_k   - sum_{j<k} f_j alpha (d_j . d_k) a_j
//! ```
//!
//! where `a_j` is what the layer read in step j and `d_j` the gradient at its output. Neither the adapted matrices nor their
//! gradients are ever written out: an entity costs two products with the shared matrices a step, and its state is some
//! vectors. The same recursion, run backwards, is the exact meta-gradient; with the `d_j` held it is the first-order one.
//! `ranker/composed` does the same with whole matrices, as tensor operations; tests hold the two together.

use super::dispatch::dispatch;
use super::heads::{
    Heads, Into, Rows, Work, add_outer, apply, apply_transposed, axpy, curvature_inline, logits_inline, loss_inline,
    value_inline,
};
use super::math::{Real, dot_inline, sigmoid, silu_slope};

/// One layer of the meta block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer<'a, T> {
    /// `[outputs, inputs]`.
    pub weight: &'a [T],
    /// `[outputs]`.
    pub bias: &'a [T],
    /// Inner rate of the matrix: alpha.
    pub rate: T,
    /// Inner rate of the bias: beta.
    pub bias_rate: T,
}

impl<T> Layer<'_, T> {
    fn outputs(&self) -> usize {
        self.bias.len()
    }
}

/// What the passes share: the block and the rows' weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Adaptation<'a, T> {
    /// The layers, SiLU after each but the last.
    pub layers: &'a [Layer<'a, T>],
    /// The heads that the loss is made of.
    pub heads: Heads<'a, T>,
    /// Inner steps K.
    pub steps: usize,
    /// The inner loss is the sum over the rows divided by their number plus this.
    pub prior_count: T,
    /// Each step's rates are those of the step before times this: the first step does most, and many steps settle.
    pub rate_decay: T,
}

/// One layer's vectors by step, each `[steps + 1, outputs]`.
#[derive(Debug, Clone, Default)]
struct LayerTrace<T> {
    /// Outputs before the activation; of the last layer the meta embedding.
    z: Vec<T>,
    /// Outputs after the activation.
    a: Vec<T>,
    /// Gradients of the inner loss at z.
    d: Vec<T>,
    /// The same at a (hidden layers).
    g: Vec<T>,
    /// Adjoints of z, a and d in the pass back.
    bar_z: Vec<T>,
    bar_a: Vec<T>,
    bar_d: Vec<T>,
}

/// What one entity's pass leaves behind, and the buffers that it works in. One per thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace<T> {
    layers: Vec<LayerTrace<T>>,
    width: usize,
    /// The loss on the support rows before each step, as the inner loop minimises it.
    pub losses: Vec<T>,
    /// Factor of the rates in each step.
    decays: Vec<T>,
    work: Work<T>,
    spare: Vec<T>,
}

impl<T: Real> Trace<T> {
    fn fit(&mut self, adaptation: &Adaptation<'_, T>) {
        let times = adaptation.steps + 1;
        self.layers.resize_with(adaptation.layers.len(), LayerTrace::default);
        let mut widest = 0;
        for (trace, layer) in self.layers.iter_mut().zip(adaptation.layers) {
            let n = times * layer.outputs();
            widest = widest.max(layer.outputs());
            for v in [&mut trace.z, &mut trace.a, &mut trace.d, &mut trace.g] {
                v.resize(n, T::ZERO);
            }
        }
        self.width = adaptation.heads.widths.embedding;
        self.losses.clear();
        self.decays.clear();
        let mut factor = T::ONE;
        for _ in 0..adaptation.steps {
            self.decays.push(factor);
            factor *= adaptation.rate_decay;
        }
        self.spare.resize(widest, T::ZERO);
        self.work.fit(adaptation.heads.widths);
    }

    /// The meta embedding after `step` steps.
    pub(crate) fn embedding(&self, step: usize) -> &[T] {
        match self.layers.last() {
            Some(last) => &last.z[step * self.width..(step + 1) * self.width],
            None => &[],
        }
    }

    fn start_back(&mut self) {
        for layer in &mut self.layers {
            let n = layer.z.len();
            for v in [&mut layer.bar_z, &mut layer.bar_a, &mut layer.bar_d] {
                v.clear();
                v.resize(n, T::ZERO);
            }
        }
    }
}

/// Where the gradients of a layer are added.
#[derive(Debug)]
pub(crate) struct LayerInto<'a, T> {
    /// `[outputs, inputs]`.
    pub weight: &'a mut [T],
    /// `[outputs]`.
    pub bias: &'a mut [T],
    /// Of alpha and beta.
    pub rates: &'a mut [T; 2],
}

/// What layer `l` read in step `k`.
#[inline(always)]
fn read<'t, T: Real>(x: &'t [T], before: &'t [LayerTrace<T>], layers: &[Layer<'_, T>], l: usize, k: usize) -> &'t [T] {
    match l {
        0 => x,
        _ => {
            let n = layers[l - 1].outputs();
            &before[l - 1].a[k * n..(k + 1) * n]
        }
    }
}

#[inline(always)]
fn adapt_body<T: Real>(
    adaptation: &Adaptation<'_, T>,
    x: &[T],
    shift: &[T],
    support: Rows<'_, T>,
    trace: &mut Trace<T>,
) {
    trace.fit(adaptation);
    let Adaptation { layers, heads, steps, prior_count, .. } = *adaptation;
    let last = layers.len() - 1;
    let rows = support.labels.len() / heads.widths.heads;
    let scale = T::ONE / (T::of(rows as f64) + prior_count);
    let of_x = dot_inline(x, x);
    // W x + b of the first layer does not change.
    let first = layers[0].outputs();
    let mut fixed = vec![T::ZERO; first];
    apply(layers[0].weight, x, &mut fixed);
    axpy(T::ONE, layers[0].bias, &mut fixed);
    for k in 0..=steps {
        for (l, layer) in layers.iter().enumerate() {
            let n = layer.outputs();
            let (before, rest) = trace.layers.split_at_mut(l);
            let own = &mut rest[0];
            let at = k * n..(k + 1) * n;
            let z = &mut own.z[at.clone()];
            let input = read(x, before, layers, l, k);
            match l {
                0 => z.copy_from_slice(&fixed),
                _ => {
                    apply(layer.weight, input, z);
                    axpy(T::ONE, layer.bias, z);
                }
            }
            for j in 0..k {
                let alike = if l == 0 { of_x } else { dot_inline(read(x, before, layers, l, j), input) };
                axpy(-(layer.rate * alike + layer.bias_rate) * trace.decays[j], &own.d[j * n..(j + 1) * n], z);
            }
            if l == last {
                axpy(T::ONE, shift, z);
            } else {
                for (a, z) in own.a[at].iter_mut().zip(z.iter()) {
                    *a = *z * sigmoid(*z);
                }
            }
        }
        if k == steps {
            break;
        }
        // The gradient, from the embedding down to the first layer.
        let n = layers[last].outputs();
        let own = &mut trace.layers[last];
        let de = &mut own.d[k * n..(k + 1) * n];
        de.fill(T::ZERO);
        let e = &own.z[k * n..(k + 1) * n];
        trace.losses.push(loss_inline(&heads, support, e, scale, de, None, &mut trace.work));
        for l in (1..layers.len()).rev() {
            let (n, inputs) = (layers[l].outputs(), layers[l - 1].outputs());
            let (before, rest) = trace.layers.split_at_mut(l);
            let (below, own) = (&mut before[l - 1], &rest[0]);
            let g = &mut below.g[k * inputs..(k + 1) * inputs];
            g.fill(T::ZERO);
            let d = &own.d[k * n..(k + 1) * n];
            apply_transposed(layers[l].weight, d, g);
            for j in 0..k {
                let alike = trace.decays[j] * layers[l].rate * dot_inline(&own.d[j * n..(j + 1) * n], d);
                axpy(-alike, &below.a[j * inputs..(j + 1) * inputs], g);
            }
            for i in k * inputs..(k + 1) * inputs {
                below.d[i] = below.g[i] * silu_slope(below.z[i]);
            }
        }
    }
}

dispatch! {
    /// Adapts the block to one entity: `x` is its input (`[inputs]` of the first layer), `shift` is added to the embedding
    /// (`[E]`), `support` are its rows. [`Trace::embedding`] then has the embedding after 0 to K steps.
    fn adapt<T>(
        adaptation: &Adaptation<'_, T>,
        x: &[T],
        shift: &[T],
        support: Rows<'_, T>,
        trace: &mut Trace<T>,
    ) {
        adapt_body(adaptation, x, shift, support, trace);
    }
}

dispatch! {
    /// The logits of rows under an embedding, `[n, heads]`.
    fn logits<T>(heads: &Heads<'_, T>, rows: &[T], e: &[T], work: &mut Work<T>, out: &mut [T]) {
        work.fit(heads.widths);
        logits_inline(heads, rows, e, work, out);
    }
}

dispatch! {
    /// The loss of rows under an embedding, summed, times `scale`.
    fn loss<T>(heads: &Heads<'_, T>, rows: Rows<'_, T>, e: &[T], scale: T, work: &mut Work<T>) -> T {
        work.fit(heads.widths);
        value_inline(heads, rows, e, scale, work)
    }
}

dispatch! {
    /// The outer loss of an entity that [`adapt`] has passed, and its gradient: the loss of the `query` rows under the
    /// embedding of each step, weighted by `weights` (`[K + 1]`) and `scale`. Gradients are added to `layers`, to `into` (the
    /// query's rows), to `support_rows` (`[n, row]`, only if `exact`) and to `shift`.
    fn adapt_backward<T>(
        adaptation: &Adaptation<'_, T>,
        x: &[T],
        support: Rows<'_, T>,
        query: Rows<'_, T>,
        weights: &[T],
        scale: T,
        exact: bool,
        trace: &mut Trace<T>,
        layers: &mut [LayerInto<'_, T>],
        into: &mut Into<'_, T>,
        support_rows: &mut [T],
        shift: &mut [T],
    ) -> T {
        trace.start_back();
        let loss = query_back(adaptation, query, weights, scale, trace, into);
        for k in (0..=adaptation.steps).rev() {
            if exact && k < adaptation.steps {
                gradient_back(adaptation, k, support, trace, layers, into, support_rows);
            }
            let n = trace.width;
            if let Some(last) = trace.layers.last() {
                axpy(T::ONE, &last.bar_z[k * n..(k + 1) * n], shift);
            }
            forward_back(adaptation, x, k, exact, trace, layers);
        }
        loss
    }
}

/// The loss of the query under each step's embedding, and the adjoints of the embeddings.
#[inline(always)]
fn query_back<T: Real>(
    adaptation: &Adaptation<'_, T>,
    query: Rows<'_, T>,
    weights: &[T],
    scale: T,
    trace: &mut Trace<T>,
    into: &mut Into<'_, T>,
) -> T {
    let mut loss = T::ZERO;
    let n = trace.width;
    let Some(last) = trace.layers.last_mut() else { return loss };
    for (k, weight) in weights.iter().enumerate().take(adaptation.steps + 1) {
        if *weight == T::ZERO {
            continue;
        }
        let (e, bar) = (&last.z[k * n..(k + 1) * n], &mut last.bar_z[k * n..(k + 1) * n]);
        loss += loss_inline(&adaptation.heads, query, e, scale * *weight, bar, Some(&mut *into), &mut trace.work);
    }
    loss
}

/// Back through the gradient of step `k`: from the adjoints of all `d_k` to those of what they were made of.
#[inline(always)]
fn gradient_back<T: Real>(
    adaptation: &Adaptation<'_, T>,
    k: usize,
    support: Rows<'_, T>,
    trace: &mut Trace<T>,
    layers: &mut [LayerInto<'_, T>],
    into: &mut Into<'_, T>,
    support_rows: &mut [T],
) {
    let all = adaptation.layers;
    for l in 1..all.len() {
        let (n, inputs) = (all[l].outputs(), all[l - 1].outputs());
        let (before, rest) = trace.layers.split_at_mut(l);
        let (below, own) = (&mut before[l - 1], &mut rest[0]);
        let bar_g = &mut trace.spare[..inputs];
        for (i, bar) in (k * inputs..(k + 1) * inputs).zip(bar_g.iter_mut()) {
            let (z, bar_d) = (below.z[i], below.bar_d[i]);
            let s = sigmoid(z);
            *bar = bar_d * silu_slope(z);
            below.bar_z[i] += bar_d * below.g[i] * s * (T::ONE - s) * (T::of(2.0) + z * (T::ONE - s - s));
        }
        add_outer(&own.d[k * n..(k + 1) * n], bar_g, layers[l].weight);
        let mut more = [T::ZERO; 1];
        for (o, row) in all[l].weight.chunks_exact(inputs).enumerate() {
            apply(row, bar_g, &mut more);
            own.bar_d[k * n + o] += more[0];
        }
        let (earlier, bar_now) = own.bar_d.split_at_mut(k * n);
        let bar_now = &mut bar_now[..n];
        let (d_earlier, d_now) = own.d.split_at(k * n);
        let d_now = &d_now[..n];
        for j in 0..k {
            let (d, a) = (&d_earlier[j * n..(j + 1) * n], j * inputs..(j + 1) * inputs);
            let (rate_decay, s) = (trace.decays[j], dot_inline(d, d_now));
            let t = dot_inline(&below.a[a.clone()], bar_g);
            let rate = rate_decay * all[l].rate;
            layers[l].rates[0] -= rate_decay * s * t;
            axpy(-(rate * t), d_now, &mut earlier[j * n..(j + 1) * n]);
            axpy(-(rate * t), d, bar_now);
            axpy(-(rate * s), bar_g, &mut below.bar_a[a]);
        }
    }
    let rows = support.labels.len() / adaptation.heads.widths.heads;
    let scale = T::ONE / (T::of(rows as f64) + adaptation.prior_count);
    let n = trace.width;
    let Some(last) = trace.layers.last_mut() else { return };
    let at = k * n..(k + 1) * n;
    let mut own = Into { rows: support_rows, mix: &mut *into.mix, out: &mut *into.out };
    let (e, u) = (&last.z[at.clone()], &last.bar_d[at.clone()]);
    curvature_inline(&adaptation.heads, support, e, u, scale, &mut last.bar_z[at], &mut own, &mut trace.work);
}

/// Back through the layers of step `k`: from the adjoint of its embedding to those of the weights, rates, and of earlier steps.
#[inline(always)]
fn forward_back<T: Real>(
    adaptation: &Adaptation<'_, T>,
    x: &[T],
    k: usize,
    exact: bool,
    trace: &mut Trace<T>,
    layers: &mut [LayerInto<'_, T>],
) {
    let all = adaptation.layers;
    for l in (0..all.len()).rev() {
        let n = all[l].outputs();
        let (before, rest) = trace.layers.split_at_mut(l);
        let own = &mut rest[0];
        if l + 1 < all.len() {
            for i in k * n..(k + 1) * n {
                own.bar_z[i] += own.bar_a[i] * silu_slope(own.z[i]);
            }
        }
        let bar = &own.bar_z[k * n..(k + 1) * n];
        add_outer(bar, read(x, before, all, l, k), layers[l].weight);
        axpy(T::ONE, bar, layers[l].bias);
        if let Some(below) = before.last_mut() {
            let inputs = all[l - 1].outputs();
            apply_transposed(all[l].weight, bar, &mut below.bar_a[k * inputs..(k + 1) * inputs]);
        }
        for j in 0..k {
            let (d, rate_decay) = (j * n..(j + 1) * n, trace.decays[j]);
            let (rate, bias_rate) = (rate_decay * all[l].rate, rate_decay * all[l].bias_rate);
            let along = dot_inline(bar, &own.d[d.clone()]);
            let alike = dot_inline(read(x, before, all, l, j), read(x, before, all, l, k));
            layers[l].rates[0] -= rate_decay * along * alike;
            layers[l].rates[1] -= rate_decay * along;
            if exact {
                axpy(-(rate * alike + bias_rate), bar, &mut own.bar_d[d]);
            }
            if let Some(below) = before.last_mut() {
                let inputs = all[l - 1].outputs();
                let (old, now) = below.a.split_at(k * inputs);
                let (old, now) = (&old[j * inputs..(j + 1) * inputs], &now[..inputs]);
                let (bar_old, bar_now) = below.bar_a.split_at_mut(k * inputs);
                axpy(-(rate * along), old, &mut bar_now[..inputs]);
                if exact {
                    axpy(-(rate * along), now, &mut bar_old[j * inputs..(j + 1) * inputs]);
                }
            }
        }
    }
}
