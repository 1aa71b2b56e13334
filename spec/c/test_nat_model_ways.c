/* Ways that are not simply out and in: hairpins, pings, ICMP errors, IPv6. */
#include "spec/c/nat_router.h"

static void hairpin_router(const char *type) {
    name(type, "random", 0);
    config.hairpin = true;
    start(1);
}

static uint16_t to_ourselves(enum nat_protocol protocol, uint8_t flags, unsigned host,
                             uint16_t local, uint16_t external) {
    return go_out(protocol, flags, host, local, external_ip(0), external);
}

/* RFC 4787, REQ-9: the source is external as well. */
static void a_hairpin_shows_the_external_source(void) {
    hairpin_router("full-cone");
    uint16_t a = udp_out(10, 5000, SERVER, 1000), b = udp_out(11, 6000, SERVER, 1000);
    CHECK_EQ(to_ourselves(NAT_UDP, 0, 10, 5000, b), a);
    CHECK_EQ(verdict, NAT_HAIRPIN);
    CHECK_EQ(reason, NAT_MAPPED);
    struct ip external = external_ip(0);
    CHECK(ip_equal(&sent.source, &external));
    CHECK(is_host(11, 6000));
    CHECK_EQ(to_ourselves(NAT_UDP, 0, 11, 6000, a), b);
    CHECK(is_host(10, 5000));
    uint16_t c = to_ourselves(NAT_UDP, 0, 12, 7000, a); /* who was never out gets a mapping */
    CHECK(c != 0);
    CHECK_EQ(reason, NAT_MAPPED_NEW);
    CHECK(udp_in(SERVER, 1, c));
}

static void without_hairpins_nothing_comes_back(void) {
    router("full-cone", "random", 0);
    uint16_t b = udp_out(11, 6000, SERVER, 1000);
    CHECK_EQ(to_ourselves(NAT_UDP, 0, 10, 5000, b), 0);
    CHECK_EQ(verdict, NAT_DROP);
    CHECK_EQ(reason, NAT_NO_HAIRPIN);
    CHECK_EQ(mappings(), 1);
}

static void filters_apply_to_hairpins(void) {
    hairpin_router("port-restricted");
    uint16_t a = udp_out(10, 5000, SERVER, 1000), b = udp_out(11, 6000, SERVER, 1000);
    CHECK_EQ(to_ourselves(NAT_UDP, 0, 10, 5000, b), 0);
    CHECK_EQ(verdict, NAT_DROP);
    CHECK_EQ(reason, NAT_FILTERED);
    CHECK_EQ(to_ourselves(NAT_UDP, 0, 11, 6000, a), b); /* the first one has opened this way */
    CHECK_EQ(to_ourselves(NAT_UDP, 0, 10, 5000, b), a);
    CHECK_EQ(to_ourselves(NAT_UDP, 0, 10, 5000, a == 2000 ? 2001 : 2000), 0);
    CHECK_EQ(reason, NAT_NO_MAPPING);
    hairpin_router("symmetric"); /* each has another mapping for the other: they cannot meet */
    a = udp_out(10, 5000, SERVER, 1000);
    b = udp_out(11, 6000, SERVER, 1000);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(to_ourselves(NAT_UDP, 0, 10, 5000, b), 0);
        CHECK_EQ(to_ourselves(NAT_UDP, 0, 11, 6000, a), 0);
    }
}

static void tcp_hairpins(void) {
    name("port-restricted", "random", 0);
    config.hairpin = true;
    config.protocols[NAT_TCP].uninvited = NAT_UNINVITED_RESET;
    start(1);
    uint16_t a = go_out(NAT_TCP, SYN, 10, 5000, server_ip(SERVER), 1000);
    uint16_t b = go_out(NAT_TCP, SYN, 11, 6000, server_ip(SERVER), 1000);
    CHECK_EQ(to_ourselves(NAT_TCP, SYN, 10, 5000, b), 0);
    CHECK_EQ(verdict, NAT_ANSWER_RESET);
    CHECK_EQ(to_ourselves(NAT_TCP, SYN, 11, 6000, a), b); /* a simultaneous open */
    CHECK_EQ(verdict, NAT_HAIRPIN);
    CHECK_EQ(to_ourselves(NAT_TCP, SYN | ACK, 10, 5000, b), a);
    CHECK_EQ(to_ourselves(NAT_TCP, ACK, 11, 6000, a), b);
    CHECK(is_host(10, 5000));
    now_ms += 7000 * SECOND;
    CHECK_EQ(to_ourselves(NAT_TCP, ACK, 10, 5000, b), a);
}

static void a_host_reaches_itself(void) {
    hairpin_router("port-restricted");
    uint16_t a = udp_out(10, 5000, SERVER, 1000);
    CHECK_EQ(to_ourselves(NAT_UDP, 0, 10, 5000, a), a);
    CHECK_EQ(verdict, NAT_HAIRPIN);
    CHECK(is_host(10, 5000));
}

