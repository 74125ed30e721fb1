/*
 * A wall clock that is wrong and a disk that is full, for one process (LD_PRELOAD).
 *
 * SPENDFUSE_FAULTS names a file of two 64-bit numbers that is looked at with every call: the
 * milliseconds by which the wall clock is ahead, and whether the disk is full. The disk is what lies
 * below SPENDFUSE_FAULTS_FOLDER. Monotonic clocks, sockets and pipes are left alone. Waits with a
 * deadline of the wall clock end when it would have come by the clock of the moment they began.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

struct faults {
  volatile int64_t clock_millis;
  volatile int64_t disk_is_full;
};

static struct faults *faults;
static const char *folder;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("SPENDFUSE_FAULTS");
  folder = getenv("SPENDFUSE_FAULTS_FOLDER");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *shared = mmap(NULL, sizeof(struct faults), PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (shared != MAP_FAILED) faults = shared;
}

/* The function behind ours. */
#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* The clock. */

static int64_t ahead(void) { return faults ? faults->clock_millis : 0; }

int clock_gettime(clockid_t clock, struct timespec *time) {
  REAL(clock_gettime);
  int result = real(clock, time);
  int64_t millis = ahead();
  if (result == 0 && millis && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t nanos = time->tv_nsec + (millis % 1000) * 1000000;
    time->tv_sec += millis / 1000;
    if (nanos < 0) nanos += 1000000000, time->tv_sec--;
    if (nanos >= 1000000000) nanos -= 1000000000, time->tv_sec++;
    time->tv_nsec = nanos;
  }
  return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  struct timespec now;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

/* Waits with a deadline: glibc reads the clock for them without coming by here. */

/* Some parts (ClickHouse) do not read the clock by our function, and their deadlines are right: the
 * reading by which a deadline is nearer is the right one. */
static struct timespec by_real_clock(const struct timespec *deadline) {
  struct timespec real = *deadline, now;
  int64_t millis = ahead();
  /* Deadlines of monotonic clocks count from the machine's start. */
  if (!millis || deadline->tv_sec <= 1000000000) return real;
  clock_gettime(CLOCK_REALTIME, &now);
  int64_t left = deadline->tv_sec - now.tv_sec;
  if (llabs(left) > llabs(left + millis / 1000)) return real;
  int64_t nanos = real.tv_nsec - (millis % 1000) * 1000000;
  real.tv_sec -= millis / 1000;
  if (nanos < 0) nanos += 1000000000, real.tv_sec--;
  if (nanos >= 1000000000) nanos -= 1000000000, real.tv_sec++;
  real.tv_nsec = nanos;
  return real;
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict deadline) {
  static __typeof__(&pthread_cond_timedwait) real;
  /* Without a version, dlsym may find that of conditions before glibc 2.3.2 (x86-64). */
  if (!real) real = (__typeof__(real))dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  if (!real) real = (__typeof__(real))dlsym(RTLD_NEXT, "pthread_cond_timedwait");
  struct timespec at = by_real_clock(deadline);
  return real(cond, mutex, &at);
}

int cnd_timedwait(cnd_t *restrict cond, mtx_t *restrict mutex,
                  const struct timespec *restrict deadline) {
  REAL(cnd_timedwait);
  struct timespec at = by_real_clock(deadline);
  return real(cond, mutex, &at);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex,
                            const struct timespec *restrict deadline) {
  REAL(pthread_mutex_timedlock);
  struct timespec at = by_real_clock(deadline);
  return real(mutex, &at);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict deadline) {
  REAL(sem_timedwait);
  struct timespec at = by_real_clock(deadline);
  return real(semaphore, &at);
}

/* C11's name of the clock. */
int timespec_get(struct timespec *time, int base) {
  return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, time) == 0 ? base : 0;
}

/* The disk. */

static int is_below(const char *path) {
  size_t length = strlen(folder);
  return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int is_full(int file) {
  if (!faults || !faults->disk_is_full || !folder) return 0;
  struct stat status;
  if (fstat(file, &status) || !S_ISREG(status.st_mode)) return 0;
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return is_below(path);
}

/* A disk becomes full in the middle: every other write stores half, every other new file is made. */
static int is_lucky(void) {
  static volatile unsigned calls;
  return __sync_fetch_and_add(&calls, 1) % 2 == 0;
}

static int stores_half(size_t count) { return count > 1 && is_lucky(); }

static int no_space(void) {
  errno = ENOSPC;
  return -1;
}

ssize_t write(int file, const void *bytes, size_t count) {
  REAL(write);
  if (!is_full(file)) return real(file, bytes, count);
  return stores_half(count) ? real(file, bytes, count / 2) : no_space();
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
  REAL(pwrite64);
  if (!is_full(file)) return real(file, bytes, count, at);
  return stores_half(count) ? real(file, bytes, count / 2, at) : no_space();
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) {
  return pwrite64(file, bytes, count, at);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
  REAL(writev);
  return is_full(file) ? no_space() : real(file, parts, count);
}

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t at) {
  REAL(pwritev);
  return is_full(file) ? no_space() : real(file, parts, count, at);
}

/* Cutting off needs no room. */
static int grows(int file, off64_t length) {
  struct stat status;
  return fstat(file, &status) == 0 && length > status.st_size;
}

int ftruncate64(int file, off64_t length) {
  REAL(ftruncate64);
  return is_full(file) && grows(file, length) ? no_space() : real(file, length);
}

int ftruncate(int file, off_t length) { return ftruncate64(file, length); }

int fallocate64(int file, int mode, off64_t from, off64_t length) {
  REAL(fallocate64);
  return is_full(file) ? no_space() : real(file, mode, from, length);
}

int fallocate(int file, int mode, off_t from, off_t length) {
  return fallocate64(file, mode, from, length);
}

int posix_fallocate64(int file, off64_t from, off64_t length) {
  REAL(posix_fallocate64);
  return is_full(file) ? ENOSPC : real(file, from, length);
}

int posix_fallocate(int file, off_t from, off_t length) {
  return posix_fallocate64(file, from, length);
}

/* What is there can be opened. Paths of the parts are absolute. */
static int cannot_be_made(const char *path, int flags) {
  return (flags & O_CREAT) && faults && faults->disk_is_full && folder && is_below(path) &&
         access(path, F_OK) != 0 && !is_lucky();
}

#define MODE_OF(flags) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | O_TMPFILE)) { \
    va_list rest; \
    va_start(rest, flags); \
    mode = va_arg(rest, mode_t); \
    va_end(rest); \
  }

int openat64(int at, const char *path, int flags, ...) {
  REAL(openat64);
  MODE_OF(flags)
  return cannot_be_made(path, flags) ? no_space() : real(at, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
  MODE_OF(flags)
  return openat64(at, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  MODE_OF(flags)
  return openat64(AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...) {
  MODE_OF(flags)
  return openat64(AT_FDCWD, path, flags, mode);
}
