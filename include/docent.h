/* SPDX-License-Identifier: MIT
 *
 * Docent: an embedded, in-process recommendation engine. The C interface.
 *
 * Generated from ffi/src; do not edit. docs/c-abi.md explains ownership, threads and errors:
 *
 *  - Functions return a docent_status; DOCENT_OK is 0. What failed, on what, and the remedy are in the optional
 *    docent_error, which is set on failure, NULL otherwise, and freed by the caller. Pass NULL where it is not wanted.
 *  - Objects may be freed in any order; freeing NULL does nothing.
 *  - An object behind a pointer to const may be used by any number of threads at once. Any other is used by one call at
 *    a time; two at once are detected and give DOCENT_ERR_BUSY.
 *  - Texts are a pointer and a length in bytes, UTF-8, never NULL; they need no terminator.
 *  - Outputs are zero, or untouched where they are arrays, when a call fails.
 */

#ifndef DOCENT_H
#define DOCENT_H

#include <stddef.h>
#include <stdint.h>

/**
 * The most elements of an array that is passed.
 */
#define DOCENT_MAX_COUNT 16777216

/**
 * The most bytes of a text that is passed.
 */
#define DOCENT_MAX_TEXT 1048576

/**
 * The version of this interface: major * 65536 + minor * 256 + patch. Functions and constants are only ever added while
 * the major part stays; the shared library is named by it (libdocent.so.MAJOR).
 */
#define DOCENT_ABI_VERSION 256

/**
 * A store, open for requests: it serves one generation and goes over to another one when asked to. Any number of
 * threads may use it at once. It starts no threads.
 */
typedef struct docent_engine docent_engine;

/**
 * What failed, on what, and the remedy. Set by a call that fails where the caller asks for it; freed by the caller.
 */
typedef struct docent_error docent_error;

/**
 * Which items may be in a list. A new filter leaves nothing out but, where the generation says so, what the person has had already.
 */
typedef struct docent_filter docent_filter;

/**
 * One publication of a model. What it tells stays the same, and what it lends out stays valid, for as long as the
 * object lives, whatever is published or reloaded meanwhile. Items are rows, numbered from 0.
 */
typedef struct docent_generation docent_generation;

/**
 * How an engine opens a store. New options are the defaults.
 */
typedef struct docent_options docent_options;

/**
 * What is asked: for whom, after which events, in which circumstances. A new query asks for somebody of whom nothing is
 * known; clear it to use it again without taking memory anew.
 */
typedef struct docent_query docent_query;

/**
 * The memory that one thread reuses from request to request, and the generation that its last answer came from.
 * Requests are made through a session, one at a time.
 */
typedef struct docent_session docent_session;

/**
 * What every function returns: DOCENT_OK or one of the DOCENT_ERR_ numbers, which are never given another meaning.
 */
typedef uint32_t docent_status;

/**
 * What to do about what the generation does not know: DOCENT_UNKNOWN_REFUSE or DOCENT_UNKNOWN_SKIP.
 */
typedef uint32_t docent_unknown;

/**
 * How much is checked when a generation is opened: DOCENT_VERIFY_HEADER or DOCENT_VERIFY_FULL.
 */
typedef uint32_t docent_verify;

/**
 * How tables get into memory: DOCENT_LOAD_MAP or DOCENT_LOAD_COPY.
 */
typedef uint32_t docent_load_mode;

/**
 * Where a list comes from: DOCENT_SOURCE_MODEL, DOCENT_SOURCE_POPULARITY or DOCENT_SOURCE_RANKER.
 */
typedef uint32_t docent_source;

/**
 * The manifest, and of every segment the length and the header; no table is read. The default.
 */
#define DOCENT_VERIFY_HEADER 0

/**
 * Every byte.
 */
#define DOCENT_VERIFY_FULL 1

/**
 * Mapped: shared between processes, read from disk where they are touched. The default.
 */
#define DOCENT_LOAD_MAP 0

/**
 * Read into private memory: for network file systems, and where files may change under the map.
 */
#define DOCENT_LOAD_COPY 1

