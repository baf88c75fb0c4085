//! AdamW (Loshchilov & Hutter 2019) in one pass over memory.

use super::dispatch::dispatch;

/// What one update needs besides the arrays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AdamStep {
    /// Learning rate.
    pub rate: f32,
    /// Decoupled weight decay.
    pub decay: f32,
    /// 1 / (1 - beta1^t).
    pub correction1: f32,
    /// 1 / (1 - beta2^t).
    pub correction2: f32,
    /// Gradients are multiplied by this first (clipping).
    pub scale: f32,
}

/// Decay of the first moment.
pub(crate) const BETA1: f32 = 0.9;
/// Decay of the second moment.
pub(crate) const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

impl AdamStep {
    /// The constants of step `t`, counted from 1.
    pub(crate) fn new(rate: f32, decay: f32, t: u64, scale: f32) -> Self {
        let correction = |beta: f32| (1.0 / (1.0 - f64::from(beta).powf(t as f64))) as f32;
        Self { rate, decay, correction1: correction(BETA1), correction2: correction(BETA2), scale }
    }
}

dispatch! {
    /// Updates `weights` and both moments in place.
    fn adamw(step: AdamStep, weights: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let arrays = weights.iter_mut().zip(gradient).zip(first.iter_mut()).zip(second.iter_mut());
        for (((w, g), m), v) in arrays {
            let g = g * step.scale;
            *m = BETA1 * *m + (1.0 - BETA1) * g;
            *v = BETA2 * *v + (1.0 - BETA2) * g * g;
            let update = *m * step.correction1 / ((*v * step.correction2).sqrt() + EPSILON);
            *w -= step.rate * (update + step.decay * *w);
        }
    }
}

dispatch! {
    /// As many updates as `steps` with gradients of zero, at once: the weights go on by what the first moment still holds, and both
    /// moments fade. The rate and the corrections are those of `step` throughout.
    fn coast(step: AdamStep, steps: f32, weights: &mut [f32], first: &mut [f32], second: &mut [f32]) {
        let (fade1, fade2) = (BETA1.powf(steps), BETA2.powf(steps));
        let ratio = BETA1 / BETA2.sqrt();
        let way = step.rate * step.correction1 * ratio * (1.0 - ratio.powf(steps)) / (1.0 - ratio);
        for ((w, m), v) in weights.iter_mut().zip(first.iter_mut()).zip(second.iter_mut()) {
            *w -= way * *m / ((*v * step.correction2).sqrt() + EPSILON);
            *m *= fade1;
            *v *= fade2;
        }
    }
}
