#include "core/outbox.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* One chunk holds a write of 64 KiB with what TLS adds to it, so that it leaves in one system call.
 */
#define CHUNK_SIZE ((128 * 1024) - sizeof(struct outbox_chunk))
#define SPARES 4

struct outbox_chunk {
    struct outbox_chunk *next;
    size_t start, end; /* what is filled and not consumed */
    uint8_t bytes[];
};

static _Thread_local struct outbox_chunk *spares;
static _Thread_local unsigned spare_count;

static struct outbox_chunk *chunk_take(void) {
    struct outbox_chunk *chunk = spares;
    if (chunk) {
        spares = chunk->next;
        spare_count--;
    } else {
        chunk = malloc(sizeof *chunk + CHUNK_SIZE);
        if (!chunk)
            return NULL;
    }
    chunk->next = NULL;
    chunk->start = chunk->end = 0;
    return chunk;
}

static void chunk_give(struct outbox_chunk *chunk) {
    if (spare_count >= SPARES) {
        free(chunk);
        return;
    }
    chunk->next = spares;
    spares = chunk;
    spare_count++;
}

/* Lets at least `length` more bytes fit behind the last chunk's end. */
static int reserve(struct outbox *box, size_t length) {
    struct outbox_chunk *fresh = NULL, **link = &fresh;
    size_t room = box->last ? CHUNK_SIZE - box->last->end : 0;
    while (room < length) {
        *link = chunk_take();
        if (!*link) {
            while (fresh) {
                struct outbox_chunk *next = fresh->next;
                chunk_give(fresh);
                fresh = next;
            }
            return UV_ENOMEM;
        }
        link = &(*link)->next;
        room += CHUNK_SIZE;
    }
    if (box->last)
        box->last->next = fresh;
    else
        box->first = box->last = fresh;
    return 0;
}

int outbox_append(struct outbox *box, const void *bytes, size_t length) {
    if (length == 0)
        return 0;
    int status = reserve(box, length);
    if (status != 0)
        return status;
    const uint8_t *from = bytes;
    box->length += length;
    for (;;) {
        struct outbox_chunk *chunk = box->last;
        size_t room = CHUNK_SIZE - chunk->end;
        size_t part = length < room ? length : room;
        memcpy(chunk->bytes + chunk->end, from, part);
        chunk->end += part;
        from += part;
        length -= part;
        if (length == 0)
            return 0;
        box->last = chunk->next;
    }
}

unsigned outbox_peek(const struct outbox *box, uv_buf_t *buffers, unsigned count) {
    unsigned n = 0;
    for (struct outbox_chunk *chunk = box->first; chunk && n < count; chunk = chunk->next)
        buffers[n++] =
            uv_buf_init((char *)chunk->bytes + chunk->start, (unsigned)(chunk->end - chunk->start));
    return n;
}

void outbox_consume(struct outbox *box, size_t length) {
    box->length -= length;
    while (box->first) {
        struct outbox_chunk *chunk = box->first;
        size_t filled = chunk->end - chunk->start;
        if (length < filled) {
            chunk->start += length;
            return;
        }
        length -= filled;
        box->first = chunk->next;
        if (!box->first)
            box->last = NULL;
        chunk_give(chunk);
    }
}

void outbox_clear(struct outbox *box) {
    outbox_consume(box, box->length);
}

void outbox_trim(void) {
    while (spares) {
        struct outbox_chunk *chunk = spares;
        spares = chunk->next;
        free(chunk);
    }
    spare_count = 0;
}
