#include "core/nic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define DISCARD_PORT 9 /* RFC 863; any would do, as nothing is sent */

/* An address whose interface is gone by now is gone too. */
static size_t join(const struct nic_table *table, struct nic *list) {
    size_t count = 0;
    for (size_t i = 0; i < table->address_count; i++) {
        const struct nic_address *address = &table->addresses[i];
        const struct nic_link *link = nic_table_link(table, address->index);
        if (!link)
            continue;
        struct nic *nic = &list[count++];
        memcpy(nic->name, link->name, sizeof nic->name);
        nic->index = link->index;
        nic->mtu = link->mtu;
        nic->up = link->up;
        nic->loopback = link->loopback;
        nic->temporary = address->temporary;
        nic->deprecated = address->deprecated;
        nic->tentative = address->tentative;
        nic->ip = address->ip;
        nic->prefix = address->prefix;
    }
    return count;
}

int nic_list(struct nic **out, size_t *count) {
    struct nic_table table;
    int status = nic_table_read(NIC_LINKS | NIC_ADDRESSES, &table);
    if (status != 0)
        return status;
    struct nic *list = calloc(table.address_count + 1, sizeof *list);
    if (list)
        *count = join(&table, list);
    nic_table_free(&table);
    *out = list;
    return list ? 0 : UV_ENOMEM;
}

void nic_free(struct nic *list) {
    free(list);
}

int nic_routes(struct nic_route **out, size_t *count) {
    struct nic_table table;
    int status = nic_table_read(NIC_ROUTES, &table);
    if (status != 0)
        return status;
    *out = table.routes;
    *count = table.route_count;
    table.routes = NULL;
    nic_table_free(&table);
    return 0;
}

void nic_free_routes(struct nic_route *list) {
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
