/* portmap: asks a router about port mappings by NAT-PMP, and reads a UPnP gateway's description.
 *
 * Provides  natpmp_ask, igd_fetch
 * Uses      libnatpmp, miniupnpc
 * Everything here blocks, and hands what a router sent to parsers of others: it is called in a
 * process of its own, which has a deadline and little memory (bindings/portmap.c). */
#ifndef CORE_PORTMAP_H
#define CORE_PORTMAP_H

#include <netinet/in.h>
#include <stdint.h>

struct natpmp_request {
    struct in_addr gateway;
    uint8_t protocol; /* IPPROTO_TCP, IPPROTO_UDP; 0 asks for the external address alone */
    uint16_t internal_port;
    uint16_t external_port; /* the one that is wanted */
    uint32_t lifetime_s;    /* 0 removes the mapping (RFC 6886, 3.4) */
};

struct natpmp_answer {
    struct in_addr external;
    uint16_t external_port; /* the one that was given */
    uint32_t lifetime_s;
    uint32_t epoch_s; /* since the router forgot all mappings (RFC 6886, 3.6) */
};

/* Returns 0 with the fields that were asked for, or a status: UV_ECONNREFUSED (nobody is there),
 * UV_ETIMEDOUT, ERR_EFORMAT (all that came is no answer), UV_ENOTSUP (another version, or not this
 * operation), UV_EACCES (refused), UV_ENETDOWN (the router has no external address), UV_ENOBUFS
 * (it has no port left), or what the system said. */
int natpmp_ask(const struct natpmp_request *request, unsigned timeout_ms,
               struct natpmp_answer *answer);

#define IGD_URL_SIZE 512
#define IGD_TYPE_SIZE 128
#define IGD_NAME_SIZE 64
#define IGD_WANS 2

struct igd_service {
    char control[IGD_URL_SIZE]; /* where it is asked; empty: there is none */
    char type[IGD_TYPE_SIZE];   /* "urn:schemas-upnp-org:service:WANIPConnection:1", … */
};

struct igd {
    struct igd_service wan[IGD_WANS]; /* WANIPConnection, WANPPPConnection */
    struct igd_service firewall;      /* WANIPv6FirewallControl */
    char internal_ip[INET6_ADDRSTRLEN];
    char name[IGD_NAME_SIZE]; /* its friendly name */
};

/* Fetches the description of the device whose SSDP answer named this location. Returns 0, UV_EIO
 * (there is none to be had), UV_EMSGSIZE (it is too long), or ERR_EFORMAT (it is not a gateway's).
 */
int igd_fetch(const char *location, struct igd *igd);

#endif
