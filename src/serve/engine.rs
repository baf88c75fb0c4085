//! The engine: a store's current generation, swapped under load, and every kind of request.

use super::batch::spread;
use super::decode::Sampler;
use super::filter::Filter;
use super::generation::Generation;
use super::live::Live;
use super::observe::{Personal, PersonalOptions};
use super::query::Query;
use super::retrieve::{Recommendations, Source, Written, check_score};
use super::session::{Session, Work};
use super::surface::Given;
use crate::error::{Result, err};
use crate::kernels::retrieve::dot;
use crate::store::{EntityStore, GenerationId, LiveStore, LoadMode, OpenOptions, Store, Verify};
use crossbeam::utils::CachePadded;
use parking_lot::{Mutex, RwLock};
use std::path::Path;
use std::sync::Arc;

/// How an engine opens generations.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// What is checked when a generation is opened, now and at every reload.
    pub verify: Verify,
    /// Whether tables are mapped or copied.
    pub load: LoadMode,
    /// The generation to open first; `None` is the store's current one.
    pub generation: Option<GenerationId>,
    /// Reads every table in when a generation is opened, so that no request waits for the disk.
    pub prefault: bool,
    /// Serves items that were added and removed since the publication ([`Engine::add_item`]), from the file `live.redb` in the
    /// store, which is made where there is none. One engine at a time has it open. Without, the file is neither read nor made.
    pub live: bool,
    /// Keeps what entities do while the engine serves ([`Engine::observe`]) and answers for them by it, in the same file; `None`
    /// keeps nothing.
    pub personal: Option<PersonalOptions>,
}

/// A recommendation engine over one store. All methods take `&self` and may be called from any number of threads; each
/// runs on the thread that calls it and answers wholly from one generation.
///
/// ```no_run
/// use docent::serve::{Engine, EngineOptions, Filter, Query};
/// let engine = Engine::open("shop.store", &EngineOptions::default())?;
/// let list = engine.recommend(&Query::entity("u42"), &Filter::default(), 10)?;
/// for item in &list.items {
///     println!("{} {} {}", item.id, item.title.as_deref().unwrap_or(""), item.score);
/// }
/// // A newer generation was published: swap to it, while other threads go on asking.
/// engine.reload()?;
/// # Ok::<(), docent::Error>(())
/// ```
#[derive(Debug)]
pub struct Engine {
    store: Store,
    options: EngineOptions,
    /// A plain lock: it keeps nothing per thread, so that hosts which fork or look for leaks are not surprised.
    current: CachePadded<RwLock<Arc<Generation>>>,
    /// Held while a generation is being opened, so that reloads come one after another.
    reloading: Mutex<()>,
    live: Option<Live>,
    personal: Option<Personal>,
}

impl Engine {
    /// Opens the store in the directory `store`.
    ///
    /// # Errors
    /// `NotFound` where there is no store, no generation as yet, or not the one asked for; `NotDocent`, `Corrupt`,
    /// `UpgradeRequired`, `Io` where the store or its generation cannot be read; with [`EngineOptions::live`] also `Locked`
    /// where another engine serves the store's live items, and `PermissionDenied` where they cannot be written.
    pub fn open(store: impl AsRef<Path>, options: &EngineOptions) -> Result<Self> {
        let store = Store::open(store)?;
        let mut generation = open_generation(&store, options, options.generation)?;
        let file = match options.live || options.personal.is_some() {
            true => Some(Arc::new(LiveStore::open(&store, options.verify == Verify::Full)?)),
            false => None,
        };
        let live = file.clone().filter(|_| options.live).map(Live::new);
        let personal = match file.zip(options.personal.as_ref()) {
            Some((file, personal)) => Some(Personal::new(EntityStore::new(file, &personal.store)?, personal)?),
            None => None,
        };
        if let Some(live) = &live {
            generation = live.show(generation, |generation| generation)?;
        }
        let current = CachePadded::new(RwLock::new(Arc::new(generation)));
        Ok(Self { store, options: options.clone(), current, reloading: Mutex::new(()), live, personal })
    }

    pub(super) fn live(&self) -> Result<&Live> {
        self.live.as_ref().ok_or_else(|| {
            err!(
                InvalidConfig,
                "this engine serves the publication alone; open it with EngineOptions::live to add and remove items"
            )
        })
    }

