/* File operations below one directory, counted, and the n-th of them failed or never survived.

   Loaded into a process with LD_PRELOAD, so that what TensorStore does from C++ is seen as well as
   what Python does. Nothing happens before fault_arm. Reads of a file's state (stat, access) and
   of directories are let through: they change nothing, and nothing is concluded from them alone.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* The same numbers as in shim.py. */
enum mode { COUNT, FAIL, FULL, GONE, SHORT, KILL, TEAR };
enum kind { OTHER, GROWS }; /* GROWS: takes room on the disk */

static char directory[PATH_MAX];
static size_t directory_length;
static atomic_int armed, fired;
static atomic_long seen;
static long target;
static enum mode mode;

void fault_arm(const char *path, long n, int how) {
  atomic_store(&armed, 0);
  snprintf(directory, sizeof directory, "%s", path);
  directory_length = strlen(directory);
  target = n;
  mode = how;
  atomic_store(&seen, 0);
  atomic_store(&fired, 0);
  atomic_store(&armed, 1);
}

/* How many operations were seen. */
long fault_disarm(void) {
  atomic_store(&armed, 0);
  return atomic_load(&seen);
}

int fault_fired(void) { return atomic_load(&fired); }

static int is_below(const char *path) {
  return !strncmp(path, directory, directory_length) &&
         (path[directory_length] == '/' || path[directory_length] == 0);
}

static int descriptor_is_below(int fd) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_below(path);
}

static int path_is_below(int at, const char *path) {
  if (path[0] == '/') return is_below(path);
  if (at != AT_FDCWD) return descriptor_is_below(at);
  char here[PATH_MAX];
  return getcwd(here, sizeof here) && is_below(here);
}

/* 0 to go on, 1 to write half of it only, or the error to return. */
static int verdict(enum kind kind, int is_write) {
  if (mode == FULL && kind != GROWS) return 0;
  if ((mode == SHORT || mode == TEAR) && !is_write) return 0;
  long number = atomic_fetch_add(&seen, 1) + 1;
  if (mode == COUNT || number < target) return 0;
  int lasting = mode == FULL || mode == GONE;
  if (number > target && !lasting) return 0;
  atomic_store(&fired, 1);
  switch (mode) {
    case FULL: return ENOSPC;
    case SHORT:
    case TEAR: return 1;
    case KILL: kill(getpid(), SIGKILL); pause(); /* fall through */
    default: return EIO;
  }
}

static enum kind opening(int at, const char *path, int flags) {
  return flags & O_CREAT && faccessat(at, path, F_OK, 0) ? GROWS : OTHER;
}

#define BEFORE(below, kind, is_write)                                   \
  int half = 0;                                                         \
  if (atomic_load(&armed)) {                                            \
    int before = errno;                                                 \
    if (below) {                                                        \
      int error = verdict(kind, is_write);                              \
      if (error > 1) { errno = error; return -1; }                      \
      half = error;                                                     \
    }                                                                   \
    errno = before;                                                     \
  }                                                                     \
  (void)half

#define DIE_IF_TORN if (half && mode == TEAR) { kill(getpid(), SIGKILL); pause(); }

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define ON_PATH(type, name, at, path, kind, parameters, arguments)      \
  type name parameters {                                                \
    REAL(name);                                                         \
    BEFORE(path_is_below(at, path), kind, 0);                           \
    return real arguments;                                              \
  }

#define ON_DESCRIPTOR(type, name, kind, parameters, arguments)          \
  type name parameters {                                                \
    REAL(name);                                                         \
    BEFORE(descriptor_is_below(fd), kind, 0);                           \
    return real arguments;                                              \
  }

#define OPEN(name, at, parameters, arguments)                           \
  int name parameters {                                                 \
    REAL(name);                                                         \
    mode_t permissions = 0;                                             \
    if (flags & (O_CREAT | __O_TMPFILE)) {                              \
      va_list rest;                                                     \
      va_start(rest, flags);                                            \
      permissions = va_arg(rest, mode_t);                               \
      va_end(rest);                                                     \
    }                                                                   \
    BEFORE(path_is_below(at, path), opening(at, path, flags), 0);       \
    return real arguments;                                              \
  }

