/* Records what a process and its children ask of the file system below one folder, and what they send on sockets, in
 * one order for all threads and processes, for tests that cut the power afterwards (tests/durability/disk.py).
 *
 *   cc -shared -fPIC -O2 -o recorder.so recorder.c -pthread
 *   LD_PRELOAD=recorder.so RECORDER_ROOT=/data RECORDER_LOG=/tmp/log RECORDER_LOCK=/tmp/lock  program
 *
 * A write is recorded after it was done, a sync before it begins and after it has succeeded, an answer before it is
 * sent: so what the log calls durable at an answer was durable before anybody could have read that answer. What changes
 * names happens under one lock together with its record, so that a reused inode number is never mistaken.
 *
 * RECORDER_IGNORES makes the disk lie, to prove that the tests see it: "files", "log" (the write-ahead log of SQLite)
 * or "folders" (those below the root) are then never synced, though told to be. Memory that is mapped writable is not recorded (SQLite's -shm,
 * which is rebuilt); the tests compare the whole record with the real disk, and so find whatever else is not.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* The names of disk.py's records. */
enum { CREATE = 'c', MAKE_FOLDER = 'd', LINK = 'l', RENAME = 'r', UNLINK = 'u', WRITE = 'w', TRUNCATE = 't',
       SYNC_BEGUN = 'b', SYNC_DONE = 's', ALL_BEGUN = 'B', ALL_DONE = 'S', ANSWER = 'a', ANSWER_CUT = 'x' };

/* What follows a record: `first` and `second` bytes. Inode 0 is none. */
typedef struct {
    uint32_t kind, process, first, second;
    uint64_t inode, folder, other_folder, offset, token;
} Record;

typedef struct { pthread_mutex_t lock; uint64_t tokens; } Common;

static Common *common;
static int log_file = -1;
static char root[PATH_MAX];
static size_t root_length;
static const char *ignored = "";

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

static void fail(const char *what) {
    dprintf(2, "recorder: %s: %s\n", what, strerror(errno));
    abort();
}

