/* A host with threads, forks, signal handlers and a locale of its own. Prints "done" where all is as it should be. */
#define _GNU_SOURCE
#include <docent.h>

#include <fenv.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define K 10

extern char **environ;

#define MUST(condition)                                                                                               \
  do {                                                                                                                \
    if (!(condition)) {                                                                                               \
      printf("line %d: %s\n", __LINE__, #condition);                                                                  \
      fflush(stdout);                                                                                                 \
      _exit(1);                                                                                                       \
    }                                                                                                                 \
  } while (0)

static docent_engine *engine;
static docent_query *query;
static docent_session *contested;
static uint32_t expected_rows[K];
static float expected_scores[K];
static atomic_uint busy, answered;
static atomic_int stop;

/* Threads share the engine and the query; each has its session. */
static void *ask(void *unused) {
  docent_session *session = NULL;
  MUST(docent_session_new(engine, &session, NULL) == DOCENT_OK);
  for (int i = 0; i < 100; i++) {
    uint32_t rows[K];
    float scores[K];
    size_t written;
    MUST(docent_recommend(session, query, NULL, K, rows, scores, &written, NULL, NULL, NULL) == DOCENT_OK);
    MUST(written == K && memcmp(rows, expected_rows, sizeof rows) == 0);
    MUST(memcmp(scores, expected_scores, sizeof scores) == 0);
    if (i % 10 == 0)
      MUST(docent_engine_reload(engine, NULL, NULL) == DOCENT_OK);
  }
  MUST(docent_session_free(session) == DOCENT_OK);
  return unused;
}

/* Threads that use one session at once are told so, and harm nothing. */
static void *contend(void *unused) {
  while (!atomic_load(&stop)) {
    uint32_t rows[K];
    float scores[K];
    size_t written;
    docent_status status =
        docent_recommend(contested, query, NULL, K, rows, scores, &written, NULL, NULL, NULL);
    if (status == DOCENT_ERR_BUSY) {
      MUST(written == 0);
      atomic_fetch_add(&busy, 1);
    } else {
      MUST(status == DOCENT_OK && written == K && memcmp(rows, expected_rows, sizeof rows) == 0);
      atomic_fetch_add(&answered, 1);
    }
  }
  return unused;
}

static void in_threads(void *(*body)(void *), int count) {
  pthread_t threads[8];
  for (int i = 0; i < count; i++)
    MUST(pthread_create(&threads[i], NULL, body, NULL) == 0);
  if (body == contend) {
    for (int waited = 0; waited < 20000 && (atomic_load(&busy) == 0 || atomic_load(&answered) == 0); waited++)
      usleep(1000);
    atomic_store(&stop, 1);
  }
  for (int i = 0; i < count; i++)
    MUST(pthread_join(threads[i], NULL) == 0);
}

/* What belongs to the host. */
struct host {
  struct sigaction actions[32];
  int rounding, exceptions;
  char locale[64], directory[4096];
  unsigned long environment;
};

static struct host look(void) {
  struct host host;
  memset(&host, 0, sizeof host);
  for (int i = 1; i < 32; i++)
    sigaction(i, NULL, &host.actions[i]);
  host.rounding = fegetround();
  strncpy(host.locale, setlocale(LC_ALL, NULL), sizeof host.locale - 1);
  MUST(getcwd(host.directory, sizeof host.directory) != NULL);
  for (char **variable = environ; *variable; variable++)
    for (char *c = *variable; *c; c++)
      host.environment = host.environment * 31 + (unsigned char)*c;
  return host;
}

int main(int argc, char **argv) {
  if (argc != 3)
    return 2;
  const char *store = argv[1], *entity = argv[2];
  signal(SIGPIPE, SIG_IGN);
  fesetround(FE_TONEAREST);
  struct host before = look();

  docent_error *error = NULL;
  docent_session *session = NULL;
  docent_generation *generation = NULL;
  size_t written = 0;
  MUST(docent_engine_open(store, strlen(store), NULL, &engine, &error) == DOCENT_OK);
  MUST(docent_session_new(engine, &session, &error) == DOCENT_OK);
  MUST(docent_query_new(&query, &error) == DOCENT_OK);
  MUST(docent_query_set_entity(query, entity, strlen(entity), &error) == DOCENT_OK);
  MUST(docent_recommend(session, query, NULL, K, expected_rows, expected_scores, &written, NULL, NULL, &error) ==
       DOCENT_OK);
  MUST(written == K);

  in_threads(ask, 4);
  MUST(docent_session_new(engine, &contested, &error) == DOCENT_OK);
  in_threads(contend, 4);
  MUST(atomic_load(&busy) > 0 && atomic_load(&answered) > 0);
  MUST(docent_session_free(contested) == DOCENT_OK);

  /* Objects are dead in a child, and new ones can be made there. */
  fflush(stdout);
  pid_t child = fork();
  MUST(child >= 0);
  if (child == 0) {
    uint32_t rows[K];
    float scores[K];
    docent_engine *own = NULL;
    docent_session *new_session = NULL;
    MUST(docent_recommend(session, query, NULL, K, rows, scores, &written, NULL, NULL, &error) == DOCENT_ERR_FORKED);
    MUST(docent_error_status(error) == DOCENT_ERR_FORKED);
    MUST(docent_error_free(error) == DOCENT_OK);
    MUST(docent_engine_reload(engine, NULL, NULL) == DOCENT_ERR_FORKED);
    MUST(docent_session_new(engine, &new_session, NULL) == DOCENT_ERR_FORKED);
    MUST(docent_engine_free(engine) == DOCENT_ERR_FORKED);
    MUST(docent_engine_open(store, strlen(store), NULL, &own, NULL) == DOCENT_OK);
    MUST(docent_engine_free(own) == DOCENT_OK);
    _exit(0);
  }
  int status = 0;
  MUST(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);

  /* The order of freeing does not matter: what is lent out lives with the generation. */
  const char *id = NULL;
  size_t length = 0;
  MUST(docent_engine_free(engine) == DOCENT_OK);
  MUST(docent_recommend(session, query, NULL, K, expected_rows, expected_scores, &written, NULL, NULL, &error) ==
       DOCENT_OK);
  MUST(docent_session_generation(session, &generation, &error) == DOCENT_OK);
  MUST(docent_session_free(session) == DOCENT_OK);
  MUST(docent_query_free(query) == DOCENT_OK);
  MUST(docent_generation_item_id(generation, expected_rows[0], &id, &length, &error) == DOCENT_OK);
  MUST(length > 0 && id[0] == 'i');
  MUST(docent_generation_free(generation) == DOCENT_OK);

  struct host after = look();
  MUST(before.rounding == after.rounding && before.environment == after.environment);
  MUST(strcmp(before.locale, after.locale) == 0 && strcmp(before.directory, after.directory) == 0);
  for (int i = 1; i < 32; i++)
    MUST(before.actions[i].sa_handler == after.actions[i].sa_handler &&
         before.actions[i].sa_flags == after.actions[i].sa_flags);
  MUST(docent_abi_version() == DOCENT_ABI_VERSION);
  printf("done %s", docent_version());
  return 0;
}
