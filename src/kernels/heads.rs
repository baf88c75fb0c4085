//! The rows of one entity under its embedding `e`: logits per task head, their loss, its gradient, and the gradient of a
//! directional derivative of that loss (what an exact meta-gradient needs).
//!
//! A row comes from the trunk, which has not seen `e` (`ranker/trunk`): `[base | direction | offset]`, `2 H + heads * E + heads`
//! numbers. With `z = base + mix e` split into halves `a` and `b`, and `m = silu(a) * b`:
//!
//! ```text
//! logit_t = out_t . m + e . direction_t + offset_t
//! ```
//!
//! `e` enters late, so that an inner step costs `mix e` once an entity and `O(H + E)` a row.

use super::math::{Real, dot_inline, sigmoid};

/// Numbers of a row by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Widths {
    /// Width E of the embedding.
    pub embedding: usize,
    /// Width H of the gated layer.
    pub gate: usize,
    /// Task heads.
    pub heads: usize,
}

impl Widths {
    /// Numbers of a whole row.
    pub(crate) fn row(self) -> usize {
        2 * self.gate + self.heads * self.embedding + self.heads
    }

    fn direction(self, head: usize) -> std::ops::Range<usize> {
        let at = 2 * self.gate + head * self.embedding;
        at..at + self.embedding
    }

    fn offset(self, head: usize) -> usize {
        2 * self.gate + self.heads * self.embedding + head
    }
}

/// The weights that all rows share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads<'a, T> {
    /// The widths.
    pub widths: Widths,
    /// `[2 H, E]`.
    pub mix: &'a [T],
    /// `[heads, H]`.
    pub out: &'a [T],
    /// Weight of each head's loss, `[heads]`.
    pub weight: &'a [T],
}

/// Rows with their labels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a, T> {
    /// `[n, row]`.
    pub rows: &'a [T],
    /// 0 to 1, `[n, heads]`; NaN is none.
    pub labels: &'a [T],
}

/// Buffers of one thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Work<T> {
    r: Vec<T>,
    rd: Vec<T>,
    s: Vec<T>,
    m: Vec<T>,
    md: Vec<T>,
    dz: Vec<T>,
    sum: Vec<T>,
    sumd: Vec<T>,
}

impl<T: Real> Work<T> {
    /// Makes room for rows of these widths.
    pub(crate) fn fit(&mut self, w: Widths) {
        for v in [&mut self.r, &mut self.rd, &mut self.dz, &mut self.sum, &mut self.sumd] {
            v.resize(2 * w.gate, T::ZERO);
        }
        for v in [&mut self.s, &mut self.m, &mut self.md] {
            v.resize(w.gate, T::ZERO);
        }
    }
}

/// Where gradients are added.
#[derive(Debug)]
pub(crate) struct Into<'a, T> {
    /// Of the rows, `[n, row]`.
    pub rows: &'a mut [T],
    /// Of `mix`.
    pub mix: &'a mut [T],
    /// Of `out`.
    pub out: &'a mut [T],
}

/// `y = W x` for W `[y.len(), x.len()]`.
#[inline(always)]
pub(crate) fn apply<T: Real>(w: &[T], x: &[T], y: &mut [T]) {
    for (y, row) in y.iter_mut().zip(w.chunks_exact(x.len())) {
        *y = dot_inline(row, x);
    }
}

/// `x += W^T y` for W `[y.len(), x.len()]`.
#[inline(always)]
pub(crate) fn apply_transposed<T: Real>(w: &[T], y: &[T], x: &mut [T]) {
    let width = x.len();
    for (y, row) in y.iter().zip(w.chunks_exact(width)) {
        axpy(*y, row, x);
    }
}

/// `W += y x^T` for W `[y.len(), x.len()]`.
#[inline(always)]
pub(crate) fn add_outer<T: Real>(y: &[T], x: &[T], w: &mut [T]) {
    for (y, row) in y.iter().zip(w.chunks_exact_mut(x.len())) {
        axpy(*y, x, row);
    }
}

/// `y += a x`.
#[inline(always)]
pub(crate) fn axpy<T: Real>(a: T, x: &[T], y: &mut [T]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * *x;
    }
}

/// `log(1 + e^x)` without overflow.
#[inline(always)]
fn softplus<T: Real>(x: T) -> T {
    x.most(T::ZERO) + (T::ONE + (-x.abs()).exp()).ln()
}

/// Cross-entropy of a logit against a label in [0, 1].
#[inline(always)]
fn cross_entropy<T: Real>(logit: T, label: T) -> T {
    softplus(logit) - label * logit
}

