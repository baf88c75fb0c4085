//! What the meta block knows of an entity before it is adapted, and what the trunk reads of a candidate.

use crate::error::{Result, err};
use crate::kernels::math::{Real, dot};
use crate::kernels::norm::{SHORTEST, scale_rows_backward};
use crate::model::Value;
use crate::random::mix64;
use crate::schema::{FieldKind, Schema};

/// Places of a profile field with many codes; more codes share places (feature hashing, Weinberger et al. 2009).
const PLACES: usize = 64;
/// Places of surfaces; more surfaces share places, as the codes of a profile field do.
const SURFACES: usize = 32;
/// How many outcomes the prior of an outcome rate counts as.
const PRIOR: f32 = 5.0;
/// The latest outcomes whose rate is told apart.
const RECENT: f32 = 10.0;

/// What is known of an entity's outcomes on one head.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Evidence {
    /// How many outcomes there are.
    pub count: f32,
    /// The sum of their labels.
    pub sum: f32,
    /// The decayed number of the latest ones.
    pub recent_count: f32,
    /// Their decayed sum.
    pub recent_sum: f32,
}

impl Evidence {
    /// Takes one more outcome, newer than all before it; NaN is none.
    pub fn push(&mut self, label: f32) {
        if label.is_nan() {
            return;
        }
        let keep = 1.0 - 1.0 / RECENT;
        self.count += 1.0;
        self.sum += label;
        self.recent_count = keep * self.recent_count + 1.0;
        self.recent_sum = keep * self.recent_sum + label;
    }
}

/// How the vectors that a ranker reads are laid out.
///
/// Meta block: the user vector (length sqrt(d)), three statistics a head, one place per code of each profile field, zeros up to
/// a multiple of 16. Trunk: the ranker's own item vector, the foundation model's item vector and the user vector (length
/// sqrt(d)), their product, popularity and impression features.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    state: usize,
    means: Vec<f32>,
    profile: Vec<Profile>,
    width: usize,
}

/// How a profile field is read.
#[derive(Debug, Clone, PartialEq)]
struct Profile {
    /// Places in the input; 0 for fields that are not read.
    places: usize,
    /// The buckets of a numeric field.
    numeric: Option<FieldKind>,
}

impl Inputs {
    /// The layout for user vectors `state` wide, the profile fields of `schema`, and heads whose labels average `means` over
    /// all that is trained on.
    pub fn new(schema: &Schema, state: usize, means: &[f32]) -> Self {
        let places = |kind: &FieldKind| match kind {
            FieldKind::Categorical(_) | FieldKind::MultiValued(_) | FieldKind::Numeric(_) => kind.codes().min(PLACES),
            _ => 0,
        };
        let read = |kind: &FieldKind| Profile {
            places: places(kind),
            numeric: matches!(kind, FieldKind::Numeric(_)).then(|| kind.clone()),
        };
        let profile: Vec<Profile> = schema.entity_fields.iter().map(|f| read(&f.kind)).collect();
        let width = state + 3 * means.len() + profile.iter().map(|p| p.places).sum::<usize>();
        Self { state, means: means.to_vec(), profile, width: width.next_multiple_of(16) }
    }

    /// The layout for entities without a profile, such as items: `state` is then the foundation model's item vector.
    pub fn of_items(state: usize, means: &[f32]) -> Self {
        Self { state, means: means.to_vec(), profile: Vec::new(), width: Self::plain(state, means.len()) }
    }

    /// The width of [`Inputs::of_items`].
    pub(super) fn plain(state: usize, heads: usize) -> usize {
        (state + 3 * heads).next_multiple_of(16)
    }

    /// The layout for a person on a surface: the statistics of the outcomes there, and one place per surface, whose code stands in
    /// place of a profile. No user vector: what goes with the history is the person's own part, and a second block that read
    /// it would learn persons by heart.
    pub fn of_surface(means: &[f32]) -> Self {
        let profile = vec![Profile { places: SURFACES, numeric: None }];
        Self { state: 0, means: means.to_vec(), profile, width: Self::on_surface(means.len()) }
    }

    /// The width of [`Inputs::of_surface`].
    pub(super) fn on_surface(heads: usize) -> usize {
        (3 * heads + SURFACES).next_multiple_of(16)
    }

