#include "core/nic_watch.h"
#include "core/loop.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <unistd.h>

#define BUFFER_SIZE 32768
#define MESSAGES_AT_ONCE 32 /* then the loop gets a turn */
#define DRAIN 1024          /* at most so many before the tables are read */

struct nic_watch {
    uv_poll_t poll;
    uv_timer_t settle;
    int fd;
    unsigned handles;
    struct nic_table known;
    struct nic_change seen; /* since the last callback */
    bool news;
    nic_watch_cb changed;
    void *arg;
};

static void on_closed(struct nic_watch *watch) {
    if (--watch->handles == 0)
        free(watch);
}

static void on_poll_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct nic_watch, poll));
}

static void on_settle_closed(uv_handle_t *handle) {
    on_closed(container_of(handle, struct nic_watch, settle));
}

void nic_watch_close(struct nic_watch *watch) {
    uv_close((uv_handle_t *)&watch->poll, on_poll_closed);
    uv_close((uv_handle_t *)&watch->settle, on_settle_closed);
    close(watch->fd);
    nic_table_free(&watch->known);
}

/* What is away now may be back before the tables are read: that is to be told too. */
static void take(struct nic_watch *watch, const struct nlmsghdr *message) {
    struct nic_link link;
    bool gone;
    unsigned parts = nic_table_about(message, &gone, &link);
    if (parts == 0)
        return;
    watch->news = true;
    if (parts & NIC_LINKS) {
        const struct nic_link *known = nic_table_link(&watch->known, link.index);
        watch->seen.link |= gone || (known && known->up && !link.up);
    }
    watch->seen.address |= gone && (parts & NIC_ADDRESSES);
    watch->seen.route |= gone && (parts & NIC_ROUTES);
}

/* Takes the messages of one datagram of the kernel. False when there is none. */
static bool receive(struct nic_watch *watch) {
    _Alignas(struct nlmsghdr) char buffer[BUFFER_SIZE];
    struct sockaddr_nl from = {0};
    socklen_t size = sizeof from;
    ssize_t n =
        recvfrom(watch->fd, buffer, sizeof buffer, MSG_DONTWAIT, (struct sockaddr *)&from, &size);
    if (n < 0 && errno == ENOBUFS)
        return watch->news = watch->seen.overflow = true;
    if (n < 0)
        return errno == EINTR;
    if (from.nl_pid != 0) /* not from the kernel */
        return true;
    size_t length = (size_t)n;
    for (const char *at = buffer; length >= sizeof(struct nlmsghdr);) {
        const struct nlmsghdr *message = (const void *)at;
        size_t own = message->nlmsg_len, step = NLMSG_ALIGN(own);
        if (own < sizeof *message || own > length)
            break;
        take(watch, message);
        at += step;
        length = step < length ? length - step : 0;
    }
    return true;
}

static void on_settled(uv_timer_t *timer) {
    struct nic_watch *watch = container_of(timer, struct nic_watch, settle);
    struct nic_table now;
    for (int i = 0; i < DRAIN && receive(watch); i++) /* the tables will have that too */
        continue;
    struct nic_change change = watch->seen;
    watch->seen = (struct nic_change){0};
    watch->news = false;
    if (nic_table_read(NIC_ALL, &now) == 0) {
        unsigned parts = nic_table_differ(&watch->known, &now);
        change.link |= (parts & NIC_LINKS) != 0;
        change.address |= (parts & NIC_ADDRESSES) != 0;
        change.route |= (parts & NIC_ROUTES) != 0;
        nic_table_free(&watch->known);
        watch->known = now;
    } else {
        change.overflow = true;
    }
    if (change.link || change.address || change.route || change.overflow)
        watch->changed(watch->arg, &change);
}

static void on_readable(uv_poll_t *poll, int status, int events) {
    struct nic_watch *watch = container_of(poll, struct nic_watch, poll);
    (void)events;
    for (int i = 0; i < MESSAGES_AT_ONCE && receive(watch); i++)
        continue;
    if (status != 0) /* an overflow looks like an error to libuv, which stops the handle then */
        uv_poll_start(poll, UV_READABLE, on_readable);
    if (watch->news && !uv_is_active((uv_handle_t *)&watch->settle))
        uv_timer_start(&watch->settle, on_settled, NIC_SETTLE_MS, 0);
}

static int open_socket(int *out) {
    struct sockaddr_nl address = {
        .nl_family = AF_NETLINK,
        .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE |
                     RTMGRP_IPV6_ROUTE,
    };
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        int status = -errno;
        close(fd);
        return status;
    }
    *out = fd;
    return 0;
}

int nic_watch_open(uv_loop_t *loop, nic_watch_cb changed, void *arg, struct nic_watch **out) {
    struct nic_watch *watch = calloc(1, sizeof *watch);
    if (!watch)
        return UV_ENOMEM;
    int status = open_socket(&watch->fd);
    if (status == 0) {
        status = nic_table_read(NIC_ALL, &watch->known); /* what changes from here on is heard */
        if (status == 0)
            status = uv_poll_init(loop, &watch->poll, watch->fd);
        if (status) {
            close(watch->fd);
            nic_table_free(&watch->known);
        }
    }
    if (status) {
        free(watch);
        return status;
    }
    uv_timer_init(loop, &watch->settle);
    watch->handles = 2;
    watch->changed = changed;
    watch->arg = arg;
    status = uv_poll_start(&watch->poll, UV_READABLE, on_readable);
    if (status) {
        nic_watch_close(watch);
        return status;
    }
    *out = watch;
    return 0;
}
