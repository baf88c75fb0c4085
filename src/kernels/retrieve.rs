//! Exact retrieval: dot products of one vector with the rows of a table, and the best k of a stream of scores.
//!
//! Everything is plain safe code in a shape that compilers vectorise: sixteen independent sums, added up in one fixed
//! order, so that a row has the same score to the bit wherever and in whichever batch it is computed.

use super::dispatch::dispatch;
use std::cmp::Ordering;

const LANES: usize = 16;

/// The dot product of two vectors; of the shorter length where they differ.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for ((s, x), y) in sums.iter_mut().zip(x).zip(y) {
            *s += x * y;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    reduce(sums) + rest
}

/// The sum of squares of a vector, added up like [`dot`].
#[inline(always)]
pub(crate) fn square(a: &[f32]) -> f32 {
    dot(a, a)
}

#[inline(always)]
fn reduce(sums: [f32; LANES]) -> f32 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = sums;
    (((a + i) + (e + m)) + ((c + k) + (g + o))) + (((b + j) + (f + n)) + ((d + l) + (h + p)))
}

dispatch! {
    /// Writes the dot product of `vector` with each row of `table` to `scores`, one row per score.
    fn dot_rows(vector: &[f32], table: &[f32], scores: &mut [f32]) {
        for (score, row) in scores.iter_mut().zip(table.chunks_exact(vector.len().max(1))) {
            *score = dot(vector, row);
        }
    }
}

dispatch! {
    /// Writes the cosine of `vector` and each row of `table` to `scores`, one row per score. A vector of length zero is
    /// like nothing: its cosines are 0.
    fn cosine_rows(vector: &[f32], table: &[f32], scores: &mut [f32]) {
        let length = square(vector).sqrt();
        for (score, row) in scores.iter_mut().zip(table.chunks_exact(vector.len().max(1))) {
            let lengths = length * square(row).sqrt();
            *score = if lengths > 0.0 { (dot(vector, row) / lengths).clamp(-1.0, 1.0) } else { 0.0 };
        }
    }
}

/// Whether all numbers are finite.
#[inline]
pub(crate) fn finite(values: &[f32]) -> bool {
    // Not `all`: without an early exit the loop is vectorised.
    values.iter().fold(true, |yes, v| yes & v.is_finite())
}

/// A scored row. Better comes first: the higher score, among equals the lower row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scored {
    /// The score; finite.
    pub score: f32,
    /// The row.
    pub row: u32,
}

fn better(a: &Scored, b: &Scored) -> Ordering {
    b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal).then(a.row.cmp(&b.row))
}

/// Keeps the best `k` of any number of offered rows in `O(k)` memory and amortised constant time per offer.
#[derive(Debug, Default)]
pub(crate) struct TopK {
    k: usize,
    kept: Vec<Scored>,
    /// Once `k` rows are known: the worst of the best `k` at the last pruning.
    threshold: Option<Scored>,
}

impl TopK {
    /// Starts anew, for the best `k`.
    pub(crate) fn reset(&mut self, k: usize) {
        self.k = k;
        self.kept.clear();
        self.kept.reserve(k.saturating_mul(2));
        self.threshold = None;
    }

    /// Whether offering this row could change the outcome: a cheap test that comes before dearer ones.
    #[inline]
    pub(crate) fn wants(&self, score: f32, row: u32) -> bool {
        match self.threshold {
            None => self.k > 0,
            Some(t) => score > t.score || (score == t.score && row < t.row),
        }
    }

    /// Offers a row. Each row at most once.
    #[inline]
    pub(crate) fn offer(&mut self, score: f32, row: u32) {
        if !self.wants(score, row) {
            return;
        }
        self.kept.push(Scored { score, row });
        if self.kept.len() >= self.k.saturating_mul(2).max(self.k.saturating_add(1)) {
            self.prune();
        }
    }

    fn prune(&mut self) {
        if self.k > 0 && self.kept.len() > self.k {
            let (_, last, _) = self.kept.select_nth_unstable_by(self.k - 1, better);
            self.threshold = Some(*last);
            self.kept.truncate(self.k);
        }
    }

    /// The best rows, best first.
    pub(crate) fn finish(&mut self) -> &[Scored] {
        self.prune();
        self.kept.sort_unstable_by(better);
        &self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;

    #[test]
    fn dot_products_equal_the_double_precision_sum() {
        let mut rng = Rng::new(3);
        for n in 0..130 {
            let a: Vec<f32> = (0..n).map(|_| rng.normal() as f32).collect();
            let b: Vec<f32> = (0..n).map(|_| rng.normal() as f32).collect();
            let exact: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            assert!((f64::from(dot(&a, &b)) - exact).abs() < 1e-4, "length {n}");
            assert!(square(&a) >= 0.0);
        }
    }

    #[test]
    fn rows_score_alike_alone_and_in_a_table() {
        let mut rng = Rng::new(4);
        for d in [1, 7, 16, 33, 64] {
            let table: Vec<f32> = (0..d * 9).map(|_| rng.normal() as f32).collect();
            let vector: Vec<f32> = (0..d).map(|_| rng.normal() as f32).collect();
            let mut scores = [0.0; 9];
            dot_rows(&vector, &table, &mut scores);
            for (row, score) in table.chunks_exact(d).zip(scores) {
                assert_eq!(score.to_bits(), dot(&vector, row).to_bits());
            }
        }
    }

    #[test]
    fn finite_sees_every_place() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in 0..40 {
                let mut values = [1e38f32; 40];
                assert!(finite(&values));
                values[place] = bad;
                assert!(!finite(&values), "{bad} at {place}");
            }
        }
        assert!(finite(&[]));
    }

    #[test]
    fn the_best_k_equal_a_full_sort() {
        let mut rng = Rng::new(5);
        let mut top = TopK::default();
        for round in 0..300 {
            let n = rng.below(200);
            let k = rng.below(40);
            // Few distinct scores: many ties, also between the two zeros.
            let mut rows: Vec<Scored> =
                (0..n as u32).map(|row| Scored { score: [-0.0, 0.0, 1.0, -2.5, 7.0][rng.below(5)], row }).collect();
            if round % 2 == 0 {
                rng.shuffle(&mut rows);
            }
            top.reset(k);
            rows.iter().for_each(|r| top.offer(r.score, r.row));
            let mut sorted = rows.clone();
            sorted.sort_by(better);
            sorted.truncate(k);
            let rows = |list: &[Scored]| list.iter().map(|s| s.row).collect::<Vec<_>>();
            assert_eq!(rows(top.finish()), rows(&sorted), "round {round}: {k} of {n}");
        }
    }
}
