#include "core/nic_table.h"
#include "core/err.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUFFER_SIZE 32768 /* the kernel fills no more for a dump (netlink(7)) */
#define TRIES 4           /* while the tables change under our eyes */

/* --- one message --------------------------------------------------------------------------- */

/* The attributes of a message, by type; those of other types are passed over. */
struct attributes {
    const struct rtattr *of[RTA_MAX > IFLA_MAX ? RTA_MAX + 1 : IFLA_MAX + 1];
};

static bool read_attributes(const void *first, size_t length, struct attributes *out) {
    const size_t most = sizeof out->of / sizeof *out->of;
    memset(out, 0, sizeof *out);
    for (const char *at = first; length >= sizeof(struct rtattr);) {
        const struct rtattr *attribute = (const void *)at;
        size_t size = attribute->rta_len, step = RTA_ALIGN(size);
        if (size < sizeof *attribute || size > length)
            return false;
        if ((attribute->rta_type & NLA_TYPE_MASK) < most)
            out->of[attribute->rta_type & NLA_TYPE_MASK] = attribute;
        at += step;
        length = step < length ? length - step : 0;
    }
    return true;
}

/* What follows the fixed part of a message, of `size` bytes; false when it is shorter. */
static bool open_message(const struct nlmsghdr *message, size_t size, struct attributes *out) {
    if (message->nlmsg_len < NLMSG_LENGTH(size))
        return false;
    size_t skipped = NLMSG_LENGTH(NLMSG_ALIGN(size));
    if (message->nlmsg_len < skipped)
        skipped = message->nlmsg_len;
    return read_attributes((const char *)message + skipped, message->nlmsg_len - skipped, out);
}

static uint32_t number(const struct attributes *attributes, int type, uint32_t otherwise) {
    uint32_t value = otherwise;
    const struct rtattr *attribute = attributes->of[type];
    if (attribute && RTA_PAYLOAD(attribute) >= sizeof value)
        memcpy(&value, RTA_DATA(attribute), sizeof value);
    return value;
}

static bool read_ip(const void *bytes, size_t length, int family, unsigned index, struct ip *out) {
    *out = (struct ip){.family = family == AF_INET ? 4 : 6};
    size_t size = family == AF_INET ? 4 : 16;
    if (length < size)
        return false;
    memcpy(out->bytes, bytes, size);
    if (out->family == 6 && ip_kind(out) == IP_LINK_LOCAL)
        out->zone = index;
    return true;
}

static bool attribute_ip(const struct rtattr *attribute, int family, unsigned index,
                         struct ip *out) {
    return attribute && read_ip(RTA_DATA(attribute), RTA_PAYLOAD(attribute), family, index, out);
}

static bool read_link(const struct nlmsghdr *message, struct nic_link *out) {
    const struct ifinfomsg *fixed = NLMSG_DATA(message);
    struct attributes attributes;
    *out = (struct nic_link){0};
    if (!open_message(message, sizeof *fixed, &attributes) || fixed->ifi_index <= 0 ||
        fixed->ifi_family != AF_UNSPEC) /* others are about bridges' ports and the like */
        return false;
    const struct rtattr *name = attributes.of[IFLA_IFNAME];
    if (name) {
        size_t length = strnlen(RTA_DATA(name), RTA_PAYLOAD(name));
        memcpy(out->name, RTA_DATA(name), length < IF_NAMESIZE ? length : IF_NAMESIZE - 1);
    }
    out->index = (unsigned)fixed->ifi_index;
    out->mtu = number(&attributes, IFLA_MTU, 0);
    out->up = (fixed->ifi_flags & (IFF_UP | IFF_RUNNING)) == (IFF_UP | IFF_RUNNING);
    out->loopback = (fixed->ifi_flags & IFF_LOOPBACK) != 0;
    return true;
}

