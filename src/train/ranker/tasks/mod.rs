//! Which outcomes are adapted to when which ones are asked, for the kinds of entity that are not the person: those have the
//! tasks of the [`Plan`](super::Plan).

mod item;
mod ragged;
mod surface;
pub(crate) use item::ItemTasks;
pub(crate) use surface::SurfaceTasks;
