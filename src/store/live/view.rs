//! The state of an entity, looked at without making it anew: as it stands in the file, or as a caller holds it.

use crate::store::records::{EntityState, StoredEmbedding, StoredOutcome};
use crate::store::wire::v1::ArchivedEmbedding;
use crate::store::wire::v2::{ArchivedOutcome, ArchivedState};
use std::slice::Iter;

/// A state where it lies: in a record of the file, whose bytes were checked, or in an [`EntityState`].
#[derive(Debug, Clone, Copy)]
pub struct StateView<'a>(Either<&'a ArchivedState, &'a EntityState>);

/// One outcome of a [`StateView`]; see [`StoredOutcome`].
#[derive(Debug, Clone, Copy)]
pub struct OutcomeView<'a>(Either<&'a ArchivedOutcome, &'a StoredOutcome>);

/// The adapted embedding of a [`StateView`]; see [`StoredEmbedding`].
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingView<'a>(Either<&'a ArchivedEmbedding, &'a StoredEmbedding>);

/// One of two things; an iterator where both are.
#[derive(Debug, Clone, Copy)]
enum Either<A, B> {
    Stored(A),
    Owned(B),
}
use Either::{Owned, Stored};

impl<A: Iterator, B: Iterator<Item = A::Item>> Iterator for Either<A, B> {
    type Item = A::Item;
    fn next(&mut self) -> Option<A::Item> {
        match self {
            Stored(a) => a.next(),
            Owned(b) => b.next(),
        }
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Stored(a) => a.size_hint(),
            Owned(b) => b.size_hint(),
        }
    }
}

impl<A: DoubleEndedIterator, B: DoubleEndedIterator<Item = A::Item>> DoubleEndedIterator for Either<A, B> {
    fn next_back(&mut self) -> Option<A::Item> {
        match self {
            Stored(a) => a.next_back(),
            Owned(b) => b.next_back(),
        }
    }
}

impl<A: ExactSizeIterator, B: ExactSizeIterator<Item = A::Item>> ExactSizeIterator for Either<A, B> {}

/// The elements of a list, as a function makes them.
type Made<'a, A, T> = std::iter::Map<Iter<'a, A>, fn(&'a A) -> T>;

/// The elements of either list, as the functions make them.
fn each<'a, A, B, T>(
    list: Either<&'a [A], &'a [B]>,
    stored: fn(&'a A) -> T,
    owned: fn(&'a B) -> T,
) -> Either<Made<'a, A, T>, Made<'a, B, T>> {
    match list {
        Stored(list) => Stored(list.iter().map(stored)),
        Owned(list) => Owned(list.iter().map(owned)),
    }
}

impl<'a> From<&'a EntityState> for StateView<'a> {
    fn from(state: &'a EntityState) -> Self {
        Self(Owned(state))
    }
}

impl<'a> StateView<'a> {
    pub(super) fn stored(state: &'a ArchivedState) -> Self {
        Self(Stored(state))
    }

    /// The outcomes that are kept, oldest first.
    pub fn outcomes(self) -> impl ExactSizeIterator<Item = OutcomeView<'a>> + DoubleEndedIterator {
        let list = match self.0 {
            Stored(s) => Stored(s.outcomes.as_slice()),
            Owned(s) => Owned(s.outcomes.as_slice()),
        };
        each(list, |o| OutcomeView(Stored(o)), |o| OutcomeView(Owned(o)))
    }

    /// [`EntityState::seen`].
    pub fn seen(self) -> u64 {
        match self.0 {
            Stored(s) => s.seen.to_native(),
            Owned(s) => s.seen,
        }
    }

    /// [`EntityState::touched`].
    pub fn touched(self) -> Option<i64> {
        match self.0 {
            Stored(s) => s.touched.as_ref().map(|t| t.to_native()),
            Owned(s) => s.touched,
        }
    }

    /// [`EntityState::past_items`].
    pub fn past_items(self) -> impl ExactSizeIterator<Item = &'a str> + DoubleEndedIterator {
        let list = match self.0 {
            Stored(s) => Stored(s.past_items.as_slice()),
            Owned(s) => Owned(s.past_items.as_slice()),
        };
        each(list, |id| id.as_str(), |id| id.as_str())
    }

    /// The adapted embedding, if there is one.
    pub fn adapted(self) -> Option<EmbeddingView<'a>> {
        match self.0 {
            Stored(s) => s.adapted.as_ref().map(|a| EmbeddingView(Stored(a))),
            Owned(s) => s.adapted.as_ref().map(|a| EmbeddingView(Owned(a))),
        }
    }
}