/* Echo: the identifier is the port of who asks. */
static void pings_pass_by_their_identifier(void) {
    router("port-restricted", "random", 0);
    uint16_t external = go_out(NAT_ICMP, 0, HOST, 77, server_ip(SERVER), 0);
    CHECK(external != 0);
    CHECK_EQ(sent.destination_port, 0);
    CHECK(go_in(NAT_ICMP, 0, server_ip(SERVER), 0, external_ip(0), external));
    CHECK(is_host(HOST, 77));
    CHECK(!go_in(NAT_ICMP, 0, server_ip(OTHER), 0, external_ip(0), external));
    CHECK_EQ(reason, NAT_FILTERED);
    CHECK(!go_in(NAT_ICMP, 0, server_ip(SERVER), external, external_ip(0), 0)); /* asked by it */
    CHECK_EQ(reason, NAT_NO_MAPPING);
    CHECK_EQ(go_out(NAT_ICMP, 0, HOST, 0, server_ip(SERVER), 77), 0); /* nobody has asked */
    CHECK_EQ(reason, NAT_BAD_STATE);
    uint16_t same = go_out(NAT_ICMP, 0, HOST + 1, 77, server_ip(SERVER), 0);
    CHECK(same != 0 && same != external);
    config.hairpin = true;
    nat_model_configure(model, &config, false);
    CHECK_EQ(go_out(NAT_ICMP, 0, HOST, 77, external_ip(0), 0), 0); /* the router answers itself */
    CHECK_EQ(reason, NAT_NO_HAIRPIN);
    now_ms += 60 * SECOND; /* RFC 5508, REQ-2 */
    CHECK(!go_in(NAT_ICMP, 0, server_ip(SERVER), 0, external_ip(0), external));
}

static bool error(bool inbound, enum nat_protocol protocol, struct ip from, uint16_t port,
                  struct ip to, uint16_t to_port) {
    sent = (struct nat_packet){protocol, from, to, port, to_port, 0};
    struct nat_packet before = sent;
    if (nat_model_error(model, now_ms, inbound, &sent) == NAT_PASS)
        return true;
    CHECK(is_unchanged(&before));
    return false;
}

static void an_error_about_what_went_out_finds_its_host(void) {
    struct ip host = inside_ip(HOST);
    for (enum nat_protocol protocol = NAT_UDP; protocol < NAT_PROTOCOLS; protocol++) {
        uint16_t port = protocol == NAT_ICMP ? 0 : 1000;
        router("symmetric", "random", 0);
        uint16_t external = begin_out(protocol, 5000, SERVER, port);
        CHECK(error(true, protocol, external_ip(0), external, server_ip(SERVER), port));
        CHECK(ip_equal(&sent.source, &host));
        CHECK_EQ(sent.source_port, 5000);
        CHECK_EQ(sent.destination_port, port);
        CHECK(!error(true, protocol, external_ip(0), external, server_ip(OTHER), port));
        CHECK(!error(true, protocol, external_ip(0), external ^ 1, server_ip(SERVER), port));
        enum nat_protocol another = (protocol + 1) % NAT_PROTOCOLS;
        CHECK(!error(true, another, external_ip(0), external, server_ip(SERVER), port));
        CHECK_EQ(mappings(), 1);
    }
}

static void an_error_about_what_came_in_shows_the_external_address(void) {
    struct ip external = external_ip(0);
    router("full-cone", "random", 0);
    uint16_t port = udp_out(HOST, 5000, SERVER, 1000);
    CHECK(error(false, NAT_UDP, server_ip(SERVER), 1000, inside_ip(HOST), 5000));
    CHECK(ip_equal(&sent.destination, &external));
    CHECK_EQ(sent.destination_port, port);
    CHECK(udp_in(OTHER, 9, port)); /* without a session, as nothing went there */
    CHECK(error(false, NAT_UDP, server_ip(OTHER), 9, inside_ip(HOST), 5000));
    CHECK_EQ(sent.destination_port, port);
    CHECK(!error(false, NAT_UDP, server_ip(SERVER), 1000, inside_ip(HOST), 5001));
    CHECK(!error(false, NAT_TCP, server_ip(SERVER), 1000, inside_ip(HOST), 5000));
}

/* RFC 5508, REQ-6: not even a hard error ends or refreshes anything. */
static void errors_change_nothing(void) {
    router("port-restricted", "random", 0);
    uint16_t external = udp_out(HOST, 5000, SERVER, 1000);
    now_ms += 299 * SECOND;
    CHECK(error(true, NAT_UDP, external_ip(0), external, server_ip(SERVER), 1000));
    CHECK(udp_in(SERVER, 1000, external));
    now_ms += 1 * SECOND;
    CHECK(!error(true, NAT_UDP, external_ip(0), external, server_ip(SERVER), 1000));
    CHECK_EQ(mappings(), 0);
}

