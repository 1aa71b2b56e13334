#include "core/ip.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#define LENGTH(list) (sizeof(list) / sizeof((list)[0]))

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
static const uint8_t nat64_prefix[12] = {0, 0x64, 0xff, 0x9b};

/* Special addresses; the first range that holds an address decides, so exceptions come before what
 * they are taken from. Sources: RFC 6890 and the IANA registries that it founded. */
static const struct range {
    uint8_t family, prefix;
    enum ip_kind kind;
    uint8_t bytes[16];
} ranges[] = {
    {4, 32, IP_UNSPECIFIED, {0}},
    {4, 8, IP_PRIVATE, {0}},
    {4, 8, IP_LOOPBACK, {127}},
    {4, 16, IP_LINK_LOCAL, {169, 254}},
    {4, 8, IP_PRIVATE, {10}},
    {4, 12, IP_PRIVATE, {172, 16}},
    {4, 16, IP_PRIVATE, {192, 168}},
    {4, 10, IP_SHARED, {100, 64}},
    {4, 32, IP_GLOBAL, {192, 0, 0, 9}},  /* anycast to port control servers (RFC 7723) */
    {4, 32, IP_GLOBAL, {192, 0, 0, 10}}, /* and to TURN servers (RFC 8155) */
    {4, 24, IP_PRIVATE, {192, 0, 0}},
    {4, 24, IP_PRIVATE, {192, 0, 2}}, /* documentation (RFC 5737), as the two below */
    {4, 24, IP_PRIVATE, {198, 51, 100}},
    {4, 24, IP_PRIVATE, {203, 0, 113}},
    {4, 15, IP_PRIVATE, {198, 18}}, /* benchmarks (RFC 2544) */
    {4, 4, IP_MULTICAST, {224}},
    {4, 32, IP_BROADCAST, {255, 255, 255, 255}},
    {4, 4, IP_PRIVATE, {240}},
    {6, 128, IP_UNSPECIFIED, {0}},
    {6, 128, IP_LOOPBACK, {[15] = 1}},
    {6, 48, IP_PRIVATE, {0, 0x64, 0xff, 0x9b, 0, 1}}, /* local NAT64 (RFC 8215) */
    {6, 64, IP_PRIVATE, {1}},                         /* discard-only (RFC 6666) */
    {6, 128, IP_GLOBAL, {0x20, 1, 0, 1, [15] = 1}},   /* RFC 7723 */
    {6, 128, IP_GLOBAL, {0x20, 1, 0, 1, [15] = 2}},   /* RFC 8155 */
    {6, 32, IP_GLOBAL, {0x20, 1, 0, 3}},              /* RFC 7450 */
    {6, 48, IP_GLOBAL, {0x20, 1, 0, 4, 1, 0x12}},     /* RFC 7535 */
    {6, 28, IP_GLOBAL, {0x20, 1, 0, 0x20}},           /* RFC 7343 */
    {6, 23, IP_PRIVATE, {0x20, 1}},                   /* RFC 2928 */
    {6, 32, IP_PRIVATE, {0x20, 1, 0xd, 0xb8}},        /* RFC 3849 */
    {6, 16, IP_PRIVATE, {0x20, 2}},                   /* 6to4 (RFC 3056) */
    {6, 7, IP_PRIVATE, {0xfc}},
    {6, 10, IP_LINK_LOCAL, {0xfe, 0x80}},
    {6, 8, IP_MULTICAST, {0xff}},
};

static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned bits) {
    unsigned whole = bits / 8, rest = bits % 8;
    return memcmp(a, b, whole) == 0 &&
           (rest == 0 || (uint8_t)(a[whole] ^ b[whole]) >> (8 - rest) == 0);
}

static int parse_zone(const char *text, uint32_t *zone) {
    *zone = if_nametoindex(text);
    if (*zone != 0)
        return 0;
    for (const char *digit = text; *digit; digit++) {
        if (*digit < '0' || *digit > '9' || *zone > INT32_MAX / 10 - 1)
            return UV_EINVAL;
        *zone = *zone * 10 + (uint32_t)(*digit - '0');
    }
    return *zone != 0 ? 0 : UV_EINVAL;
}

