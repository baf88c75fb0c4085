/* Loads the library, uses it, unloads it, and loads it again. Prints "done". */
#include <docent.h>

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

typedef docent_status (*open_function)(const char *, size_t, const docent_options *, docent_engine **,
                                       docent_error **);
typedef docent_status (*free_function)(docent_engine *);

int main(int argc, char **argv) {
  if (argc != 3)
    return 2;
  for (int i = 0; i < 3; i++) {
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!library)
      return 3;
    open_function open;
    free_function release;
    void *symbol = dlsym(library, "docent_engine_open");
    memcpy(&open, &symbol, sizeof open);
    symbol = dlsym(library, "docent_engine_free");
    memcpy(&release, &symbol, sizeof release);
    docent_engine *engine = NULL;
    if (open(argv[2], strlen(argv[2]), NULL, &engine, NULL) != DOCENT_OK || release(engine) != DOCENT_OK)
      return 4;
    if (dlclose(library) != 0)
      return 5;
  }
  printf("done");
  return 0;
}
