#include "core/bytes.h"
#include "core/err.h"
#include "core/identity.h"
#include "core/machine.h"
#include "spec/c/check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char home[] = "/tmp/test_identity.XXXXXX";
static char path[PATH_MAX], message[IDENTITY_MESSAGE_SIZE];

/* A folder of its own for each case. */
static const char *at(const char *name) {
    snprintf(path, sizeof path, "%s/%s", home, name);
    return path;
}

static unsigned mode_of(const char *name) {
    struct stat status;
    return stat(name, &status) == 0 ? status.st_mode & 07777u : 0;
}

static void put_file(const char *name, const char *text, mode_t mode) {
    int file = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text));
    CHECK(fchmod(file, mode) == 0);
    close(file);
}

static int count_files(const char *folder) {
    int count = 0;
    DIR *list = opendir(folder);
    for (struct dirent *entry; list && (entry = readdir(list));)
        count += entry->d_name[0] != '.';
    if (list)
        closedir(list);
    return count;
}

static void the_first_use_makes_a_key(void) {
    struct identity identity, again;
    char folder[PATH_MAX];
    strcpy(folder, at("first"));
    at("first/deep/key.pem");
    umask(0);
    CHECK_EQ(identity_open(path, false, &identity, message), 0);
    umask(022);
    CHECK(identity.made);
    CHECK_TEXT(identity.path, path);
    CHECK_TEXT(message, "");
    CHECK_EQ(mode_of(path), 0600);
    CHECK_EQ(mode_of(folder), 0700);
    CHECK_EQ(mode_of(strcat(folder, "/deep")), 0700);
    CHECK_EQ(count_files(folder), 1);
    CHECK_EQ(identity_open(path, false, &again, message), 0);
    CHECK(!again.made);
    CHECK_TEXT(key_id(again.key), key_id(identity.key));
    identity_close(&identity);
    identity_close(&identity);
    CHECK(strlen(key_id(again.key)) >= 44);
    identity_close(&again);
}

static void a_bare_name_lies_in_the_current_folder(void) {
    struct identity identity;
    char here[PATH_MAX];
    CHECK(getcwd(here, sizeof here) && chdir(home) == 0);
    CHECK_EQ(identity_open("bare.pem", true, &identity, message), 0);
    identity_close(&identity);
    CHECK_EQ(mode_of("bare.pem"), 0600);
    CHECK(chdir(here) == 0);
}

static void a_key_that_others_can_open_is_refused(void) {
    static const mode_t modes[] = {0640, 0604, 0620, 0602, 0610, 0666};
    struct identity identity;
    at("open.pem");
    CHECK_EQ(identity_open(path, false, &identity, message), 0);
    identity_close(&identity);
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        CHECK(chmod(path, modes[i]) == 0);
        CHECK_EQ(identity_open(path, false, &identity, message), UV_EPERM);
        CHECK(strstr(message, path) && strstr(message, "chmod 600"));
    }
    CHECK(chmod(path, 0400) == 0);
    CHECK_EQ(identity_open(path, false, &identity, message), 0);
    identity_close(&identity);
}

static void what_holds_no_key_is_refused_and_left(void) {
    static const char *const texts[] = {
        "", "hello", "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n"};
    struct identity identity;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        put_file(at("text.pem"), texts[i], 0600);
        CHECK_EQ(identity_open(path, false, &identity, message), ERR_EFORMAT);
        CHECK(strstr(message, path) && strstr(message, "P-256"));
        struct stat status;
        CHECK(stat(path, &status) == 0 && status.st_size == (off_t)strlen(texts[i]));
    }
    CHECK_EQ(identity_open(home, false, &identity, message), UV_EINVAL);
    CHECK(strstr(message, "no regular file"));
    at("fifo.pem"); /* which must not be waited for */
    CHECK(mkfifo(path, 0600) == 0);
    CHECK_EQ(identity_open(path, false, &identity, message), UV_EINVAL);
}

static void folders_that_cannot_be_made_are_told(void) {
    struct identity identity;
    put_file(at("file"), "", 0600);
    CHECK_EQ(identity_open(at("file/key.pem"), false, &identity, message), UV_ENOTDIR);
    CHECK(strstr(message, path));
    CHECK(!identity.key && !identity.path && identity.lock < 0);
    char longest[2 * PATH_MAX];
    memset(longest, 'x', sizeof longest);
    longest[0] = '/';
    longest[sizeof longest - 1] = '\0';
    CHECK_EQ(identity_open(longest, false, &identity, message), UV_ENAMETOOLONG);
    for (size_t i = 100; i < PATH_MAX + 20; i += 100)
        longest[i] = '/';
    longest[PATH_MAX - 3] = '\0';
    CHECK(identity_open(longest, false, &identity, message) != 0);
}

