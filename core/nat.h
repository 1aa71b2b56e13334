/* nat: what stands between us and the world, from what servers have said of us.
 *
 * Provides  struct nat_seen and struct nat_filter_test, the observations; nat_classify
 * Uses      addr (types and deltas), ip, nat_model (its words for mapping and filtering)
 * Pure: no I/O; the same observations give the same answer.
 *
 * Each explanation (how it maps, which port comes next, which server lies) costs as many bits as
 * the observations surprise it, and as many as it takes to say: the cheapest is the answer, and by
 * how much it is cheaper than the others is its confidence. So answers that are missing, ports that
 * others took and the ends of the range cost a little, and a wrong explanation costs much. */
#ifndef CORE_NAT_H
#define CORE_NAT_H

#include "core/addr.h"
#include "core/ip.h"
#include "core/nat_model.h"

#define NAT_SEEN_MAX 256 /* what comes after these is not looked at */
#define NAT_TESTS_MAX 32

/* A Binding request (RFC 8489) from one of our ports, and what the server saw. In the order in
 * which the first packet of each left us: of several with one local port and one server the first
 * made the mapping. */
struct nat_seen {
    struct ip server, external; /* external: family 0 when no answer came */
    uint16_t local_port, server_port, external_port;
    bool refused;   /* instead of an answer, RST or ICMP came: packets get there */
    unsigned tries; /* requests or connections without an answer, when none came */
};

/* A request to answer from elsewhere (RFC 5780, 4.4), from a port that had sent to this server and
 * to nobody else. */
struct nat_filter_test {
    struct ip server, from; /* `from`: whence the answer is to come; the server's other address, */
    uint16_t server_port, from_port; /* or another port of the same one */
    bool answered;
    unsigned tries;
};

struct nat_observations {
    enum nat_protocol protocol; /* NAT_UDP or NAT_TCP */
    struct ip local;            /* our own address */
    const struct nat_seen *seen;
    size_t seen_count;
    const struct nat_filter_test *tests; /* of TCP, those of UDP: only UDP has them */
    size_t test_count;
    bool udp_silent; /* of TCP: nothing came back by UDP */
    /* Of TCP: a relay (RFC 6062) connected to our mapping, or failed to; else 0. */
    int stranger; /* 1: it came in, -1: it did not */
};

struct nat_report {
    enum addr_nat type;
    enum addr_delta delta;
    int value;            /* of independent and dependent, else 0 */
    uint16_t first, last; /* the external ports, as far as they show; 0 when they do not */
    bool translated;
    enum nat_scope mapping, filtering;
    struct ip external; /* family 0: not known */
    struct ip liar;     /* a server that says what cannot be; family 0: none */
    double confidence;  /* of type and delta together, 0 to 1 */
    double type_confidence, delta_confidence;
};

void nat_classify(const struct nat_observations *observations, struct nat_report *out);

/* The ports to which a router that blocks everything else lets TCP pass, as a rule. */
bool nat_is_common_port(uint16_t port);

#endif