/// The halves of `x`, each `h` long: slices of one length let the compiler vectorise what goes over them.
#[inline(always)]
fn halves<T>(x: &[T], h: usize) -> (&[T], &[T]) {
    let (a, b) = x.split_at(h);
    (a, &b[..h])
}

/// `s = sigmoid(a)` and `m = silu(a) * b` of `z = base + r`.
#[inline(always)]
fn gated<T: Real>(base: &[T], r: &[T], s: &mut [T], m: &mut [T]) {
    let h = m.len();
    let ((base_a, base_b), (r_a, r_b)) = (halves(base, h), halves(r, h));
    let s = &mut s[..h];
    for i in 0..h {
        let a = base_a[i] + r_a[i];
        s[i] = sigmoid(a);
        m[i] = a * s[i] * (base_b[i] + r_b[i]);
    }
}

/// The logit of head `t` given the row's gated layer.
#[inline(always)]
fn logit<T: Real>(heads: &Heads<'_, T>, row: &[T], e: &[T], m: &[T], t: usize) -> T {
    let w = heads.widths;
    dot_inline(&heads.out[t * w.gate..(t + 1) * w.gate], m) + dot_inline(e, &row[w.direction(t)]) + row[w.offset(t)]
}

/// The logits of rows, `[n, heads]`.
#[inline(always)]
pub(crate) fn logits_inline<T: Real>(heads: &Heads<'_, T>, rows: &[T], e: &[T], work: &mut Work<T>, out: &mut [T]) {
    let w = heads.widths;
    apply(heads.mix, e, &mut work.r);
    for (row, out) in rows.chunks_exact(w.row()).zip(out.chunks_exact_mut(w.heads)) {
        gated(&row[..2 * w.gate], &work.r, &mut work.s, &mut work.m);
        for (t, out) in out.iter_mut().enumerate() {
            *out = logit(heads, row, e, &work.m, t);
        }
    }
}

/// The weighted sum of losses times `scale`.
#[inline(always)]
pub(crate) fn value_inline<T: Real>(
    heads: &Heads<'_, T>,
    rows: Rows<'_, T>,
    e: &[T],
    scale: T,
    work: &mut Work<T>,
) -> T {
    let w = heads.widths;
    apply(heads.mix, e, &mut work.r);
    let mut loss = T::ZERO;
    for (row, labels) in rows.rows.chunks_exact(w.row()).zip(rows.labels.chunks_exact(w.heads)) {
        gated(&row[..2 * w.gate], &work.r, &mut work.s, &mut work.m);
        for (t, label) in labels.iter().enumerate().filter(|(_, label)| !label.wide().is_nan()) {
            loss += heads.weight[t] * scale * cross_entropy(logit(heads, row, e, &work.m, t), *label);
        }
    }
    loss
}

/// The weighted sum of losses times `scale`; its gradient with respect to `e` is added to `de`, and those with respect to
/// everything else to `into` where it is given.
#[inline(always)]
pub(crate) fn loss_inline<T: Real>(
    heads: &Heads<'_, T>,
    rows: Rows<'_, T>,
    e: &[T],
    scale: T,
    de: &mut [T],
    mut into: Option<&mut Into<'_, T>>,
    work: &mut Work<T>,
) -> T {
    let (w, h) = (heads.widths, heads.widths.gate);
    let Work { r, s, m, md, dz, sum, .. } = work;
    apply(heads.mix, e, r);
    sum.fill(T::ZERO);
    let mut loss = T::ZERO;
    for (n, (row, labels)) in rows.rows.chunks_exact(w.row()).zip(rows.labels.chunks_exact(w.heads)).enumerate() {
        gated(&row[..2 * h], r, s, m);
        let mut dm = false;
        for (t, label) in labels.iter().enumerate() {
            if label.wide().is_nan() {
                continue;
            }
            let x = logit(heads, row, e, m, t);
            let weight = heads.weight[t] * scale;
            loss += weight * cross_entropy(x, *label);
            let d = weight * (sigmoid(x) - *label);
            let out = &heads.out[t * h..(t + 1) * h];
            if !dm {
                md.fill(T::ZERO);
                dm = true;
            }
            axpy(d, out, md);
            axpy(d, &row[w.direction(t)], de);
            if let Some(into) = into.as_deref_mut() {
                let to = &mut into.rows[n * w.row()..(n + 1) * w.row()];
                to[w.offset(t)] += d;
                axpy(d, e, &mut to[w.direction(t)]);
                axpy(d, m, &mut into.out[t * h..(t + 1) * h]);
            }
        }
        if !dm {
            continue;
        }
        let ((row_a, row_b), (r_a, r_b)) = (halves(row, h), halves(r, h));
        let (s, md, (dz_a, dz_b)) = (&s[..h], &md[..h], dz.split_at_mut(h));
        let dz_b = &mut dz_b[..h];
        for i in 0..h {
            let (a, b, s) = (row_a[i] + r_a[i], row_b[i] + r_b[i], s[i]);
            dz_a[i] = md[i] * b * s * (T::ONE + a * (T::ONE - s));
            dz_b[i] = md[i] * a * s;
        }
        axpy(T::ONE, dz, sum);
        if let Some(into) = into.as_deref_mut() {
            axpy(T::ONE, dz, &mut into.rows[n * w.row()..n * w.row() + 2 * h]);
        }
    }
    apply_transposed(heads.mix, sum, de);
    if let Some(into) = into {
        add_outer(sum, e, into.mix);
    }
    loss
}

