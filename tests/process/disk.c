/* Preloaded into a child: writes down what it does to the files of one directory, in order, and fails calls when asked to.
 *
 * DOCENT_DISK_DIR names the directory, DOCENT_DISK_LOG the log. A record is: a letter, the file's number (u64), a number (u64), the length
 * of what follows (u32), and that. Letters: c a file was made under a name, w bytes were written at an offset, t a length was set, s a file was
 * synced, d the directory was, r a name was removed.
 *
 * DOCENT_DISK_FAULT is "FIRST:CODE:LAST": of the calls that write to the live file or its log since the file "fault" was opened, those from
 * FIRST up to LAST fail with CODE.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *directory;
static size_t length;
static int record = -1;
static long first = -1, last = -1, calls = -1;
static int code;
/* Whether the file that was looked at last is the live file or its log. */
static __thread int is_live;

__attribute__((constructor)) static void begin(void) {
  const char *fault = getenv("DOCENT_DISK_FAULT"), *log = getenv("DOCENT_DISK_LOG");
  directory = getenv("DOCENT_DISK_DIR");
  length = directory ? strlen(directory) : 0;
  if (log) record = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fault) sscanf(fault, "%ld:%d:%ld", &first, &code, &last);
}

/* The name of a path within the directory; none where it is elsewhere. */
static const char *within(const char *path) {
  if (!directory || !path || strncmp(path, directory, length) || path[length] != '/') return NULL;
  return strchr(path + length + 1, '/') ? NULL : path + length + 1;
}

/* The number of an open file of the directory; 0 where it is elsewhere. */
static uint64_t number(int fd) {
  char link[64], path[4096];
  struct stat stat;
  is_live = 0;
  if (!directory || fd == record) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  long n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
  if (n <= 0) return 0;
  path[n] = 0;
  if (!strcmp(path, directory)) return UINT64_MAX;
  const char *name = within(path);
  /* Shared memory is made anew after a power cut. */
  if (!name || (strlen(name) > 4 && !strcmp(name + strlen(name) - 4, "-shm"))) return 0;
  is_live = !strncmp(name, "live", 4);
  return fstat(fd, &stat) ? 0 : stat.st_ino;
}

static void put(char letter, uint64_t file, uint64_t at, const void *bytes, uint32_t n) {
  unsigned char head[21];
  head[0] = (unsigned char)letter;
  memcpy(head + 1, &file, 8);
  memcpy(head + 9, &at, 8);
  memcpy(head + 17, &n, 4);
  if (record < 0) return;
  if (syscall(SYS_write, record, head, sizeof head) != sizeof head || (n && syscall(SYS_write, record, bytes, n) != (long)n)) abort();
}

/* Whether this call is to fail. */
static int fails(void) {
  if (calls < 0 || !is_live) return 0;
  long call = calls++;
  if (call < first || call > last) return 0;
  errno = code;
  return 1;
}

static int opened(const char *path, int flags, int fd, int is_new) {
  const char *name = within(path);
  if (fd < 0 || !name) return fd;
  if (!strcmp(name, "fault")) calls = 0;
  uint64_t file = number(fd);
  if (is_new && file) put('c', file, 0, name, (uint32_t)strlen(name));
  if (!is_new && file && (flags & O_TRUNC)) put('t', file, 0, NULL, 0);
  return fd;
}

static int open_at(int at, const char *path, int flags, mode_t mode) {
  int made = (flags & O_CREAT) && within(path);
  if (!made) return opened(path, flags, (int)syscall(SYS_openat, at, path, flags, mode), 0);
  pthread_mutex_lock(&lock);
  int is_new = syscall(SYS_faccessat, at, path, F_OK) != 0;
  int fd = opened(path, flags, (int)syscall(SYS_openat, at, path, flags, mode), is_new);
  int error = errno;
  pthread_mutex_unlock(&lock);
  errno = error;
  return fd;
}

#define OPEN(NAME)                                     \
  int NAME(const char *path, int flags, ...) {         \
    va_list more;                                      \
    va_start(more, flags);                             \
    mode_t mode = (mode_t)va_arg(more, int);           \
    va_end(more);                                      \
    return open_at(AT_FDCWD, path, flags, mode);       \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(NAME)                                   \
  int NAME(int at, const char *path, int flags, ...) { \
    va_list more;                                      \
    va_start(more, flags);                             \
    mode_t mode = (mode_t)va_arg(more, int);           \
    va_end(more);                                      \
    return open_at(at, path, flags, mode);             \
  }
OPENAT(openat)
OPENAT(openat64)

static ssize_t written(int fd, const void *bytes, size_t n, off_t at, int moves) {
  uint64_t file = number(fd);
  if (!file) return moves ? syscall(SYS_write, fd, bytes, n) : syscall(SYS_pwrite64, fd, bytes, n, at);
  pthread_mutex_lock(&lock);
  ssize_t done = -1;
  if (!fails()) {
    if (moves) at = (fcntl(fd, F_GETFL) & O_APPEND) ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
    done = moves ? syscall(SYS_write, fd, bytes, n) : syscall(SYS_pwrite64, fd, bytes, n, at);
    if (done > 0) put('w', file, (uint64_t)at, bytes, (uint32_t)done);
  }
  int error = errno;
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}

ssize_t write(int fd, const void *bytes, size_t n) { return written(fd, bytes, n, 0, 1); }
ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) { return written(fd, bytes, n, at, 0); }
ssize_t pwrite64(int fd, const void *bytes, size_t n, off_t at) { return written(fd, bytes, n, at, 0); }

static int cut(int fd, off_t n) {
  uint64_t file = number(fd);
  if (!file) return (int)syscall(SYS_ftruncate, fd, n);
  pthread_mutex_lock(&lock);
  int done = fails() ? -1 : (int)syscall(SYS_ftruncate, fd, n);
  int error = errno;
  if (!done) put('t', file, (uint64_t)n, NULL, 0);
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}

int ftruncate(int fd, off_t n) { return cut(fd, n); }
int ftruncate64(int fd, off_t n) { return cut(fd, n); }

/* Nothing is synced: what would be on disk is what the log says. */
static int synced(int fd, long call) {
  uint64_t file = number(fd);
  if (!file) return (int)syscall(call, fd);
  pthread_mutex_lock(&lock);
  int done = fails() ? -1 : 0;
  int error = errno;
  if (!done) put(file == UINT64_MAX ? 'd' : 's', file, 0, NULL, 0);
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int unlink(const char *path) {
  const char *name = within(path);
  pthread_mutex_lock(&lock);
  int done = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
  int error = errno;
  if (!done && name) put('r', 0, 0, name, (uint32_t)strlen(name));
  pthread_mutex_unlock(&lock);
  errno = error;
  return done;
}
