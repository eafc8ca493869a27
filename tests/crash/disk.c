/* Preloaded into a process: what would be on disk if the power failed now.

   Each time a database file is synced, its content is copied to `disk/` beside it. A removed file
   goes with the next sync of its directory's files, as on a file system with a journal. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATABASE "flux.db"
#define PATH_SIZE (PATH_MAX + 32)

static void fail(const char *what) {
    perror(what);
    abort(); /* a disk that is not as it should be must not look like a pass */
}

static void copy(int from, const char *path) {
    static __thread char buffer[1 << 16];
    char fresh[PATH_SIZE];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    int to = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (to < 0)
        fail(fresh);
    /* Through the same descriptor: to close another one of this file would drop SQLite's locks on it. */
    ssize_t n;
    for (off_t at = 0; (n = pread(from, buffer, sizeof buffer, at)) > 0; at += n)
        if (write(to, buffer, n) != n)
            fail(fresh);
    if (n < 0 || close(to) || rename(fresh, path))
        fail(fresh);
}

static void drop_removed(const char *folder, const char *name) {
    char live[PATH_SIZE], kept[PATH_SIZE];
    snprintf(live, sizeof live, "%s/%s", folder, name);
    snprintf(kept, sizeof kept, "%s/disk/%s", folder, name);
    if (access(live, F_OK))
        unlink(kept);
}

static void keep(int fd) {
    char link[64], path[PATH_MAX], folder[PATH_MAX], kept[PATH_SIZE];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return;
    path[length] = 0;
    char *name = strrchr(path, '/');
    if (!name || strncmp(name + 1, DATABASE, strlen(DATABASE)))
        return;
    snprintf(folder, sizeof folder, "%.*s", (int)(name - path), path);
    snprintf(kept, sizeof kept, "%.4000s/disk", folder);
    mkdir(kept, 0700);
    snprintf(kept, sizeof kept, "%.4000s/disk%s", folder, name);
    copy(fd, kept);
    drop_removed(folder, DATABASE "-journal");
    drop_removed(folder, DATABASE "-wal");
}

static int synced(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = real(fd);
    if (result == 0)
        keep(fd);
    return result;
}

int fsync(int fd) { return synced("fsync", fd); }

int fdatasync(int fd) { return synced("fdatasync", fd); }