impl<'a> OutcomeView<'a> {
    /// [`StoredOutcome::id`].
    pub fn id(self) -> Option<&'a str> {
        match self.0 {
            Stored(o) => o.id.as_ref().map(|id| id.as_str()),
            Owned(o) => o.id.as_deref(),
        }
    }

    /// The item's id.
    pub fn item(self) -> &'a str {
        match self.0 {
            Stored(o) => o.item.as_str(),
            Owned(o) => &o.item,
        }
    }

    /// When, Unix milliseconds.
    pub fn time(self) -> Option<i64> {
        match self.0 {
            Stored(o) => o.time.as_ref().map(|t| t.to_native()),
            Owned(o) => o.time,
        }
    }

    /// The action.
    pub fn action(self) -> Option<&'a str> {
        match self.0 {
            Stored(o) => o.action.as_ref().map(|a| a.as_str()),
            Owned(o) => o.action.as_deref(),
        }
    }

    /// The event's value.
    pub fn value(self) -> Option<f32> {
        match self.0 {
            Stored(o) => o.value.as_ref().map(|v| v.to_native()),
            Owned(o) => o.value,
        }
    }

    /// Event fields by name.
    pub fn fields(self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + DoubleEndedIterator {
        let list = match self.0 {
            Stored(o) => Stored(o.fields.as_slice()),
            Owned(o) => Owned(o.fields.as_slice()),
        };
        each(list, |f| (f.0.as_str(), f.1.as_str()), |f| (f.0.as_str(), f.1.as_str()))
    }

    /// Labels by the name of the head.
    pub fn labels(self) -> impl ExactSizeIterator<Item = (&'a str, f32)> + DoubleEndedIterator {
        let list = match self.0 {
            Stored(o) => Stored(o.labels.as_slice()),
            Owned(o) => Owned(o.labels.as_slice()),
        };
        each(list, |l| (l.0.as_str(), l.1.to_native()), |l| (l.0.as_str(), l.1))
    }

    /// Impression features by name.
    pub fn impression(self) -> impl ExactSizeIterator<Item = (&'a str, f32)> + DoubleEndedIterator {
        let list = match self.0 {
            Stored(o) => Stored(o.impression.as_slice()),
            Owned(o) => Owned(o.impression.as_slice()),
        };
        each(list, |x| (x.0.as_str(), x.1.to_native()), |x| (x.0.as_str(), x.1))
    }

    /// Whether it joins the history that the foundation model reads.
    pub fn in_history(self) -> bool {
        match self.0 {
            Stored(o) => o.in_history,
            Owned(o) => o.in_history,
        }
    }
}

/// The numbers of either list.
fn numbers<'a>(
    stored: Either<&'a [rkyv::primitive::ArchivedF32], &'a [f32]>,
) -> impl ExactSizeIterator<Item = f32> + DoubleEndedIterator + Clone + use<'a> {
    each(stored, |x| x.to_native(), |x| *x)
}

impl<'a> EmbeddingView<'a> {
    /// The model that it was made with.
    pub fn model(self) -> [u8; 32] {
        match self.0 {
            Stored(e) => e.model,
            Owned(e) => e.model,
        }
    }

    /// The embedding.
    pub fn embedding(self) -> impl ExactSizeIterator<Item = f32> + DoubleEndedIterator + Clone {
        numbers(match self.0 {
            Stored(e) => Stored(e.embedding.as_slice()),
            Owned(e) => Owned(e.embedding.as_slice()),
        })
    }

    /// What is added to it on each surface, by the surface's name.
    pub fn surfaces(
        self,
    ) -> impl ExactSizeIterator<Item = (&'a str, impl ExactSizeIterator<Item = f32> + DoubleEndedIterator + Clone)>
    {
        let list = match self.0 {
            Stored(e) => Stored(e.surfaces.as_slice()),
            Owned(e) => Owned(e.surfaces.as_slice()),
        };
        each(
            list,
            |s| (s.0.as_str(), numbers(Stored(s.1.as_slice()))),
            |s| (s.0.as_str(), numbers(Owned(s.1.as_slice()))),
        )
    }

    /// [`StoredEmbedding::outcomes`].
    pub fn outcomes(self) -> u64 {
        match self.0 {
            Stored(e) => e.outcomes.to_native(),
            Owned(e) => e.outcomes,
        }
    }

    /// [`StoredEmbedding::made`].
    pub fn made(self) -> i64 {
        match self.0 {
            Stored(e) => e.made.to_native(),
            Owned(e) => e.made,
        }
    }
}
