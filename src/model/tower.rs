//! The item tower's shape until the tower is merged: vectors that depend on metadata alone.

use super::Weights;
use crate::error::Result;
use crate::random::Rng;

/// What is known of an item's past at some moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Days since release.
    pub age: Option<f32>,
}

impl Standing {
    /// An item that nobody has touched.
    pub fn unseen(age: Option<f32>) -> Self {
        Self { age }
    }
}

/// One metadata value, coded by the schema.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Codes of a categorical or multi-valued field; 0 is missing.
    Codes(&'a [u32]),
    /// A number; NaN is missing.
    Number(f32),
    /// A dense vector.
    Vector(&'a [f32]),
}

/// From metadata to item vectors.
#[derive(Debug, Clone)]
pub struct Tower {
    pub(super) width: usize,
}

/// Metadata.
#[derive(Debug, Clone)]
pub struct Metadata(Vec<f32>);

impl Tower {
    /// The metadata of one item.
    pub fn describe(&self, _title: &str, values: &[Value<'_>]) -> Metadata {
        let mut out = vec![0.0; self.width];
        let mut add = |stream: u64, size: f32| {
            let mut rng = Rng::for_stream(7, stream);
            out.iter_mut().for_each(|v| *v += size * rng.normal() as f32);
        };
        for (at, value) in (0u64..).zip(values) {
            match value {
                Value::Codes(codes) => codes.iter().for_each(|c| add(at * 1000 + u64::from(*c), 1.0)),
                Value::Number(x) if !x.is_nan() => add(at * 1000, *x / 100.0),
                Value::Number(_) => {}
                Value::Vector(v) => (0u64..).zip(*v).for_each(|(i, x)| add(at * 1000 + i, *x)),
            }
        }
        Metadata(out)
    }

    /// Writes an item's vector.
    pub fn vector(
        &self,
        _weights: Weights<'_>,
        metadata: &Metadata,
        _id: Option<&[f32]>,
        _standing: Standing,
        out: &mut [f32],
    ) -> Result<()> {
        out.copy_from_slice(&metadata.0);
        Ok(())
    }
}