__attribute__((constructor)) static void start(void) {
    const char *folder = getenv("RECORDER_ROOT"), *lock = getenv("RECORDER_LOCK"), *log = getenv("RECORDER_LOG");
    if (!folder || !lock || !log) return;
    if (getenv("RECORDER_IGNORES")) ignored = getenv("RECORDER_IGNORES");
    root_length = (size_t)snprintf(root, sizeof root, "%s", folder);
    int file = REAL(open64)(lock, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), first = file >= 0;
    if (!first) file = REAL(open64)(lock, O_RDWR | O_CLOEXEC);
    if (file < 0 || (first && REAL(ftruncate64)(file, sizeof *common))) fail(lock);
    common = mmap(NULL, sizeof *common, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (common == MAP_FAILED) fail(lock);
    if (first) { /* the node's first process makes it, before it has children */
        pthread_mutexattr_t attributes;
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(&common->lock, &attributes);
    }
    REAL(close)(file);
    file = REAL(open64)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    log_file = fcntl(file, F_DUPFD_CLOEXEC, 200); /* out of the way of programs that tidy the low ones */
    if (log_file < 0) fail(log);
    REAL(close)(file);
}

static void lock(void) {
    if (pthread_mutex_lock(&common->lock) == EOWNERDEAD) pthread_mutex_consistent(&common->lock); /* it was killed */
}

static void unlock(void) { pthread_mutex_unlock(&common->lock); }

/* Append a record; the lock is held. errno stays. */
static void append(Record record, const struct iovec *first, int parts, const char *second) {
    int before = errno;
    struct iovec all[1 + IOV_MAX];
    size_t length = sizeof record + record.second;
    for (int part = 0; part < parts; part++) {
        all[1 + part] = first[part];
        length += first[part].iov_len;
        record.first += (uint32_t)first[part].iov_len;
    }
    record.process = (uint32_t)getpid();
    all[0] = (struct iovec){&record, sizeof record};
    all[1 + parts] = (struct iovec){(void *)second, record.second};
    if ((size_t)REAL(writev)(log_file, all, parts + 2) != length) fail("the log");
    errno = before;
}

/* Whether a path is the root or lies below it. */
static int below(const char *path) {
    return !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* The absolute path that a call means; 0 where it is not ours to record. */
static int ours(int folder, const char *path, char *full) {
    if (log_file < 0 || !path || !*path) return 0;
    if (*path == '/') return below(strncpy(full, path, PATH_MAX));
    char link[64];
    snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, full, PATH_MAX - 1);
    if (length < 0) return 0;
    snprintf(full + length, (size_t)(PATH_MAX - length), "/%s", path);
    return below(full);
}

/* Whether a path is the folder that holds the root's own name. */
static int above(const char *path) {
    const char *slash = strrchr(root, '/');
    return strlen(path) == (size_t)(slash - root) && !strncmp(path, root, (size_t)(slash - root));
}

/* Whether a descriptor is a file or folder below the root or the folder above it; its path and status. */
static int open_below(int descriptor, char *path, struct stat64 *status) {
    if (log_file < 0) return 0;
    int before = errno;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    errno = before;
    if (length <= 0) return 0;
    path[length] = 0;
    return (below(path) || above(path)) && !fstat64(descriptor, status);
}

static uint64_t inode_of(const char *path) {
    struct stat64 status;
    return lstat64(path, &status) ? 0 : status.st_ino;
}

static uint64_t folder_of(const char *path) {
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
    return inode_of(folder);
}

static const char *name_of(const char *path) { return strrchr(path, '/') + 1; }

/* A change of names that succeeded; the lock is held since before it. */
static void name_changed(uint32_t kind, uint64_t inode, const char *path, const char *new_path) {
    struct iovec name = {(void *)name_of(path), strlen(name_of(path))};
    Record record = {.kind = kind, .inode = inode, .folder = folder_of(path)};
    if (new_path) {
        record.other_folder = folder_of(new_path);
        record.second = (uint32_t)strlen(name_of(new_path));
    }
    append(record, &name, 1, new_path ? name_of(new_path) : NULL);
}

/* ---- names ---- */

static int opened(int folder, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    if (!ours(folder, path, full)) return REAL(openat64)(folder, path, flags, mode);
    int result, created = 0;
    lock();
    if ((flags & O_TMPFILE) == O_TMPFILE) {
        result = REAL(openat64)(folder, path, flags, mode);
        struct stat64 status;
        if (result >= 0 && !fstat64(result, &status))
            append((Record){.kind = CREATE, .inode = status.st_ino}, NULL, 0, NULL);
    } else {
        if (flags & O_CREAT && !(flags & O_EXCL)) { /* whether it is new can only be told by asking for that */
            result = REAL(openat64)(folder, path, flags | O_EXCL, mode);
            created = result >= 0;
            if (!created && errno == EEXIST) result = REAL(openat64)(folder, path, flags & ~O_CREAT, mode);
        } else {
            result = REAL(openat64)(folder, path, flags, mode);
            created = result >= 0 && flags & O_CREAT;
        }
        if (created)
            name_changed(CREATE, inode_of(full), full, NULL);
        else if (result >= 0 && flags & O_TRUNC)
            append((Record){.kind = TRUNCATE, .inode = inode_of(full)}, NULL, 0, NULL);
    }
    unlock();
    return result;
}

#define MODE(flags) ({ mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); \
    mode = va_arg(more, mode_t); va_end(more); } mode; })