/* Runs `body` in a process of its own; its exit status. */
static int in_child(int (*body)(void)) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        _exit(body());
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static int start_fd;

/* Waits for the start signal, opens, and writes the node id. */
static void race(int out) {
    struct identity identity;
    char go;
    if (read(start_fd, &go, 1) == 0 && identity_open(path, false, &identity, message) == 0) {
        char id[KEY_ID_SIZE] = {0};
        strcpy(id, key_id(identity.key));
        _exit(write(out, id, sizeof id) == sizeof id ? 0 : 1);
    }
    _exit(1);
}

static void processes_that_start_at_once_get_one_key(void) {
    enum { PROCESSES = 12 };
    for (int round = 0; round < 5; round++) {
        char name[32];
        int ids[2], start[2];
        snprintf(name, sizeof name, "race%d/key.pem", round);
        at(name);
        CHECK(pipe(ids) == 0 && pipe(start) == 0);
        start_fd = start[0];
        fflush(stdout);
        for (int i = 0; i < PROCESSES; i++)
            if (fork() == 0) {
                close(start[1]);
                race(ids[1]);
            }
        close(start[0]);
        close(start[1]); /* go */
        close(ids[1]);
        char first[KEY_ID_SIZE], id[KEY_ID_SIZE];
        CHECK_EQ(read(ids[0], first, sizeof first), sizeof first);
        for (int i = 1; i < PROCESSES; i++) {
            CHECK_EQ(read(ids[0], id, sizeof id), sizeof id);
            CHECK_TEXT(id, first);
        }
        close(ids[0]);
        while (wait(NULL) > 0)
            ;
        *strrchr(path, '/') = '\0';
        CHECK_EQ(count_files(path), 1);
    }
}

static int open_locked(void) {
    struct identity identity;
    int status = identity_open(path, true, &identity, message);
    if (status == 0)
        identity_close(&identity);
    return status == 0 ? 0 : status == UV_EBUSY && strstr(message, "another process (") ? 2 : 1;
}

static void one_process_listens_with_a_key(void) {
    struct identity identity, other;
    at("locked.pem");
    CHECK_EQ(identity_open(path, true, &identity, message), 0);
    CHECK_EQ(in_child(open_locked), 2);
    CHECK_EQ(identity_open(path, true, &other, message), UV_EBUSY);
    char pid[32];
    snprintf(pid, sizeof pid, "(%ld)", (long)getpid());
    CHECK(strstr(message, pid) && strstr(message, path));
    CHECK_EQ(identity_open(path, false, &other, message), 0); /* to connect is no listening */
    identity_close(&other);
    CHECK(fcntl(identity.lock, F_GETFD) & FD_CLOEXEC);
    identity_close(&identity);
    CHECK_EQ(in_child(open_locked), 0);
    char lock[PATH_MAX + 8];
    snprintf(lock, sizeof lock, "%s.lock", path);
    CHECK_EQ(mode_of(lock), 0600);
}

static int make_key_without_room(void) {
    struct rlimit none = {16, 16};
    struct identity identity;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &none);
    int status = identity_open(path, false, &identity, message);
    return status == UV_EFBIG && strstr(message, path) ? 0 : 1;
}

static bool write_to(const char *name, const char *text) {
    int file = open(name, O_WRONLY);
    bool written = file >= 0 && write(file, text, strlen(text)) > 0;
    close(file);
    return written;
}

/* A view of the file system of its own, in which we may mount; false where that is not allowed. */
static bool enter_own_mounts(void) {
    char user[64], group[64];
    snprintf(user, sizeof user, "0 %u 1", (unsigned)geteuid());
    snprintf(group, sizeof group, "0 %u 1", (unsigned)getegid());
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && write_to("/proc/self/setgroups", "deny") &&
           write_to("/proc/self/uid_map", user) && write_to("/proc/self/gid_map", group);
}

