/* identity: the node's key in its file.
 *
 * Provides  identity_open, which reads the key or makes it at first use; the lock
 * Uses      key, crypto, err, the file system
 * Owns      the key, and the lock while it is held
 * The file is PEM, mode 0600, in a folder that is made with mode 0700. It is written beside its
 * place, synced and then linked there, so that it is whole or absent, and of two processes that
 * start at once both read the same key. Prints nothing: sentences go to the caller. */
#ifndef CORE_IDENTITY_H
#define CORE_IDENTITY_H

#include "core/key.h"

#include <limits.h>

#define IDENTITY_MESSAGE_SIZE (PATH_MAX + 256)

struct identity {
    struct key *key; /* one reference is the identity's; others key_keep it */
    char *path;
    int lock;  /* a descriptor, or -1 */
    bool made; /* the file was not there before */
};

/* Opens the key file at `path`. With `lock` the file PATH.lock is locked until identity_close, so
 * that one process listens with a key; UV_EBUSY when another one does. UV_EPERM when others could
 * read the file, ERR_EFORMAT when it holds no P-256 key, or what the file system said. After a
 * failure `message` is a sentence with cause and cure. */
int identity_open(const char *path, bool lock, struct identity *out,
                  char message[IDENTITY_MESSAGE_SIZE]);

/* Gives back key and lock; once more does nothing. */
void identity_close(struct identity *identity);

/* $XDG_DATA_HOME/p2pd-lua/key.pem, or ~/.local/share/p2pd-lua/key.pem. 0, UV_ENOENT without a home,
 * UV_ENAMETOOLONG. */
int identity_default_path(char *out, size_t size);

#endif
