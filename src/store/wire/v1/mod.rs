//! Version 1. Frozen: the tests compare the bytes of every record, and `docs/format.md` says how to add another version.

mod live;
mod manifest;
mod progress;
mod schema;
#[cfg(test)]
mod tests;

pub(crate) use live::{ArchivedEmbedding, ArchivedItem, ArchivedState, Embedding, Item, Outcome, State};
pub(crate) use manifest::{Content, Manifest, RunFile, Section};
pub(crate) use progress::Progress;

/// The version that records of items carry, and states of entities did before version 2.
pub(crate) const VERSION: u32 = 1;

/// A record of its own, and how it is made from the type that is computed with and the other way round, field by field: a
/// `plain` one is converted as it is, of `each` element or what `maybe` is there.
macro_rules! frozen {
    (@type plain $type:ty) => { $type };
    (@type each $type:ty) => { Vec<$type> };
    (@type maybe $type:ty) => { Option<$type> };
    (@into plain $value:expr) => { $value.into() };
    (@into each $value:expr) => { $value.into_iter().map(Into::into).collect() };
    (@into maybe $value:expr) => { $value.map(Into::into) };
    ($name:ident = $($domain:ident)::+ { $($kind:ident $field:ident: $type:ty,)* }) => {
        #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Debug, Clone, PartialEq)]
        #[rkyv(derive(Debug))]
        pub(crate) struct $name {
            $(pub(crate) $field: frozen!(@type $kind $type),)*
        }
        impl From<$($domain)::+> for $name {
            fn from(value: $($domain)::+) -> Self {
                Self { $($field: frozen!(@into $kind value.$field),)* }
            }
        }
        impl From<$name> for $($domain)::+ {
            fn from(value: $name) -> Self {
                Self { $($field: frozen!(@into $kind value.$field),)* }
            }
        }
    };
}
pub(crate) use frozen;
