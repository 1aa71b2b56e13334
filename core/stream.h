/* stream: writing to a libuv stream without waiting.
 *
 * Provides  stream_send, stream_acknowledge
 * Uses      libuv
 * Owns      copies of what the system did not take yet */
#ifndef CORE_STREAM_H
#define CORE_STREAM_H

#include <stddef.h>
#include <uv.h>

/* Writes at once what the system takes, and a copy of the rest when it can. 0, UV_ENOMEM, or what
 * the system said. That a later write failed is not told here: reading from the stream tells it.
 * The caller bounds uv_stream_get_write_queue_size. */
int stream_send(uv_stream_t *stream, const void *bytes, size_t length);

/* Has what came by TCP acknowledged at once, this time: a peer that leaves Nagle's algorithm on
 * (RFC 9293, 3.7.4) sends what it has next no sooner, and an acknowledgement may take 40 ms. */
void stream_acknowledge(const uv_stream_t *stream);

#endif
