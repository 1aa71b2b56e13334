/* pipe: one TCP connection on which both sides have proven their node key.
 *
 * Provides  struct pipe: dial or adopt, secure, commit, read, write, shut down, close
 * Uses      libuv, tls, outbox
 * Owns      the socket and the TLS session; a reference to the identity
 * Try and notify: pipe_read and pipe_write never wait; pipe_on_readable and pipe_on_drained tell
 * once when to try again. A non-zero return means that the callback never comes; zero means exactly
 * once, never inside the call, and never after pipe_close or pipe_abort. Callbacks may call
 * anything here. A pipe lives until its closed callback.
 *
 *   the preface of a side that dials and is the TLS server (reverse), first of all, in clear:
 *     0        1         2                    18
 *     +--------+---------+--------------------+
 *     | 'P'    | 1       | token, 16 bytes    |     a ClientHello begins with 0x16 (RFC 8446, 5.1)
 *     +--------+---------+--------------------+
 *   the commit: the TLS client's first record, by which it keeps this pipe of all that opened:
 *     0                  4         5                    21
 *     +------------------+---------+--------------------+
 *     | 'p' '2' 'p' 'd'  | 1       | attempt, 16 bytes  |
 *     +------------------+---------+--------------------+
 *   the verdict: the TLS server's first record, by which it takes the pipe or says why not:
 *     0                  4         5          6
 *     +------------------+---------+----------+
 *     | 'p' '2' 'p' 'd'  | 1       | verdict  |     the end of the stream in its place is a denial
 *     +------------------+---------+----------+                                          */
#ifndef CORE_PIPE_H
#define CORE_PIPE_H

#include "core/notice.h"
#include "core/tls.h"

#define PIPE_TOKEN_SIZE 16
#define PIPE_ATTEMPT_SIZE 16
#define PIPE_HIGH_WATER (256 * 1024) /* bytes queued above which a writer should wait */
#define PIPE_LOW_WATER (64 * 1024)   /* and below which it may go on */
#define PIPE_LINGER_MS 10000         /* how long pipe_close tries to deliver what was accepted */
#define PIPE_KEEPALIVE_S 60

struct pipe;
typedef notice_cb pipe_cb;

enum pipe_greeting { PIPE_HELLO = 0, PIPE_PREFACE = 1 };
enum pipe_verdict { PIPE_ADMITTED, PIPE_DENIED, PIPE_BUSY };

enum pipe_state {
    PIPE_NEW,       /* no socket */
    PIPE_DIALING,   /* until the callback of pipe_dial */
    PIPE_CONNECTED, /* TCP, nothing said yet */
    PIPE_GREETING,  /* until the callback of pipe_greet */
    PIPE_SECURING,  /* until the callback of pipe_secure */
    PIPE_OPEN,
    PIPE_FAILED,
    PIPE_CLOSING,
};

int pipe_new(uv_loop_t *loop, struct tls_identity *identity, struct pipe **out);

/* Connects; `local` (or NULL) is bound with SO_REUSEADDR and SO_REUSEPORT, so that it may be a
 * listener's own port. */
int pipe_dial(struct pipe *pipe, const struct sockaddr *remote, const struct sockaddr *local,
              pipe_cb done, void *arg);
/* Takes a connected socket, which is the pipe's from then on. */
int pipe_adopt(struct pipe *pipe, uv_os_sock_t socket);
/* Takes the connection that `server`'s connection callback announced. */
int pipe_accept(struct pipe *pipe, uv_stream_t *server);

/* Reads what an accepted connection says first: `done` gets PIPE_HELLO (secure it as TLS_SERVER),
 * PIPE_PREFACE (its token is pipe_token's; secure it as TLS_CLIENT), or ERR_EFORMAT. */
int pipe_greet(struct pipe *pipe, pipe_cb done, void *arg);
const uint8_t *pipe_token(const struct pipe *pipe);

/* Proves both keys. `expected` is the key that the peer must have, or NULL; `token` is sent first
 * as a preface, or NULL. A client is done when the server's key is proven; a server when the
 * client's key is, and the commit has arrived. ERR_EPEER: the peer has another key (pipe_peer tells
 * which it showed), or refused ours; it was told. */
int pipe_secure(struct pipe *pipe, enum tls_role role, const uint8_t *expected,
                const uint8_t *token, pipe_cb done, void *arg);

/* The client's first words; without them the server never hands the pipe out. */
int pipe_commit(struct pipe *pipe, const uint8_t attempt[PIPE_ATTEMPT_SIZE]);
const uint8_t *pipe_attempt(const struct pipe *pipe); /* what was committed to, or NULL */

/* The server's first words; reading, writing and shutting down say PIPE_ADMITTED if nothing was
 * said. The client goes on at once: it learns of a refusal when it reads, as ERR_EDENIED or
 * UV_EBUSY. */
int pipe_admit(struct pipe *pipe, enum pipe_verdict verdict);

/* Bytes (> 0, as many as there are), UV_EAGAIN, UV_EOF, or an error; cut off without a goodbye is
 * UV_ECONNRESET. */
ssize_t pipe_read(struct pipe *pipe, void *buffer, size_t size);
/* Tells once that it is worth trying again; NULL detaches. */
void pipe_on_readable(struct pipe *pipe, pipe_cb ready, void *arg);

/* Takes everything, or returns an error. What is written inside a callback of this pipe leaves
 * after it returns. */
int pipe_write(struct pipe *pipe, const void *bytes, size_t length);
size_t pipe_queued(const struct pipe *pipe);
/* Tells once when less than PIPE_LOW_WATER is queued (0), or why nothing more leaves; NULL
 * detaches. */
void pipe_on_drained(struct pipe *pipe, pipe_cb drained, void *arg);

/* Says goodbye after what is queued; reading goes on. `done` (or NULL) comes when all has left; one
 * at a time. */
int pipe_shutdown(struct pipe *pipe, pipe_cb done, void *arg);
void pipe_on_shutdown(struct pipe *pipe, pipe_cb done, void *arg); /* replaces or detaches it */

/* The connection leads through a relay that knows no half of a connection: the end of one direction
 * makes it end both, and throw away what it has not delivered. So nothing but TLS's goodbye is said
 * at shutdown, and who said it first closes when the peer has said it, too. To be told by both ends
 * before the pipe is secured. */
void pipe_relayed(struct pipe *pipe);

/* Closes after what was accepted has been delivered, within PIPE_LINGER_MS, discarding what
 * arrives; pipe_abort closes at once, also while pipe_close still tries. `closed` (or NULL) is the
 * last that is heard; the first one given counts. */
void pipe_close(struct pipe *pipe, pipe_cb closed, void *arg);
void pipe_abort(struct pipe *pipe, pipe_cb closed, void *arg);

enum pipe_state pipe_state(const struct pipe *pipe);

/* The key that the peer showed (TLS_KEY_SIZE bytes), and OpenSSL's words for a failed handshake;
 * or NULL. */
const uint8_t *pipe_peer(const struct pipe *pipe);
const char *pipe_reason(const struct pipe *pipe);

int pipe_remote(const struct pipe *pipe, struct sockaddr_storage *out);
int pipe_local(const struct pipe *pipe, struct sockaddr_storage *out);

#endif
