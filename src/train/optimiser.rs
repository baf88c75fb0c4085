//! AdamW over the flat dense array and, row by row, over the tables; one clipping factor for all; and the moving average
//! of what they update.

use crate::kernels::adam::{AdamStep, BETA1, BETA2, adamw};
use crate::kernels::math::{scale, square_sum, towards};
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

    /// Updates the named rows (ascending, each once) with their gradients, `[rows.len(), width]`. The moments of rows that
    /// earlier steps left alone first decay by the steps that they missed, as if their gradients had been zero; their
    /// averages first move towards the numbers by as many steps.
    pub(crate) fn update(&mut self, t: u64, step: AdamStep, averaging: Averaging, touched: &[u32], gradient: &[f32]) {
        let w = self.width;
        for (&row, g) in touched.iter().zip(gradient.chunks_exact(w)) {
            let (row, at) = (row as usize, row as usize * w);
            let before = self.last[row];
            let missed = t - 1 - before.min(t - 1);
            if before > 0 && missed > 0 {
                scale(&mut self.rows.first[at..at + w], BETA1.powf(missed as f32));
                scale(&mut self.rows.second[at..at + w], BETA2.powf(missed as f32));
            }
            self.last[row] = t;
            let (values, m) = (&mut self.rows.values[at..at + w], &mut self.rows.first[at..at + w]);
            let average = self.rows.average.get_mut(at..at + w);
            if let Some(average) = average {
                if before > 0 && missed > 0 {
                    towards(average, values, 1.0 - averaging.between(before, t - 1));
                }
                adamw(step, values, g, m, &mut self.rows.second[at..at + w]);
                towards(average, values, 1.0 - averaging.decay(t));
            } else {
                adamw(step, values, g, m, &mut self.rows.second[at..at + w]);
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

/// The learning rate of step `t` (from 1) of `steps`: linear warm-up, then a cosine down to the final share.
pub(crate) fn learning_rate(options: &TrainOptions, t: u64, steps: u64) -> f32 {
    let warmup = u64::from(options.warmup).min(steps / 2);
    if t <= warmup {
        return options.learning_rate * t as f32 / warmup.max(1) as f32;
    }
    let progress = (t - warmup) as f64 / (steps - warmup).max(1) as f64;
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos());
    let floor = f64::from(options.final_rate);
    (f64::from(options.learning_rate) * (floor + (1.0 - floor) * cosine)) as f32
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
    fn the_average_of_a_row_left_alone_is_that_of_a_dense_one() {
        for ema in [0.5, 0.9, 0.95] {
            let averaging = Averaging { ema };
            let mut table = Table::new(vec![1.0, -2.0], 1, true);
            let mut dense = Moments::new(vec![1.0, -2.0], true);
            for t in 1..=400u64 {
                let step = AdamStep::new(0.01, 0.0, t, 1.0);
                let touched: &[u32] = if t % 7 == 3 { &[0, 1] } else { &[1] };
                table.update(t, step, averaging, touched, &vec![0.5; touched.len()]);
                dense.values.clone_from(&table.rows.values);
                let keep = averaging.decay(t);
                dense.average.iter_mut().zip(&dense.values).for_each(|(a, w)| *a += (1.0 - keep) * (w - *a));
                for (a, b) in table.averages(t, averaging).iter().zip(&dense.average) {
                    assert!((a - b).abs() < 1e-5, "ema {ema}, step {t}: {a} against {b}");
                }
            }
            assert!(table.averages(400, averaging)[0] > table.rows.values[0], "the average lags behind");
        }
    }

    #[test]
    fn a_row_left_alone_catches_up_with_its_moments() {
        // Row 0 is touched at steps 1 and 4; a dense Adam fed zeros between gives the same moments.
        let mut table = Table::new(vec![1.0; 4], 2, false);
        let mut dense = Moments::new(vec![1.0; 2], false);
        let gradient = [0.5, -0.25];
        for t in 1..=4u64 {
            let step = AdamStep::new(0.0, 0.0, t, 1.0);
            let g = if t == 1 || t == 4 { gradient } else { [0.0; 2] };
            let (m, v) = (&mut dense.first, &mut dense.second);
            adamw(step, &mut dense.values, &g, m, v);
            match t {
                1 | 4 => table.update(t, step, OFF, &[0], &gradient),
                _ => table.update(t, step, OFF, &[1], &gradient),
            }
        }
        for i in 0..2 {
            assert!((table.rows.first[i] - dense.first[i]).abs() < 1e-7);
            assert!((table.rows.second[i] - dense.second[i]).abs() < 1e-7);
        }
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
        assert!((learning_rate(&o, 5, 100) - 0.5).abs() < 1e-6);
        assert!((learning_rate(&o, 10, 100) - 1.0).abs() < 1e-6);
        assert!((learning_rate(&o, 100, 100) - 0.1).abs() < 1e-6);
        assert!(learning_rate(&o, 50, 100) < learning_rate(&o, 40, 100));
    }
}