    pub(super) fn personal_store(&self) -> Option<&Personal> {
        self.personal.as_ref()
    }

    /// Answers from `generation` from now on.
    pub(super) fn show(&self, generation: Generation) {
        let next = Arc::new(generation);
        let previous = std::mem::replace(&mut *self.current.write(), next);
        // Unmapping, if it falls to us, does not hold up requests: the lock is released.
        drop(previous);
    }

    /// The store that this engine serves.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The generation that requests are answered from now. Several requests to one generation see one catalogue, and
    /// rows stay valid for as long as it is held.
    pub fn current(&self) -> Arc<Generation> {
        Arc::clone(&self.current.read())
    }

    /// The number of the generation that requests are answered from now.
    pub fn generation(&self) -> GenerationId {
        self.current.read().id()
    }

    /// Goes over to the store's current generation, newer or, after a rollback, older. Requests that are running finish
    /// on the generation that they began with; the last of them unmaps it. Nothing happens where it is served already.
    ///
    /// # Errors
    /// As [`Engine::open`]; the generation served so far stays.
    pub fn reload(&self) -> Result<GenerationId> {
        self.swap(None)
    }

    /// Goes over to the generation `id` of the store, whichever is current.
    ///
    /// # Errors
    /// As [`Engine::reload`].
    pub fn switch_to(&self, id: GenerationId) -> Result<GenerationId> {
        self.swap(Some(id))
    }

    fn swap(&self, to: Option<GenerationId>) -> Result<GenerationId> {
        let _one_at_a_time = self.reloading.lock();
        let served = self.generation();
        // Generations are immutable: the same number is the same content.
        if to.map_or_else(|| self.store.current(), |id| Ok(Some(id)))? == Some(served) {
            return Ok(served);
        }
        let next = open_generation(&self.store, &self.options, to)?;
        let id = next.id();
        match &self.live {
            Some(live) => live.show(next, |generation| self.show(generation))?,
            None => self.show(next),
        }
        Ok(id)
    }

    /// Whether the current generation knows an entity. For those that it does not, lists are the popular one, unless something was
    /// observed of them ([`Engine::observe`]) or the query brings events.
    ///
    /// # Errors
    /// `Corrupt` where the generation's id table is damaged.
    pub fn known_entity(&self, id: &str) -> Result<bool> {
        self.current().find_entity(id).map(|row| row.is_some())
    }

    /// The best `k` items for a query under a filter. Fewer only where the filter, or the catalogue, leaves fewer.
    ///
    /// # Errors
    /// `InvalidArgument` for `k` = 0 and for times, numbers, actions or fields that cannot be; `UnknownItem` for unknown
    /// items unless the query says to skip them; `Corrupt` where the generation turns out to be damaged.
    pub fn recommend(&self, query: &Query<'_>, filter: &Filter<'_>, k: usize) -> Result<Recommendations> {
        let generation = self.current();
        self.with_state(&generation, query, |query, embedding| {
            generation.recommend_with(&mut Work::default(), query, filter, k, embedding)
        })
    }

    /// As [`Engine::recommend`], with the rows and scores of the best items written to the caller's slices, whose length
    /// is `k`. Reuses the session's memory; see [`Session`]. Rows are named by [`Session::generation`].
    ///
    /// # Errors
    /// As [`Engine::recommend`], and `InvalidArgument` where the slices differ in length. The slices are untouched then.
    pub fn recommend_into(
        &self,
        session: &mut Session,
        query: &Query<'_>,
        filter: &Filter<'_>,
        rows: &mut [u32],
        scores: &mut [f32],
    ) -> Result<Written> {
        let (row_room, score_room) = (rows.len(), scores.len());
        if row_room != score_room {
            return Err(err!(
                InvalidArgument,
                "there is room for {row_room} rows but for {score_room} scores; pass slices of one length"
            ));
        }
        let generation = self.current();
        let work = &mut session.work;
        let source = self.with_state(&generation, query, |query, embedding| {
            generation.prepare(work, query, filter)?;
            generation.rank_personal(work, query, filter, row_room, embedding)
        })?;
        let best = work.top.finish();
        for ((row, score), found) in rows.iter_mut().zip(scores.iter_mut()).zip(best) {
            (*row, *score) = (found.row, found.score);
        }
        let written = Written { count: best.len(), generation: generation.id(), source };
        session.generation = Some(generation);
        Ok(written)
    }

