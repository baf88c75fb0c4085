//! Symmetric positive definite matrices: the inverse of a large one, and equations in a small one.

use super::math::dot;
use super::matmul::{View, matmul};
use crate::threads;
use parking_lot::Mutex;

/// Rows that are eliminated at once, and rows of a panel that one thread updates.
const BLOCK: usize = 96;

/// Replaces the symmetric positive definite `a` (`[n, n]`, of which the upper triangle is read) by its inverse, both triangles, on up
/// to `threads` threads. Whether it could be done: where a pivot is not positive the matrix is left half done.
///
/// Blocks of rows are swept one after the other (Beaton 1964): with `D` the block on the diagonal and `R` its rows,
/// the rest of the matrix becomes `A - R' D^-1 R`, the rows `D^-1 R` and the block `-D^-1`; after the last sweep the matrix is minus its inverse.
pub(crate) fn invert(a: &mut [f32], n: usize, threads: usize) -> bool {
    let mut rows = vec![0.0f32; BLOCK * n];
    let mut swept = vec![0.0f32; BLOCK * n];
    for first in (0..n).step_by(BLOCK) {
        let block = BLOCK.min(n - first);
        let (rows, swept) = (&mut rows[..block * n], &mut swept[..block * n]);
        // The block's rows; what lies below the diagonal is known from above it.
        for (r, to) in rows.chunks_exact_mut(n).enumerate() {
            for (c, x) in to.iter_mut().enumerate() {
                let (low, high) = ((first + r).min(c), (first + r).max(c));
                *x = a[low * n + high];
            }
        }
        let mut pivot: Vec<f64> =
            rows.chunks_exact(n).flat_map(|row| &row[first..first + block]).map(|x| f64::from(*x)).collect();
        if !invert_small(&mut pivot, block) {
            return false;
        }
        let minus: Vec<f32> = pivot.iter().map(|x| -*x as f32).collect();
        matmul(View::dense(&minus, block, block), View::dense(rows, block, n), swept, n, false);
        let (rows, swept) = (&*rows, &*swept);
        let panels: Vec<Mutex<&mut [f32]>> = a.chunks_mut(BLOCK * n).map(Mutex::new).collect();
        threads::map(
            threads,
            panels.len(),
            || (),
            |p, ()| {
                let (Some(panel), start) = (panels.get(p), p * BLOCK) else { return };
                let mut panel = panel.lock();
                let height = panel.len() / n;
                if start == first {
                    for (r, row) in panel.chunks_exact_mut(n).enumerate() {
                        row.iter_mut().zip(&swept[r * n..]).for_each(|(x, s)| *x = -*s);
                        row[first..first + block].copy_from_slice(&minus[r * block..(r + 1) * block]);
                    }
                    return;
                }
                let mine = View::rows(&rows[start..], block, height, n).t();
                let right = View::rows(&swept[start..], block, n - start, n);
                matmul(mine, right, &mut panel[start..], n, true);
                if start < first {
                    for (r, row) in panel.chunks_exact_mut(n).enumerate() {
                        for (c, x) in row[first..first + block].iter_mut().enumerate() {
                            *x = -swept[c * n + start + r];
                        }
                    }
                }
            },
        );
    }
    for r in 0..n {
        for c in r..n {
            let x = -a[r * n + c];
            (a[r * n + c], a[c * n + r]) = (x, x);
        }
    }
    true
}

/// The inverse of a small positive definite matrix, in place; whether there is one.
fn invert_small(a: &mut [f64], n: usize) -> bool {
    for k in 0..n {
        let pivot = a[k * n + k];
        if !(pivot > 0.0 && pivot.is_finite()) {
            return false;
        }
        let row: Vec<f64> = a[k * n..(k + 1) * n].iter().map(|x| x / pivot).collect();
        for (i, other) in a.chunks_exact_mut(n).enumerate() {
            let factor = other[k];
            if i == k {
                other.copy_from_slice(&row);
                other[k] = 1.0 / pivot;
            } else {
                other.iter_mut().zip(&row).for_each(|(x, r)| *x -= factor * r);
                other[k] = -factor / pivot;
            }
        }
    }
    true
}

/// Solves `a x = b` for the symmetric positive definite `a` (`[n, n]`, of which the lower triangle is read and overwritten), in place of
/// `b` (Cholesky). Whether it could be done.
pub(crate) fn solve(a: &mut [f32], b: &mut [f32]) -> bool {
    let n = b.len();
    for k in 0..n {
        let (above, rest) = a.split_at_mut(k * n);
        let row = &mut rest[..n];
        for (j, other) in above.chunks_exact(n).enumerate() {
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        let left = row[k] - dot(&row[..k], &row[..k]);
        if !(left > 0.0 && left.is_finite()) {
            return false;
        }
        row[k] = left.sqrt();
        b[k] = (b[k] - dot(&row[..k], &b[..k])) / row[k];
    }
    for k in (0..n).rev() {
        let row = &a[k * n..(k + 1) * n];
        let x = b[k] / row[k];
        b[k] = x;
        b[..k].iter_mut().zip(&row[..k]).for_each(|(b, r)| *b -= x * r);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;

    /// A random positive definite matrix.
    fn matrix(n: usize) -> Vec<f32> {
        let mut rng = Rng::new(n as u64);
        let x: Vec<f32> = (0..n * n).map(|_| rng.normal() as f32).collect();
        let mut a = vec![0.0; n * n];
        matmul(View::dense(&x, n, n), View::dense(&x, n, n).t(), &mut a, n, false);
        (0..n).for_each(|i| a[i * n + i] += n as f32);
        a
    }

    #[test]
    fn a_matrix_times_its_inverse_is_one_whatever_the_threads() {
        for n in [1, 7, BLOCK, BLOCK + 1, 3 * BLOCK - 5] {
            let a = matrix(n);
            let mut inverse = a.clone();
            // Only the upper triangle is read.
            (0..n).for_each(|r| inverse[r * n..r * n + r].fill(f32::NAN));
            assert!(invert(&mut inverse, n, 1));
            let mut again = a.clone();
            assert!(invert(&mut again, n, 3));
            assert_eq!(inverse, again);
            let mut product = vec![0.0; n * n];
            matmul(View::dense(&a, n, n), View::dense(&inverse, n, n), &mut product, n, false);
            for (i, x) in product.iter().enumerate() {
                let one = if i / n == i % n { 1.0 } else { 0.0 };
                assert!((x - one).abs() < 1e-3, "{n}: {i} is {x}");
            }
        }
    }

    #[test]
    fn equations_are_solved_and_what_is_not_positive_is_refused() {
        for n in [1, 5, 64] {
            let a = matrix(n);
            let x: Vec<f32> = (0..n).map(|i| i as f32 - 2.0).collect();
            let mut b = vec![0.0; n];
            matmul(View::dense(&a, n, n), View::dense(&x, n, 1), &mut b, 1, false);
            assert!(solve(&mut a.clone(), &mut b));
            x.iter().zip(&b).for_each(|(x, b)| assert!((x - b).abs() < 1e-2, "{x} {b}"));
        }
        assert!(!solve(&mut [-1.0], &mut [1.0]));
        assert!(!invert(&mut [1.0, 2.0, 2.0, 1.0], 2, 1));
    }
}
