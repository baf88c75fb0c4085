//! The engine: a store's current generation, swapped under load, and every kind of request.

use super::answer::{View, check_room, write};
use super::current::Current;
use super::explain::{Explanation, explain};
use super::list::{Recommendations, Source, Written};
use super::live::{Live, LiveItem, NewItem};
use super::person::{Observed, Outcome, Personal, PersonalOptions};
use super::rank::MetaEmbedding;
use super::request::{Filter, Query};
use super::retrieve::Sampler;
use super::session::{Session, Work};
use super::steps::{sample, steps};
use crate::error::{Error, ErrorKind, Result, err};
use crate::generation::Generation;
use crate::store::{
    EntityStore, GenerationId, LiveStore, LoadMode, Migration, OpenOptions, Store, StoredEmbedding, Verify,
};
use crate::threads;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;

/// Requests at once, without sessions, whose memory is kept for the next ones.
const SPARE: usize = 8;

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
    /// Serves items that were added and removed since the publication ([`Engine::add_item`]), from the file `live.db` in the
    /// store, which is made where there is none. Any number of engines and processes of a host may have it open: each shows what the
    /// others added and removed within a quarter of a second. Without, the file is neither read nor made.
    pub live: bool,
    /// Keeps what entities do while the engine serves ([`Engine::observe`]) and answers for them by it, in the same file; `None`
    /// keeps nothing.
    pub personal: Option<PersonalOptions>,
    /// Opens the publication although `live.db` is damaged: neither live items nor states of entities are served then, and
    /// [`Engine::damage`] says why. Without, opening fails.
    pub despite_damage: bool,
}

/// The live file, and the live items with the generation that shows them.
type Opened = (Arc<LiveStore>, Option<(Live, Generation)>);

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
    current: Current,
    /// Held while a generation is being opened, so that reloads come one after another.
    reloading: Mutex<()>,
    live: Option<Live>,
    personal: Option<Personal>,
    migrated: Option<Migration>,
    damage: Option<Error>,
    /// The memory of requests without a session.
    spare: Mutex<Vec<Work>>,
}

impl Engine {
    /// Opens the store in the directory `store`.
    ///
    /// # Errors
    /// `NotFound` where there is no store, no generation as yet, or not the one asked for; `NotDocent`, `Corrupt`,
    /// `UpgradeRequired`, `Io` where the store or its generation cannot be read; with [`EngineOptions::live`] also `Locked`
    /// where an engine of an earlier version has the live items open, `Busy` where another process writes to them for too long, `Forked` where the
    /// parent of this process had such files open, and `PermissionDenied` where they cannot be written.
    pub fn open(store: impl AsRef<Path>, options: &EngineOptions) -> Result<Self> {
        let store = Store::open(store)?;
        let mut generation = open_generation(&store, options, options.generation)?;
        let (mut live, mut personal, mut migrated, mut damage) = (None, None, None, None);
        match open_live(&store, options, &generation) {
            Ok(Some((file, shown))) => {
                migrated = file.migrated();
                if let Some((items, shown)) = shown {
                    (live, generation) = (Some(items), shown);
                }
                if let Some(options) = &options.personal {
                    personal = Some(Personal::new(EntityStore::new(file, &options.store)?, options)?);
                }
            }
            Ok(None) => {}
            Err(e) if e.kind() == ErrorKind::Corrupt && options.despite_damage => damage = Some(e),
            Err(e) => return Err(e),
        }
        Ok(Self {
            migrated,
            damage,
            store,
            options: options.clone(),
            current: Current::new(generation),
            reloading: Mutex::new(()),
            live,
            personal,
            spare: Mutex::default(),
        })
    }

