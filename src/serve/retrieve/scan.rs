//! The best rows of the catalogue for a vector, exactly.

use super::super::list::check_score;
use super::super::request::{Conditions, Mask};
use crate::error::Result;
use crate::generation::Generation;
use crate::kernels::retrieve::{TopK, cosine_rows, dot_rows, finite};

/// Rows scored at once: their scores stay in the nearest cache.
const BLOCK: usize = 512;

/// How rows are scored against a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::serve) enum Likeness {
    /// By the dot product.
    Dot,
    /// By the cosine.
    Cosine,
}

impl Likeness {
    fn score(self, vector: &[f32], rows: &[f32], scores: &mut [f32]) {
        match self {
            Self::Dot => dot_rows(vector, rows, scores),
            Self::Cosine => cosine_rows(vector, rows, scores),
        }
    }
}

/// Which rows are wanted.
pub(in crate::serve) struct Wanted<'a> {
    /// Those that are most like this.
    pub vector: &'a [f32],
    /// In this sense.
    pub likeness: Likeness,
    /// Of those that these let pass.
    pub mask: &'a Mask,
    /// And these.
    pub conditions: &'a Conditions<'a>,
}

impl Wanted<'_> {
    fn admits(&self, row: u32) -> Result<bool> {
        Ok(self.mask.lets(row) && self.conditions.hold(row)?)
    }
}

/// Offers the rows that are wanted: where an index or a device takes the place of the scan.
pub(in crate::serve) trait Retrieve {
    /// Offers at least the best rows to `top`, each once.
    fn retrieve(&self, wanted: &Wanted<'_>, top: &mut TopK) -> Result<()>;
}

/// Scores every row, or every allowed one.
pub(in crate::serve) struct Exact<'a>(pub &'a Generation);

impl Retrieve for Exact<'_> {
    fn retrieve(&self, wanted: &Wanted<'_>, top: &mut TopK) -> Result<()> {
        match wanted.mask.only() {
            None => self.scan(wanted, top),
            Some(rows) => self.pick(rows, wanted, top),
        }
    }
}

impl Exact<'_> {
    /// Scores the whole catalogue block by block.
    fn scan(&self, wanted: &Wanted<'_>, top: &mut TopK) -> Result<()> {
        let (mut block, mut row, width) = ([0.0; BLOCK], 0u32, self.0.width());
        let published = self.0.item_vectors()?.chunks(BLOCK.saturating_mul(width));
        for rows in published.chain(self.0.overlay().vectors()) {
            let scores = block.get_mut(..rows.len() / width.max(1)).unwrap_or_default();
            wanted.likeness.score(wanted.vector, rows, scores);
            if !finite(scores) {
                let bad = scores.iter().position(|s| !s.is_finite()).unwrap_or_default();
                check_score(f32::NAN, row.saturating_add(bad as u32))?;
            }
            for score in scores.iter() {
                // The cheap test first: most rows are not among the best.
                if top.wants(*score, row) && wanted.admits(row)? {
                    top.offer(*score, row);
                }
                row = row.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Scores these rows only.
    fn pick(&self, rows: &[u32], wanted: &Wanted<'_>, top: &mut TopK) -> Result<()> {
        for row in rows {
            if wanted.admits(*row)? {
                let mut score = [0.0];
                wanted.likeness.score(wanted.vector, self.0.item_vector(*row)?, &mut score);
                let [score] = score;
                top.offer(check_score(score, *row)?, *row);
            }
        }
        Ok(())
    }
}
