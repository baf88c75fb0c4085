//! The names of a model generation's sections: what the trainer publishes and the engine reads (docs/format.md).
//!
//! `n` is the number of items, `e` of entities, `m` of stored events, `d` the model width. Every id list is three
//! sections: `.offsets` (u64, one more than there are ids), `.bytes` (u8, UTF-8), `.sorted` (u32, rows in ascending
//! order of their id's bytes), so that a row is found by binary search in the map.

/// Item ids (prefix of three sections).
pub const ITEM_IDS: &str = "item.ids";
/// Entity ids (prefix of three sections).
pub const ENTITY_IDS: &str = "entity.ids";
/// Item titles (prefix of two sections, `.offsets` and `.bytes`); absent where the dataset declares none.
pub const ITEM_TITLES: &str = "item.titles";
/// Item release times, i64 `[n]`, Unix milliseconds, `i64::MIN` is unknown; absent where not declared.
pub const ITEM_RELEASED: &str = "item.released";
/// Item metadata, prefix followed by `.<index in schema.item_fields>` and then `.codes` (u32 `[n]`, categorical; or
/// u32, multi-valued, with `.offsets` u32 `[n + 1]`), `.numbers` (f32 `[n]`), or `.vectors` (f32 `[n, dim]`).
pub const ITEM_FIELD: &str = "item.field";
/// Item vectors, f32 `[n, d]`: input embedding and output matrix in one.
pub const ITEM_VECTORS: &str = "item.vectors";
/// ID embeddings, f32 `[n, d]`: what the item tower mixes with metadata; absent without a tower.
pub const ITEM_EMBEDDINGS: &str = "item.embeddings";
/// Training events on each item, u32 `[n]`; absent without a tower.
pub const ITEM_EVIDENCE: &str = "item.evidence";
/// Age of each item after the last training event, f32 `[n]`, days; NaN is unknown; absent without a tower.
pub const ITEM_AGE: &str = "item.age";
/// Recency-weighted popularity, f32 `[n]`: the share of the decayed event count; sums to 1.
pub const ITEM_POPULARITY: &str = "item.popularity";
/// Item rows, u32 `[n]`, in descending order of popularity (ties by row): the list for those of whom nothing is known.
pub const ITEM_POPULAR: &str = "item.popular";
/// Profiles of entities, prefix followed by `.<index in schema.entity_fields>` and then as [`ITEM_FIELD`], `e` rows.
pub const ENTITY_FIELD: &str = "entity.field";
/// What is popular among the people with a value of a profile field, prefix followed by `.<index in schema.entity_fields>` and
/// then, with `c` the codes of the field, `.weights` (f32 `[c]`: the decayed event count of the people with each code),
/// `.offsets` (u32 `[c + 1]`), `.rows` (u32, item rows of each code, most popular first, not all of them) and `.shares` (f32,
/// their shares of the code's events).
pub const PROFILE_POPULARITY: &str = "profile.popularity";
/// Dense weights, f32 `[p]`, in the order of the layout.
pub const WEIGHTS: &str = "weights";
/// Feature tables, f32, one after another, each `[codes, field_width]`.
pub const FEATURES: &str = "features";
/// Offsets of each entity's stored history, u64 `[e + 1]`.
pub const HISTORY_OFFSETS: &str = "history.offsets";
/// Item rows of stored events, u32 `[m]`, oldest first within an entity.
pub const HISTORY_ITEMS: &str = "history.items";
/// Unix milliseconds of stored events, i64 `[m]`; absent without time.
pub const HISTORY_TIME: &str = "history.time";
/// Action codes of stored events, u16 `[m]`; absent without actions.
pub const HISTORY_ACTION: &str = "history.action";
/// Values of stored events, f32 `[m]`; absent without values.
pub const HISTORY_VALUE: &str = "history.value";
/// Codes of stored events' fields, prefix followed by `.<index in schema.event_fields>`, u32 `[m]`.
pub const HISTORY_FIELD: &str = "history.field";
/// Dense weights of the ranker, f32 `[p]`, in the order of its layout; the ranker's sections are absent without one.
pub const RANKER_WEIGHTS: &str = "ranker.weights";
/// The ranker's own item vectors, f32 `[n, item_width]`.
pub const RANKER_ITEMS: &str = "ranker.items";
/// Logarithm of how often each item is in what the ranker was trained on, standardised, f32 `[n]`.
pub const RANKER_POPULARITY: &str = "ranker.popularity";
/// The entities' own vectors, f32 `[e, embedding]`; absent unless the ranker has them.
pub const RANKER_ENTITIES: &str = "ranker.entities";
/// The embeddings of items, f32 `[n, embedding]`, which are added to that of the entity who is asked: each item's own, or the mean
/// over its creators; absent unless the ranker has a second meta block.
pub const META_ITEM_EMBEDDINGS: &str = "meta.items";
/// Meta embeddings, f32 `[e, embedding]`: what batch adaptation made; with the four sections below it, absent before that.
pub const META_EMBEDDINGS: &str = "meta.embeddings";
/// What is known of each entity's outcomes, f32 `[e, heads, 4]`: how many, the sum of their labels, both decayed.
pub const META_EVIDENCE: &str = "meta.evidence";
/// The outcomes that each entity was adapted to, the latest ones, oldest first: offsets, u64 `[e + 1]`.
pub const META_OFFSETS: &str = "meta.outcomes.offsets";
/// Their item rows, u32 `[o]`.
pub const META_ITEMS: &str = "meta.outcomes.items";
/// Their labels, f32 `[o, heads]`, NaN is none.
pub const META_LABELS: &str = "meta.outcomes.labels";
/// Their impression features, f32 `[o, features]`, scaled; absent where the ranker reads none.
pub const META_IMPRESSION: &str = "meta.outcomes.impression";
/// When they happened, Unix milliseconds, i64 `[o]`, `i64::MIN` is not known; absent without time, and in stores of earlier builds.
pub const META_TIMES: &str = "meta.outcomes.time";
/// Where they were shown, u32 `[o]`: codes of the ranker's surfaces, 0 is unknown; this and the three below are absent unless it
/// tells surfaces apart.
pub const META_SURFACES: &str = "meta.outcomes.surfaces";
/// People on surfaces: offsets of each entity's, u64 `[e + 1]`.
pub const META_SURFACE_OFFSETS: &str = "meta.surface.offsets";
/// The codes of their surfaces, u32 `[p]`, ascending within an entity: those of the outcomes that it was adapted to.
pub const META_SURFACE_CODES: &str = "meta.surface.codes";
/// Their embeddings, f32 `[p, embedding]`, which are added to the entity's on that surface.
pub const META_SURFACE_EMBEDDINGS: &str = "meta.surface.embeddings";
/// Unix milliseconds of each entity's newest outcome, i64 `[e]`, `i64::MIN` is none; absent without time.
pub const META_UNTIL: &str = "meta.until";