    /// Answers from the current generation, with memory of an earlier request.
    fn answer<T>(&self, answer: impl FnOnce(&View<'_>, &mut Work) -> Result<T>) -> Result<T> {
        let generation = self.current();
        let view = View::new(&generation, self.personal.as_ref())?;
        let mut work = self.spare.lock().pop().unwrap_or_default();
        let answer = answer(&view, &mut work);
        let mut spare = self.spare.lock();
        if spare.len() < SPARE {
            spare.push(work);
        }
        answer
    }

    /// Answers from the current generation with the memory of a session, which holds the generation after that.
    fn answer_in<T>(&self, session: &mut Session, answer: impl FnOnce(&View<'_>, &mut Work) -> Result<T>) -> Result<T> {
        let generation = self.current();
        let answer = answer(&View::new(&generation, self.personal.as_ref())?, &mut session.work)?;
        session.generation = Some(generation);
        Ok(answer)
    }

    /// Answers queries from one generation, in their order, on `threads` threads of which the caller's is one.
    fn answer_all<T: Send>(
        &self,
        queries: &[Query<'_>],
        threads: usize,
        answer: impl Fn(&View<'_>, &mut Work, &Query<'_>) -> Result<T> + Sync,
    ) -> Result<Vec<Result<T>>> {
        if threads == 0 {
            return Err(err!(InvalidArgument, "threads is 0; grant at least 1, which is the caller's own"));
        }
        let generation = self.current();
        let view = View::new(&generation, self.personal.as_ref())?;
        let one = |at: usize, work: &mut Work| match queries.get(at) {
            Some(query) => answer(&view, work, query),
            None => Err(err!(Internal, "there is no query {at}; please report it")),
        };
        Ok(threads::map(threads, queries.len(), Work::default, one))
    }

    /// What opening took over from the `live.redb` of an earlier version; `None` where there was none, or it was not opened.
    pub fn migrated(&self) -> Option<Migration> {
        self.migrated
    }

    /// Why neither live items nor states of entities are served although [`EngineOptions`] ask for them: `live.db` is damaged, and
    /// [`EngineOptions::despite_damage`] had the engine opened without. Restore the file, or move it away, and open the engine anew.
    pub fn damage(&self) -> Option<&Error> {
        self.damage.as_ref()
    }

    /// The store that this engine serves.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The generation that requests are answered from now. Several requests to one generation see one catalogue, and
    /// rows stay valid for as long as it is held.
    pub fn current(&self) -> Arc<Generation> {
        if let Some(live) = &self.live {
            live.look(&self.current);
        }
        self.current.get()
    }

    /// The number of the generation that requests are answered from now.
    pub fn generation(&self) -> GenerationId {
        self.current().id()
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
            Some(live) => live.show(next, |generation| self.current.show(generation))?,
            None => self.current.show(next),
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
        self.answer(|view, work| view.recommend(work, query, filter, k))
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
        let k = check_room(rows, scores)?;
        self.answer_in(session, |view, work| {
            let source = view.list(work, query, filter, k)?;
            let count = write(work.top.finish(), rows, scores);
            Ok(Written { count, generation: view.generation.id(), source })
        })
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
        self.answer_all(queries, threads, |view, work, query| view.recommend(work, query, filter, k))
    }

    /// The scores of the given items for a query, in their order: comparable with those of [`Engine::recommend`] where
    /// it answers by the model. For those of whom nothing is known, shares of popularity.
    ///
    /// # Errors
    /// As [`Engine::recommend`]; `UnknownItem` naming a candidate that is not known.
    pub fn score(&self, query: &Query<'_>, candidates: &[&str]) -> Result<Vec<f32>> {
        self.answer(|view, work| view.scores(work, query, candidates))
    }

    /// As [`Engine::score`], with the scores written to the caller's slice, one per candidate; gives what they are.
    ///
    /// # Errors
    /// As [`Engine::score`], and `InvalidArgument` where the slice has another length. It is untouched then.
    pub fn score_into(
        &self,
        session: &mut Session,
        query: &Query<'_>,
        candidates: &[&str],
        scores: &mut [f32],
    ) -> Result<Source> {
        let (room, count) = (scores.len(), candidates.len());
        if room != count {
            return Err(err!(InvalidArgument, "there is room for {room} scores of {count} candidates; pass one each"));
        }
        self.answer_in(session, |view, work| {
            let mut found = std::mem::take(&mut work.scores);
            found.clear();
            let source = view.score(work, query, candidates, |_, score| found.push(score));
            if source.is_ok() {
                scores.copy_from_slice(&found);
            }
            work.scores = found;
            source
        })
    }

    /// The calibrated probability of every outcome that the ranker predicts for the given items: one list per item, in their order,
    /// with one number per head, in the order of [`Generation::ranker`]'s. Where nothing is known of the entity, they say what is
    /// expected of anybody with its profile.
    ///
    /// # Errors
    /// `InvalidConfig` where the generation has no ranker; otherwise as [`Engine::score`].
    pub fn probabilities(&self, query: &Query<'_>, candidates: &[&str]) -> Result<Vec<Vec<f32>>> {
        self.answer(|view, work| view.probabilities(work, query, candidates))
    }

    /// The `k` items most like `item` by the cosine of their vectors, itself left out.
    ///
    /// # Errors
    /// `UnknownItem`; `InvalidArgument` for `k` = 0; `Corrupt` where the generation turns out to be damaged.
    pub fn similar(&self, item: &str, filter: &Filter<'_>, k: usize) -> Result<Recommendations> {
        self.answer(|view, work| view.similar(work, item, filter, k))
    }

    /// As [`Engine::similar`], with rows and scores written as [`Engine::recommend_into`] does.
    ///
    /// # Errors
    /// As [`Engine::similar`], and `InvalidArgument` where the slices differ in length. The slices are untouched then.
    pub fn similar_into(
        &self,
        session: &mut Session,
        item: &str,
        filter: &Filter<'_>,
        rows: &mut [u32],
        scores: &mut [f32],
    ) -> Result<Written> {
        let k = check_room(rows, scores)?;
        self.answer_in(session, |view, work| {
            view.like(work, item, filter, k)?;
            let count = write(work.top.finish(), rows, scores);
            Ok(Written { count, generation: view.generation.id(), source: Source::Model })
        })
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
        self.answer(|view, work| sample(view, work, query, filter, k, sampler))
    }

    /// What comes next, and after that: one list of `k` items for each of `count` steps. Each step takes the first item
    /// of its list for the next event, in the circumstances of the query, and leaves it out from then on. With a sampler
    /// every list is drawn as by [`Engine::sample`]; without one it is the best `k`. Ends early where the filter leaves
    /// nothing more.
    ///
    /// # Errors
    /// As [`Engine::sample`]; `InvalidArgument` for `count` = 0 or beyond [`super::MAX_STEPS`].
    pub fn steps(
        &self,
        query: &Query<'_>,
        filter: &Filter<'_>,
        k: usize,
        count: usize,
        sampler: Option<&Sampler>,
    ) -> Result<Vec<Recommendations>> {
        self.answer(|view, work| steps(view, work, query, filter, k, count, sampler))
    }

    /// The user vector for a query: its dot product with an item's vector is the item's score.
    ///
    /// # Errors
    /// As [`Engine::recommend`].
    pub fn user_embedding(&self, query: &Query<'_>) -> Result<Vec<f32>> {
        self.answer(|view, work| {
            view.user(work, query)?;
            Ok(work.user.clone())
        })
    }

    /// As [`Engine::user_embedding`], written to the beginning of the caller's slice; gives its width.
    ///
    /// # Errors
    /// As [`Engine::user_embedding`], and `InvalidArgument` where the slice is shorter. It is untouched then.
    pub fn user_embedding_into(&self, session: &mut Session, query: &Query<'_>, vector: &mut [f32]) -> Result<usize> {
        self.answer_in(session, |view, work| {
            let (room, width) = (vector.len(), view.generation.width());
            let to = vector.get_mut(..width).ok_or_else(|| {
                err!(InvalidArgument, "there is room for {room} numbers, vectors have {width}; pass a larger array")
            })?;
            view.user(work, query)?;
            to.copy_from_slice(&work.user);
            Ok(width)
        })
    }

    /// The user vectors of several queries, on `threads` threads of which the caller's is one.
    ///
    /// # Errors
    /// `InvalidArgument` for `threads` = 0; a query that fails does not fail the others.
    pub fn user_embeddings(&self, queries: &[Query<'_>], threads: usize) -> Result<Vec<Result<Vec<f32>>>> {
        self.answer_all(queries, threads, |view, work, query| {
            view.user(work, query)?;
            Ok(work.user.clone())
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

    /// Explains the scores of the given items for a query, in their order: at most `most` events each. The weights are
    /// integrated gradients (Sundararajan et al. 2017) over the vectors of the history's items; only events that the model
    /// still reads have one. For those of whom nothing is known, scores are shares of popularity and nothing explains them.
    ///
    /// An item costs 8 to 168 forward and backward passes over the history, as many as the weights need to add up: this is for
    /// lists that somebody looks at, not for every request.
    ///
    /// # Errors
    /// As [`Engine::score`].
    pub fn explain(&self, query: &Query<'_>, items: &[&str], most: usize) -> Result<Vec<Explanation>> {
        self.answer(|view, work| explain(view, work, query, items, most))
    }

    /// Adds an item, or replaces one that was added before. When this returns the item is on disk, where it survives any crash
    /// and every later publication, and in every list that is asked for from then on: its vector comes from its metadata by
    /// the generation's item tower, until a generation is published that knows the item from events. An id that
    /// was removed comes back; one of the generation's own then with the vector and metadata of its publication.
    ///
    /// Costs one `fsync` and, whatever was added before, a copy of some hundred vectors; requests do not wait for it.
    /// Rows that were given before stay valid.
    ///
    /// # Errors
    /// `InvalidConfig` where the engine was opened without [`EngineOptions::live`], or the generation has no item
    /// tower; `AlreadyExists` where the generation has the id itself; `InvalidArgument` where an id is empty or too long, a
    /// field is not declared or takes other values; `NoSpace`, `Io`, `Corrupt`, `Poisoned` where the file cannot be written:
    /// the item is not visible then, and may or may not be there when the store is opened again.
    pub fn add_item(&self, item: &NewItem<'_>) -> Result<()> {
        self.live()?.add(&self.current, item)
    }

    /// Takes an item out: no list has it from then on, nor after a crash, nor in a later generation, until it is added
    /// again. What people did with an item of the generation still tells of them; one that was added is forgotten. Gives
    /// whether it was there; removing twice is no error.
    ///
    /// # Errors
    /// `UnknownItem` where no item has this id, now or before it was removed; otherwise as [`Engine::add_item`].
    pub fn remove_item(&self, id: &str) -> Result<bool> {
        self.live()?.remove(&self.current, id)
    }

    /// The items that were added and not removed since, in the order of their addition.
    ///
    /// # Errors
    /// `InvalidConfig` where the engine was opened without [`EngineOptions::live`]; `Corrupt`, `Io` where the file
    /// cannot be read.
    pub fn added_items(&self) -> Result<Vec<LiveItem>> {
        self.live()?.added(&self.current)
    }

    /// The ids that were removed and not added again since, in ascending order.
    ///
    /// # Errors
    /// As [`Engine::added_items`].
    pub fn removed_items(&self) -> Result<Vec<String>> {
        self.live()?.removed()
    }

    /// The states of entities: to read, export, import, forget and purge them, and to compact their file.
    ///
    /// # Errors
    /// `InvalidConfig` where the engine was opened without [`EngineOptions::personal`].
    pub fn entities(&self) -> Result<&EntityStore> {
        Ok(self.personal()?.store())
    }

    /// Takes in something that an entity did, or did not do. When this returns it is kept as the engine's durability says (by default:
    /// on disk), every request for the entity that begins after that reads it, and the entity is adapted as the engine's policy says. No
    /// other entity's answers change by a bit. Observations of one entity come one after another, of different ones at
    /// once.
    ///
    /// Items that the generation does not know are kept for one that does.
    ///
    /// # Errors
    /// `InvalidConfig` where the engine was opened without [`EngineOptions::personal`]; `InvalidArgument` for an empty id, a
    /// head or impression feature that the ranker does not have, a label outside of 0 to 1, and for what [`Engine::recommend`] refuses in an
    /// event; `NoSpace`, `Io`, `Corrupt`, `Poisoned` where the file cannot be written: the outcome is not acknowledged then.
    pub fn observe(&self, entity: &str, outcome: &Outcome<'_>) -> Result<Observed> {
        self.personal()?.observe(&self.current(), entity, outcome)
    }

    /// Adapts an entity now, from the meta block as it was learned, to the outcomes that the generation holds and those that were
    /// observed, and keeps the embedding.
    ///
    /// # Errors
    /// `InvalidConfig` where the engine keeps no states or the generation has no ranker; otherwise as [`Engine::observe`].
    pub fn adapt(&self, entity: &str) -> Result<MetaEmbedding> {
        self.personal()?.adapt(&self.current(), entity)
    }

    /// Adapts anew every entity whose embedding belongs to another model, as after the publication of one. Requests and observations go
    /// on meanwhile. Gives how many there were.
    ///
    /// # Errors
    /// As [`Engine::adapt`]. Where what is kept of an entity is at fault the others are adapted all the same, and the first failure is
    /// told with their number.
    pub fn adapt_stale(&self) -> Result<u64> {
        let stale = self.personal()?.stale(&self.current())?;
        let (mut first, mut failed) = (None, 0);
        for id in &stale {
            match self.adapt(id) {
                Ok(_) => {}
                // Of this entity alone.
                Err(e) if matches!(e.kind(), ErrorKind::InvalidArgument | ErrorKind::Corrupt) => {
                    failed += 1;
                    first.get_or_insert(e);
                }
                Err(e) => return Err(e),
            }
        }
        let all = stale.len();
        match first {
            None => Ok(all as u64),
            Some(e) => {
                let what = format!("{failed} of {all} entities could not be adapted anew; the first: ");
                Err(Error::new(e.kind(), what + e.message()))
            }
        }
    }

    /// The meta embedding that was adapted for an entity while serving; `None` where there is none. Requests do not stop at another
    /// model: they adapt anew, from what is kept.
    ///
    /// # Errors
    /// `StateMismatch` where it was adapted under another model: [`Engine::adapt`] and [`Engine::adapt_stale`] make it anew;
    /// `InvalidConfig` as there.
    pub fn meta_embedding(&self, entity: &str) -> Result<Option<StoredEmbedding>> {
        let state = self.personal()?.store().get(entity)?;
        let version = self.current().meta_version()?;
        match state {
            Some(state) => Ok(state.embedding(entity, &version)?.cloned()),
            None => Ok(None),
        }
    }

    fn live(&self) -> Result<&Live> {
        self.live.as_ref().ok_or_else(|| {
            self.not_served(
                "this engine serves the publication alone; open it with EngineOptions::live to add and remove items",
            )
        })
    }

    fn personal(&self) -> Result<&Personal> {
        self.personal.as_ref().ok_or_else(|| {
            self.not_served(
                "this engine keeps nothing of entities; open it with EngineOptions::personal to observe outcomes",
            )
        })
    }

    /// Why something of the live file is not served: damage, or `unasked`, that nobody asked for it.
    fn not_served(&self, unasked: &str) -> Error {
        match &self.damage {
            Some(damage) => Error::new(damage.kind(), damage.message()),
            None => Error::new(ErrorKind::InvalidConfig, unasked),
        }
    }
}

/// The live file, where the options ask for it, with the items of it that they ask for, shown.
fn open_live(store: &Store, options: &EngineOptions, generation: &Generation) -> Result<Option<Opened>> {
    if !options.live && options.personal.is_none() {
        return Ok(None);
    }
    let file = Arc::new(LiveStore::open(store, options.verify == Verify::Full)?);
    let shown = match options.live {
        true => {
            let live = Live::new(Arc::clone(&file));
            let shown = live.show(generation.with_overlay(generation.overlay().clone()), |shown| shown)?;
            Some((live, shown))
        }
        false => None,
    };
    Ok(Some((file, shown)))
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
