//! One step on an embedding itself, as the meta block's weights would have moved it: the block's tangent kernel (Jacot et al.
//! 2018) at its weights and an entity's input.
//!
//! With `J_l` the derivative of the embedding by what layer `l` puts out, `a_l` what the layer reads, and inner rates alpha and
//! beta, a small gradient step of all weights moves the embedding by
//!
//! ```text
//! delta e = - sum_l (alpha_l |a_l|^2 + beta_l) J_l J_l^T dL/de
//! ```
//!
//! which takes one pass up, one down and one up again through the block, and no pass over older outcomes.

use super::dispatch::dispatch;
use super::heads::{Rows, Work, apply, apply_transposed, axpy, loss_inline};
use super::inner::Adaptation;
use super::math::{dot_inline, sigmoid, silu_slope};

/// Buffers of one thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Step<T> {
    /// Outputs of each layer before the activation; of the last, the un-adapted embedding.
    z: Vec<Vec<T>>,
    /// What each layer reads.
    a: Vec<Vec<T>>,
    /// Gradients at the outputs.
    d: Vec<Vec<T>>,
    moved: Vec<T>,
    work: Work<T>,
}

impl<T> Step<T> {
    /// The embedding before any adaptation, without the entity's own vector.
    pub(crate) fn unadapted(&self) -> &[T] {
        self.z.last().map_or(&[], Vec::as_slice)
    }
}

dispatch! {
    /// Moves `e` (`[E]`) against the gradient of the rows' summed loss times `scale`, for a block that reads `x`; gives that
    /// loss before the step.
    fn first_order<T>(adaptation: &Adaptation<'_, T>, x: &[T], e: &mut [T], rows: Rows<'_, T>, scale: T, step: &mut Step<T>) -> T {
        let layers = adaptation.layers;
        let Step { z, a, d, moved, work } = step;
        work.fit(adaptation.heads.widths);
        for v in [&mut *z, &mut *a, &mut *d] {
            v.resize_with(layers.len(), Vec::new);
        }
        for (l, layer) in layers.iter().enumerate() {
            let n = layer.bias.len();
            z[l].resize(n, T::ZERO);
            d[l].resize(n, T::ZERO);
            d[l].fill(T::ZERO);
            a[l].clear();
            match l {
                0 => a[0].extend_from_slice(x),
                _ => a[l].extend(z[l - 1].iter().map(|z| *z * sigmoid(*z))),
            }
            apply(layer.weight, &a[l], &mut z[l]);
            axpy(T::ONE, layer.bias, &mut z[l]);
        }
        let last = layers.len() - 1;
        let loss = loss_inline(&adaptation.heads, rows, e, scale, &mut d[last], None, work);
        for l in (1..layers.len()).rev() {
            let (below, own) = d.split_at_mut(l);
            apply_transposed(layers[l].weight, &own[0], &mut below[l - 1]);
            for (d, z) in below[l - 1].iter_mut().zip(&z[l - 1]) {
                *d *= silu_slope(*z);
            }
        }
        for (l, layer) in layers.iter().enumerate() {
            let speed = layer.rate * dot_inline(&a[l], &a[l]) + layer.bias_rate;
            match l {
                0 => {
                    moved.clear();
                    moved.resize(layer.bias.len(), T::ZERO);
                }
                _ => {
                    for (m, z) in moved.iter_mut().zip(&z[l - 1]) {
                        *m *= silu_slope(*z);
                    }
                    // What moved below, seen from above; `a` is not read again.
                    a[l].clear();
                    a[l].extend_from_slice(moved);
                    moved.resize(layer.bias.len(), T::ZERO);
                    apply(layer.weight, &a[l], moved);
                }
            }
            axpy(-speed, &d[l], moved);
        }
        axpy(T::ONE, moved, e);
        loss
    }
}