/* The host's own address is IFA_LOCAL where there is one; IFA_ADDRESS is the peer's then. */
static bool read_address(const struct nlmsghdr *message, struct nic_address *out) {
    const struct ifaddrmsg *fixed = NLMSG_DATA(message);
    struct attributes attributes;
    *out = (struct nic_address){0};
    if (!open_message(message, sizeof *fixed, &attributes) || fixed->ifa_index > INT32_MAX ||
        (fixed->ifa_family != AF_INET && fixed->ifa_family != AF_INET6))
        return false;
    const struct rtattr *ip = attributes.of[IFA_LOCAL];
    if (!attribute_ip(ip ? ip : attributes.of[IFA_ADDRESS], fixed->ifa_family, fixed->ifa_index,
                      &out->ip))
        return false;
    uint32_t flags = number(&attributes, IFA_FLAGS, fixed->ifa_flags);
    uint8_t most = fixed->ifa_family == AF_INET ? 32 : 128;
    out->index = fixed->ifa_index;
    out->prefix = fixed->ifa_prefixlen < most ? fixed->ifa_prefixlen : most;
    out->temporary = fixed->ifa_family == AF_INET6 && (flags & IFA_F_TEMPORARY);
    out->deprecated = (flags & IFA_F_DEPRECATED) != 0;
    out->tentative =
        (flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) != 0 && !(flags & IFA_F_OPTIMISTIC);
    return true;
}

/* Whether it is a default route by which packets go now. */
static bool read_route(const struct nlmsghdr *message, struct nic_route *out,
                       struct attributes *attributes) {
    const struct rtmsg *fixed = NLMSG_DATA(message);
    *out = (struct nic_route){0};
    if (!open_message(message, sizeof *fixed, attributes) ||
        (fixed->rtm_family != AF_INET && fixed->rtm_family != AF_INET6) ||
        fixed->rtm_dst_len != 0 || fixed->rtm_type != RTN_UNICAST ||
        (fixed->rtm_flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN | RTM_F_CLONED)) ||
        number(attributes, RTA_TABLE, fixed->rtm_table) != RT_TABLE_MAIN)
        return false;
    out->family = fixed->rtm_family == AF_INET ? 4 : 6;
    out->metric = number(attributes, RTA_PRIORITY, 0);
    return true;
}

static void read_hop(const struct attributes *attributes, unsigned index, struct nic_route *out) {
    const struct rtattr *via = attributes->of[RTA_VIA];
    uint16_t family;
    out->index = index;
    out->gateway = (struct ip){0};
    if (attribute_ip(attributes->of[RTA_GATEWAY], out->family == 4 ? AF_INET : AF_INET6, index,
                     &out->gateway))
        return;
    out->gateway = (struct ip){0};
    if (!via || RTA_PAYLOAD(via) < sizeof family)
        return;
    memcpy(&family, RTA_DATA(via), sizeof family);
    if (family != AF_INET6 ||
        !read_ip((const char *)RTA_DATA(via) + sizeof family, RTA_PAYLOAD(via) - sizeof family,
                 AF_INET6, index, &out->gateway))
        out->gateway = (struct ip){0};
}

/* --- the table ----------------------------------------------------------------------------- */

/* A list with room for one more item: it doubles when it holds a power of two. NULL for want of
 * memory; the list is as it was then. */
static void *grown(void *list, size_t count, size_t size) {
    if (count & (count - 1))
        return list;
    return realloc(list, (count ? 2 * count : 1) * size);
}

static int add_link(struct nic_table *table, const struct nic_link *link) {
    void *list = grown(table->links, table->link_count, sizeof *link);
    if (!list)
        return UV_ENOMEM;
    table->links = list;
    table->links[table->link_count++] = *link;
    return 0;
}

static int add_address(struct nic_table *table, const struct nic_address *address) {
    void *list = grown(table->addresses, table->address_count, sizeof *address);
    if (!list)
        return UV_ENOMEM;
    table->addresses = list;
    table->addresses[table->address_count++] = *address;
    return 0;
}