OPEN(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, permissions))
OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, permissions))
OPEN(openat, at, (int at, const char *path, int flags, ...), (at, path, flags, permissions))
OPEN(openat64, at, (int at, const char *path, int flags, ...), (at, path, flags, permissions))
ON_PATH(int, creat, AT_FDCWD, path, GROWS, (const char *path, mode_t m), (path, m))
ON_PATH(int, mkdir, AT_FDCWD, path, GROWS, (const char *path, mode_t m), (path, m))
ON_PATH(int, mkdirat, at, path, GROWS, (int at, const char *path, mode_t m), (at, path, m))
ON_PATH(int, rename, AT_FDCWD, to, OTHER, (const char *from, const char *to), (from, to))
ON_PATH(int, renameat, at, to, OTHER, (int from_at, const char *from, int at, const char *to),
        (from_at, from, at, to))
ON_PATH(int, renameat2, at, to, OTHER,
        (int from_at, const char *from, int at, const char *to, unsigned f),
        (from_at, from, at, to, f))
ON_PATH(int, link, AT_FDCWD, to, GROWS, (const char *from, const char *to), (from, to))
ON_PATH(int, linkat, at, to, GROWS,
        (int from_at, const char *from, int at, const char *to, int f), (from_at, from, at, to, f))
ON_PATH(int, symlink, AT_FDCWD, path, GROWS, (const char *from, const char *path), (from, path))
ON_PATH(int, unlink, AT_FDCWD, path, OTHER, (const char *path), (path))
ON_PATH(int, unlinkat, at, path, OTHER, (int at, const char *path, int f), (at, path, f))
ON_PATH(int, rmdir, AT_FDCWD, path, OTHER, (const char *path), (path))
ON_PATH(int, truncate, AT_FDCWD, path, size ? GROWS : OTHER, (const char *path, off_t size), (path, size))
ON_DESCRIPTOR(int, ftruncate, size ? GROWS : OTHER, (int fd, off_t size), (fd, size))
ON_DESCRIPTOR(int, ftruncate64, size ? GROWS : OTHER, (int fd, off64_t size), (fd, size))
ON_DESCRIPTOR(int, fsync, OTHER, (int fd), (fd))
ON_DESCRIPTOR(int, fdatasync, OTHER, (int fd), (fd))
ON_DESCRIPTOR(int, flock, OTHER, (int fd, int how), (fd, how))
ON_DESCRIPTOR(ssize_t, read, OTHER, (int fd, void *data, size_t size), (fd, data, size))
ON_DESCRIPTOR(ssize_t, pread, OTHER, (int fd, void *data, size_t size, off_t from),
              (fd, data, size, from))
ON_DESCRIPTOR(ssize_t, pread64, OTHER, (int fd, void *data, size_t size, off64_t from),
              (fd, data, size, from))

#define WRITE(name, parameters, arguments)                              \
  ssize_t name parameters {                                             \
    REAL(name);                                                         \
    BEFORE(descriptor_is_below(fd), GROWS, 1);                          \
    if (half && size > 1) size /= 2;                                    \
    ssize_t written = real arguments;                                   \
    DIE_IF_TORN                                                         \
    return written;                                                     \
  }

WRITE(write, (int fd, const void *data, size_t size), (fd, data, size))
WRITE(pwrite, (int fd, const void *data, size_t size, off_t from), (fd, data, size, from))
WRITE(pwrite64, (int fd, const void *data, size_t size, off64_t from), (fd, data, size, from))
/* Half of the pieces; a single piece is written whole, so that TEAR kills after it. */
WRITE(writev, (int fd, const struct iovec *data, int size), (fd, data, size))
WRITE(pwritev, (int fd, const struct iovec *data, int size, off_t from), (fd, data, size, from))
WRITE(pwritev64, (int fd, const struct iovec *data, int size, off64_t from),
      (fd, data, size, from))
