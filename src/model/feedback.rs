//! The feedback head: how likely is a positive outcome of an item after a history?
//!
//! `p(label = 1 | h, v) = sigmoid(sum_c cross_c h_c v_c + user . h + item . v + bias)`, with `h` the state after the
//! history and `v` the item's vector, so that dislikes and likes shape both (docs/model.md).

use crate::kernels::math::{Real, dot, sigmoid};
use std::ops::Range;

/// The weights of the head: cross, user, item (`[d]` each) and bias (`[1]`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Feedback<'a, T = f32> {
    /// In that order.
    pub weights: [&'a [T]; 4],
}

/// Where the gradients of one event go.
pub(crate) struct FeedbackGradients<'a, T = f32> {
    /// Of the state.
    pub state: &'a mut [T],
    /// Of the item's vector.
    pub item: &'a mut [T],
    /// Of the flat dense array, in which `ranges` are the head's weights.
    pub weights: &'a mut [T],
    /// In the order of [`Feedback::weights`].
    pub ranges: &'a [Range<usize>; 4],
}

impl<T: Real> Feedback<'_, T> {
    /// The logit of an item after a history.
    pub(crate) fn logit(&self, state: &[T], item: &[T]) -> T {
        let [cross, user, of_item, bias] = self.weights;
        let mut sum = bias.iter().copied().sum::<T>() + dot(user, state) + dot(of_item, item);
        for ((c, h), v) in cross.iter().zip(state).zip(item) {
            sum += *c * *h * *v;
        }
        sum
    }

    /// The binary cross-entropy of a label (0 or 1) times `weight`; adds its gradients.
    pub(crate) fn learn(
        &self,
        state: &[T],
        item: &[T],
        label: f32,
        weight: f32,
        to: &mut FeedbackGradients<'_, T>,
    ) -> f64 {
        let logit = self.logit(state, item);
        let (label, weight) = (T::of(f64::from(label)), T::of(f64::from(weight)));
        let slope = weight * (sigmoid(logit) - label);
        let [cross, user, of_item, _] = self.weights;
        for i in 0..state.len() {
            to.state[i] += slope * (cross[i] * item[i] + user[i]);
            to.item[i] += slope * (cross[i] * state[i] + of_item[i]);
            to.weights[to.ranges[0].start + i] += slope * state[i] * item[i];
            to.weights[to.ranges[1].start + i] += slope * state[i];
            to.weights[to.ranges[2].start + i] += slope * item[i];
        }
        to.weights[to.ranges[3].start] += slope;
        let z = logit.wide();
        weight.wide() * (z.max(0.0) - z * label.wide() + (-z.abs()).exp().ln_1p())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_equal_finite_differences() {
        let x: Vec<f64> = (0..16).map(|i| (f64::from(i) * 1.7).sin()).collect();
        let ranges = [0..3, 3..6, 6..9, 9..10];
        let run = |x: &[f64], grads: Option<&mut [f64]>| {
            let head = Feedback { weights: ranges.clone().map(|r| &x[r]) };
            let (mut state, mut item, mut weights) = (vec![0.0; 3], vec![0.0; 3], vec![0.0; 10]);
            let mut to =
                FeedbackGradients { state: &mut state, item: &mut item, weights: &mut weights, ranges: &ranges };
            let loss = head.learn(&x[10..13], &x[13..16], 1.0, 0.7, &mut to);
            if let Some(grads) = grads {
                grads.copy_from_slice(&[weights, state, item].concat());
            }
            loss
        };
        let mut grads = vec![0.0; 16];
        run(&x, Some(&mut grads));
        for i in 0..16 {
            let at = |step: f64| {
                let mut x = x.clone();
                x[i] += step;
                run(&x, None)
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((slope - grads[i]).abs() < 1e-7, "{i}: {slope} against {}", grads[i]);
        }
    }
}