static int make_key_on_a_full_disk(void) {
    struct identity identity;
    if (!enter_own_mounts() || mount("none", home, "tmpfs", 0, "size=8k,nr_inodes=16") != 0)
        return 77;
    int file = open(at("ballast"), O_WRONLY | O_CREAT, 0600);
    char block[4096] = {0};
    while (write(file, block, sizeof block) > 0)
        ;
    close(file);
    int status = identity_open(at("full.pem"), false, &identity, message);
    if (status != UV_ENOSPC || !strstr(message, path) || count_files(home) != 1)
        return 1;
    unlink(at("ballast"));
    status = identity_open(at("full.pem"), false, &identity, message);
    return status == 0 && identity.made ? 0 : 2;
}

static void a_full_disk_leaves_no_half_key(void) {
    at("small/key.pem");
    CHECK_EQ(in_child(make_key_without_room), 0);
    CHECK_EQ(count_files(at("small")), 0);
    int status = in_child(make_key_on_a_full_disk);
    if (status == 77)
        printf("  (no user namespaces here: the full file system was not tried)\n");
    else
        CHECK_EQ(status, 0);
}

static void the_default_path_follows_the_environment(void) {
    char out[PATH_MAX], *was = getenv("HOME");
    setenv("XDG_DATA_HOME", "/data", 1);
    CHECK_EQ(identity_default_path(out, sizeof out), 0);
    CHECK_TEXT(out, "/data/p2pd-lua/key.pem");
    setenv("XDG_DATA_HOME", "data", 1); /* relative ones are ignored */
    setenv("HOME", "/home/me", 1);
    CHECK_EQ(identity_default_path(out, sizeof out), 0);
    CHECK_TEXT(out, "/home/me/.local/share/p2pd-lua/key.pem");
    CHECK_EQ(identity_default_path(out, 20), UV_ENAMETOOLONG);
    unsetenv("XDG_DATA_HOME");
    unsetenv("HOME");
    CHECK_EQ(identity_default_path(out, sizeof out), 0);
    CHECK(out[0] == '/');
    if (was)
        setenv("HOME", was, 1);
}

static void the_machine_id_is_a_hash(void) {
    char id[MACHINE_ID_SIZE], again[MACHINE_ID_SIZE];
    uint8_t bytes[32];
    machine_id_of("0123456789abcdef0123456789abcdef", 32, id);
    CHECK_TEXT(id, "f2b1e0c3168b85e356bf090a1665e6242c28c6d690ae24e18be17802e436fea3");
    machine_id(id);
    machine_id(again);
    CHECK_TEXT(id, again);
    CHECK(hex_decode(id, strlen(id), bytes, 32));
}

/* As on machines with no id of their own, with none yet, and with one, whatever this one has. */
static int machine_ids_by_file(void) {
    char without[MACHINE_ID_SIZE], again[MACHINE_ID_SIZE], with[MACHINE_ID_SIZE];
    static const char *const folders[] = {"/etc", "/var/lib/dbus"};
    if (!enter_own_mounts())
        return 77;
    for (size_t i = 0; i < 2; i++)
        if (access(folders[i], F_OK) == 0 && mount("none", folders[i], "tmpfs", 0, NULL) != 0)
            return 77;
    machine_id(without);
    put_file("/etc/machine-id", "uninitialized\n", 0444);
    machine_id(again);
    put_file("/etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0444);
    machine_id(with);
    if (strlen(without) != 64 || strcmp(without, again) != 0)
        return 1;
    machine_id_of("0123456789abcdef0123456789abcdef", 32, again);
    return strcmp(with, again) == 0 && strcmp(with, without) != 0 ? 0 : 2;
}

static void a_machine_without_id_has_one_too(void) {
    int status = in_child(machine_ids_by_file);
    if (status == 77)
        printf("  (no user namespaces here: not tried)\n");
    else
        CHECK_EQ(status, 0);
}

int main(void) {
    if (!mkdtemp(home))
        return 1;
    RUN(the_first_use_makes_a_key);
    RUN(a_bare_name_lies_in_the_current_folder);
    RUN(a_key_that_others_can_open_is_refused);
    RUN(what_holds_no_key_is_refused_and_left);
    RUN(folders_that_cannot_be_made_are_told);
    RUN(processes_that_start_at_once_get_one_key);
    RUN(one_process_listens_with_a_key);
    RUN(a_full_disk_leaves_no_half_key);
    RUN(the_default_path_follows_the_environment);
    RUN(the_machine_id_is_a_hash);
    RUN(a_machine_without_id_has_one_too);
    char remove[64];
    snprintf(remove, sizeof remove, "rm -rf %s", home);
    return system(remove) != 0 || check_report();
}
