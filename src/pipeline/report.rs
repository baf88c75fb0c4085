//! How parts of reports are written as JSON.

use crate::store::GenerationId;
use crate::train::Stopped;
use serde::Serializer;
use std::path::Path;

pub(super) fn metrics<S: Serializer>(metrics: &[(String, f64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(metrics.iter().map(|(name, value)| (name, value)))
}

pub(super) fn path<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

pub(super) fn stopped<S: Serializer>(stopped: &Stopped, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(stopped.as_str())
}

pub(super) fn display<S: Serializer>(value: &impl std::fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

pub(super) fn generation<S: Serializer>(generation: &GenerationId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(generation.0)
}

pub(super) fn published<S: Serializer>(generation: &Option<GenerationId>, to: S) -> Result<S::Ok, S::Error> {
    match generation {
        Some(id) => to.serialize_u64(id.0),
        None => to.serialize_none(),
    }
}
