//! The invariants of a [`Dataset`].
use super::Dataset;
use crate::error::Result;

pub(super) fn check(_data: &Dataset) -> Result<()> {
    Ok(())
}