int open(const char *path, int flags, ...) { return opened(AT_FDCWD, path, flags, MODE(flags)); }
int open64(const char *path, int flags, ...) { return opened(AT_FDCWD, path, flags, MODE(flags)); }
int openat(int folder, const char *path, int flags, ...) { return opened(folder, path, flags, MODE(flags)); }
int openat64(int folder, const char *path, int flags, ...) { return opened(folder, path, flags, MODE(flags)); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int mkdirat(int folder, const char *path, mode_t mode) {
    char full[PATH_MAX];
    if (!ours(folder, path, full)) return REAL(mkdirat)(folder, path, mode);
    lock();
    int result = REAL(mkdirat)(folder, path, mode);
    if (!result) name_changed(MAKE_FOLDER, inode_of(full), full, NULL);
    unlock();
    return result;
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int unlinkat(int folder, const char *path, int flags) {
    char full[PATH_MAX];
    if (!ours(folder, path, full)) return REAL(unlinkat)(folder, path, flags);
    lock();
    uint64_t inode = inode_of(full);
    int result = REAL(unlinkat)(folder, path, flags);
    if (!result) name_changed(UNLINK, inode, full, NULL);
    unlock();
    return result;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int remove(const char *path) {
    int result = unlink(path);
    return result && errno == EISDIR ? rmdir(path) : result;
}

int renameat2(int from, const char *path, int to, const char *new_path, unsigned flags) {
    char full[PATH_MAX], new_full[PATH_MAX];
    int known = ours(from, path, full);
    if (known != ours(to, new_path, new_full)) { errno = EXDEV; fail("renamed into or out of the recorded folder"); }
    if (!known) return REAL(renameat2)(from, path, to, new_path, flags);
    lock();
    uint64_t inode = inode_of(full);
    int result = REAL(renameat2)(from, path, to, new_path, flags);
    if (!result) name_changed(RENAME, inode, full, new_full);
    unlock();
    return result;
}

int renameat(int from, const char *path, int to, const char *new_path) { return renameat2(from, path, to, new_path, 0); }
int rename(const char *path, const char *new_path) { return renameat2(AT_FDCWD, path, AT_FDCWD, new_path, 0); }

int linkat(int from, const char *path, int to, const char *new_path, int flags) {
    char full[PATH_MAX];
    if (!ours(to, new_path, full)) return REAL(linkat)(from, path, to, new_path, flags);
    lock();
    int result = REAL(linkat)(from, path, to, new_path, flags);
    if (!result) name_changed(LINK, inode_of(full), full, NULL);
    unlock();
    return result;
}

int link(const char *path, const char *new_path) { return linkat(AT_FDCWD, path, AT_FDCWD, new_path, 0); }

/* ---- contents and syncs ---- */

static uint64_t begun(uint32_t kind, uint64_t inode) {
    lock();
    uint64_t token = ++common->tokens;
    append((Record){.kind = kind, .inode = inode, .token = token}, NULL, 0, NULL);
    unlock();
    return token;
}

static void done(uint32_t kind, uint64_t inode, uint64_t token) {
    lock();
    append((Record){.kind = kind, .inode = inode, .token = token}, NULL, 0, NULL);
    unlock();
}

/* Whether this run's disk lies about such a file. */
static int lies(const char *path, const struct stat64 *status) {
    if (S_ISDIR(status->st_mode)) return strlen(path) > root_length && !!strstr(ignored, "folders");
    const char *name = name_of(path);
    if (!strstr(name, ".sqlite")) return !!strstr(ignored, "files");
    return !!strstr(name, "-wal") && !!strstr(ignored, "log");
}

static int synced(int descriptor, int (*sync)(int)) {
    char path[PATH_MAX];
    struct stat64 status;
    if (!open_below(descriptor, path, &status)) return sync(descriptor);
    if (lies(path, &status)) return 0;
    uint64_t token = begun(SYNC_BEGUN, status.st_ino);
    int result = sync(descriptor);
    if (!result) done(SYNC_DONE, status.st_ino, token);
    return result;
}

int fsync(int descriptor) { return synced(descriptor, REAL(fsync)); }
int fdatasync(int descriptor) { return synced(descriptor, REAL(fdatasync)); }

int syncfs(int descriptor) {
    if (log_file < 0) return REAL(syncfs)(descriptor);
    if (*ignored) return 0;
    uint64_t token = begun(ALL_BEGUN, 0);
    int result = REAL(syncfs)(descriptor);
    if (!result) done(ALL_DONE, 0, token);
    return result;
}

void sync(void) {
    if (log_file < 0) { REAL(sync)(); return; }
    if (*ignored) return;
    uint64_t token = begun(ALL_BEGUN, 0);
    REAL(sync)();
    done(ALL_DONE, 0, token);
}

/* So many bytes of a vector. */
static int cut(const struct iovec *from, int parts, size_t length, struct iovec *into) {
    int used = 0;
    for (; used < parts && length; used++) {
        into[used] = from[used];
        if (into[used].iov_len > length) into[used].iov_len = length;
        length -= into[used].iov_len;
    }
    return used;
}

/* `length` bytes were written at an offset, or (-1) up to where the file stands now. */
static void written(int descriptor, const struct iovec *vector, int parts, ssize_t length, off64_t offset) {
    char path[PATH_MAX];
    struct stat64 status;
    if (length <= 0 || !open_below(descriptor, path, &status) || !S_ISREG(status.st_mode)) return;
    if (offset < 0) offset = lseek64(descriptor, 0, SEEK_CUR) - length;
    struct iovec *kept = alloca(sizeof *kept * (size_t)parts);
    int used = cut(vector, parts, (size_t)length, kept);
    lock();
    append((Record){.kind = WRITE, .inode = status.st_ino, .offset = (uint64_t)offset}, kept, used, NULL);
    unlock();
}

static int is_socket(int descriptor, uint64_t *inode) {
    struct stat64 status;
    if (log_file < 0 || fstat64(descriptor, &status) || !S_ISSOCK(status.st_mode)) return 0;
    *inode = status.st_ino;
    return 1;
}

/* Before bytes go out on a socket; what to tell when they are out, 0 for nothing. */
static uint64_t answering(int descriptor, const struct iovec *vector, int parts) {
    uint64_t inode, token = 0;
    int before = errno;
    if (is_socket(descriptor, &inode)) {
        lock();
        token = ++common->tokens;
        append((Record){.kind = ANSWER, .inode = inode, .token = token}, vector, parts, NULL);
        unlock();
    }
    errno = before;
    return token;
}

/* The kernel took only a part of an answer, or nothing: the program will send the rest again. */
static ssize_t answered(uint64_t token, const struct iovec *vector, int parts, ssize_t result) {
    ssize_t length = 0;
    for (int part = 0; part < parts; part++) length += (ssize_t)vector[part].iov_len;
    if (token && result != length) {
        lock();
        append((Record){.kind = ANSWER_CUT, .token = token, .offset = result < 0 ? 0 : (uint64_t)result}, NULL, 0, NULL);
        unlock();
    }
    return result;
}

ssize_t write(int descriptor, const void *bytes, size_t length) {
    struct iovec vector = {(void *)bytes, length};
    uint64_t token = answering(descriptor, &vector, 1);
    ssize_t result = answered(token, &vector, 1, REAL(write)(descriptor, bytes, length));
    written(descriptor, &vector, 1, result, -1);
    return result;
}

ssize_t writev(int descriptor, const struct iovec *vector, int parts) {
    uint64_t token = answering(descriptor, vector, parts);
    ssize_t result = answered(token, vector, parts, REAL(writev)(descriptor, vector, parts));
    written(descriptor, vector, parts, result, -1);
    return result;
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off64_t offset) {
    struct iovec vector = {(void *)bytes, length};
    ssize_t result = REAL(pwrite64)(descriptor, bytes, length, offset);
    written(descriptor, &vector, 1, result, offset);
    return result;
}

ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t offset) {
    return pwrite64(descriptor, bytes, length, offset);
}

ssize_t pwritev64(int descriptor, const struct iovec *vector, int parts, off64_t offset) {
    ssize_t result = REAL(pwritev64)(descriptor, vector, parts, offset);
    written(descriptor, vector, parts, result, offset);
    return result;
}

ssize_t pwritev(int descriptor, const struct iovec *vector, int parts, off_t offset) {
    return pwritev64(descriptor, vector, parts, offset);
}

ssize_t pwritev2(int descriptor, const struct iovec *vector, int parts, off_t offset, int flags) {
    ssize_t result = REAL(pwritev2)(descriptor, vector, parts, offset, flags);
    written(descriptor, vector, parts, result, offset);
    return result;
}

ssize_t pwritev64v2(int descriptor, const struct iovec *vector, int parts, off64_t offset, int flags) {
    return pwritev2(descriptor, vector, parts, offset, flags);
}

/* What the kernel has copied into a file is read back. */
static void copied(int descriptor, ssize_t length, off64_t offset) {
    char path[PATH_MAX];
    struct stat64 status;
    if (length <= 0 || !open_below(descriptor, path, &status) || !S_ISREG(status.st_mode)) return;
    if (offset < 0) offset = lseek64(descriptor, 0, SEEK_CUR) - length;
    int again = REAL(open64)(path, O_RDONLY | O_CLOEXEC);
    void *bytes = malloc((size_t)length);
    if (again < 0 || !bytes || pread64(again, bytes, (size_t)length, offset) != length) fail("reading a copy");
    struct iovec vector = {bytes, (size_t)length};
    written(descriptor, &vector, 1, length, offset);
    free(bytes);
    REAL(close)(again);
}

ssize_t sendfile64(int to, int from, off64_t *offset, size_t length) {
    ssize_t result = REAL(sendfile64)(to, from, offset, length);
    copied(to, result, -1);
    return result;
}

ssize_t sendfile(int to, int from, off_t *offset, size_t length) { return sendfile64(to, from, offset, length); }

ssize_t copy_file_range(int from, off64_t *from_offset, int to, off64_t *offset, size_t length, unsigned flags) {
    off64_t at = offset ? *offset : -1;
    ssize_t result = REAL(copy_file_range)(from, from_offset, to, offset, length, flags);
    copied(to, result, at);
    return result;
}

ssize_t splice(int from, off64_t *from_offset, int to, off64_t *offset, size_t length, unsigned flags) {
    off64_t at = offset ? *offset : -1;
    ssize_t result = REAL(splice)(from, from_offset, to, offset, length, flags);
    copied(to, result, at);
    return result;
}

static void resized(int descriptor, off64_t size) {
    char path[PATH_MAX];
    struct stat64 status;
    if (!open_below(descriptor, path, &status)) return;
    lock();
    append((Record){.kind = TRUNCATE, .inode = status.st_ino, .offset = (uint64_t)size}, NULL, 0, NULL);
    unlock();
}

int ftruncate64(int descriptor, off64_t size) {
    int result = REAL(ftruncate64)(descriptor, size);
    if (!result) resized(descriptor, size);
    return result;
}

int ftruncate(int descriptor, off_t size) { return ftruncate64(descriptor, size); }

int truncate64(const char *path, off64_t size) {
    int descriptor = open64(path, O_WRONLY | O_CLOEXEC);
    if (descriptor < 0) return -1;
    int result = ftruncate64(descriptor, size);
    close(descriptor);
    return result;
}

int truncate(const char *path, off_t size) { return truncate64(path, size); }

/* Allocating changes a file's content only where it makes it longer. */
static int allocated(int descriptor, int result, int mode, off64_t end) {
    struct stat64 status;
    if (!result && mode & ~FALLOC_FL_KEEP_SIZE) { errno = ENOTSUP; fail("fallocate with a mode that is not recorded"); }
    if (!result && !mode && !fstat64(descriptor, &status) && status.st_size == end) resized(descriptor, end);
    return result;
}

int posix_fallocate64(int descriptor, off64_t offset, off64_t length) {
    return allocated(descriptor, REAL(posix_fallocate64)(descriptor, offset, length), 0, offset + length);
}

int posix_fallocate(int descriptor, off_t offset, off_t length) { return posix_fallocate64(descriptor, offset, length); }

int fallocate64(int descriptor, int mode, off64_t offset, off64_t length) {
    return allocated(descriptor, REAL(fallocate64)(descriptor, mode, offset, length), mode, offset + length);
}

int fallocate(int descriptor, int mode, off_t offset, off_t length) {
    return fallocate64(descriptor, mode, offset, length);
}

/* ---- answers ---- */

ssize_t sendto(int descriptor, const void *bytes, size_t length, int flags, const struct sockaddr *to, socklen_t size) {
    struct iovec vector = {(void *)bytes, length};
    uint64_t token = answering(descriptor, &vector, 1);
    return answered(token, &vector, 1, REAL(sendto)(descriptor, bytes, length, flags, to, size));
}

ssize_t send(int descriptor, const void *bytes, size_t length, int flags) {
    return sendto(descriptor, bytes, length, flags, NULL, 0);
}

ssize_t sendmsg(int descriptor, const struct msghdr *message, int flags) {
    uint64_t token = answering(descriptor, message->msg_iov, (int)message->msg_iovlen);
    return answered(token, message->msg_iov, (int)message->msg_iovlen, REAL(sendmsg)(descriptor, message, flags));
}
