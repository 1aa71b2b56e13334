#include "core/stream.h"

#include "core/loop.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct late_write {
    uv_write_t request;
    uint8_t bytes[];
};

static void on_written(uv_write_t *request, int status) {
    (void)status;
    free(container_of(request, struct late_write, request));
}

static int send_late(uv_stream_t *stream, const uint8_t *bytes, size_t length) {
    struct late_write *late = malloc(sizeof(*late) + length);
    if (!late)
        return UV_ENOMEM;
    memcpy(late->bytes, bytes, length);
    uv_buf_t buffer = uv_buf_init((char *)late->bytes, (unsigned)length);
    int status = uv_write(&late->request, stream, &buffer, 1, on_written);
    if (status)
        free(late);
    return status;
}

void stream_acknowledge(const uv_stream_t *stream) {
    uv_os_fd_t fd;
    if (uv_fileno((const uv_handle_t *)stream, &fd) == 0)
        setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &(int){1}, sizeof(int));
}

int stream_send(uv_stream_t *stream, const void *bytes, size_t length) {
    size_t done = 0;
    if (uv_stream_get_write_queue_size(stream) == 0) {
        uv_buf_t buffer = uv_buf_init((char *)(uintptr_t)bytes, (unsigned)length);
        int sent = uv_try_write(stream, &buffer, 1);
        if (sent < 0 && sent != UV_EAGAIN)
            return sent;
        done = sent > 0 ? (size_t)sent : 0;
    }
    return done == length ? 0 : send_late(stream, (const uint8_t *)bytes + done, length - done);
}