/**
 * Refuse with DOCENT_ERR_UNKNOWN_ITEM or DOCENT_ERR_INVALID_ARGUMENT, naming it. The default.
 */
#define DOCENT_UNKNOWN_REFUSE 0

/**
 * Go on without it.
 */
#define DOCENT_UNKNOWN_SKIP 1

/**
 * The model's scores for this history.
 */
#define DOCENT_SOURCE_MODEL 1

/**
 * Recency-weighted popularity, because nothing is known of the person. Scores are shares of the recent events.
 */
#define DOCENT_SOURCE_POPULARITY 2

/**
 * Retrieved by the model, put in order by the ranker: scores weigh the model's score and the outcome together, or are the calibrated
 * probabilities of the outcome where the ranker's goal is the outcome alone.
 */
#define DOCENT_SOURCE_RANKER 3

/**
 * Done.
 */
#define DOCENT_OK 0

/**
 * An argument is out of its range or contradicts another one. Remedy: correct the call.
 */
#define DOCENT_ERR_INVALID_ARGUMENT 1

/**
 * A configuration or dataset description is wrong. Remedy: correct the named key.
 */
#define DOCENT_ERR_INVALID_CONFIG 2

/**
 * A row of an input file cannot be read. Remedy: correct the row or raise the tolerance.
 */
#define DOCENT_ERR_INVALID_DATA 3

/**
 * A file, store, generation or name does not exist. Remedy: check the name.
 */
#define DOCENT_ERR_NOT_FOUND 4

/**
 * An item id is not in this generation's catalogue. Remedy: check the id or reload.
 */
#define DOCENT_ERR_UNKNOWN_ITEM 5

/**
 * An entity id is not in this generation. Remedy: pass a history instead.
 */
#define DOCENT_ERR_UNKNOWN_ENTITY 6

/**
 * Stored bytes are damaged. Remedy: restore the file or roll back to another generation.
 */
#define DOCENT_ERR_CORRUPT 7

/**
 * The file is not a Docent file at all. Remedy: check the path.
 */
#define DOCENT_ERR_NOT_DOCENT 8

/**
 * The store was written by a newer format version. Remedy: upgrade Docent.
 */
#define DOCENT_ERR_UPGRADE_REQUIRED 9

/**
 * The operating system refused an input or output operation. Remedy: in the message.
 */
#define DOCENT_ERR_IO 10

/**
 * The disk is full. Remedy: free space, then run again.
 */
#define DOCENT_ERR_NO_SPACE 11

/**
 * Permission denied. Remedy: change the permissions or the user.
 */
#define DOCENT_ERR_PERMISSION_DENIED 12

/**
 * Another publisher holds the store. Remedy: wait for it or stop it.
 */
#define DOCENT_ERR_LOCKED 13

/**
 * An earlier fsync failed, so this publisher refuses further work. Remedy: open the store anew.
 */
#define DOCENT_ERR_POISONED 14

/**
 * The device asked for does not exist here. Remedy: choose another device.
 */
#define DOCENT_ERR_DEVICE_UNAVAILABLE 15

/**
 * Training produced NaN or an infinity. Remedy: lower the learning rate; the last good checkpoint is named.
 */
#define DOCENT_ERR_DIVERGED 16

/**
 * The work was cancelled by its caller; progress is kept where the message says so.
 */
#define DOCENT_ERR_CANCELLED 17

/**
 * State that belongs to another model or dataset. Remedy: rebuild it or use the matching one.
 */
#define DOCENT_ERR_STATE_MISMATCH 18

/**
 * The object is used by another call and cannot be shared. Remedy: one object per thread.
 */
#define DOCENT_ERR_BUSY 19

/**
 * A defect inside Docent. Remedy: report it.
 */
#define DOCENT_ERR_INTERNAL 20

/**
 * A panic was caught at the boundary. Remedy: free the object and report it.
 */
#define DOCENT_ERR_PANIC 21

/**
 * The object was made before a fork, in the parent process. Remedy: make it anew in this process.
 */
#define DOCENT_ERR_FORKED 22

