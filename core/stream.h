/* stream: writing to a libuv stream without waiting.
 *
 * Provides  stream_send
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

#endif