int ip_parse(const char *text, size_t length, struct ip *out) {
    char copy[IP_TEXT_SIZE];
    *out = (struct ip){0};
    if (length >= sizeof copy || memchr(text, '\0', length))
        return UV_EINVAL;
    memcpy(copy, text, length);
    copy[length] = '\0';
    char *zone = strchr(copy, '%');
    if (zone)
        *zone++ = '\0';
    struct ip ip = {0};
    if (inet_pton(AF_INET, copy, ip.bytes) == 1)
        ip.family = 4;
    else if (inet_pton(AF_INET6, copy, ip.bytes) == 1)
        ip.family = 6;
    else
        return UV_EINVAL;
    if (zone && (ip.family != 6 || ip_kind(&ip) != IP_LINK_LOCAL || parse_zone(zone, &ip.zone)))
        return UV_EINVAL;
    *out = ip;
    return 0;
}

size_t ip_format(const struct ip *ip, char out[IP_TEXT_SIZE]) {
    out[0] = '\0';
    if (ip->family != 4 && ip->family != 6)
        return 0;
    inet_ntop(ip->family == 4 ? AF_INET : AF_INET6, ip->bytes, out, INET6_ADDRSTRLEN);
    size_t length = strlen(out);
    if (ip->family == 6 && ip->zone != 0) {
        char name[IF_NAMESIZE];
        out[length++] = '%';
        if (if_indextoname(ip->zone, name))
            length += (size_t)snprintf(out + length, sizeof name, "%s", name);
        else /* the interface has gone */
            length += (size_t)snprintf(out + length, sizeof name, "%u", ip->zone);
    }
    return length;
}

enum ip_kind ip_kind(const struct ip *ip) {
    /* What a translator, or the system itself, would turn into an IPv4 address is of that one's
     * kind. */
    if (ip->family == 6 && (memcmp(ip->bytes, mapped_prefix, sizeof mapped_prefix) == 0 ||
                            memcmp(ip->bytes, nat64_prefix, sizeof nat64_prefix) == 0)) {
        struct ip inner = {.family = 4};
        memcpy(inner.bytes, ip->bytes + 12, 4);
        return ip_kind(&inner);
    }
    for (size_t i = 0; i < LENGTH(ranges); i++)
        if (ranges[i].family == ip->family &&
            same_bits(ip->bytes, ranges[i].bytes, ranges[i].prefix))
            return ranges[i].kind;
    return ip->family == 0 ? IP_UNSPECIFIED : IP_GLOBAL;
}

bool ip_equal(const struct ip *a, const struct ip *b) {
    return a->family == b->family && a->zone == b->zone &&
           memcmp(a->bytes, b->bytes, a->family == 4 ? 4 : 16) == 0;
}

bool ip_same_prefix(const struct ip *a, const struct ip *b, unsigned prefix) {
    if (a->family != b->family || a->family == 0 || prefix > (a->family == 4 ? 32u : 128u))
        return false;
    if (a->zone != 0 && b->zone != 0 && a->zone != b->zone)
        return false;
    return same_bits(a->bytes, b->bytes, prefix);
}

void ip_from_sockaddr(const struct sockaddr *address, struct ip *out, uint16_t *port) {
    *out = (struct ip){0};
    uint16_t network_port = 0;
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const void *)address;
        out->family = 4;
        memcpy(out->bytes, &v4->sin_addr, 4);
        network_port = v4->sin_port;
    } else if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const void *)address;
        const uint8_t *bytes = v6->sin6_addr.s6_addr;
        network_port = v6->sin6_port;
        if (memcmp(bytes, mapped_prefix, sizeof mapped_prefix) == 0) {
            out->family = 4;
            memcpy(out->bytes, bytes + 12, 4);
        } else {
            out->family = 6;
            memcpy(out->bytes, bytes, 16);
            if (ip_kind(out) == IP_LINK_LOCAL)
                out->zone = v6->sin6_scope_id;
        }
    }
    if (port)
        *port = ntohs(network_port);
}

socklen_t ip_to_sockaddr(const struct ip *ip, uint16_t port, struct sockaddr_storage *out) {
    memset(out, 0, sizeof *out);
    if (ip->family == 4) {
        struct sockaddr_in *v4 = (void *)out;
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        memcpy(&v4->sin_addr, ip->bytes, 4);
        return sizeof *v4;
    }
    if (ip->family == 6) {
        struct sockaddr_in6 *v6 = (void *)out;
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        memcpy(&v6->sin6_addr, ip->bytes, 16);
        v6->sin6_scope_id = ip->zone;
        return sizeof *v6;
    }
    return 0;
}
