//! Behaviour of the engine on generated models.

mod damage;
mod decoding;
mod filters;
mod lists;
mod live;
mod swap;
mod world;
