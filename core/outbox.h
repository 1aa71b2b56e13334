/* outbox: bytes on their way to a socket, in chunks that are used again.
 *
 * Provides  struct outbox, a queue of bytes that a vectored write can take as it lies
 * Uses      libuv's uv_buf_t
 * Owns      its chunks, and a few spare ones per thread, so that steady traffic allocates nothing
 * All zero is an empty outbox; an empty outbox holds no memory. */
#ifndef CORE_OUTBOX_H
#define CORE_OUTBOX_H

#include <stddef.h>
#include <uv.h>

struct outbox {
    struct outbox_chunk *first, *last;
    size_t length; /* bytes in all */
};

/* Appends a copy; 0 or UV_ENOMEM, and then nothing was appended. */
int outbox_append(struct outbox *box, const void *bytes, size_t length);

/* Points up to `count` buffers at the front of the queue and returns how many; they hold until it
 * is consumed. */
unsigned outbox_peek(const struct outbox *box, uv_buf_t *buffers, unsigned count);

void outbox_consume(struct outbox *box, size_t length);
void outbox_clear(struct outbox *box);

/* Frees this thread's spare chunks. */
void outbox_trim(void);

#endif