static void errors_where_nothing_is_translated(void) {
    router("open", "na", 0);
    CHECK(error(true, NAT_UDP, inside_ip(HOST), 5000, server_ip(SERVER), 1000));
    CHECK(error(false, NAT_UDP, server_ip(SERVER), 1000, inside_ip(HOST), 5000));
    router("udp-firewall", "na", 0);
    CHECK(!error(true, NAT_UDP, inside_ip(HOST), 5000, server_ip(SERVER), 1000));
    udp_out(HOST, 5000, SERVER, 1000);
    CHECK(error(true, NAT_UDP, inside_ip(HOST), 5000, server_ip(SERVER), 1000));
    CHECK_EQ(sent.source_port, 5000);
    router("blocked", "na", 0);
    CHECK(!error(true, NAT_UDP, external_ip(0), 5000, server_ip(SERVER), 1000));
    uint16_t external = tcp_out(SYN, 5000, SERVER, 443);
    CHECK(error(true, NAT_TCP, external_ip(0), external, server_ip(SERVER), 443));
}

static struct ip ip6(uint8_t subnet, uint8_t number) {
    return (struct ip){.family = 6, .bytes = {0x2c, 0x0f, 0, 0x30, 0, subnet, [15] = number}};
}

static enum nat_verdict send6(bool out, enum nat_protocol protocol, uint8_t flags, struct ip from,
                              uint16_t port, struct ip to, uint16_t to_port) {
    sent = (struct nat_packet){protocol, from, to, port, to_port, flags};
    struct nat_packet before = sent;
    verdict = (out ? nat_model_out : nat_model_in)(model, now_ms, &sent, &reason);
    CHECK(is_unchanged(&before));
    return verdict;
}

static void ipv6_is_firewalled(void) {
    struct ip host = ip6(3, 10), server = ip6(1, 1), other = ip6(1, 2);
    nat_config_firewall(NAT_ENDPOINT_INDEPENDENT, &config);
    CHECK_EQ(config.external_count, 0);
    start(1);
    for (enum nat_protocol protocol = NAT_UDP; protocol < NAT_PROTOCOLS; protocol++) {
        uint16_t port = protocol == NAT_ICMP ? 0 : 1000;
        CHECK_EQ(send6(false, protocol, SYN, server, port, host, 5000), NAT_DROP);
        CHECK_EQ(reason, NAT_NO_MAPPING);
        CHECK_EQ(send6(true, protocol, SYN, host, 5000, server, port), NAT_PASS);
        CHECK_EQ(reason, NAT_UNTRANSLATED);
        CHECK_EQ(send6(false, protocol, SYN | ACK, server, port, host, 5000), NAT_PASS);
        CHECK_EQ(reason, NAT_UNTRANSLATED);
        CHECK_EQ(send6(false, protocol, SYN, other, port, host, 5000), NAT_PASS); /* REC-11, 33 */
        CHECK_EQ(send6(false, protocol, SYN, other, port, host, 5001), NAT_DROP);
        CHECK_EQ(send6(false, protocol, SYN, other, port, ip6(3, 11), 5000), NAT_DROP);
    }
    CHECK_EQ(mappings(), 3);
    now_ms += 300 * SECOND;
    CHECK_EQ(send6(false, NAT_UDP, 0, server, 1000, host, 5000), NAT_DROP);
}

static void ipv6_filters_can_be_strict(void) {
    struct ip host = ip6(3, 10), server = ip6(1, 1), other = ip6(1, 2);
    nat_config_firewall(NAT_ADDRESS_AND_PORT_DEPENDENT, &config);
    config.protocols[NAT_TCP].uninvited = NAT_UNINVITED_UNREACHABLE;
    start(1);
    send6(true, NAT_TCP, SYN, host, 5000, server, 1000);
    CHECK_EQ(send6(false, NAT_TCP, SYN, other, 1000, host, 5000), NAT_ANSWER_UNREACHABLE);
    CHECK_EQ(send6(false, NAT_TCP, SYN, server, 1001, host, 5000), NAT_ANSWER_UNREACHABLE);
    CHECK_EQ(send6(false, NAT_TCP, SYN, server, 1000, host, 5000), NAT_PASS);
}

int main(void) {
    RUN(a_hairpin_shows_the_external_source);
    RUN(without_hairpins_nothing_comes_back);
    RUN(filters_apply_to_hairpins);
    RUN(tcp_hairpins);
    RUN(a_host_reaches_itself);
    RUN(pings_pass_by_their_identifier);
    RUN(an_error_about_what_went_out_finds_its_host);
    RUN(an_error_about_what_came_in_shows_the_external_address);
    RUN(errors_change_nothing);
    RUN(errors_where_nothing_is_translated);
    RUN(ipv6_is_firewalled);
    RUN(ipv6_filters_can_be_strict);
    return report();
}
