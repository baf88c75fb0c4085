//! AdamW over the flat dense array and, row by row, over the tables; one clipping factor for all; and the moving average
//! of what they update.

use crate::kernels::adam::{AdamStep, adamw, coast};
use crate::kernels::math::{square_sum, towards};
use crate::model::layout::Layout;
use crate::options::TrainOptions;

/// Numbers with their two moments.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Moments {
    /// The numbers.
    pub values: Vec<f32>,
    /// Running mean of gradients.
    pub first: Vec<f32>,
    /// Running mean of squared gradients.
    pub second: Vec<f32>,
    /// Moving average of the numbers; empty where none is kept.
    pub average: Vec<f32>,
}

impl Moments {
    /// Moments start at zero, the average at the numbers.
    pub(crate) fn new(values: Vec<f32>, averaged: bool) -> Self {
        let n = values.len();
        let average = if averaged { values.clone() } else { Vec::new() };
        Self { values, first: vec![0.0; n], second: vec![0.0; n], average }
    }
}

/// The moving average of weights (Polyak averaging with exponential decay): `a += (1 - decay(t)) * (w - a)` after step t.
///
/// The decay is `min(ema, (1 + t) / (10 + t))`, so that the average does not remember where training began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Averaging {
    /// The decay late in training; 0 keeps no average.
    pub ema: f32,
}

impl Averaging {
    /// The last step at which the decay is still warming up.
    fn warm(self) -> f64 {
        let ema = f64::from(self.ema);
        ((10.0 * ema - 1.0) / (1.0 - ema)).floor().max(0.0)
    }

    /// The decay of step `t`, counted from 1.
    pub(crate) fn decay(self, t: u64) -> f32 {
        let t = t as f64;
        f64::from(self.ema).min((1.0 + t) / (10.0 + t)) as f32
    }

    /// The logarithm of the product of the decays of steps 1 to `t`.
    fn log_product(self, t: u64) -> f64 {
        let warm = self.warm();
        let early = (t as f64).min(warm);
        // The product of (1 + s) / (10 + s) for s = 1..=early is 10! / ((early + 2) ... (early + 10)).
        let start: f64 = (2..=10).map(|i| (f64::from(i) / (early + f64::from(i))).ln()).sum();
        start + (t as f64 - early) * f64::from(self.ema).ln()
    }

    /// The product of the decays of the steps after `from` up to `to`.
    fn between(self, from: u64, to: u64) -> f32 {
        if to <= from { 1.0 } else { (self.log_product(to) - self.log_product(from)).exp() as f32 }
    }
}

/// A table whose rows are updated only when a step touches them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Table {
    /// Row-major numbers with their moments.
    pub rows: Moments,
    /// The step that touched each row last.
    pub last: Vec<u64>,
    /// Numbers per row.
    pub width: usize,
}

impl Table {
    /// A table that no step has touched.
    pub(crate) fn new(values: Vec<f32>, width: usize, averaged: bool) -> Self {
        let rows = values.len() / width.max(1);
        Self { rows: Moments::new(values, averaged), last: vec![0; rows], width }
    }

    /// Brings the named rows to where steps up to `t` would have brought them that had no gradient for them: a step that reads a row
    /// finds it as dense Adam leaves it, and how seldom a row is touched does not slow it down. `step` is that of `t`, or of the
    /// step after it.
    pub(crate) fn catch_up(&mut self, t: u64, step: AdamStep, averaging: Averaging, rows: impl Iterator<Item = u32>) {
        let w = self.width;
        for row in rows {
            let (row, at) = (row as usize, row as usize * w);
            let before = self.last[row];
            if before == 0 || before >= t {
                continue;
            }
            self.last[row] = t;
            let values = &mut self.rows.values[at..at + w];
            coast(
                step,
                (t - before) as f32,
                values,
                &mut self.rows.first[at..at + w],
                &mut self.rows.second[at..at + w],
            );
            if let Some(average) = self.rows.average.get_mut(at..at + w) {
                towards(average, values, 1.0 - averaging.between(before, t));
            }
        }
    }