/* Behind those of its family that are as good, before those that are worse. */
static int add_route(struct nic_table *table, const struct nic_route *route) {
    void *list = grown(table->routes, table->route_count, sizeof *route);
    if (!list)
        return UV_ENOMEM;
    table->routes = list;
    size_t place = table->route_count++;
    for (; place > 0; place--) {
        const struct nic_route *before = &table->routes[place - 1];
        if (before->family < route->family ||
            (before->family == route->family && before->metric <= route->metric))
            break;
        table->routes[place] = *before;
    }
    table->routes[place] = *route;
    return 0;
}

static int take_route(struct nic_table *table, const struct nlmsghdr *message) {
    struct attributes attributes, hop_attributes;
    struct nic_route route;
    if (!read_route(message, &route, &attributes))
        return 0;
    const struct rtattr *several = attributes.of[RTA_MULTIPATH];
    if (!several) {
        read_hop(&attributes, number(&attributes, RTA_OIF, 0), &route);
        return add_route(table, &route);
    }
    const char *at = RTA_DATA(several);
    for (size_t left = RTA_PAYLOAD(several); left >= sizeof(struct rtnexthop);) {
        const struct rtnexthop *hop = (const void *)at;
        size_t size = hop->rtnh_len, step = RTA_ALIGN(size);
        if (size < sizeof *hop || size > left ||
            !read_attributes(at + sizeof *hop, size - sizeof *hop, &hop_attributes))
            return ERR_EFORMAT;
        read_hop(&hop_attributes, (unsigned)hop->rtnh_ifindex, &route);
        int status =
            hop->rtnh_flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN) ? 0 : add_route(table, &route);
        if (status)
            return status;
        at += step;
        left = step < left ? left - step : 0;
    }
    return 0;
}

static int take_one(struct nic_table *table, const struct nlmsghdr *message) {
    struct nic_link link;
    struct nic_address address;
    switch (message->nlmsg_type) {
    case RTM_NEWLINK:
        return read_link(message, &link) ? add_link(table, &link) : 0;
    case RTM_NEWADDR:
        return read_address(message, &address) ? add_address(table, &address) : 0;
    case RTM_NEWROUTE:
        return take_route(table, message);
    default:
        return 0;
    }
}

int nic_table_take(struct nic_table *table, const void *bytes, size_t length, int *end,
                   bool *torn) {
    for (const char *at = bytes; length >= sizeof(struct nlmsghdr);) {
        const struct nlmsghdr *message = (const void *)at;
        size_t size = message->nlmsg_len, step = NLMSG_ALIGN(size);
        if (size < sizeof *message || size > length)
            return ERR_EFORMAT;
        if (message->nlmsg_flags & NLM_F_DUMP_INTR)
            *torn = true;
        if (message->nlmsg_type == NLMSG_DONE || message->nlmsg_type == NLMSG_ERROR) {
            int error = 0;
            *end = message->nlmsg_type;
            if (size >= NLMSG_LENGTH(sizeof error))
                memcpy(&error, NLMSG_DATA(message), sizeof error);
            return error < 0 ? error : 0;
        }
        int status = take_one(table, message);
        if (status)
            return status;
        at += step;
        length = step < length ? length - step : 0;
    }
    return 0;
}

unsigned nic_table_about(const struct nlmsghdr *message, bool *gone, struct nic_link *link) {
    struct attributes attributes;
    struct nic_route route;
    *gone = message->nlmsg_type == RTM_DELLINK || message->nlmsg_type == RTM_DELADDR ||
            message->nlmsg_type == RTM_DELROUTE;
    switch (message->nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
        return read_link(message, link) ? NIC_LINKS : 0;
    case RTM_NEWADDR:
    case RTM_DELADDR:
        return NIC_ADDRESSES;
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        return read_route(message, &route, &attributes) ? NIC_ROUTES : 0;
    default:
        return 0;
    }
}

void nic_table_free(struct nic_table *table) {
    free(table->links);
    free(table->addresses);
    free(table->routes);
    *table = (struct nic_table){0};
}

