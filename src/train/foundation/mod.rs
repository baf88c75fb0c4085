//! How do the weights of the foundation model come to be?

pub(crate) mod checkpoint;
pub(crate) mod corpus;
pub(crate) mod defaults;
pub(crate) mod embedding;
pub(crate) mod gradients;
pub(crate) mod negatives;
pub(crate) mod popularity;
pub(crate) mod step;
pub(crate) mod targets;
#[cfg(test)]
mod tests;
pub(crate) mod timeline;
pub(crate) mod trainer;
pub(crate) mod validate;
pub(crate) mod vectors;
