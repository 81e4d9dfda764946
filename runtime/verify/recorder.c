/* Records what a process does to the files of one directory, for replaying a power cut.
 *
 * Preloaded into a process (LD_PRELOAD), it writes each write, truncation, sync
 * and removal of a file below $POWERLOSS_DIR to $POWERLOSS_LOG, in the order in
 * which they were done, and does them.  A record is
 *
 *     kind 'W' write | 'T' truncate | 'S' sync | 'U' unlink      1 byte
 *     length of the name, offset, length of the data             3 x 8 bytes, native order
 *     name of the file in the directory, data
 *
 * One lock makes the order of the log the order of the calls.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { FILES = 4096, NAME = 256 };

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static char names[FILES][NAME]; /* of an open descriptor; empty: not ours */
static int log_fd = -1;

#define REAL(type, name, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static void raw(const void *data, size_t size) {
  REAL(ssize_t, "write", int, const void *, size_t);
  while (size) {
    ssize_t done = real(log_fd, data, size);
    if (done <= 0) abort();
    data = (const char *)data + done;
    size -= (size_t)done;
  }
}

static void record(char kind, const char *name, off_t offset, const void *data, size_t size) {
  int64_t head[3] = {(int64_t)strlen(name), (int64_t)offset, (int64_t)(data ? size : 0)};
  if (kind == 'T') head[1] = (int64_t)offset;
  raw(&kind, 1);
  raw(head, sizeof head);
  raw(name, strlen(name));
  if (data) raw(data, size);
}

static const char *ours(const char *path) {
  const char *directory = getenv("POWERLOSS_DIR");
  size_t size = directory ? strlen(directory) : 0;
  if (!size || strncmp(path, directory, size) || path[size] != '/') return NULL;
  return strchr(path + size + 1, '/') ? NULL : path + size + 1;
}

static int opened(int fd, const char *path, int flags) {
  const char *name = fd >= 0 && fd < FILES ? ours(path) : NULL;
  if (fd < 0 || fd >= FILES) return fd;
  pthread_mutex_lock(&lock);
  names[fd][0] = 0;
  if (name && strlen(name) < NAME) {
    REAL(int, "open", const char *, int, ...);
    if (log_fd < 0)
      log_fd = real(getenv("POWERLOSS_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    strcpy(names[fd], name);
    if (flags & O_TRUNC) record('T', name, 0, NULL, 0);
  }
  pthread_mutex_unlock(&lock);
  return fd;
}

static const char *name_of(int fd) {
  return fd >= 0 && fd < FILES && names[fd][0] ? names[fd] : NULL;
}

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    REAL(int, #name, const char *, int, ...); \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest); \
    return opened(real(path, flags, mode), path, flags); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
  int name(int at, const char *path, int flags, ...) { \
    REAL(int, #name, int, const char *, int, ...); \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest); \
    return opened(real(at, path, flags, mode), path, flags); \
  }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
  REAL(int, "close", int);
  pthread_mutex_lock(&lock);
  if (fd >= 0 && fd < FILES) names[fd][0] = 0;
  int answer = real(fd);
  pthread_mutex_unlock(&lock);
  return answer;
}

#define PWRITE(name) \
  ssize_t name(int fd, const void *data, size_t size, off_t offset) { \
    REAL(ssize_t, #name, int, const void *, size_t, off_t); \
    if (!name_of(fd)) return real(fd, data, size, offset); \
    pthread_mutex_lock(&lock); \
    ssize_t done = real(fd, data, size, offset); \
    if (done > 0 && name_of(fd)) record('W', name_of(fd), offset, data, (size_t)done); \
    pthread_mutex_unlock(&lock); \
    return done; \
  }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t write(int fd, const void *data, size_t size) {
  REAL(ssize_t, "write", int, const void *, size_t);
  if (!name_of(fd)) return real(fd, data, size);
  pthread_mutex_lock(&lock);
  ssize_t done = real(fd, data, size);
  off_t end = lseek(fd, 0, SEEK_CUR);
  if (done > 0 && name_of(fd)) record('W', name_of(fd), end - done, data, (size_t)done);
  pthread_mutex_unlock(&lock);
  return done;
}

#define TRUNCATE(name) \
  int name(int fd, off_t size) { \
    REAL(int, #name, int, off_t); \
    pthread_mutex_lock(&lock); \
    int answer = real(fd, size); \
    if (!answer && name_of(fd)) record('T', name_of(fd), size, NULL, 0); \
    pthread_mutex_unlock(&lock); \
    return answer; \
  }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define SYNC(name) \
  int name(int fd) { \
    REAL(int, #name, int); \
    pthread_mutex_lock(&lock); \
    int answer = real(fd); \
    if (!answer && name_of(fd)) record('S', name_of(fd), 0, NULL, 0); \
    pthread_mutex_unlock(&lock); \
    return answer; \
  }
SYNC(fsync)
SYNC(fdatasync)

int unlink(const char *path) {
  REAL(int, "unlink", const char *);
  pthread_mutex_lock(&lock);
  int answer = real(path);
  const char *name = ours(path);
  if (!answer && name && log_fd >= 0) record('U', name, 0, NULL, 0);
  pthread_mutex_unlock(&lock);
  return answer;
}