/**
 * What is to be added is there already. Remedy: choose another name, or leave it out.
 */
#define DOCENT_ERR_ALREADY_EXISTS 23

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Writes the user vector for a query to the array `vector` of `capacity` numbers: its dot product with an item's vector is
 * the item's score. `written` becomes the width of the generation (docent_generation_counts). `generation` may be NULL.
 *
 * DOCENT_ERR_INVALID_ARGUMENT where `capacity` is less than the width, otherwise as docent_recommend.
 */
docent_status docent_user_embedding(docent_session *session,
                                    const docent_query *query,
                                    size_t capacity,
                                    float *vector,
                                    size_t *written,
                                    uint64_t *generation,
                                    docent_error **error);

/**
 * Writes the vector of an item to the array `vector` of `capacity` numbers, as docent_user_embedding does. To read vectors
 * in place, see docent_generation_item_vector.
 *
 * DOCENT_ERR_UNKNOWN_ITEM where the generation does not know the item; DOCENT_ERR_INVALID_ARGUMENT where `capacity` is
 * less than the width.
 */
docent_status docent_item_embedding(docent_session *session,
                                    const char *item,
                                    size_t item_length,
                                    size_t capacity,
                                    float *vector,
                                    size_t *written,
                                    uint64_t *generation,
                                    docent_error **error);

/**
 * Opens the store in the directory `store`, a path of `store_length` bytes. `options` may be NULL: the defaults.
 *
 * DOCENT_ERR_NOT_FOUND where there is no store, no generation as yet, or not the one asked for; DOCENT_ERR_NOT_DOCENT,
 * DOCENT_ERR_CORRUPT, DOCENT_ERR_UPGRADE_REQUIRED, DOCENT_ERR_IO where it cannot be read.
 */
docent_status docent_engine_open(const char *store,
                                 size_t store_length,
                                 const docent_options *options,
                                 docent_engine **engine,
                                 docent_error **error);

/**
 * Goes over to the store's current generation: newer or, after a rollback, older. Requests that are running finish on
 * the generation that they began with. Nothing happens where it is served already. `generation` may be NULL; it
 * becomes the number of the generation that is served now.
 *
 * Fails like docent_engine_open; the generation served so far stays.
 */
docent_status docent_engine_reload(const docent_engine *engine,
                                   uint64_t *generation,
                                   docent_error **error);

/**
 * Goes over to the generation `number` of the store, whichever is current.
 *
 * Fails like docent_engine_open; the generation served so far stays.
 */
docent_status docent_engine_switch_to(const docent_engine *engine, uint64_t number, docent_error **error);

/**
 * Takes hold of the generation that is served now: to look at its items, and to name rows.
 */
docent_status docent_engine_generation(const docent_engine *engine,
                                       docent_generation **generation,
                                       docent_error **error);

/**
 * Frees an engine. Sessions and generations that came from it go on working. NULL is nothing to free.
 */
docent_status docent_engine_free(docent_engine *engine);

/**
 * The status of an error, the same that the failed call returned; DOCENT_OK for NULL.
 */
docent_status docent_error_status(const docent_error *error);

/**
 * The message of an error: what failed, on what, and the remedy, in UTF-8. *text lives as long as the error; it is also
 * NUL-terminated. `length` may be NULL.
 */
docent_status docent_error_message(const docent_error *error,
                                   const char **text,
                                   size_t *length);

/**
 * Frees an error. NULL is nothing to free.
 */
docent_status docent_error_free(docent_error *error);

/**
 * A new filter.
 */
docent_status docent_filter_new(docent_filter **filter, docent_error **error);

/**
 * Makes a filter a new one; its memory is kept.
 */
docent_status docent_filter_clear(docent_filter *filter, docent_error **error);

/**
 * Sets whether items of the history, stored and given, may be in the list (1) or not (0). A filter that does not say leaves it to the
 * generation: they may where the people that it learned from come back to items.
 */
docent_status docent_filter_set_include_seen(docent_filter *filter,
                                             uint32_t include,
                                             docent_error **error);

