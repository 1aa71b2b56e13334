/* ip: IP addresses as values: parse, format, classify, convert to and from sockets' form.
 *
 * Provides  struct ip and what can be asked of one
 * Uses      nothing of ours
 * Pure: no I/O; a zone ("%eth0") is turned into its index by the system's table of interfaces. */
#ifndef CORE_IP_H
#define CORE_IP_H

#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* "ffff:…:255.255.255.255%interfacename" and the final NUL. */
#define IP_TEXT_SIZE (INET6_ADDRSTRLEN + IF_NAMESIZE + 1)

struct ip {
    uint8_t family;    /* 4 or 6; 0 when it holds no address */
    uint8_t bytes[16]; /* network order; an IPv4 address lies in the first four */
    uint32_t zone;     /* interface index of a link-local IPv6 address, else 0 (RFC 4007, 11) */
};

enum ip_kind {
    IP_UNSPECIFIED, /* 0.0.0.0, :: */
    IP_LOOPBACK,    /* 127/8, ::1 */
    IP_LINK_LOCAL,  /* 169.254/16 (RFC 3927), fe80::/10 (RFC 4291) */
    IP_PRIVATE,     /* RFC 1918, fc00::/7 (RFC 4193), others kept from the Internet (RFC 6890) */
    IP_SHARED,      /* 100.64/10, carriers' NATs (RFC 6598) */
    IP_MULTICAST,   /* 224/4, ff00::/8 */
    IP_BROADCAST,   /* 255.255.255.255 */
    IP_GLOBAL,
};

/* Parses an IP literal of `length` bytes, "%zone" allowed after a link-local IPv6 address; no
 * prefix length, no spaces, no leading zeros in IPv4. Returns 0 or UV_EINVAL. */
int ip_parse(const char *text, size_t length, struct ip *out);

/* Writes the canonical text (RFC 5952, zone by name when it has one) and the final NUL; returns its
 * length. */
size_t ip_format(const struct ip *ip, char out[IP_TEXT_SIZE]);

enum ip_kind ip_kind(const struct ip *ip);
bool ip_equal(const struct ip *a, const struct ip *b);

/* Whether both lie in one subnet of `prefix` bits. */
bool ip_same_prefix(const struct ip *a, const struct ip *b, unsigned prefix);

/* An IPv4-mapped IPv6 address (::ffff:a.b.c.d) becomes the IPv4 address. Other families give family
 * 0. */
void ip_from_sockaddr(const struct sockaddr *address, struct ip *out, uint16_t *port);
socklen_t ip_to_sockaddr(const struct ip *ip, uint16_t port, struct sockaddr_storage *out);

#endif