    /// One list per query, all from one generation, on `threads` threads of which the caller's is one. A query that fails
    /// does not fail the others. The lists are those of [`Engine::recommend`] to the bit, whatever `threads` is.
    ///
    /// # Errors
    /// `InvalidArgument` for `threads` = 0.
    pub fn recommend_batch(
        &self,
        queries: &[Query<'_>],
        filter: &Filter<'_>,
        k: usize,
        threads: usize,
    ) -> Result<Vec<Result<Recommendations>>> {
        let generation = self.current();
        spread(queries, threads, |work, query| {
            self.with_state(&generation, query, |query, embedding| {
                generation.recommend_with(work, query, filter, k, embedding)
            })
        })
    }

    /// The scores of the given items for a query, in their order: comparable with those of [`Engine::recommend`] where
    /// it answers by the model. For those of whom nothing is known, shares of popularity.
    ///
    /// # Errors
    /// As [`Engine::recommend`]; `UnknownItem` naming a candidate that is not known.
    pub fn score(&self, query: &Query<'_>, candidates: &[&str]) -> Result<Vec<f32>> {
        let generation = self.current();
        self.with_state(&generation, query, |query, _| generation.score(query, candidates))
    }

    /// The calibrated probability of every outcome that the ranker predicts for the given items: one list per item, in their order,
    /// with one number per head, in the order of [`Generation::ranker`]'s. Where nothing is known of the entity, they say what is
    /// expected of anybody with its profile.
    ///
    /// # Errors
    /// `InvalidConfig` where the generation has no ranker; otherwise as [`Engine::score`].
    pub fn probabilities(&self, query: &Query<'_>, candidates: &[&str]) -> Result<Vec<Vec<f32>>> {
        let generation = self.current();
        self.with_state(&generation, query, |query, embedding| {
            generation.probabilities_with(&mut Work::default(), query, candidates, embedding)
        })
    }

    /// The `k` items most like `item` by the cosine of their vectors, itself left out.
    ///
    /// # Errors
    /// `UnknownItem`; `InvalidArgument` for `k` = 0; `Corrupt` where the generation turns out to be damaged.
    pub fn similar(&self, item: &str, filter: &Filter<'_>, k: usize) -> Result<Recommendations> {
        self.current().similar(item, filter, k)
    }

    /// A list of `k` items drawn at random by their scores, without replacement, in the order of the draws. The same seed
    /// on the same generation gives the same list. See [`Sampler`] for what it costs.
    ///
    /// # Errors
    /// As [`Engine::recommend`]; `InvalidArgument` where the sampler's numbers are out of range.
    pub fn sample(
        &self,
        query: &Query<'_>,
        filter: &Filter<'_>,
        k: usize,
        sampler: &Sampler,
    ) -> Result<Recommendations> {
        let generation = self.current();
        self.with_state(&generation, query, |query, _| generation.sample(query, filter, k, sampler))
    }

    /// What comes next, and after that: one list of `k` items for each of `steps` steps. Each step takes the first item
    /// of its list for the next event, in the circumstances of the query, and leaves it out from then on. With a sampler
    /// every list is drawn as by [`Engine::sample`]; without one it is the best `k`. Ends early where the filter leaves
    /// nothing more.
    ///
    /// # Errors
    /// As [`Engine::sample`]; `InvalidArgument` for `steps` = 0 or beyond [`super::MAX_STEPS`].
    pub fn steps(
        &self,
        query: &Query<'_>,
        filter: &Filter<'_>,
        k: usize,
        steps: usize,
        sampler: Option<&Sampler>,
    ) -> Result<Vec<Recommendations>> {
        let generation = self.current();
        self.with_state(&generation, query, |query, _| generation.steps(query, filter, k, steps, sampler))
    }

    /// The user vector for a query: its dot product with an item's vector is the item's score.
    ///
    /// # Errors
    /// As [`Engine::recommend`].
    pub fn user_embedding(&self, query: &Query<'_>) -> Result<Vec<f32>> {
        let generation = self.current();
        self.with_state(&generation, query, |query, _| generation.user_embedding(query))
    }

    /// The user vectors of several queries, on `threads` threads of which the caller's is one.
    ///
    /// # Errors
    /// `InvalidArgument` for `threads` = 0; a query that fails does not fail the others.
    pub fn user_embeddings(&self, queries: &[Query<'_>], threads: usize) -> Result<Vec<Result<Vec<f32>>>> {
        let generation = self.current();
        spread(queries, threads, |work, query| {
            self.with_state(&generation, query, |query, _| generation.user_embedding_with(work, query))
        })
    }

    /// An item's vector.
    ///
    /// # Errors
    /// `UnknownItem`; `Corrupt` where the vector is damaged.
    pub fn item_embedding(&self, item: &str) -> Result<Vec<f32>> {
        let generation = self.current();
        Ok(generation.item_vector(generation.item_row(item)?)?.to_vec())
    }
}

impl Generation {
    /// As [`Engine::recommend`], from this generation.
    ///
    /// # Errors
    /// As [`Engine::recommend`].
    pub fn recommend(&self, query: &Query<'_>, filter: &Filter<'_>, k: usize) -> Result<Recommendations> {
        self.recommend_with(&mut Work::default(), query, filter, k, None)
    }

    pub(super) fn recommend_with(
        &self,
        work: &mut Work,
        query: &Query<'_>,
        filter: &Filter<'_>,
        k: usize,
        embedding: Option<&Given>,
    ) -> Result<Recommendations> {
        self.prepare(work, query, filter)?;
        let source = self.rank_personal(work, query, filter, k, embedding)?;
        Ok(Recommendations { generation: self.id(), source, items: self.named(work)? })
    }

    /// As [`Engine::score`], from this generation.
    ///
    /// # Errors
    /// As [`Engine::score`].
    pub fn score(&self, query: &Query<'_>, candidates: &[&str]) -> Result<Vec<f32>> {
        self.score_with(&mut Work::default(), query, candidates).map(|(_, scores)| scores)
    }

    /// Scores, and what they are; leaves the history and, where the model scored, the user vector in `work`.
    pub(super) fn score_with(
        &self,
        work: &mut Work,
        query: &Query<'_>,
        candidates: &[&str],
    ) -> Result<(Source, Vec<f32>)> {
        work.resolved.read(self, query)?;
        let popular = work.resolved.is_empty();
        if !popular {
            self.user_vector(work)?;
        }
        let (shares, blend) = (self.popularity()?, self.profile_blend(&work.resolved.profile)?);
        let score = |id: &&str| {
            let row = self.item_row(id)?;
            if self.is_removed(row) {
                return Err(err!(UnknownItem, "item {id:?} was removed; leave it out, or add it again"));
            }
            match popular {
                true if row as usize >= self.published_items() => Ok(0.0),
                true => blend.share(row, shares),
                false => check_score(dot(&work.user, self.item_vector(row)?), row),
            }
        };
        let scores = candidates.iter().map(score).collect::<Result<_>>()?;
        Ok((if popular { Source::Popularity } else { Source::Model }, scores))
    }

    /// As [`Engine::similar`], from this generation.
    ///
    /// # Errors
    /// As [`Engine::similar`].
    pub fn similar(&self, item: &str, filter: &Filter<'_>, k: usize) -> Result<Recommendations> {
        let mut work = Work::default();
        self.rank_similar(&mut work, self.item_row(item)?, filter, k)?;
        let items = self.named(&mut work)?;
        Ok(Recommendations { generation: self.id(), source: Source::Model, items })
    }

    /// As [`Engine::user_embedding`], from this generation.
    ///
    /// # Errors
    /// As [`Engine::user_embedding`].
    pub fn user_embedding(&self, query: &Query<'_>) -> Result<Vec<f32>> {
        self.user_embedding_with(&mut Work::default(), query)
    }

    pub(super) fn user_embedding_with(&self, work: &mut Work, query: &Query<'_>) -> Result<Vec<f32>> {
        work.resolved.read(self, query)?;
        self.user_vector(work)?;
        Ok(work.user.clone())
    }
}

fn open_generation(store: &Store, options: &EngineOptions, id: Option<GenerationId>) -> Result<Generation> {
    let open = OpenOptions {
        verify: options.verify,
        load: options.load,
        generation: id,
        prefault: options.prefault,
        ..OpenOptions::default()
    };
    Generation::new(store.snapshot(&open)?)
}
