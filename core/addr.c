#include "core/addr.h"

#include "core/addr_rules.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#define LENGTH(list) (sizeof(list) / sizeof((list)[0]))

enum { SECTIONS = 5, FIELDS = 8, EXTERNAL_FIELD = 2, INTERNAL_FIELD = 3, QUOTED = 40 };

/* The fields of an interface in the order of the text; all but the two IPs are numbers. */
static const struct {
    const char *name;
    enum addr_number number;
} fields[FIELDS] = {
    {"netiface index", ADDR_NETIFACE_INDEX},
    {"if index", ADDR_IF_INDEX},
    [EXTERNAL_FIELD] = {"external ip", ADDR_NUMBERS},
    [INTERNAL_FIELD] = {"internal ip", ADDR_NUMBERS},
    {"port", ADDR_PORT},
    {"nat type", ADDR_NAT},
    {"delta type", ADDR_DELTA},
    {"delta value", ADDR_DELTA_VALUE},
};

static const char *const nat_words[] = {
    [ADDR_NAT_OPEN] = "open",
    [ADDR_NAT_UDP_FIREWALL] = "udp-firewall",
    [ADDR_NAT_FULL_CONE] = "full-cone",
    [ADDR_NAT_RESTRICTED] = "restricted",
    [ADDR_NAT_PORT_RESTRICTED] = "port-restricted",
    [ADDR_NAT_SYMMETRIC] = "symmetric",
    [ADDR_NAT_BLOCKED] = "blocked",
};

static const char *const delta_words[] = {
    [ADDR_DELTA_NA] = "na",
    [ADDR_DELTA_EQUAL] = "equal",
    [ADDR_DELTA_PRESERVING] = "preserving",
    [ADDR_DELTA_INDEPENDENT] = "independent",
    [ADDR_DELTA_DEPENDENT] = "dependent",
    [ADDR_DELTA_RANDOM] = "random",
};

static const char *word_of(const char *const *words, size_t count, unsigned number) {
    return number > 0 && number < count ? words[number] : NULL;
}

