//! What a batch adaptation makes of one entity.

/// How an entity came to its embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Unlabelled,
    Refused,
    Adapted,
}

/// One entity's embedding.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Adaptation {
    pub(super) vector: Vec<f32>,
    /// Its parts on surfaces, by code, ascending.
    pub(super) surfaces: Vec<(u32, Vec<f32>)>,
    pub(super) kind: Kind,
}
