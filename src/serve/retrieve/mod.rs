//! Which items come into question: the exact scan under the foundation model, and the popular list where nothing is known.

mod draw;
mod popular;
mod scan;
mod user;

pub(super) use draw::draw;
pub use draw::{Sampler, Sampling};
pub(super) use popular::{Blend, Popular};
pub(super) use scan::{Exact, Likeness, Retrieve, Wanted};
pub(super) use user::user_vector;
