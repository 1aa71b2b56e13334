#include "core/addr_rules.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#define LENGTH(list) (sizeof(list) / sizeof((list)[0]))

static const struct {
    const char *name;
    int64_t lowest, highest;
} numbers[ADDR_NUMBERS] = {
    [ADDR_NETIFACE_INDEX] = {"netiface index", 0, ADDR_INDEX_MAX},
    [ADDR_IF_INDEX] = {"if index", 0, ADDR_INDEX_MAX},
    [ADDR_PORT] = {"port", 1, 65535},
    [ADDR_NAT] = {"nat type", ADDR_NAT_OPEN, ADDR_NAT_BLOCKED},
    [ADDR_DELTA] = {"delta type", ADDR_DELTA_NA, ADDR_DELTA_RANDOM},
    [ADDR_DELTA_VALUE] = {"delta value", 0, 65535},
};

int addr_refuse(const struct addr_place *place, const char *format, ...) {
    if (!place->error)
        return UV_EINVAL;
    char *field = place->error->field;
    size_t size = sizeof place->error->field;
    size_t length = (size_t)snprintf(field, size, "%s", place->section);
    if (place->number)
        length += (size_t)snprintf(field + length, size - length, " %u", place->number);
    if (place->field)
        snprintf(field + length, size - length, ": %s", place->field);
    va_list list;
    va_start(list, format);
    vsnprintf(place->error->reason, sizeof place->error->reason, format, list);
    va_end(list);
    return UV_EINVAL;
}

static int check_offset(const struct addr_place *place, int64_t value) {
    if (value < 0 || value >= ADDR_BROKERS)
        return addr_refuse(place, "%lld is not between 0 and %d", (long long)value,
                           ADDR_BROKERS - 1);
    return 0;
}

static int check_number(const struct addr_place *place, enum addr_number which, int64_t value) {
    if (value < numbers[which].lowest || value > numbers[which].highest)
        return addr_refuse(place, "%lld is not between %lld and %lld", (long long)value,
                           (long long)numbers[which].lowest, (long long)numbers[which].highest);
    return 0;
}

static void set_number(struct addr_interface *entry, enum addr_number which, int64_t value) {
    switch (which) {
    case ADDR_NETIFACE_INDEX:
        entry->netiface_index = (uint32_t)value;
        break;
    case ADDR_IF_INDEX:
        entry->if_index = (uint32_t)value;
        break;
    case ADDR_PORT:
        entry->port = (uint16_t)value;
        break;
    case ADDR_NAT:
        entry->nat = (uint8_t)value;
        break;
    case ADDR_DELTA:
        entry->delta = (uint8_t)value;
        break;
    case ADDR_DELTA_VALUE:
        entry->delta_value = (uint16_t)value;
        break;
    case ADDR_NUMBERS:
        break;
    }
}

static int64_t get_number(const struct addr_interface *entry, enum addr_number which) {
    const int64_t values[ADDR_NUMBERS] = {
        [ADDR_NETIFACE_INDEX] = entry->netiface_index,
        [ADDR_IF_INDEX] = entry->if_index,
        [ADDR_PORT] = entry->port,
        [ADDR_NAT] = entry->nat,
        [ADDR_DELTA] = entry->delta,
        [ADDR_DELTA_VALUE] = entry->delta_value,
    };
    return values[which];
}

int addr_set_number(struct addr_interface *entry, enum addr_number which, int64_t value,
                    struct addr_place *place) {
    place->field = numbers[which].name;
    int status = check_number(place, which, value);
    if (status == 0)
        set_number(entry, which, value);
    return status;
}

struct addr_place addr_place_signal(unsigned number, struct addr_error *error) {
    return (struct addr_place){number ? "signal offset" : "signal", number, NULL, error};
}

struct addr_place addr_place_interface(uint8_t family, unsigned number, struct addr_error *error) {
    const char *section = family == 4 ? "ipv4 interface" : "ipv6 interface";
    return (struct addr_place){section, number, NULL, error};
}

int addr_add_signal(struct addr *addr, int64_t offset, struct addr_error *error) {
    struct addr_place place = addr_place_signal(addr->signal_count + 1u, error);
    if (addr->signal_count >= ADDR_SIGNAL_MAX)
        return addr_refuse(&place, "at most %d are allowed", ADDR_SIGNAL_MAX);
    int status = check_offset(&place, offset);
    if (status == 0)
        addr->signal[addr->signal_count++] = (uint8_t)offset;
    return status;
}

/* An id is any text that survives a terminal, a topic and this format. */
static int check_id(const char *name, const char *id, size_t longest, struct addr_error *error) {
    struct addr_place place = {name, 0, NULL, error};
    size_t length = strnlen(id, longest + 1);
    if (length == 0)
        return addr_refuse(&place, "it is empty");
    if (length > longest)
        return addr_refuse(&place, "it is longer than %zu characters", longest);
    for (size_t i = 0; i < length; i++)
        if (id[i] <= ' ' || id[i] > '~' || id[i] == '-')
            return addr_refuse(&place, "character %zu is a '-', or not printable ASCII", i + 1);
    return 0;
}

