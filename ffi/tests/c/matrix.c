/* Calls every function with wrong arguments; the calls are filled in from the header. */
#include <docent.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY 8

static docent_error *error = NULL;
static unsigned failures = 0, calls = 0;

/* Room whose address plus one is misaligned for everything but bytes. */
static uint64_t misaligned[16];

static uint32_t rows[CAPACITY];
static float scores[CAPACITY], vector[CAPACITY];
static const char *const values[] = {"film"};
static const size_t value_lengths[] = {4};
static const char *const candidates[] = {"i111"};
static const size_t candidate_lengths[] = {4};

static docent_options *the_options = NULL;
static docent_engine *the_engine = NULL;
static docent_generation *the_generation = NULL;
static docent_session *the_session = NULL;
static docent_query *the_query = NULL;
static docent_filter *the_filter = NULL;
static docent_error *the_error = NULL;

/* Before every call: no error, and a query and a filter that can be used. */
static int before(void) {
  docent_error_free(error);
  error = NULL;
  docent_filter_clear(the_filter, NULL);
  docent_query_clear(the_query, NULL);
  docent_query_add_event(the_query, "i111", 4, NULL);
  return 0;
}

static void check(const char *function, const char *what, docent_status expected, docent_status status) {
  calls++;
  if (status != expected) {
    const char *message = "";
    docent_error_message(error, &message, NULL);
    printf("%s, %s: %s instead of %s (%s)\n", function, what, docent_status_name(status),
           docent_status_name(expected), message);
    failures++;
  }
}

int main(int argc, char **argv) {
  if (argc != 2)
    return 2;
  const char *store = argv[1];
  const char *field = "price";
  const char *out_text = NULL, *out_id = NULL, *out_title = NULL;
  const float *out_vector = NULL;
  size_t out_length = 0, out_id_length = 0, out_title_length = 0, out_items = 0, out_entities = 0, out_width = 0,
         out_written = 0;
  uint32_t out_row = 0;
  uint64_t out_number = 0, out_generation = 0;
  docent_source out_source = 0;
  docent_options *made_options = NULL;
  docent_engine *made_engine = NULL;
  docent_generation *made_generation = NULL;
  docent_session *made_session = NULL;
  docent_query *made_query = NULL;
  docent_filter *made_filter = NULL;

  docent_options_new(&the_options, &error);
  docent_engine_open(store, strlen(store), the_options, &the_engine, &error);
  docent_engine_generation(the_engine, &the_generation, &error);
  docent_session_new(the_engine, &the_session, &error);
  docent_query_new(&the_query, &error);
  docent_filter_new(&the_filter, &error);
  docent_engine_open("", 0, NULL, &made_engine, &the_error);
  if (!the_filter || !the_session || !the_generation || !the_error || error) {
    printf("cannot set up\n");
    return 1;
  }

/* CALLS */

  /* Everything is as usable as before. */
  before();
  check("docent_recommend", "at the end", DOCENT_OK,
        docent_recommend(the_session, the_query, the_filter, CAPACITY, rows, scores, &out_written, NULL, NULL, &error));
  if (out_written != CAPACITY)
    failures++;

  /* A call that fails zeroes its outputs and leaves arrays alone. */
  memset(rows, 0x55, sizeof rows);
  out_written = 7;
  out_generation = 7;
  out_source = 7;
  before();
  check("docent_recommend", "zeroed", DOCENT_ERR_INVALID_ARGUMENT,
        docent_recommend(the_session, NULL, the_filter, CAPACITY, rows, scores, &out_written, &out_generation,
                         &out_source, &error));
  if (out_written != 0 || out_generation != 0 || out_source != 0 || rows[0] != 0x55555555)
    failures++;
  before();
  check("docent_recommend", "rows over scores", DOCENT_ERR_INVALID_ARGUMENT,
        docent_recommend(the_session, the_query, NULL, 4, rows, (float *)(void *)(rows + 2), &out_written, NULL, NULL,
                         &error));
  before();
  docent_error_free(the_error);
  docent_filter_free(the_filter);
  docent_query_free(the_query);
  docent_session_free(the_session);
  docent_generation_free(the_generation);
  docent_engine_free(the_engine);
  docent_options_free(the_options);
  if (made_options || made_engine || made_generation || made_session || made_query || made_filter) {
    printf("an output that is an object was not NULL after a failure\n");
    failures++;
  }
  (void)misaligned;
  if (failures == 0)
    printf("done %u\n", calls);
  return failures == 0 ? 0 : 1;
}
