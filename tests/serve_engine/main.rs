//! Behaviour of the engine on generated models.

mod damage;
mod decoding;
mod explain;
mod filters;
mod lists;
mod live;
mod profile;
mod swap;
mod world;
