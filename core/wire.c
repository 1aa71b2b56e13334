#include "core/wire.h"
#include "core/frame.h"
#include "core/loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* The ring: slots of 2 KiB in blocks of 64 KiB. 2,048 frames are 50 ms at 500 Mbit/s. */
enum { SLOT_SIZE = 2048, BLOCK_SIZE = 65536, SLOTS = 2048, RING_SIZE = SLOTS * SLOT_SIZE };
enum { TURN_BATCHES = 8 }; /* of one turn of the loop */

struct wire {
    uv_poll_t poll;
    int fd;
    uint8_t *ring;
    unsigned next; /* the slot that is filled next */
    wire_cb on_frames;
    void *arg;
    struct wire_stats stats;
    unsigned queued;
    struct mmsghdr messages[WIRE_BATCH];
    struct iovec vectors[WIRE_BATCH];
    uint8_t bytes[WIRE_BATCH][FRAME_SIZE];
};

/* --- receiving ----------------------------------------------------------------------------- */

static struct tpacket2_hdr *slot_at(struct wire *wire, unsigned index) {
    return (struct tpacket2_hdr *)(void *)(wire->ring + (size_t)(index % SLOTS) * SLOT_SIZE);
}

/* The kernel writes a slot's status last, and reads it first when it looks for a free one. */
static bool is_filled(struct tpacket2_hdr *slot) {
    return __atomic_load_n(&slot->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER;
}

static void give_back(struct tpacket2_hdr *slot) {
    __atomic_store_n(&slot->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
}

/* Returns whether there may be more. */
static bool receive_batch(struct wire *wire) {
    struct wire_frame frames[WIRE_BATCH];
    unsigned slots = 0;
    size_t count = 0;
    for (; slots < WIRE_BATCH; slots++) {
        struct tpacket2_hdr *slot = slot_at(wire, wire->next + slots);
        if (!is_filled(slot))
            break;
        if (slot->tp_len > FRAME_SIZE || slot->tp_snaplen < slot->tp_len)
            wire->stats.too_long++;
        else
            frames[count++] = (struct wire_frame){(uint8_t *)slot + slot->tp_mac, slot->tp_len};
    }
    if (count > 0)
        wire->on_frames(wire->arg, frames, count);
    for (unsigned i = 0; i < slots; i++)
        give_back(slot_at(wire, wire->next + i));
    wire->next = (wire->next + slots) % SLOTS;
    return slots == WIRE_BATCH;
}

static void on_readable(uv_poll_t *poll, int status, int events) {
    struct wire *wire = container_of(poll, struct wire, poll);
    int error;
    socklen_t size = sizeof error;
    (void)events;
    if (status != 0) { /* the device went down; it may come up again */
        getsockopt(wire->fd, SOL_SOCKET, SO_ERROR, &error, &size); /* which clears the error */
        uv_poll_start(poll, UV_READABLE, on_readable);             /* libuv has stopped it */
    }
    for (int i = 0; i < TURN_BATCHES && receive_batch(wire); i++)
        ;
}

/* --- sending ------------------------------------------------------------------------------- */

void wire_send(struct wire *wire, const uint8_t *bytes, size_t length) {
    if (length > FRAME_SIZE) {
        wire->stats.unsent++;
        return;
    }
    memcpy(wire->bytes[wire->queued], bytes, length);
    wire->vectors[wire->queued].iov_len = length;
    if (++wire->queued == WIRE_BATCH)
        wire_flush(wire);
}

/* A frame that the kernel does not take is lost, as it would be on any full device. */
void wire_flush(struct wire *wire) {
    for (unsigned sent = 0; sent < wire->queued;) {
        int n = sendmmsg(wire->fd, wire->messages + sent, wire->queued - sent, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        wire->stats.unsent += n < 0;
        sent += n < 0 ? 1 : (unsigned)n;
    }
    wire->queued = 0;
}

/* --- opening and closing ------------------------------------------------------------------- */

static int set_up(struct wire *wire, const char *device) {
    const struct tpacket_req ring = {
        .tp_block_size = BLOCK_SIZE,
        .tp_block_nr = RING_SIZE / BLOCK_SIZE,
        .tp_frame_size = SLOT_SIZE,
        .tp_frame_nr = SLOTS,
    };
    const int version = TPACKET_V2, yes = 1;
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_ALL),
        .sll_ifindex = (int)if_nametoindex(device),
    };
    if (address.sll_ifindex == 0)
        return UV_ENODEV;
    /* Without a protocol, nothing arrives before it is bound. */
    wire->fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (wire->fd < 0 ||
        setsockopt(wire->fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version) != 0 ||
        setsockopt(wire->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes) != 0 ||
        setsockopt(wire->fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring) != 0)
        return -errno;
    void *memory = mmap(NULL, RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, wire->fd, 0);
    if (memory == MAP_FAILED)
        return -errno;
    wire->ring = memory;
    return bind(wire->fd, (struct sockaddr *)&address, sizeof address) != 0 ? -errno : 0;
}

static void tear_down(struct wire *wire) {
    if (wire->ring)
        munmap(wire->ring, RING_SIZE);
    if (wire->fd >= 0)
        close(wire->fd);
    free(wire);
}

int wire_open(uv_loop_t *loop, const char *device, wire_cb on_frames, void *arg,
              struct wire **out) {
    struct wire *wire = calloc(1, sizeof *wire);
    if (!wire)
        return UV_ENOMEM;
    wire->fd = -1;
    wire->on_frames = on_frames;
    wire->arg = arg;
    for (unsigned i = 0; i < WIRE_BATCH; i++) {
        wire->vectors[i].iov_base = wire->bytes[i];
        wire->messages[i].msg_hdr.msg_iov = &wire->vectors[i];
        wire->messages[i].msg_hdr.msg_iovlen = 1;
    }
    int status = set_up(wire, device);
    if (status == 0)
        status = uv_poll_init(loop, &wire->poll, wire->fd);
    if (status != 0) {
        tear_down(wire);
        return status;
    }
    uv_poll_start(&wire->poll, UV_READABLE, on_readable);
    *out = wire;
    return 0;
}

static void on_closed(uv_handle_t *handle) {
    tear_down(container_of(handle, struct wire, poll));
}

void wire_close(struct wire *wire) {
    wire_flush(wire);
    uv_close((uv_handle_t *)&wire->poll, on_closed);
}

/* The kernel counts from the last time that it was asked. */
void wire_stats(struct wire *wire, struct wire_stats *out) {
    struct tpacket_stats now = {0};
    socklen_t size = sizeof now;
    if (getsockopt(wire->fd, SOL_PACKET, PACKET_STATISTICS, &now, &size) == 0)
        wire->stats.overrun += now.tp_drops;
    *out = wire->stats;
}

int wire_make_plain(const char *device) {
    static const uint32_t offloads[] = {ETHTOOL_STXCSUM, ETHTOOL_STSO};
    int status = 0, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    for (size_t i = 0; i < sizeof offloads / sizeof offloads[0] && status == 0; i++) {
        struct ethtool_value off = {.cmd = offloads[i]};
        struct ifreq request = {.ifr_data = (char *)&off};
        strncpy(request.ifr_name, device, sizeof request.ifr_name - 1);
        if (ioctl(fd, SIOCETHTOOL, &request) != 0)
            status = -errno;
    }
    close(fd);
    return status;
}
