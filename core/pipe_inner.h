/* pipe_inner: what the files of pipe share; for them alone.
 *
 *   pipe.c       what others call
 *   pipe_flow.c  bytes between the socket and TLS, and whose turn it is then
 *   pipe_end.c   lingering, closing, freeing */
#ifndef CORE_PIPE_INNER_H
#define CORE_PIPE_INNER_H

#include "core/loop.h"
#include "core/pipe.h"

#define PREFACE_SIZE (2 + PIPE_TOKEN_SIZE)
#define COMMIT_SIZE (5 + PIPE_ATTEMPT_SIZE)
#define VERDICT_SIZE (5 + 1)
extern const uint8_t pipe_preface_magic[2], pipe_commit_magic[5];

struct pipe {
    uv_tcp_t tcp;
    uv_timer_t timer; /* calls later; counts while closing */
    union {
        uv_connect_t connect;
        uv_write_t write;
    } request;
    struct tls_identity *identity;
    struct tls tls; /* tls.in is what has arrived and nobody consumed, also before TLS begins */
    struct outbox out;
    uint8_t *saved; /* where tls.in lies between callbacks, or NULL */
    struct notice step, readable, drained, shut, closed;
    enum pipe_state state;
    int error;     /* why it failed */
    int end;       /* how the incoming stream ended: UV_EOF or an error, else 0 */
    int out_error; /* why nothing more leaves, else 0 */
    unsigned lingered_ms;
    unsigned handles; /* not yet closed */
    unsigned corked;  /* inside of our callbacks: flush when they return */
    size_t writing;   /* bytes of `out` that libuv is writing */
    unsigned said;    /* bytes of the commit that have arrived */
    unsigned judged;  /* bytes of the verdict that have arrived, or were sent */
    uint8_t commit[COMMIT_SIZE];
    uint8_t verdict[VERDICT_SIZE];
    uint8_t token[PIPE_TOKEN_SIZE];
    bool server, reading, finishing, finished, destroyed, heard;
    bool relayed; /* see pipe_relayed */
    bool last;    /* the peer had said goodbye before us */
};

/* The buffer that all pipes of a thread read into; what is not consumed at once is copied out.
 * Counted by pipes. */
#define PIPE_READ_SIZE (256 * 1024)
int pipe_workspace_keep(void);
void pipe_workspace_drop(void);
char *pipe_workspace(void);

/* Whether something has arrived that pipe_read may have a use for. */
bool pipe_has_something(const struct pipe *pipe);

int pipe_reading_start(struct pipe *pipe);

/* Copies what is left of the shared buffer, and frees what has been consumed. */
void pipe_settle(struct pipe *pipe);

/* Gives the socket what lies in the outbox; libuv waits for it to take the rest. */
void pipe_flush(struct pipe *pipe);
/* The same, unless one of the pipe's callbacks is running and may add to it. */
void pipe_flush_soon(struct pipe *pipe);

/* Callbacks never come inside a call: this lets them come soon after it. */
void pipe_kick(struct pipe *pipe);

/* It failed before it was open: tells the one who waits. */
void pipe_failed(struct pipe *pipe, int status);

int pipe_descriptor(const struct pipe *pipe);

/* Decrypts and discards what has arrived: who lingers at a relay waits for the peer's goodbye. */
void pipe_discard(struct pipe *pipe);

/* Closes a lingering pipe that has nothing to wait for any more. */
void pipe_linger_check(struct pipe *pipe);

/* Closes the handles; the pipe is freed, and says so, when both are closed. */
void pipe_destroy(struct pipe *pipe);

#endif