const struct nic_link *nic_table_link(const struct nic_table *table, unsigned index) {
    for (size_t i = 0; i < table->link_count; i++)
        if (table->links[i].index == index)
            return &table->links[i];
    return NULL;
}

static bool same_link(const struct nic_link *a, const struct nic_link *b) {
    return strcmp(a->name, b->name) == 0 && a->index == b->index && a->mtu == b->mtu &&
           a->up == b->up && a->loopback == b->loopback;
}

static bool same_address(const struct nic_address *a, const struct nic_address *b) {
    return a->index == b->index && ip_equal(&a->ip, &b->ip) && a->prefix == b->prefix &&
           a->temporary == b->temporary && a->deprecated == b->deprecated &&
           a->tentative == b->tentative;
}

static bool same_route(const struct nic_route *a, const struct nic_route *b) {
    return a->family == b->family && a->index == b->index && a->metric == b->metric &&
           ip_equal(&a->gateway, &b->gateway);
}

unsigned nic_table_differ(const struct nic_table *a, const struct nic_table *b) {
    bool links = a->link_count == b->link_count, routes = a->route_count == b->route_count,
         addresses = a->address_count == b->address_count;
    for (size_t i = 0; links && i < a->link_count; i++)
        links = same_link(&a->links[i], &b->links[i]);
    for (size_t i = 0; addresses && i < a->address_count; i++)
        addresses = same_address(&a->addresses[i], &b->addresses[i]);
    for (size_t i = 0; routes && i < a->route_count; i++)
        routes = same_route(&a->routes[i], &b->routes[i]);
    return (links ? 0u : NIC_LINKS) | (addresses ? 0u : NIC_ADDRESSES) | (routes ? 0u : NIC_ROUTES);
}

/* --- asking the kernel --------------------------------------------------------------------- */

static int receive_all(int fd, struct nic_table *table, bool *torn) {
    _Alignas(struct nlmsghdr) char buffer[BUFFER_SIZE];
    for (int end = 0; end == 0;) {
        ssize_t n = recv(fd, buffer, sizeof buffer, MSG_TRUNC);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0 || (size_t)n > sizeof buffer)
            return ERR_EFORMAT;
        int status = nic_table_take(table, buffer, (size_t)n, &end, torn);
        if (status)
            return status;
    }
    return 0;
}

static int dump(int fd, uint16_t type, struct nic_table *table, bool *torn) {
    struct {
        struct nlmsghdr header;
        union { /* each begins with the family, which is all that is read: 0 stands for every one */
            struct ifinfomsg link;
            struct ifaddrmsg address;
            struct rtmsg route;
        } fixed;
    } request = {0};
    size_t size = type == RTM_GETLINK   ? sizeof request.fixed.link
                  : type == RTM_GETADDR ? sizeof request.fixed.address
                                        : sizeof request.fixed.route;
    request.header.nlmsg_len = (uint32_t)NLMSG_LENGTH(size);
    request.header.nlmsg_type = type;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    if (send(fd, &request, request.header.nlmsg_len, 0) < 0)
        return -errno;
    return receive_all(fd, table, torn);
}

static int read_once(int fd, unsigned parts, struct nic_table *out, bool *torn) {
    static const struct {
        unsigned part;
        uint16_t type;
    } dumps[] = {
        {NIC_LINKS, RTM_GETLINK}, {NIC_ADDRESSES, RTM_GETADDR}, {NIC_ROUTES, RTM_GETROUTE}};
    int status = 0;
    *torn = false;
    for (size_t i = 0; status == 0 && i < sizeof dumps / sizeof *dumps; i++)
        if (parts & dumps[i].part)
            status = dump(fd, dumps[i].type, out, torn);
    return status;
}

int nic_table_read(unsigned parts, struct nic_table *out) {
    *out = (struct nic_table){0};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return -errno;
    bool torn = true;
    int status = 0;
    for (int try = 0; status == 0 && torn && try < TRIES; try++) {
        nic_table_free(out);
        status = read_once(fd, parts, out, &torn);
    }
    close(fd);
    if (status)
        nic_table_free(out);
    return status;
}
