/* nic_watch: tells when interfaces, addresses or default routes change.
 *
 * Provides  struct nic_watch
 * Uses      libuv, nic_table, a netlink socket (rtnetlink(7))
 * Owns      the socket, its handles, and the tables as they were
 * What comes within NIC_SETTLE_MS of the first news is told at once. What the kernel says anew but
 * did not change, as the lifetimes of addresses, is not told; what went and came back is. */
#ifndef CORE_NIC_WATCH_H
#define CORE_NIC_WATCH_H

#include "core/nic_table.h"

#include <uv.h>

#define NIC_SETTLE_MS 50

struct nic_watch;

struct nic_change {
    bool link, address, route;
    bool overflow; /* news were lost: anything may have changed */
};

typedef void (*nic_watch_cb)(void *arg, const struct nic_change *change);

/* 0: `changed` comes with each change until the watch is closed, never from inside a call; it may
 * close it. Non-zero: it never comes. */
int nic_watch_open(uv_loop_t *loop, nic_watch_cb changed, void *arg, struct nic_watch **out);
void nic_watch_close(struct nic_watch *watch);

#endif
