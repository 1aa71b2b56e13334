/* nic: the machine's network interfaces, their addresses, and the ways out.
 *
 * Provides  a list of addresses, each with its interface; the default routes; the address that
 * would be used toward a destination Uses      ip, nic_table, the system's tables Owns nothing: a
 * list is the caller's until nic_free or nic_free_routes Asks the system each time; never waits. */
#ifndef CORE_NIC_H
#define CORE_NIC_H

#include "core/nic_table.h"

struct nic {
    char name[IF_NAMESIZE];
    unsigned index;
    uint32_t mtu;
    bool up; /* and running */
    bool loopback;
    bool temporary, deprecated, tentative; /* see struct nic_address */
    struct ip ip;                          /* link-local IPv6 has its zone */
    uint8_t prefix;
};

/* One entry per address, in the system's order. 0 or a negative status. */
int nic_list(struct nic **out, size_t *count);
void nic_free(struct nic *list);

/* The default routes, IPv4 first, the best of each family first. 0 or a negative status. */
int nic_routes(struct nic_route **out, size_t *count);
void nic_free_routes(struct nic_route *list);

/* The address that the system would send from toward `destination` (no packet leaves). 0, or
 * UV_ENETUNREACH and its like. */
int nic_source(const struct ip *destination, struct ip *out);

/* The entry that has this address, or that shares the link with it; or NULL. */
const struct nic *nic_with(const struct nic *list, size_t count, const struct ip *ip);
const struct nic *nic_on_link(const struct nic *list, size_t count, const struct ip *ip);

/* Whether no interface that is up has any address but loopback ones (and IPv6 link-local ones). */
bool nic_loopback_only(const struct nic *list, size_t count);

#endif
