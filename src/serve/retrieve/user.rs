//! The user vector: what retrieval looks with, and what the ranker reads.

use crate::error::{Result, err};
use crate::generation::Generation;
use crate::kernels::retrieve::finite;
use crate::model::{History, Request, Scratch};

/// Writes the user vector after a history, asked for under `request`.
pub(in crate::serve) fn user_vector(
    generation: &Generation,
    history: &History,
    request: &Request,
    scratch: &mut Scratch,
    user: &mut Vec<f32>,
) -> Result<()> {
    user.clear();
    user.resize(generation.width(), 0.0);
    generation.inference().user_vector(generation.weights()?, history, request, scratch, user)?;
    match finite(user) {
        true => Ok(()),
        false => Err(err!(
            Corrupt,
            "generation {} gives a user vector that is not finite; verify the store and roll back",
            generation.id()
        )),
    }
}
