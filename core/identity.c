#include "core/identity.h"

#include "core/err.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

enum { FILE_MAX_SIZE = 16 * 1024, PASSWD_SIZE = 16 * 1024 };

__attribute__((format(printf, 3, 4))) static int say(char *message, int status, const char *format,
                                                     ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(message, IDENTITY_MESSAGE_SIZE, format, list);
    va_end(list);
    return status;
}

/* errno as a status, in a sentence that begins with what could not be done to which file. */
static int say_errno(char *message, const char *what, const char *path) {
    int status = uv_translate_sys_error(errno);
    return say(message, status, "cannot %s %s: %s", what, path, err_message(status));
}

/* Makes the folders above `path` that are not there yet. */
static int make_folders(const char *path, char *message) {
    char folder[PATH_MAX];
    if (strlen(path) >= sizeof folder)
        return say(message, UV_ENAMETOOLONG, "the path of the key file is too long");
    strcpy(folder, path);
    for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
            struct stat status; /* a folder on the way that only others may write to is no harm */
            int made = errno;
            if (stat(folder, &status) != 0 || !S_ISDIR(status.st_mode)) {
                errno = made;
                return say_errno(message, "make the folder", folder);
            }
        }
        *slash = '/';
    }
    return 0;
}

/* Only its owner may read a key. */
static int check_file(int file, const char *path, char *message) {
    struct stat status;
    if (fstat(file, &status) != 0)
        return say_errno(message, "look at the key file", path);
    if (!S_ISREG(status.st_mode))
        return say(message, UV_EINVAL, "%s is no regular file: name another one for the key", path);
    if (status.st_uid != geteuid() && status.st_uid != 0)
        return say(
            message, UV_EPERM,
            "the key file %s belongs to another user, who can read it: use a key of your own",
            path);
    if (status.st_mode & 077)
        return say(
            message, UV_EPERM,
            "others can open the key file %s (mode %03o): run chmod 600 on it, or make a new "
            "key if somebody may have read it",
            path, status.st_mode & 0777u);
    return 0;
}

/* The whole file, which is short; its length or an errno's status. */
static ssize_t read_file(int file, char *out, size_t size) {
    size_t length = 0;
    while (length < size) {
        ssize_t got = read(file, out + length, size - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        length += (size_t)got;
    }
    return (ssize_t)length;
}

/* UV_ENOENT, without a message, when there is no file. */
static int load(const char *path, struct key **out, char *message) {
    /* Without O_NONBLOCK a FIFO in its place would hang us. */
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return errno == ENOENT ? UV_ENOENT : say_errno(message, "open the key file", path);
    char pem[FILE_MAX_SIZE];
    int status = check_file(file, path, message);
    if (status == 0) {
        ssize_t length = read_file(file, pem, sizeof pem);
        if (length < 0)
            status = say_errno(message, "read the key file", path);
        else if (key_from_pem(pem, (size_t)length, out) != 0)
            status = say(message, ERR_EFORMAT,
                         "%s holds no unencrypted P-256 private key in PEM: name another file, or "
                         "move it away and a new key is made",
                         path);
        crypto_wipe(pem, sizeof pem);
    }
    close(file);
    return status;
}

static int write_file(int file, const char *text, size_t length) {
    while (length > 0) {
        ssize_t done = write(file, text, length);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -1;
        text += done;
        length -= (size_t)done;
    }
    return fsync(file);
}

/* Gives the finished file its name, unless the name is taken (EEXIST). */
static int publish(const char *temporary, const char *path) {
    if (link(temporary, path) == 0)
        return unlink(temporary);
    if (errno == EEXIST)
        return -1;
    /* A file system without hard links. */
    return renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_NOREPLACE);
}

/* Makes the name last, as fsync made the content. Where a folder cannot be synced, so be it. */
static void sync_folder(const char *path) {
    char folder[PATH_MAX];
    strcpy(folder, path);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder ? 1 : 0] = '\0';
    int file = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file >= 0) {
        fsync(file);
        close(file);
    }
}