/// Gradients of `u . dL/de`, L the loss of [`loss_inline`] at `e`: with respect to `e` added to `de`, to everything else to
/// `into`. `u` itself is held.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "kernels take slices; a struct would only name them twice")]
pub(crate) fn curvature_inline<T: Real>(
    heads: &Heads<'_, T>,
    rows: Rows<'_, T>,
    e: &[T],
    u: &[T],
    scale: T,
    de: &mut [T],
    into: &mut Into<'_, T>,
    work: &mut Work<T>,
) {
    let (w, h) = (heads.widths, heads.widths.gate);
    let Work { r, rd, m, md, dz, sum, sumd, .. } = work;
    apply(heads.mix, e, r);
    apply(heads.mix, u, rd);
    sum.fill(T::ZERO);
    sumd.fill(T::ZERO);
    // Per gated unit: what reaches m and its derivative along u.
    let (mut on_m, mut on_md) = (vec![T::ZERO; h], vec![T::ZERO; h]);
    for (n, (row, labels)) in rows.rows.chunks_exact(w.row()).zip(rows.labels.chunks_exact(w.heads)).enumerate() {
        let ((row_a, row_b), (r_a, r_b), (rd_a, rd_b)) = (halves(row, h), halves(r, h), halves(rd, h));
        let (m, md) = (&mut m[..h], &mut md[..h]);
        for i in 0..h {
            let (a, b) = (row_a[i] + r_a[i], row_b[i] + r_b[i]);
            let s = sigmoid(a);
            m[i] = a * s * b;
            md[i] = s * (T::ONE + a * (T::ONE - s)) * rd_a[i] * b + a * s * rd_b[i];
        }
        on_m.fill(T::ZERO);
        on_md.fill(T::ZERO);
        let to = &mut into.rows[n * w.row()..(n + 1) * w.row()];
        for (t, label) in labels.iter().enumerate() {
            if label.wide().is_nan() {
                continue;
            }
            let out = &heads.out[t * h..(t + 1) * h];
            let direction = &row[w.direction(t)];
            let p = sigmoid(logit(heads, row, e, m, t));
            let along = dot_inline(out, md) + dot_inline(u, direction);
            let weight = heads.weight[t] * scale;
            let d = weight * (p - *label);
            let q = weight * p * (T::ONE - p) * along;
            axpy(q, out, &mut on_m);
            axpy(d, out, &mut on_md);
            axpy(q, direction, de);
            to[w.offset(t)] += q;
            axpy(q, e, &mut to[w.direction(t)]);
            axpy(d, u, &mut to[w.direction(t)]);
            let to_out = &mut into.out[t * h..(t + 1) * h];
            axpy(q, m, to_out);
            axpy(d, md, to_out);
        }
        let (on_m, on_md) = (&on_m[..h], &on_md[..h]);
        let ((dz_a, dz_b), (sumd_a, sumd_b)) = (dz.split_at_mut(h), sumd.split_at_mut(h));
        let (dz_b, sumd_b) = (&mut dz_b[..h], &mut sumd_b[..h]);
        for i in 0..h {
            let (a, b) = (row_a[i] + r_a[i], row_b[i] + r_b[i]);
            let s = sigmoid(a);
            let (s0, s1) = (a * s, s * (T::ONE + a * (T::ONE - s)));
            let s2 = s * (T::ONE - s) * (T::of(2.0) + a * (T::ONE - s - s));
            dz_a[i] = on_m[i] * b * s1 + on_md[i] * (s2 * rd_a[i] * b + s1 * rd_b[i]);
            dz_b[i] = on_m[i] * s0 + on_md[i] * s1 * rd_a[i];
            sumd_a[i] += on_md[i] * s1 * b;
            sumd_b[i] += on_md[i] * s0;
        }
        axpy(T::ONE, dz, sum);
        axpy(T::ONE, dz, &mut to[..2 * h]);
    }
    apply_transposed(heads.mix, sum, de);
    add_outer(sum, e, into.mix);
    add_outer(sumd, u, into.mix);
}