    /// Width of the meta block's input.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Writes the input of an entity: its user vector, its outcomes by head, and its profile, one value for each field of the
    /// schema; fewer where nothing is known of it.
    ///
    /// # Errors
    /// `InvalidArgument` for widths that do not fit.
    pub fn write(&self, state: &[f32], evidence: &[Evidence], profile: &[Value<'_>], out: &mut [f32]) -> Result<()> {
        if state.len() != self.state || evidence.len() != self.means.len() || out.len() != self.width {
            return Err(err!(
                InvalidArgument,
                "the meta block reads {} numbers of a user vector and {} heads, got {} and {}; pass those of this model",
                self.state,
                self.means.len(),
                state.len(),
                evidence.len()
            ));
        }
        out.fill(0.0);
        unit(state, &mut out[..self.state]);
        let mut at = self.state;
        for (e, mean) in evidence.iter().zip(&self.means) {
            let rate = |sum: f32, count: f32| (sum + PRIOR * mean) / (count + PRIOR) - mean;
            out[at] = (1.0 + e.count).ln() / 4.0;
            out[at + 1] = 4.0 * rate(e.sum, e.count);
            out[at + 2] = 4.0 * rate(e.recent_sum, e.recent_count);
            at += 3;
        }
        for (i, Profile { places, numeric }) in self.profile.iter().enumerate().filter(|(_, p)| p.places > 0) {
            let mut mark = |code: u32, by: f32| out[at + place(code, *places)] += by;
            match (profile.get(i), numeric) {
                (Some(Value::Codes(codes)), None) if !codes.is_empty() => {
                    codes.iter().for_each(|c| mark(*c, 1.0 / codes.len() as f32));
                }
                (Some(Value::Number(x)), Some(kind)) => mark(kind.bucket(*x), 1.0),
                _ => mark(0, 1.0),
            }
            at += places;
        }
        Ok(())
    }

    /// Appends what the trunk reads of a candidate.
    pub(crate) fn candidate<T: Real>(&self, own: &[T], item: &[T], state: &[T], numbers: &[T], out: &mut Vec<T>) {
        out.extend_from_slice(own);
        let (v, d) = (out.len(), self.state);
        out.resize(v + 3 * d, T::ZERO);
        let (vectors, product) = out[v..].split_at_mut(2 * d);
        let (item_to, state_to) = vectors.split_at_mut(d);
        unit(item, item_to);
        unit(state, state_to);
        for ((p, a), b) in product.iter_mut().zip(&*item_to).zip(&*state_to) {
            *p = *a * *b;
        }
        out.extend_from_slice(numbers);
    }

    /// From the gradients at the columns `[v ; h ; h * v]` of the candidates `rows` (of `read` numbers each, `own` before those columns)
    /// to those of `v` and of `h` at length sqrt(d): writes the first to `items` (`[n, d]`), adds the second, that all rows
    /// share, to `state` (`[d]`).
    pub(crate) fn candidates_backward<T: Real>(
        &self,
        rows: &[T],
        [own, read]: [usize; 2],
        gradients: &[T],
        items: &mut Vec<T>,
        state: &mut [T],
    ) {
        let d = self.state;
        for (row, g) in rows.chunks_exact(read).zip(gradients.chunks_exact(3 * d)) {
            let (v, h) = row[own..own + 2 * d].split_at(d);
            let (vectors, product) = g.split_at(2 * d);
            let (dv, dh) = vectors.split_at(d);
            items.extend(dv.iter().zip(product).zip(h).map(|((dv, p), h)| *dv + *p * *h));
            for (((to, dh), p), v) in state.iter_mut().zip(dh).zip(product).zip(v) {
                *to += *dh + *p * *v;
            }
        }
    }
}

/// The gradients at vectors `from` (`[n, d]`) of those at their directions of length sqrt(d), added to `to`.
pub(crate) fn unit_backward<T: Real>(from: &[T], d: usize, gradients: &[T], to: &mut [T]) {
    scale_rows_backward(from, d, true, (d as f32).sqrt(), gradients, to);
}

/// The popularity of an item that is not among those that a ranker was trained on: that of the rarest.
pub(crate) fn unseen(popularity: &[f32]) -> f32 {
    popularity.iter().copied().fold(0.0, f32::min)
}

fn place(code: u32, places: usize) -> usize {
    let code = code as usize;
    // Code 0, missing, keeps its own place.
    if code < places { code } else { 1 + (mix64(code as u64) % (places.max(2) as u64 - 1)) as usize }
}

/// `from` at length sqrt(d): its numbers are about 1.
fn unit<T: Real>(from: &[T], to: &mut [T]) {
    let length = dot(from, from).sqrt().most(T::of(f64::from(SHORTEST)));
    let by = T::of(from.len() as f64).sqrt() / length;
    to.iter_mut().zip(from).for_each(|(t, f)| *t = *f * by);
}