/**
 * Lets only allowed items be in the list: those of docent_filter_allow, before and after this call. Without any, the
 * list is empty.
 */
docent_status docent_filter_allow_only(docent_filter *filter,
                                       docent_error **error);

/**
 * Allows an item; from then on only allowed items may be in the list, as after docent_filter_allow_only.
 */
docent_status docent_filter_allow(docent_filter *filter,
                                  const char *item,
                                  size_t item_length,
                                  docent_error **error);

/**
 * Denies an item. Denying one that the generation does not know is no error.
 */
docent_status docent_filter_deny(docent_filter *filter,
                                 const char *item,
                                 size_t item_length,
                                 docent_error **error);

/**
 * Asks that an item's categorical or multi-valued field has one of `count` values (`wanted` 1; items without a value are
 * left out) or none of them (`wanted` 0; items without a value stay). Values are pointers and lengths.
 */
docent_status docent_filter_require_values(docent_filter *filter,
                                           const char *field,
                                           size_t field_length,
                                           const char *const *values,
                                           const size_t *value_lengths,
                                           size_t count,
                                           uint32_t wanted,
                                           docent_error **error);

/**
 * Asks that an item's numeric field lies within two bounds, both included; an infinity is no bound. Items without a
 * number are left out.
 */
docent_status docent_filter_require_between(docent_filter *filter,
                                            const char *field,
                                            size_t field_length,
                                            float least,
                                            float most,
                                            docent_error **error);

/**
 * Asks that an item was released at or after `from` and before `until`, in Unix milliseconds; INT64_MIN and INT64_MAX are
 * no bounds. Items whose release is not known are left out.
 */
docent_status docent_filter_require_released(docent_filter *filter,
                                             int64_t from,
                                             int64_t until,
                                             docent_error **error);

/**
 * Sets what to do about allowed items and values that the generation does not know: refuse, so that a slip of the pen
 * does not pass for an empty list, or go on, where they match nothing.
 */
docent_status docent_filter_set_unknown(docent_filter *filter,
                                        docent_unknown unknown,
                                        docent_error **error);

/**
 * Frees a filter. NULL is nothing to free.
 */
docent_status docent_filter_free(docent_filter *filter);

/**
 * The number of a generation.
 */
docent_status docent_generation_number(const docent_generation *generation,
                                       uint64_t *number,
                                       docent_error **error);

/**
 * How many items the catalogue has, how many entities are known by id, and how many numbers a vector has. Each output
 * may be NULL.
 */
docent_status docent_generation_counts(const docent_generation *generation,
                                       size_t *items,
                                       size_t *entities,
                                       size_t *width,
                                       docent_error **error);

/**
 * The row of an item id. DOCENT_ERR_UNKNOWN_ITEM where the generation does not know it.
 */
docent_status docent_generation_find_item(const docent_generation *generation,
                                          const char *id,
                                          size_t id_length,
                                          uint32_t *row,
                                          docent_error **error);

/**
 * The row of an entity id. DOCENT_ERR_UNKNOWN_ENTITY where the generation does not know it; lists for it are the
 * popular one.
 */
docent_status docent_generation_find_entity(const docent_generation *generation,
                                            const char *id,
                                            size_t id_length,
                                            uint32_t *row,
                                            docent_error **error);

/**
 * The id of an item row, in UTF-8 and not NUL-terminated. *id lives as long as the generation object.
 * DOCENT_ERR_INVALID_ARGUMENT where there is no such row.
 */
docent_status docent_generation_item_id(const docent_generation *generation,
                                        uint32_t row,
                                        const char **id,
                                        size_t *id_length,
                                        docent_error **error);

/**
 * The title of an item row, in UTF-8 and not NUL-terminated; NULL and 0 where it is not known. *title lives as long as
 * the generation object. DOCENT_ERR_INVALID_ARGUMENT where there is no such row.
 */
docent_status docent_generation_item_title(const docent_generation *generation,
                                           uint32_t row,
                                           const char **title,
                                           size_t *title_length,
                                           docent_error **error);

