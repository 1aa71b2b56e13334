/* Any bytes as netlink messages: read within bounds. */
#include "core/nic_table.h"

#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    struct nic_table table = {0};
    struct nic_link link;
    int end = 0;
    bool torn = false, gone;
    void *copy = malloc(length + !length); /* aligned, as the buffer that the kernel fills is */
    if (!copy)
        return 0;
    memcpy(copy, bytes, length);
    nic_table_take(&table, copy, length, &end, &torn);
    const struct nlmsghdr *first = copy;
    if (length >= sizeof *first && first->nlmsg_len >= sizeof *first && first->nlmsg_len <= length)
        nic_table_about(first, &gone, &link);
    for (size_t i = 0; i < table.link_count; i++)
        if (!memchr(table.links[i].name, '\0', IF_NAMESIZE))
            abort();
    for (size_t i = 0; i < table.address_count; i++)
        if (table.addresses[i].prefix > (table.addresses[i].ip.family == 4 ? 32 : 128))
            abort();
    for (size_t i = 1; i < table.route_count; i++)
        if (table.routes[i - 1].family > table.routes[i].family ||
            (table.routes[i - 1].family == table.routes[i].family &&
             table.routes[i - 1].metric > table.routes[i].metric))
            abort();
    nic_table_free(&table);
    free(copy);
    return 0;
}
