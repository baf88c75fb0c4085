//! What the network reads of packed tokens: gathered from the tables and the dense weights, and the gradients taken back there.

use crate::kernels::math::add;
use crate::model::Tokens;
use crate::model::graph::Packed;
use crate::model::network::Network;
use crate::model::tape::Memory;
use std::ops::Range;

/// The first layer of a network.
pub(crate) struct Embedding<'a> {
    network: &'a Network,
    opening: Range<usize>,
    positions: Option<Range<usize>>,
}

impl<'a> Embedding<'a> {
    pub(crate) fn new(network: &'a Network) -> Self {
        let range = |name: &str| network.layout.range(name).ok();
        Self { network, opening: range("opening").unwrap_or(0..0), positions: range("positions") }
    }

    /// Calls `f` with each token: its number, item row and place in its sequence.
    fn each(tokens: &Tokens, packed: &Packed, mut f: impl FnMut(usize, u32, usize)) {
        for range in packed.ranges() {
            for (place, t) in range.enumerate() {
                f(t, tokens.items[t], place);
            }
        }
    }

    /// Items and positions of tokens, `[n, d]`, and their embedded features, `[n, features * field_width]`, where there are any.
    /// `item` gives an item's vector.
    pub(crate) fn gather<'v>(
        &self,
        tokens: &Tokens,
        packed: &Packed,
        [dense, features]: [&[f32]; 2],
        item: impl Fn(u32) -> &'v [f32],
        memory: &mut Memory,
    ) -> (Vec<f32>, Option<Vec<f32>>) {
        let (d, width) = (self.network.options.width as usize, self.network.options.field_width as usize);
        let of_features = &self.network.features;
        let mut x = memory.take(tokens.items.len() * d);
        let mut fields = None;
        if !of_features.list.is_empty() {
            let starts = of_features.first_rows();
            let mut values = memory.take(tokens.codes.len() * width);
            for (i, (&c, to)) in tokens.codes.iter().zip(values.chunks_exact_mut(width)).enumerate() {
                let at = (starts[i % of_features.list.len()] + c as usize) * width;
                to.copy_from_slice(&features[at..at + width]);
            }
            fields = Some(values);
        }
        Self::each(tokens, packed, |t, row, place| {
            let to = &mut x[t * d..(t + 1) * d];
            match row {
                Tokens::OPENING => to.copy_from_slice(&dense[self.opening.clone()]),
                row => to.copy_from_slice(item(row)),
            }
            if let Some(p) = &self.positions {
                add(to, &dense[p.start + place * d..p.start + (place + 1) * d]);
            }
        });
        (x, fields)
    }

    /// Adds the gradients of what [`Embedding::gather`] gave to `dense` and `features`; `item` takes those of the items' vectors,
    /// token by token.
    pub(crate) fn scatter(
        &self,
        tokens: &Tokens,
        packed: &Packed,
        (dx, dfields): (&[f32], Option<&[f32]>),
        [dense, features]: [&mut [f32]; 2],
        mut item: impl FnMut(u32, &[f32]),
    ) {
        let (d, width) = (self.network.options.width as usize, self.network.options.field_width as usize);
        Self::each(tokens, packed, |t, row, place| {
            let g = &dx[t * d..(t + 1) * d];
            match row {
                Tokens::OPENING => add(&mut dense[self.opening.clone()], g),
                row => item(row, g),
            }
            if let Some(p) = &self.positions {
                add(&mut dense[p.start + place * d..p.start + (place + 1) * d], g);
            }
        });
        if let Some(dfields) = dfields {
            let starts = self.network.features.first_rows();
            for (i, (&c, g)) in tokens.codes.iter().zip(dfields.chunks_exact(width)).enumerate() {
                let at = (starts[i % self.network.features.list.len()] + c as usize) * width;
                add(&mut features[at..at + width], g);
            }
        }
    }
}