/* Makes a key and its file. UV_EEXIST, without a message, when another process was faster. */
static int create(const char *path, char *message) {
    char temporary[PATH_MAX], pem[KEY_PEM_SIZE];
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.XXXXXX", path) >= sizeof temporary)
        return say(message, UV_ENAMETOOLONG, "the path of the key file is too long");
    struct key *key;
    int status = key_generate(&key);
    int length = status == 0 ? key_to_pem(key, pem) : status;
    if (status == 0)
        key_drop(key);
    if (length < 0)
        return say(message, length, "cannot make a key: %s", err_message(length));
    int file = mkostemp(temporary, O_CLOEXEC); /* mode 0600 */
    if (file < 0) {
        status = say_errno(message, "make a file beside", path);
        crypto_wipe(pem, sizeof pem);
        return status;
    }
    int failed = write_file(file, pem, (size_t)length);
    crypto_wipe(pem, sizeof pem);
    if (failed)
        status = say_errno(message, "write the key file", path);
    if (close(file) != 0 && !failed) {
        failed = -1;
        status = say_errno(message, "write the key file", path);
    }
    if (!failed && publish(temporary, path) == 0) {
        sync_folder(path);
        return 0;
    }
    if (!failed)
        status = errno == EEXIST ? UV_EEXIST : say_errno(message, "name the key file", path);
    unlink(temporary);
    return status;
}

/* One process listens with a key. The file stays: to remove it would let two have a lock each. */
static int take_lock(const char *path, int *out, char *message) {
    char name[PATH_MAX], holder[32] = "";
    if ((size_t)snprintf(name, sizeof name, "%s.lock", path) >= sizeof name)
        return say(message, UV_ENAMETOOLONG, "the path of the key file is too long");
    int file = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0)
        return say_errno(message, "open the lock file", name);
    int locked;
    do
        locked = flock(file, LOCK_EX | LOCK_NB);
    while (locked != 0 && errno == EINTR);
    if (locked != 0) {
        int status = errno == EWOULDBLOCK ? UV_EBUSY : say_errno(message, "lock", name);
        if (status == UV_EBUSY) {
            ssize_t length = read_file(file, holder, sizeof holder - 1);
            holder[length > 0 ? strspn(holder, "0123456789") : 0] = '\0';
            say(message, status,
                "another process (%s) listens with the key %s: end it, or use another key file",
                holder[0] ? holder : "of unknown number", path);
        }
        close(file);
        return status;
    }
    /* Who holds it is a courtesy to the one who does not get it. */
    int length = snprintf(holder, sizeof holder, "%ld\n", (long)getpid());
    if (ftruncate(file, 0) != 0 || write(file, holder, (size_t)length) != length)
        (void)!ftruncate(file, 0);
    *out = file;
    return 0;
}

int identity_open(const char *path, bool lock, struct identity *out,
                  char message[IDENTITY_MESSAGE_SIZE]) {
    *out = (struct identity){.lock = -1};
    message[0] = '\0';
    out->path = strdup(path);
    if (!out->path)
        return say(message, UV_ENOMEM, "%s", err_message(UV_ENOMEM));
    int status = load(path, &out->key, message);
    if (status == UV_ENOENT) {
        status = make_folders(path, message);
        if (status == 0)
            status = create(path, message);
        out->made = status == 0;
        if (status == 0 || status == UV_EEXIST) /* one way for ours and for another process' */
            status = load(path, &out->key, message);
        if (status == UV_ENOENT && !message[0])
            say(message, status, "the key file %s was removed while it was made", path);
    }
    if (status == 0 && lock)
        status = take_lock(path, &out->lock, message);
    if (status != 0)
        identity_close(out);
    return status;
}

void identity_close(struct identity *identity) {
    if (identity->lock >= 0)
        close(identity->lock);
    identity->lock = -1;
    key_drop(identity->key);
    identity->key = NULL;
    free(identity->path);
    identity->path = NULL;
}

int identity_default_path(char *out, size_t size) {
    static const char name[] = "p2pd-lua/key.pem";
    /* The XDG Base Directory Specification has relative paths ignored. */
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    char buffer[PASSWD_SIZE];
    struct passwd entry, *found = NULL;
    int length;
    if (data && data[0] == '/') {
        length = snprintf(out, size, "%s/%s", data, name);
    } else {
        if (!home || home[0] != '/') {
            getpwuid_r(geteuid(), &entry, buffer, sizeof buffer, &found);
            home = found ? found->pw_dir : NULL;
        }
        if (!home || home[0] != '/')
            return UV_ENOENT;
        length = snprintf(out, size, "%s/.local/share/%s", home, name);
    }
    return (size_t)length < size ? 0 : UV_ENAMETOOLONG;
}
