/* Opens a store and prints three lists: for an entity, for somebody of whom nothing is known, and items like the first
 * one of the first list.
 *
 *     recommend STORE ENTITY K
 *
 * Lines are rank, id, score and title, with tabs between, in the order of `docent recommend`. */
#include <docent.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Says what failed, frees the error, and ends the program with the status. */
static int failed(const char *what, docent_status status, docent_error *error) {
  const char *message = docent_status_name(status);
  docent_error_message(error, &message, NULL);
  fprintf(stderr, "error: %s: %s\n", what, message ? message : docent_status_name(status));
  docent_error_free(error);
  return (int)status;
}

/* Prints the rows of the session's last answer with their ids and titles. */
static docent_status print_list(const docent_session *session, const uint32_t *rows, const float *scores, size_t count,
                                docent_error **error) {
  docent_generation *generation = NULL;
  docent_status status = docent_session_generation(session, &generation, error);
  for (size_t i = 0; status == DOCENT_OK && i < count; i++) {
    const char *id = NULL, *title = NULL;
    size_t id_length = 0, title_length = 0;
    status = docent_generation_item_id(generation, rows[i], &id, &id_length, error);
    if (status == DOCENT_OK)
      status = docent_generation_item_title(generation, rows[i], &title, &title_length, error);
    if (status == DOCENT_OK) /* %.9g: every float comes back from it as it was. */
      printf("%zu\t%.*s\t%.9g\t%.*s\n", i + 1, (int)id_length, id, (double)scores[i], (int)title_length,
             title ? title : "");
  }
  docent_generation_free(generation);
  return status;
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: recommend STORE ENTITY K\n");
    return 2;
  }
  const char *store = argv[1], *entity = argv[2];
  size_t k = (size_t)strtoul(argv[3], NULL, 10);
  if (k == 0 || k > 10000) {
    fprintf(stderr, "error: K is %s; choose 1 to 10000\n", argv[3]);
    return 2;
  }
  if (docent_abi_version() >> 16 != DOCENT_ABI_VERSION >> 16) {
    fprintf(stderr, "error: the library docent %s has another interface than this program; build it again\n",
            docent_version());
    return 1;
  }

  /* All starts as NULL, so that everything can be freed at the end, whatever happened in between. */
  docent_engine *engine = NULL;
  docent_session *session = NULL;
  docent_query *query = NULL;
  docent_error *error = NULL;
  docent_status status = DOCENT_OK;
  const char *what = "arrays";
  uint32_t *rows = malloc(k * sizeof *rows);
  float *scores = malloc(k * sizeof *scores);
  size_t written = 0;
  uint64_t number = 0;
  docent_source source = 0;
  int result = 1;
  if (!rows || !scores)
    goto done;

  what = "open";
  if ((status = docent_engine_open(store, strlen(store), NULL, &engine, &error)) != DOCENT_OK)
    goto done;
  what = "session";
  if ((status = docent_session_new(engine, &session, &error)) != DOCENT_OK)
    goto done;
  what = "query";
  if ((status = docent_query_new(&query, &error)) != DOCENT_OK ||
      (status = docent_query_set_entity(query, entity, strlen(entity), &error)) != DOCENT_OK)
    goto done;

  what = "recommend";
  if ((status = docent_recommend(session, query, NULL, k, rows, scores, &written, &number, &source, &error)) !=
      DOCENT_OK)
    goto done;
  printf("generation %llu: for %s, by %s\n", (unsigned long long)number, entity,
         source == DOCENT_SOURCE_MODEL ? "the model" : "popularity");
  if ((status = print_list(session, rows, scores, written, &error)) != DOCENT_OK)
    goto done;
  uint32_t first = written ? rows[0] : 0;
  int any = written != 0;

  what = "recommend to somebody new";
  if ((status = docent_query_clear(query, &error)) != DOCENT_OK ||
      (status = docent_recommend(session, query, NULL, k, rows, scores, &written, &number, &source, &error)) !=
          DOCENT_OK)
    goto done;
  printf("generation %llu: for somebody new, by %s\n", (unsigned long long)number,
         source == DOCENT_SOURCE_MODEL ? "the model" : "popularity");
  if ((status = print_list(session, rows, scores, written, &error)) != DOCENT_OK)
    goto done;

  if (any) {
    what = "similar";
    docent_generation *generation = NULL;
    const char *id = NULL;
    size_t length = 0;
    if ((status = docent_session_generation(session, &generation, &error)) == DOCENT_OK &&
        (status = docent_generation_item_id(generation, first, &id, &length, &error)) == DOCENT_OK &&
        (status = docent_similar(session, id, length, NULL, k, rows, scores, &written, &number, &error)) == DOCENT_OK) {
      printf("generation %llu: like %.*s\n", (unsigned long long)number, (int)length, id);
      status = print_list(session, rows, scores, written, &error);
    }
    docent_generation_free(generation);
    if (status != DOCENT_OK)
      goto done;
  }
  result = 0;

done:
  if (status != DOCENT_OK)
    result = failed(what, status, error);
  docent_query_free(query);
  docent_session_free(session);
  docent_engine_free(engine);
  free(scores);
  free(rows);
  return result;
}