    /// Updates the named rows (each once) with their gradients, `[rows.len(), width]`, in step `t`. Rows that earlier steps
    /// left alone catch up first.
    pub(crate) fn update(&mut self, t: u64, step: AdamStep, averaging: Averaging, touched: &[u32], gradient: &[f32]) {
        self.catch_up(t - 1, step, averaging, touched.iter().copied());
        let w = self.width;
        for (&row, g) in touched.iter().zip(gradient.chunks_exact(w)) {
            let (row, at) = (row as usize, row as usize * w);
            self.last[row] = t;
            let (values, m) = (&mut self.rows.values[at..at + w], &mut self.rows.first[at..at + w]);
            adamw(step, values, g, m, &mut self.rows.second[at..at + w]);
            if let Some(average) = self.rows.average.get_mut(at..at + w) {
                towards(average, values, 1.0 - averaging.decay(t));
            }
        }
    }

    /// The numbers, zero in the rows that no step has touched: a start is no knowledge.
    pub(crate) fn trained(&self) -> Vec<f32> {
        let mut values = self.rows.values.clone();
        let rows = values.chunks_exact_mut(self.width.max(1)).zip(&self.last);
        rows.filter(|(_, last)| **last == 0).for_each(|(row, _)| row.fill(0.0));
        values
    }

    /// The averages after step `t`, rows that were left alone included; the numbers where no average is kept.
    pub(crate) fn averages(&self, t: u64, averaging: Averaging) -> Vec<f32> {
        if self.rows.average.is_empty() {
            return self.rows.values.clone();
        }
        let mut averages = self.rows.average.clone();
        let rows = averages.chunks_exact_mut(self.width).zip(self.rows.values.chunks_exact(self.width));
        for ((average, values), &before) in rows.zip(&self.last) {
            if before > 0 && before < t {
                towards(average, values, 1.0 - averaging.between(before, t));
            }
        }
        averages
    }
}

/// Updates the dense array; decay applies to matrices only. `keep` is the decay of the moving average.
pub(crate) fn update_dense(
    layout: &Layout,
    dense: &mut Moments,
    step: AdamStep,
    decay: f32,
    keep: f32,
    gradient: &[f32],
) {
    for w in &layout.weights {
        let r = w.range.clone();
        let step = AdamStep { decay: if w.decay { decay } else { 0.0 }, ..step };
        let (values, first) = (&mut dense.values[r.clone()], &mut dense.first[r.clone()]);
        adamw(step, values, &gradient[r.clone()], first, &mut dense.second[r]);
    }
    if !dense.average.is_empty() {
        towards(&mut dense.average, &dense.values, 1.0 - keep);
    }
}

/// How the learning rate falls to its final share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fall {
    /// Along a cosine, from the end of the warm-up to the last step of the bound.
    Cosine,
    /// Not yet.
    Held,
    /// In a straight line from one step to another.
    Between(u64, u64),
}

/// The learning rate of step `t` (from 1) of at most `bound`: linear warm-up, then down.
pub(crate) fn learning_rate(options: &TrainOptions, t: u64, bound: u64, fall: Fall) -> f32 {
    let warmup = u64::from(options.warmup).min(bound / 2);
    if t <= warmup {
        return options.learning_rate * t as f32 / warmup.max(1) as f32;
    }
    let share = |from: u64, to: u64| (t.saturating_sub(from) as f64 / to.saturating_sub(from).max(1) as f64).min(1.0);
    let left = match fall {
        Fall::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * share(warmup, bound)).cos()),
        Fall::Held => 1.0,
        Fall::Between(from, to) => 1.0 - share(from, to),
    };
    let floor = f64::from(options.final_rate);
    (f64::from(options.learning_rate) * (floor + (1.0 - floor) * left)) as f32
}