static unsigned number_of(const char *const *words, size_t count, const char *word) {
    for (unsigned i = 1; i < count; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    return 0;
}

const char *addr_nat_word(unsigned nat) {
    return word_of(nat_words, LENGTH(nat_words), nat);
}

const char *addr_delta_word(unsigned delta) {
    return word_of(delta_words, LENGTH(delta_words), delta);
}

unsigned addr_nat_number(const char *word) {
    return number_of(nat_words, LENGTH(nat_words), word);
}

unsigned addr_delta_number(const char *word) {
    return number_of(delta_words, LENGTH(delta_words), word);
}

/* A part of the text that is being read. */
struct slice {
    const char *at;
    size_t length;
};

/* What somebody else wrote, made fit for a terminal and cut to a glance. */
static const char *quote(struct slice slice, char out[QUOTED]) {
    size_t n = 0;
    out[n++] = '\'';
    for (size_t i = 0; i < slice.length && n < QUOTED - 5; i++)
        out[n++] = slice.at[i] >= ' ' && slice.at[i] <= '~' ? slice.at[i] : '?';
    if (slice.length > n - 1)
        n += (size_t)snprintf(out + n, 4, "...");
    snprintf(out + n, 2, "'");
    return out;
}

static bool is_text(struct slice slice, const char *text) {
    return slice.length == strlen(text) && memcmp(slice.at, text, slice.length) == 0;
}

/* Cuts the part before the next separator off the front. False when nothing is left, not even an
 * empty part behind the last separator (then at is NULL). */
static bool cut(struct slice *rest, char separator, struct slice *part) {
    if (!rest->at)
        return false;
    const char *end = memchr(rest->at, separator, rest->length);
    *part = *rest;
    if (!end) {
        *rest = (struct slice){NULL, 0};
        return true;
    }
    part->length = (size_t)(end - rest->at);
    rest->at = end + 1;
    rest->length -= part->length + 1;
    return true;
}

static size_t count_parts(struct slice rest, char separator) {
    struct slice part;
    size_t count = 0;
    while (cut(&rest, separator, &part))
        count++;
    return count;
}

/* Digits and nothing else, without leading zeros; at most ten, which no field needs. */
static int parse_number(struct slice text, const struct addr_place *place, int64_t *out) {
    char quoted[QUOTED];
    *out = 0;
    if (text.length == 0)
        return addr_refuse(place, "it is empty");
    for (size_t i = 0; i < text.length; i++)
        if (text.at[i] < '0' || text.at[i] > '9')
            return addr_refuse(place, "%s is no plain decimal number", quote(text, quoted));
    if (text.length > 1 && text.at[0] == '0')
        return addr_refuse(place, "%s has a leading zero", quote(text, quoted));
    if (text.length > 10)
        return addr_refuse(place, "%s is too large", quote(text, quoted));
    for (size_t i = 0; i < text.length; i++)
        *out = *out * 10 + (text.at[i] - '0');
    return 0;
}

/* The zone of a link-local address is the writer's own name for a network card: it is cut off. */
static struct slice without_zone(struct slice text) {
    const char *zone = memchr(text.at, '%', text.length);
    size_t before = zone ? (size_t)(zone - text.at) : text.length, length = text.length - before;
    struct ip ip;
    if (zone && length > 1 && length <= IF_NAMESIZE && !memchr(zone + 1, '%', length - 1) &&
        ip_parse(text.at, before, &ip) == 0 && ip.family == 6 && ip_kind(&ip) == IP_LINK_LOCAL)
        text.length = before;
    return text;
}

static int parse_ip(struct slice text, uint8_t family, const struct addr_place *place,
                    struct ip *out) {
    char quoted[QUOTED];
    if (text.length == 0)
        return addr_refuse(place, "it is empty");
    struct slice plain = without_zone(text);
    if (memchr(plain.at, '%', plain.length) || ip_parse(plain.at, plain.length, out) != 0)
        return addr_refuse(place, "%s is no IPv%u address", quote(text, quoted), family);
    if (out->family != family)
        return addr_refuse(place, "%s is an IPv%u address", quote(text, quoted), out->family);
    return 0;
}

static int parse_interface(struct slice text, uint8_t family, struct addr_place *place,
                           struct addr_interface *out) {
    if (text.length < 2 || text.at[0] != '[' || text.at[text.length - 1] != ']')
        return addr_refuse(place, "it is not in square brackets");
    struct slice rest = {text.at + 1, text.length - 2}, field;
    size_t count = count_parts(rest, ',');
    if (count != FIELDS)
        return addr_refuse(place, "it should have %d fields, and has %zu", FIELDS, count);
    int status = 0;
    for (size_t i = 0; status == 0 && cut(&rest, ',', &field); i++) {
        place->field = fields[i].name;
        if (i == EXTERNAL_FIELD || i == INTERNAL_FIELD) {
            struct ip *ip = i == EXTERNAL_FIELD ? &out->external : &out->internal;
            status = parse_ip(field, family, place, ip);
        } else {
            int64_t value;
            status = parse_number(field, place, &value);
            if (status == 0)
                status = addr_set_number(out, fields[i].number, value, place);
        }
    }
    return status;
}

static int parse_family(struct slice text, uint8_t family, struct addr_error *error,
                        struct addr_family *out) {
    struct addr_place whole = {family == 4 ? "ipv4" : "ipv6", 0, NULL, error};
    struct slice part;
    if (is_text(text, "0"))
        return 0;
    size_t count = count_parts(text, '|');
    if (count > ADDR_INTERFACES_MAX)
        return addr_refuse(&whole, "it has %zu interfaces; at most %d are allowed", count,
                           ADDR_INTERFACES_MAX);
    int status = 0;
    while (status == 0 && cut(&text, '|', &part)) {
        struct addr_place place = addr_place_interface(family, out->count + 1u, error);
        status = parse_interface(part, family, &place, &out->interfaces[out->count++]);
    }
    return status;
}

static int parse_signal(struct slice text, struct addr_error *error, struct addr *out) {
    struct addr_place whole = addr_place_signal(0, error);
    struct slice part;
    if (is_text(text, "None"))
        return 0;
    size_t count = count_parts(text, ',');
    if (count > ADDR_SIGNAL_MAX)
        return addr_refuse(&whole, "it has %zu offsets; at most %d are allowed", count,
                           ADDR_SIGNAL_MAX);
    int status = 0;
    while (status == 0 && cut(&text, ',', &part)) {
        struct addr_place place = addr_place_signal(out->signal_count + 1u, error);
        int64_t value;
        status = parse_number(part, &place, &value);
        if (status == 0)
            status = addr_add_signal(out, value, error);
    }
    return status;
}

/* What fits is checked by addr_check, with all the rest. */
static int parse_id(const char *name, struct slice text, size_t longest, struct addr_error *error,
                    char *out) {
    struct addr_place place = {name, 0, NULL, error};
    if (text.length > longest)
        return addr_refuse(&place, "it has %zu characters; at most %zu are allowed", text.length,
                           longest);
    if (memchr(text.at, '\0', text.length))
        return addr_refuse(&place, "it holds a zero byte");
    memcpy(out, text.at, text.length);
    return 0;
}

int addr_parse(const char *text, size_t length, struct addr *out, struct addr_error *error) {
    struct slice rest = {text, length}, section[SECTIONS];
    struct addr_place whole = {"address", 0, NULL, error};
    memset(out, 0, sizeof *out);
    size_t count = count_parts(rest, '-');
    if (count != SECTIONS)
        return addr_refuse(&whole, "it should have %d sections, between '-', and has %zu", SECTIONS,
                           count);
    for (size_t i = 0; i < SECTIONS; i++)
        cut(&rest, '-', &section[i]);
    int status = parse_signal(section[0], error, out);
    if (status == 0)
        status = parse_family(section[1], 4, error, &out->ipv4);
    if (status == 0)
        status = parse_family(section[2], 6, error, &out->ipv6);
    if (status == 0)
        status = parse_id("node id", section[3], ADDR_NODE_ID_MAX, error, out->node_id);
    if (status == 0)
        status = parse_id("machine id", section[4], ADDR_MACHINE_ID_MAX, error, out->machine_id);
    return status != 0 ? status : addr_check(out, error);
}

/* A text that grows; the room is that of the longest address. */
struct writer {
    char *at;
    size_t length;
};

__attribute__((format(printf, 2, 3))) static void append(struct writer *out, const char *format,
                                                         ...) {
    va_list list;
    va_start(list, format);
    int added = vsnprintf(out->at + out->length, ADDR_TEXT_SIZE - out->length, format, list);
    va_end(list);
    out->length += (size_t)added;
}

static void append_ip(struct writer *out, const struct ip *ip) {
    size_t step = ip->family == 4 ? 1 : 2, size = ip->family == 4 ? 4 : 16;
    for (size_t i = 0; i < size; i += step)
        if (step == 1)
            append(out, "%s%u", i ? "." : "", ip->bytes[i]);
        else
            append(out, "%s%02x%02x", i ? ":" : "", ip->bytes[i], ip->bytes[i + 1]);
}

static void append_family(struct writer *out, const struct addr_family *list) {
    for (unsigned i = 0; i < list->count; i++) {
        const struct addr_interface *entry = &list->interfaces[i];
        append(out, "%s[%u,%u,", i ? "|" : "", entry->netiface_index, entry->if_index);
        append_ip(out, &entry->external);
        append(out, ",");
        append_ip(out, &entry->internal);
        append(out, ",%u,%u,%u,%u]", entry->port, entry->nat, entry->delta, entry->delta_value);
    }
    append(out, "%s", list->count ? "-" : "0-");
}

size_t addr_format(const struct addr *addr, char out[ADDR_TEXT_SIZE]) {
    struct writer writer = {out, 0};
    for (unsigned i = 0; i < addr->signal_count; i++)
        append(&writer, "%s%u", i ? "," : "", addr->signal[i]);
    append(&writer, "%s", addr->signal_count ? "-" : "None-");
    append_family(&writer, &addr->ipv4);
    append_family(&writer, &addr->ipv6);
    append(&writer, "%s-%s", addr->node_id, addr->machine_id);
    return writer.length;
}
