#include "core/ip.h"
#include "spec/c/check.h"

#include <arpa/inet.h>

static struct ip ip_of(const char *text) {
    struct ip ip;
    if (ip_parse(text, strlen(text), &ip) != 0)
        printf("  %s does not parse\n", text), check_bad = 1;
    return ip;
}

static void literals_parse_and_format(void) {
    static const struct {
        const char *text, *canonical;
    } cases[] = {
        {"0.0.0.0", "0.0.0.0"},
        {"8.8.8.8", "8.8.8.8"},
        {"255.255.255.255", "255.255.255.255"},
        {"::", "::"},
        {"::1", "::1"},
        {"2001:DB8::A", "2001:db8::a"},
        {"2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1"},
        {"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"}, /* RFC 5952, 4.2.3 */
        {"2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"},
        {"::ffff:1.2.3.4", "::ffff:1.2.3.4"},
        {"fe80::1%lo", "fe80::1%lo"},
        {"fe80::1%1", "fe80::1%lo"},
        {"fe80::1%2000000000", "fe80::1%2000000000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[IP_TEXT_SIZE];
        struct ip ip = ip_of(cases[i].text);
        CHECK_EQ(ip_format(&ip, text), strlen(cases[i].canonical));
        CHECK_TEXT(text, cases[i].canonical);
    }
}

static void other_texts_do_not_parse(void) {
    static const char *const cases[] = {
        "",
        " ",
        "8.8.8",
        "8.8.8.8.8",
        "8.8.8.256",
        "08.8.8.8",
        "8.8.8.8 ",
        " 8.8.8.8",
        "0x8.8.8.8",
        "134744072",
        "8.8.8.8/24",
        "8.8.8.8%lo",
        "::1%lo",
        "1::2::3",
        "2001:db8:::1",
        "2001:db8::12345",
        "[::1]",
        "1:2:3:4:5:6:7",
        "fe80::1%",
        "fe80::1%no such thing",
        "fe80::1%-1",
        "fe80::1%99999999999",
        "fe80::1%0",
        "localhost",
        "2001:db8::1%lo",
        "ff02::1%lo",
        "::1.2.3",
        "1.2.3.4::",
    };
    struct ip ip;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (ip_parse(cases[i], strlen(cases[i]), &ip) == 0)
            printf("  \"%s\" parses\n", cases[i]), check_bad = 1;
    CHECK(ip_parse("8.8.8.8\0", 8, &ip) != 0);
    CHECK(ip_parse("8.8.8.88", 7, &ip) == 0 && ip.bytes[3] == 8);
    char longest[300];
    memset(longest, '1', sizeof longest);
    CHECK(ip_parse(longest, sizeof longest, &ip) != 0);
}

static void kinds_are_told(void) {
    static const struct {
        const char *text;
        enum ip_kind kind;
    } cases[] = {
        {"0.0.0.0", IP_UNSPECIFIED},
        {"0.0.0.1", IP_PRIVATE},
        {"127.0.0.1", IP_LOOPBACK},
        {"127.255.0.1", IP_LOOPBACK},
        {"128.0.0.1", IP_GLOBAL},
        {"10.255.255.255", IP_PRIVATE},
        {"11.0.0.0", IP_GLOBAL},
        {"172.15.255.255", IP_GLOBAL},
        {"172.16.0.1", IP_PRIVATE},
        {"172.31.255.255", IP_PRIVATE},
        {"172.32.0.1", IP_GLOBAL},
        {"192.168.0.1", IP_PRIVATE},
        {"192.167.255.255", IP_GLOBAL},
        {"169.254.1.1", IP_LINK_LOCAL},
        {"100.63.255.255", IP_GLOBAL},
        {"100.64.0.1", IP_SHARED},
        {"100.127.255.255", IP_SHARED},
        {"100.128.0.0", IP_GLOBAL},
        {"192.0.0.1", IP_PRIVATE},
        {"192.0.0.9", IP_GLOBAL},
        {"192.0.2.1", IP_PRIVATE},
        {"198.18.0.1", IP_PRIVATE},
        {"198.19.255.255", IP_PRIVATE},
        {"198.20.0.1", IP_GLOBAL},
        {"198.51.100.1", IP_PRIVATE},
        {"203.0.113.1", IP_PRIVATE},
        {"192.88.99.1", IP_GLOBAL},
        {"224.0.0.1", IP_MULTICAST},
        {"239.255.255.255", IP_MULTICAST},
        {"240.0.0.1", IP_PRIVATE},
        {"255.255.255.255", IP_BROADCAST},
        {"::", IP_UNSPECIFIED},
        {"::1", IP_LOOPBACK},
        {"::2", IP_GLOBAL},
        {"::ffff:8.8.8.8", IP_GLOBAL},
        {"::ffff:10.0.0.1", IP_PRIVATE},
        {"::ffff:127.0.0.1", IP_LOOPBACK},
        {"64:ff9b::8.8.8.8", IP_GLOBAL},
        {"64:ff9b::127.0.0.1", IP_LOOPBACK},
        {"64:ff9b:1::1", IP_PRIVATE},
        {"100::2", IP_PRIVATE},
        {"2000::1", IP_GLOBAL},
        {"2001::1", IP_PRIVATE},
        {"2001:2::1", IP_PRIVATE},
        {"2001:10::1", IP_PRIVATE},
        {"2001:20::1", IP_GLOBAL},
        {"2001:1::1", IP_GLOBAL},
        {"2001:1::3", IP_PRIVATE},
        {"2001:db8::1", IP_PRIVATE},
        {"2001:4860:4860::8888", IP_GLOBAL},
        {"2002:808:808::1", IP_PRIVATE},
        {"2600::1", IP_GLOBAL},
        {"fbff::1", IP_GLOBAL},
        {"fc00::1", IP_PRIVATE},
        {"fdff::1", IP_PRIVATE},
        {"fe00::1", IP_GLOBAL},
        {"fe80::1", IP_LINK_LOCAL},
        {"febf::1", IP_LINK_LOCAL},
        {"fec0::1", IP_GLOBAL},
        {"ff02::1", IP_MULTICAST},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ip ip = ip_of(cases[i].text);
        if (ip_kind(&ip) != cases[i].kind)
            printf("  %s is %d\n", cases[i].text, ip_kind(&ip)), check_bad = 1;
    }
    CHECK_EQ(ip_kind(&(struct ip){0}), IP_UNSPECIFIED);
}

static bool shared(const char *a, const char *b, unsigned prefix) {
    struct ip one = ip_of(a), other = ip_of(b);
    return ip_same_prefix(&one, &other, prefix);
}

static void prefixes_are_compared(void) {
    CHECK(shared("192.168.1.5", "192.168.1.250", 24));
    CHECK(!shared("192.168.1.5", "192.168.2.5", 24));
    CHECK(shared("192.168.2.5", "192.168.3.5", 23));
    CHECK(!shared("192.168.1.5", "192.168.2.5", 23));
    CHECK(shared("1.2.3.4", "200.2.3.4", 0));
    CHECK(shared("1.2.3.4", "1.2.3.4", 32));
    CHECK(!shared("1.2.3.4", "1.2.3.5", 32));
    CHECK(!shared("1.2.3.4", "1.2.3.4", 33));
    CHECK(shared("2001:db8::1", "2001:db8::ffff", 64));
    CHECK(shared("2001:db8::1", "2001:db8::1", 128));
    CHECK(!shared("2001:db8::1", "2001:db8::2", 127));
    CHECK(!shared("::", "0.0.0.0", 0));
    CHECK(shared("fe80::1%1", "fe80::2", 64));
    CHECK(!shared("fe80::1%1", "fe80::2%2", 64));
}

static void equality_regards_family_and_zone(void) {
    struct ip a = ip_of("fe80::1%1"), b = ip_of("fe80::1%2"), c = ip_of("fe80::1%1");
    CHECK(!ip_equal(&a, &b));
    CHECK(ip_equal(&a, &c));
    struct ip v4 = ip_of("1.2.3.4"), mapped = ip_of("::ffff:1.2.3.4");
    CHECK(!ip_equal(&v4, &mapped));
    v4.bytes[9] = 7; /* not part of an IPv4 address */
    struct ip same = ip_of("1.2.3.4");
    CHECK(ip_equal(&v4, &same));
}

static void sockets_addresses_round_trip(void) {
    static const char *const cases[] = {"1.2.3.4", "2001:db8::1", "fe80::1%1"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sockaddr_storage address;
        struct ip ip = ip_of(cases[i]), back;
        uint16_t port = 0;
        CHECK(ip_to_sockaddr(&ip, 58959, &address) > 0);
        ip_from_sockaddr((struct sockaddr *)&address, &back, &port);
        CHECK(ip_equal(&ip, &back));
        CHECK_EQ(port, 58959);
        ip_from_sockaddr((struct sockaddr *)&address, &back, NULL);
        CHECK(ip_equal(&ip, &back));
    }
    struct sockaddr_storage other = {.ss_family = AF_UNIX};
    struct ip ip;
    uint16_t port = 1;
    ip_from_sockaddr((struct sockaddr *)&other, &ip, &port);
    CHECK_EQ(ip.family, 0);
    CHECK_EQ(port, 0);
    CHECK_EQ(ip_to_sockaddr(&ip, 1, &other), 0);
}

static void mapped_addresses_of_sockets_become_ipv4(void) {
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(80)};
    struct ip ip, wanted = ip_of("1.2.3.4");
    inet_pton(AF_INET6, "::ffff:1.2.3.4", &address.sin6_addr);
    ip_from_sockaddr((struct sockaddr *)&address, &ip, NULL);
    CHECK(ip_equal(&ip, &wanted));
    inet_pton(AF_INET6, "2001:db8::1", &address.sin6_addr);
    address.sin6_scope_id = 3; /* means nothing for a global address */
    ip_from_sockaddr((struct sockaddr *)&address, &ip, NULL);
    CHECK_EQ(ip.zone, 0);
}

int main(void) {
    RUN(literals_parse_and_format);
    RUN(other_texts_do_not_parse);
    RUN(kinds_are_told);
    RUN(prefixes_are_compared);
    RUN(equality_regards_family_and_zone);
    RUN(sockets_addresses_round_trip);
    RUN(mapped_addresses_of_sockets_become_ipv4);
    return check_report();
}