/**
 * The vector of an item row, in place: *length finite numbers that live as long as the generation object.
 * DOCENT_ERR_INVALID_ARGUMENT where there is no such row.
 */
docent_status docent_generation_item_vector(const docent_generation *generation,
                                            uint32_t row,
                                            const float **vector,
                                            size_t *length,
                                            docent_error **error);

/**
 * Frees a generation. Texts and vectors that it lent out end here. NULL is nothing to free.
 */
docent_status docent_generation_free(docent_generation *generation);

/**
 * New options: the defaults.
 */
docent_status docent_options_new(docent_options **options, docent_error **error);

/**
 * Sets how much is checked when a generation is opened, now and at every reload.
 */
docent_status docent_options_set_verify(docent_options *options, docent_verify verify, docent_error **error);

/**
 * Sets how tables get into memory.
 */
docent_status docent_options_set_load_mode(docent_options *options,
                                           docent_load_mode mode,
                                           docent_error **error);

/**
 * Sets the generation that is opened first. 0 is the store's current one, the default.
 */
docent_status docent_options_set_generation(docent_options *options,
                                            uint64_t generation,
                                            docent_error **error);

/**
 * Sets whether every table is read in when a generation is opened (1), so that no request waits for the disk, or not
 * (0, the default).
 */
docent_status docent_options_set_prefault(docent_options *options,
                                          uint32_t prefault,
                                          docent_error **error);

/**
 * Frees options. Engines opened with them are not affected. NULL is nothing to free.
 */
docent_status docent_options_free(docent_options *options);

/**
 * A new query.
 */
docent_status docent_query_new(docent_query **query, docent_error **error);

/**
 * Makes a query a new one; its memory is kept.
 */
docent_status docent_query_clear(docent_query *query, docent_error **error);

/**
 * Asks for an entity: its stored history comes before the events of the query. An entity that the generation does not
 * know is no error: without events, the list is the popular one.
 */
docent_status docent_query_set_entity(docent_query *query,
                                      const char *id,
                                      size_t id_length,
                                      docent_error **error);

/**
 * Adds an event with an item, after the events before it (oldest first). The calls that set an event's time, action,
 * value and fields are about the event that was added last.
 */
docent_status docent_query_add_event(docent_query *query,
                                     const char *item,
                                     size_t item_length,
                                     docent_error **error);

/**
 * Sets when the last event happened, in Unix milliseconds. An event without a time happened together with the one before
 * it.
 */
docent_status docent_query_set_event_time(docent_query *query,
                                          int64_t time,
                                          docent_error **error);

/**
 * Sets the action of the last event, by its name in the model's schema.
 */
docent_status docent_query_set_event_action(docent_query *query,
                                            const char *action,
                                            size_t action_length,
                                            docent_error **error);

/**
 * Sets the value of the last event, such as a rating or a duration; finite.
 */
docent_status docent_query_set_event_value(docent_query *query, float value, docent_error **error);

/**
 * Gives the last event a field by name, with its value as text: "device", "phone". Fields left out are missing.
 */
docent_status docent_query_add_event_field(docent_query *query,
                                           const char *name,
                                           size_t name_length,
                                           const char *value,
                                           size_t value_length,
                                           docent_error **error);

/**
 * Sets the time of the request, in Unix milliseconds. Without it, time does not matter.
 */
docent_status docent_query_set_time(docent_query *query, int64_t time, docent_error **error);

/**
 * Asks for the entity as it stood at a time, in Unix milliseconds: only what happened until then counts, itself included. The list is
 * then asked for at that time, too, unless docent_query_set_time says otherwise. Needs an entity and a model of events with times.
 */
docent_status docent_query_set_as_of_time(docent_query *query,
                                          int64_t time,
                                          docent_error **error);

/**
 * Asks for the entity as it stood after `count` events, oldest first: those that the generation holds, then those observed since. Needs
 * an entity.
 */
docent_status docent_query_set_as_of_events(docent_query *query,
                                            size_t count,
                                            docent_error **error);

/**
 * Gives the request a field by name, with its value as text: "device", "phone". Fields left out are missing.
 */