/// The norm of all gradients together.
pub(crate) fn norm(gradients: &[&[f32]]) -> f64 {
    gradients.iter().map(|g| square_sum(g)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: Averaging = Averaging { ema: 0.0 };

    #[test]
    fn the_average_of_a_row_left_alone_is_about_that_of_a_dense_one() {
        for ema in [0.5, 0.9, 0.95] {
            let averaging = Averaging { ema };
            let mut table = Table::new(vec![1.0, -2.0], 1, true);
            let mut dense = Moments::new(vec![1.0, -2.0], true);
            for t in 1..=400u64 {
                let step = AdamStep::new(0.01, 0.0, t, 1.0);
                let touched: &[u32] = if t % 7 == 3 { &[0, 1] } else { &[1] };
                table.update(t, step, averaging, touched, &vec![0.5; touched.len()]);
                let g = if t % 7 == 3 { [0.5, 0.5] } else { [0.0, 0.5] };
                adamw(step, &mut dense.values, &g, &mut dense.first, &mut dense.second);
                towards(&mut dense.average, &dense.values, 1.0 - averaging.decay(t));
                if t % 7 == 2 {
                    table.catch_up(t, step, averaging, [0].into_iter());
                    for (a, b) in table.averages(t, averaging).iter().zip(&dense.average) {
                        assert!((a - b).abs() < 0.02, "ema {ema}, step {t}: {a} against {b}");
                    }
                }
            }
            assert!((dense.average[0] - 1.0).abs() > 0.5, "it moved: {}", dense.average[0]);
        }
    }

    #[test]
    fn a_row_left_alone_is_found_where_dense_adam_leaves_it() {
        // Row 0 has gradients in a few steps only; a dense Adam is fed zeros between them.
        let mut table = Table::new(vec![1.0; 4], 2, false);
        let mut dense = Moments::new(vec![1.0; 2], false);
        for t in 1..=1000u64 {
            let step = AdamStep::new(0.01, 0.0, t, 1.0);
            let touches = t > 300 && (t % 97 == 3 || t % 7 == 1);
            let g = if touches { [0.5, -0.25 + (t % 2) as f32] } else { [0.0; 2] };
            let (m, v) = (&mut dense.first, &mut dense.second);
            if touches {
                table.catch_up(t - 1, step, OFF, [0].into_iter());
                dense
                    .values
                    .iter()
                    .zip(&table.rows.values)
                    .for_each(|(d, w)| assert!((d - w).abs() < 0.02, "{t}: {d} {w}"));
                table.update(t, step, OFF, &[0], &g);
            }
            adamw(step, &mut dense.values, &g, m, v);
        }
        table.catch_up(1000, AdamStep::new(0.01, 0.0, 1000, 1.0), OFF, [0, 1].into_iter());
        for i in 0..2 {
            let close = |a: f32, b: f32| assert!((a - b).abs() < 0.02, "{a} {b}");
            close(table.rows.values[i], dense.values[i]);
            close(table.rows.first[i], dense.first[i]);
            close(table.rows.second[i], dense.second[i]);
        }
        assert!((dense.values[0] - 1.0).abs() > 0.1, "it moved");
        assert_eq!(table.rows.values[2..], [1.0, 1.0], "what no step has touched stays");
    }

    #[test]
    fn adam_moves_by_its_rate_at_first() {
        let mut m = Moments::new(vec![1.0], false);
        let (first, second) = (&mut m.first, &mut m.second);
        adamw(AdamStep::new(0.01, 0.0, 1, 1.0), &mut m.values, &[3.0], first, second);
        assert!((m.values[0] - 0.99).abs() < 1e-6, "{}", m.values[0]);
    }

    #[test]
    fn the_rate_warms_up_and_falls() {
        let o = TrainOptions { learning_rate: 1.0, warmup: 10, final_rate: 0.1, ..TrainOptions::default() };
        let close = |t, fall, to: f32| assert!((learning_rate(&o, t, 100, fall) - to).abs() < 1e-6, "{t} {fall:?}");
        for fall in [Fall::Cosine, Fall::Held, Fall::Between(80, 90)] {
            close(5, fall, 0.5);
            close(10, fall, 1.0);
        }
        close(55, Fall::Cosine, 0.55);
        close(100, Fall::Cosine, 0.1);
        close(80, Fall::Held, 1.0);
        close(80, Fall::Between(80, 90), 1.0);
        close(85, Fall::Between(80, 90), 0.55);
        close(90, Fall::Between(80, 90), 0.1);
        close(91, Fall::Between(80, 90), 0.1);
        close(6, Fall::Between(5, 8), 0.6);
    }
}
