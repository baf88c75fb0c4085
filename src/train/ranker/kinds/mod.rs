//! The kinds of entity that the ranker adapts to, one meta block each, behind one trait.
//!
//! Embeddings of all kinds add up, `e = e_person + e_item + e_{person, surface}`, and training takes turns: tasks of one kind, their rows
//! shifted by the embeddings of the others, which are constants in a step (those of the last step that met their task, and all made
//! anew after every epoch). One kind leads: its tasks teach what all share. Every outcome is asked by one task of each kind, and weights
//! that met it twice an epoch would learn it by heart.
//!
//! A further kind is a file here with its [`Kind`], a line in `list.rs`, and a block in `crate::ranker::RankerShape`.

mod item;
mod kind;
mod list;
mod person;
mod surface;
pub(crate) use kind::{Kind, Shown, Table};
pub(crate) use list::Kinds;