docent_status docent_query_add_field(docent_query *query,
                                     const char *name,
                                     size_t name_length,
                                     const char *value,
                                     size_t value_length,
                                     docent_error **error);

/**
 * Sets what to do about events whose item the generation does not know.
 */
docent_status docent_query_set_unknown(docent_query *query, docent_unknown unknown, docent_error **error);

/**
 * Frees a query. NULL is nothing to free.
 */
docent_status docent_query_free(docent_query *query);

/**
 * Writes the best items for a query under a filter, best first: their rows and scores to the arrays `rows` and `scores`
 * of `capacity` elements each, and how many they are to `written` - fewer than `capacity` only where the filter or the
 * catalogue leaves fewer. `filter` may be NULL: what was had already is left out. `generation` and `source` may be
 * NULL. The same request to the same generation gives the same bytes.
 *
 * Rows are those of the generation that docent_session_generation holds afterwards.
 *
 * DOCENT_ERR_INVALID_ARGUMENT for `capacity` 0 and for times, numbers, actions or fields that cannot be;
 * DOCENT_ERR_UNKNOWN_ITEM for unknown items unless the query says to skip them; DOCENT_ERR_CORRUPT where the
 * generation turns out to be damaged.
 */
docent_status docent_recommend(docent_session *session,
                               const docent_query *query,
                               const docent_filter *filter,
                               size_t capacity,
                               uint32_t *rows,
                               float *scores,
                               size_t *written,
                               uint64_t *generation,
                               docent_source *source,
                               docent_error **error);

/**
 * Writes the items most like an item, by the cosine of their vectors, itself left out, as docent_recommend writes its
 * list. `filter` may be NULL: everything passes; it is about no person, so nothing counts as seen. `generation` may be
 * NULL.
 *
 * DOCENT_ERR_UNKNOWN_ITEM where the generation does not know the item; otherwise as docent_recommend.
 */
docent_status docent_similar(docent_session *session,
                             const char *item,
                             size_t item_length,
                             const docent_filter *filter,
                             size_t capacity,
                             uint32_t *rows,
                             float *scores,
                             size_t *written,
                             uint64_t *generation,
                             docent_error **error);

/**
 * Writes the scores of `count` items, given by id, for a query: scores[i] is that of candidate i, comparable with those of
 * docent_recommend where that answers by the model; for those of whom nothing is known, shares of popularity.
 * `generation` may be NULL.
 *
 * DOCENT_ERR_UNKNOWN_ITEM naming a candidate that the generation does not know; otherwise as docent_recommend.
 */
docent_status docent_score(docent_session *session,
                           const docent_query *query,
                           const char *const *candidates,
                           const size_t *candidate_lengths,
                           size_t count,
                           float *scores,
                           uint64_t *generation,
                           docent_error **error);

/**
 * A new session of an engine, which it keeps open for as long as it lives. Take one per thread.
 */
docent_status docent_session_new(const docent_engine *engine, docent_session **session, docent_error **error);

/**
 * Takes hold of the generation that the session's last answer came from, to name the rows of that answer.
 * DOCENT_ERR_NOT_FOUND where there is no answer as yet.
 */
docent_status docent_session_generation(const docent_session *session,
                                        docent_generation **generation,
                                        docent_error **error);

/**
 * Lets go of the generation that the session's last answer came from, so that it is unmapped once the engine has gone
 * over to another one.
 */
docent_status docent_session_release(docent_session *session,
                                     docent_error **error);

/**
 * Frees a session. NULL is nothing to free.
 */
docent_status docent_session_free(docent_session *session);

/**
 * The name of a status, such as "DOCENT_ERR_BUSY"; "unknown status" for any other number. NUL-terminated, valid for
 * ever.
 */
const char *docent_status_name(docent_status status);

/**
 * The DOCENT_ABI_VERSION that the loaded library was built with. Hosts compare the major part, and ask for at least the
 * minor part that they were built with.
 */
uint32_t docent_abi_version(void);

/**
 * The version of the library, such as "0.1.0": NUL-terminated, valid for ever.
 */
const char *docent_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DOCENT_H */
