/* nic_table: what the kernel says of interfaces, addresses and default routes (rtnetlink(7)).
 *
 * Provides  struct nic_table, read as a whole or taken from messages
 * Uses      ip, err, a netlink socket that lives as long as the call
 * Owns      the three lists
 * nic_table_read asks the kernel, which answers at once. The rest is pure. */
#ifndef CORE_NIC_TABLE_H
#define CORE_NIC_TABLE_H

#include "core/ip.h"

struct nic_link {
    char name[IF_NAMESIZE];
    unsigned index;
    uint32_t mtu;
    bool up; /* and running */
    bool loopback;
};

struct nic_address {
    unsigned index;
    struct ip ip; /* link-local IPv6 has its zone */
    uint8_t prefix;
    bool temporary;  /* IPv6, for privacy: another one replaces it in a day or so (RFC 8981) */
    bool deprecated; /* not for new connections (RFC 4862, 5.5.4) */
    bool tentative;  /* not usable yet, or never: somebody else may have it (RFC 4862, 5.4) */
};

/* A way to where no other route leads. */
struct nic_route {
    uint8_t family; /* 4 or 6 */
    unsigned index;
    struct ip gateway; /* family 0 when there is none, as on a tunnel; for IPv4 it may be IPv6 */
    uint32_t metric;   /* the least one is taken */
};

struct nic_table {
    struct nic_link *links;
    struct nic_address *addresses;
    struct nic_route *routes; /* of the main table; the best of each family comes first */
    size_t link_count, address_count, route_count;
};

enum { NIC_LINKS = 1, NIC_ADDRESSES = 2, NIC_ROUTES = 4, NIC_ALL = 7 };

/* Reads these parts; the others are empty. 0 or a negative status. To be freed when it is 0. */
int nic_table_read(unsigned parts, struct nic_table *out);
void nic_table_free(struct nic_table *table);

/* The link of this index, or NULL. */
const struct nic_link *nic_table_link(const struct nic_table *table, unsigned index);

/* The parts in which two tables differ. */
unsigned nic_table_differ(const struct nic_table *a, const struct nic_table *b);

/* Adds what netlink messages announce. `end` becomes NLMSG_DONE or NLMSG_ERROR when one of these
 * came, `torn` true when the kernel says that it changed meanwhile. 0, UV_ENOMEM, ERR_EFORMAT, or
 * the error that the kernel sent. */
int nic_table_take(struct nic_table *table, const void *bytes, size_t length, int *end, bool *torn);

/* The parts that one message is about, of those that are listed here; 0 when it is of no interest.
 * `gone` tells whether something was taken away. The link of a message about one goes to `link`. */
struct nlmsghdr;
unsigned nic_table_about(const struct nlmsghdr *message, bool *gone, struct nic_link *link);

#endif
