#include "core/nic.h"

#include <ifaddrs.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define DISCARD_PORT 9 /* RFC 863; any would do, as nothing is sent */

static uint8_t prefix_of(const struct sockaddr *mask) {
    struct ip ip = {0};
    uint16_t port;
    unsigned bits = 0;
    struct sockaddr_storage copy = {0};
    if (!mask)
        return 0;
    /* An IPv6 mask must not be taken for a mapped address, so its bytes are counted as they lie. */
    memcpy(&copy, mask,
           mask->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
    if (copy.ss_family == AF_INET6)
        memcpy(ip.bytes, &((struct sockaddr_in6 *)&copy)->sin6_addr, 16);
    else
        ip_from_sockaddr((const struct sockaddr *)&copy, &ip, &port);
    for (size_t i = 0; i < sizeof ip.bytes && ip.bytes[i] != 0; i++)
        for (uint8_t byte = ip.bytes[i]; byte & 0x80; byte = (uint8_t)(byte << 1))
            bits++;
    return (uint8_t)bits;
}

static bool wanted(const struct ifaddrs *entry) {
    return entry->ifa_addr &&
           (entry->ifa_addr->sa_family == AF_INET || entry->ifa_addr->sa_family == AF_INET6);
}

int nic_list(struct nic **out, size_t *count) {
    struct ifaddrs *first, *entry;
    size_t n = 0;
    if (getifaddrs(&first) != 0)
        return -errno;
    for (entry = first; entry; entry = entry->ifa_next)
        n += wanted(entry);
    struct nic *list = calloc(n ? n : 1, sizeof *list), *nic = list;
    for (entry = first; list && entry; entry = entry->ifa_next) {
        if (!wanted(entry))
            continue;
        uint16_t port;
        strncpy(nic->name, entry->ifa_name, sizeof nic->name - 1);
        nic->index = if_nametoindex(entry->ifa_name);
        nic->up = (entry->ifa_flags & (IFF_UP | IFF_RUNNING)) == (IFF_UP | IFF_RUNNING);
        nic->loopback = (entry->ifa_flags & IFF_LOOPBACK) != 0;
        nic->prefix = prefix_of(entry->ifa_netmask);
        ip_from_sockaddr(entry->ifa_addr, &nic->ip, &port);
        nic++;
    }
    freeifaddrs(first);
    if (!list)
        return UV_ENOMEM;
    *out = list;
    *count = n;
    return 0;
}

void nic_free(struct nic *list) {
    free(list);
}

int nic_source(const struct ip *destination, struct ip *out) {
    struct sockaddr_storage address;
    uint16_t port;
    socklen_t size = ip_to_sockaddr(destination, DISCARD_PORT, &address);
    int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int status = 0;
    if (connect(fd, (const struct sockaddr *)&address, size) != 0)
        status = -errno;
    size = sizeof address;
    if (status == 0 && getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        status = -errno;
    close(fd);
    if (status == 0)
        ip_from_sockaddr((const struct sockaddr *)&address, out, &port);
    return status;
}

const struct nic *nic_with(const struct nic *list, size_t count, const struct ip *ip) {
    for (size_t i = 0; i < count; i++)
        if (ip_equal(&list[i].ip, ip))
            return &list[i];
    return NULL;
}

const struct nic *nic_on_link(const struct nic *list, size_t count, const struct ip *ip) {
    for (size_t i = 0; i < count; i++) {
        const struct nic *nic = &list[i];
        if (!nic->up || nic->ip.family != ip->family || nic->prefix == 0)
            continue;
        if (ip->zone != 0 && ip->zone != nic->index)
            continue;
        if (ip_same_prefix(&nic->ip, ip, nic->prefix))
            return nic;
    }
    return NULL;
}

bool nic_loopback_only(const struct nic *list, size_t count) {
    for (size_t i = 0; i < count; i++) {
        enum ip_kind kind = ip_kind(&list[i].ip);
        bool reaches = kind != IP_LOOPBACK && !(kind == IP_LINK_LOCAL && list[i].ip.family == 6);
        if (list[i].up && !list[i].loopback && reaches)
            return false;
    }
    return true;
}
