/* Ends while other threads are inside calls. */
#include <docent.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static docent_engine *engine;
static atomic_uint running;

static void *ask(void *unused) {
  docent_session *session = NULL;
  docent_query *query = NULL;
  docent_session_new(engine, &session, NULL);
  docent_query_new(&query, NULL);
  docent_query_add_event(query, "i37", 3, NULL);
  for (;;) {
    uint32_t rows[10];
    float scores[10];
    size_t written;
    if (docent_recommend(session, query, NULL, 10, rows, scores, &written, NULL, NULL, NULL) != DOCENT_OK)
      abort();
    atomic_fetch_add(&running, 1);
  }
  return unused;
}

int main(int argc, char **argv) {
  if (argc != 2 || docent_engine_open(argv[1], strlen(argv[1]), NULL, &engine, NULL) != DOCENT_OK)
    return 2;
  for (int i = 0; i < 3; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, ask, NULL) != 0)
      return 3;
  }
  while (atomic_load(&running) < 30)
    ;
  printf("done");
  exit(0);
}
