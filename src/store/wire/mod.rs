//! What stands on disk: the only types that are archived, frozen per version.
//!
//! A type in here is never changed once a version is released, and nothing computes with one: records are converted from and to
//! the types that do ([`super::records`], [`crate::schema`]), field by field, so that a change of either does not compile until it is
//! decided what it means for files. Options are lines of text ([`crate::options::text`]).

pub(crate) mod codec;
pub(crate) mod v1;
pub(crate) mod v2;
