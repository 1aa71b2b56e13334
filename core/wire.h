/* wire: whole Ethernet frames of one device, in and out, many at a time.
 *
 * Provides  struct wire, on a packet socket (packet(7)); wire_make_plain for the device at the
 *           other end of a veth pair
 * Uses      frame, libuv
 * Owns      its socket, a ring that the kernel writes frames into, a batch of frames to be sent
 * The ring is memory of our own: unlike a socket's buffer it may be large in a user namespace too.
 * What the device itself sends through this socket does not come back. */
#ifndef CORE_WIRE_H
#define CORE_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define WIRE_BATCH 64 /* frames of one call */

struct wire;

struct wire_frame {
    uint8_t *bytes; /* to be read and written */
    size_t length;
};

/* Up to WIRE_BATCH frames that have come; they are gone when it returns. */
typedef void (*wire_cb)(void *arg, const struct wire_frame *frames, size_t count);

struct wire_stats {
    uint64_t overrun;  /* frames that came while the ring was full */
    uint64_t too_long; /* frames longer than FRAME_SIZE (an offload that is still on) */
    uint64_t unsent;   /* frames that the kernel did not take */
};

/* 0, or UV_ENODEV, UV_EPERM (CAP_NET_RAW is missing) and their like. The callback comes until the
 * wire is closed. */
int wire_open(uv_loop_t *loop, const char *device, wire_cb on_frames, void *arg, struct wire **out);
void wire_close(struct wire *wire);

/* Puts a copy into the batch, which is sent when it is full, or by wire_flush. */
void wire_send(struct wire *wire, const uint8_t *bytes, size_t length);
void wire_flush(struct wire *wire);

void wire_stats(struct wire *wire, struct wire_stats *out);

/* Lets a device send frames as they look on a cable: none longer than its MTU, checksums filled in
 * (checksum and segmentation offload off). 0 or a negative status. */
int wire_make_plain(const char *device);

#endif