/* Ranges that documents and laboratories use in place of the Internet's. */
static bool is_stand_in(const struct ip *ip) {
    static const struct {
        struct ip ip;
        unsigned prefix;
    } ranges[] = {
        {{.family = 4, .bytes = {192, 0, 2}}, 24}, /* RFC 5737, and the two below */
        {{.family = 4, .bytes = {198, 51, 100}}, 24},
        {{.family = 4, .bytes = {203, 0, 113}}, 24},
        {{.family = 4, .bytes = {198, 18}}, 15}, /* RFC 2544 */
    };
    for (size_t i = 0; i < LENGTH(ranges); i++)
        if (ip_same_prefix(ip, &ranges[i].ip, ranges[i].prefix))
            return true;
    return false;
}

/* Whether only its own network reaches it. IPv6 networks of that kind span whole sites, and have
 * no translator that would show another address. */
static bool is_local(const struct ip *ip, enum ip_kind kind) {
    return kind == IP_LOOPBACK || kind == IP_LINK_LOCAL ||
           (kind == IP_PRIVATE && ip->family == 4 && !is_stand_in(ip));
}

/* `own` is what the computer itself has: a local address is external only where nothing translates,
 * so that both are the same. */

static int check_ip(const struct addr_place *place, const struct ip *ip, uint8_t family,
                    const struct ip *own) {
    char text[IP_TEXT_SIZE];
    if (ip->family != family)
        return addr_refuse(place, "it is no IPv%u address", family);
    enum ip_kind kind = ip_kind(ip);
    ip_format(ip, text);
    if (kind == IP_UNSPECIFIED || kind == IP_MULTICAST || kind == IP_BROADCAST)
        return addr_refuse(place, "%s is not the address of one computer", text);
    if (is_local(ip, kind) && !ip_equal(ip, own))
        return addr_refuse(place, "%s cannot be reached from outside, nor is it the internal one",
                           text);
    return 0;
}

static int check_interface(struct addr_place *place, uint8_t family,
                           const struct addr_interface *entry) {
    int status = 0;
    for (enum addr_number i = 0; status == 0 && i < ADDR_NUMBERS; i++) {
        place->field = numbers[i].name;
        status = check_number(place, i, get_number(entry, i));
    }
    if (status != 0)
        return status;
    place->field = "internal ip";
    status = check_ip(place, &entry->internal, family, &entry->internal);
    if (status != 0)
        return status;
    place->field = "external ip";
    return check_ip(place, &entry->external, family, &entry->internal);
}

static int check_family(const struct addr_family *list, uint8_t family, struct addr_error *error) {
    for (unsigned i = 0; i < list->count; i++) {
        struct addr_place place = addr_place_interface(family, i + 1, error);
        const struct addr_interface *entry = &list->interfaces[i];
        if (i >= ADDR_INTERFACES_MAX)
            return addr_refuse(&place, "at most %d are allowed", ADDR_INTERFACES_MAX);
        int status = check_interface(&place, family, entry);
        if (status != 0)
            return status;
        place.field = numbers[ADDR_IF_INDEX].name;
        for (unsigned j = 0; j < i; j++)
            if (list->interfaces[j].if_index == entry->if_index)
                return addr_refuse(&place, "%u is that of interface %u too", entry->if_index,
                                   j + 1);
    }
    return 0;
}

static int check_signal(const struct addr *addr, struct addr_error *error) {
    for (unsigned i = 0; i < addr->signal_count; i++) {
        struct addr_place place = addr_place_signal(i + 1, error);
        if (i >= ADDR_SIGNAL_MAX)
            return addr_refuse(&place, "at most %d are allowed", ADDR_SIGNAL_MAX);
        int status = check_offset(&place, addr->signal[i]);
        if (status != 0)
            return status;
    }
    return 0;
}

int addr_check(struct addr *addr, struct addr_error *error) {
    int status = check_signal(addr, error);
    if (status == 0)
        status = check_family(&addr->ipv4, 4, error);
    if (status == 0)
        status = check_family(&addr->ipv6, 6, error);
    if (status == 0)
        status = check_id("node id", addr->node_id, ADDR_NODE_ID_MAX, error);
    if (status == 0)
        status = check_id("machine id", addr->machine_id, ADDR_MACHINE_ID_MAX, error);
    if (status != 0)
        return status;
    addr->ours = node_id_parse(addr->node_id, strlen(addr->node_id), addr->key) == 0;
    if (!addr->ours)
        memset(addr->key, 0, sizeof addr->key);
    return 0;
}
