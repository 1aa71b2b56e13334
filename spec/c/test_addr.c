#include "core/addr.h"
#include "spec/c/check.h"

#include <stdlib.h>
#include <uv.h>

#define SEED "0,1-[1,0,8.8.8.8,192.168.21.21,58959,3,2,0]-0-zmUGXPOFxUBuToh-easdasd"

static int parse(const char *text, struct addr *out, struct addr_error *error) {
    /* Copied to a place of exactly its size, so that the sanitizer sees a step too far. */
    size_t length = strlen(text);
    char *copy = malloc(length + !length);
    memcpy(copy, text, length);
    int status = addr_parse(copy, length, out, error);
    free(copy);
    return status;
}

static void the_seeds_example_parses(void) {
    struct addr addr;
    char text[ADDR_TEXT_SIZE], ip[IP_TEXT_SIZE];
    CHECK_EQ(parse(SEED, &addr, NULL), 0);
    CHECK_EQ(addr.signal_count, 2);
    CHECK_EQ(addr.signal[0], 0);
    CHECK_EQ(addr.signal[1], 1);
    CHECK_EQ(addr.ipv4.count, 1);
    CHECK_EQ(addr.ipv6.count, 0);
    const struct addr_interface *entry = &addr.ipv4.interfaces[0];
    CHECK_EQ(entry->netiface_index, 1);
    CHECK_EQ(entry->if_index, 0);
    ip_format(&entry->external, ip);
    CHECK_TEXT(ip, "8.8.8.8");
    ip_format(&entry->internal, ip);
    CHECK_TEXT(ip, "192.168.21.21");
    CHECK_EQ(entry->port, 58959);
    CHECK_EQ(entry->nat, ADDR_NAT_FULL_CONE);
    CHECK_EQ(entry->delta, ADDR_DELTA_EQUAL);
    CHECK_EQ(entry->delta_value, 0);
    CHECK_TEXT(addr.node_id, "zmUGXPOFxUBuToh");
    CHECK_TEXT(addr.machine_id, "easdasd");
    CHECK(!addr.ours);
    CHECK_EQ(addr_format(&addr, text), strlen(SEED));
    CHECK_TEXT(text, SEED);
}

static void texts_are_written_in_one_form(void) {
    static const struct {
        const char *read, *written;
    } cases[] = {
        {"None-0-0-a-b", "None-0-0-a-b"},
        {"14,0,0-0-0-a-b", "14,0,0-0-0-a-b"},
        {"None-0-[1,0,2001:DB8::A,FE80::1%eth0,10001,1,1,0]-a-b",
         "None-0-[1,0,2001:0db8:0000:0000:0000:0000:0000:000a,"
         "fe80:0000:0000:0000:0000:0000:0000:0001,10001,1,1,0]-a-b"},
        {"None-0-[1,0,::ffff:1.2.3.4,fe80::1,10001,1,1,0]-a-b",
         "None-0-[1,0,0000:0000:0000:0000:0000:ffff:0102:0304,"
         "fe80:0000:0000:0000:0000:0000:0000:0001,10001,1,1,0]-a-b"},
        {"0-[2,1,8.8.8.8,10.0.0.2,1,7,6,65535]|[1,0,8.8.4.4,10.0.1.2,65535,1,1,0]-0-x_y.z:@/-m",
         "0-[2,1,8.8.8.8,10.0.0.2,1,7,6,65535]|[1,0,8.8.4.4,10.0.1.2,65535,1,1,0]-0-x_y.z:@/-m"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct addr addr;
        char text[ADDR_TEXT_SIZE];
        CHECK_EQ(parse(cases[i].read, &addr, NULL), 0);
        addr_format(&addr, text);
        CHECK_TEXT(text, cases[i].written);
        CHECK_EQ(parse(text, &addr, NULL), 0);
    }
}

static void refusals_name_field_and_reason(void) {
#define ENTRY(entry) "0-" entry "-0-node-mach"
#define FIRST "[1,0,8.8.8.8,192.168.21.21,10001,5,6,0]"
    static const struct {
        const char *text, *field, *reason;
    } cases[] = {
        {"", "address", "it should have 5 sections, between '-', and has 1"},
        {"0-0-0-a-b-c", "address", "it should have 5 sections, between '-', and has 6"},
        {"-0-0-a-b", "signal offset 1", "it is empty"},
        {"0,,1-0-0-a-b", "signal offset 2", "it is empty"},
        {"0,15-0-0-a-b", "signal offset 2", "15 is not between 0 and 14"},
        {"0,1,2,3,4,5,6-0-0-a-b", "signal", "it has 7 offsets; at most 6 are allowed"},
        {"+1-0-0-a-b", "signal offset 1", "'+1' is no plain decimal number"},
        {"01-0-0-a-b", "signal offset 1", "'01' has a leading zero"},
        {"99999999999-0-0-a-b", "signal offset 1", "'99999999999' is too large"},
        {ENTRY(""), "ipv4 interface 1", "it is not in square brackets"},
        {ENTRY("00"), "ipv4 interface 1", "it is not in square brackets"},
        {ENTRY("["), "ipv4 interface 1", "it is not in square brackets"},
        {ENTRY(FIRST "|"), "ipv4 interface 2", "it is not in square brackets"},
        {ENTRY("[1,0,8.8.8.8,192.168.21.21,10001,5,6]"), "ipv4 interface 1",
         "it should have 8 fields, and has 7"},
        {ENTRY("[]"), "ipv4 interface 1", "it should have 8 fields, and has 1"},
        {ENTRY(FIRST "|[1,1,8.8.8.8,192.168.21.21,65536,5,6,0]"), "ipv4 interface 2: port",
         "65536 is not between 1 and 65535"},
        {ENTRY("[1,0,8.8.8.8,192.168.21.21,0,5,6,0]"), "ipv4 interface 1: port",
         "0 is not between 1 and 65535"},
        {ENTRY("[x,0,8.8.8.8,192.168.21.21,1,5,6,0]"), "ipv4 interface 1: netiface index",
         "'x' is no plain decimal number"},
        {ENTRY("[1,4294967296,8.8.8.8,192.168.21.21,1,5,6,0]"), "ipv4 interface 1: if index",
         "4294967296 is not between 0 and 2147483647"},
        {ENTRY("[1,0,8.8.8.8,192.168.21.21,1,8,6,0]"), "ipv4 interface 1: nat type",
         "8 is not between 1 and 7"},
        {ENTRY("[1,0,8.8.8.8,192.168.21.21,1,5,0,0]"), "ipv4 interface 1: delta type",
         "0 is not between 1 and 6"},
        {ENTRY("[1,0,8.8.8.8,192.168.21.21,1,5,6,65536]"), "ipv4 interface 1: delta value",
         "65536 is not between 0 and 65535"},
        {ENTRY("[1,0,,192.168.21.21,1,5,6,0]"), "ipv4 interface 1: external ip", "it is empty"},
        {ENTRY("[1,0,example.com,1.1.1.1,1,5,6,0]"), "ipv4 interface 1: external ip",
         "'example.com' is no IPv4 address"},
        {ENTRY("[1,0,8.8.8.8,fe80::1,1,5,6,0]"), "ipv4 interface 1: internal ip",
         "'fe80::1' is an IPv6 address"},
        {"0-0-[1,0,1.2.3.4,fe80::1,1,5,6,0]-a-b", "ipv6 interface 1: external ip",
         "'1.2.3.4' is an IPv4 address"},
        {"0-0-[1,0,2001:db8::1,fe80::1%,1,5,6,0]-a-b", "ipv6 interface 1: internal ip",
         "'fe80::1%' is no IPv6 address"},
        {"0-0-[1,0,2001:db8::1%eth0,fe80::1,1,5,6,0]-a-b", "ipv6 interface 1: external ip",
         "'2001:db8::1%eth0' is no IPv6 address"},
        {"0-0-[1,0,2001:db8::1,fe80::1%0123456789abcdef,1,5,6,0]-a-b",
         "ipv6 interface 1: internal ip", "'fe80::1%0123456789abcdef' is no IPv6 address"},
        {ENTRY("[1,0,10.0.0.1,192.168.21.21,1,5,6,0]"), "ipv4 interface 1: external ip",
         "10.0.0.1 cannot be reached from outside, nor is it the internal one"},
        {ENTRY("[1,0,224.0.0.1,224.0.0.1,1,5,6,0]"), "ipv4 interface 1: internal ip",
         "224.0.0.1 is not the address of one computer"},
        {ENTRY("[1,0,8.8.8.8,0.0.0.0,1,5,6,0]"), "ipv4 interface 1: internal ip",
         "0.0.0.0 is not the address of one computer"},
        {ENTRY(FIRST "|[2,0,8.8.4.4,192.168.21.21,10001,5,6,0]"), "ipv4 interface 2: if index",
         "0 is that of interface 1 too"},
        {ENTRY(FIRST "|" FIRST "|" FIRST "|" FIRST), "ipv4",
         "it has 4 interfaces; at most 3 are allowed"},
        {"0-0-0--b", "node id", "it is empty"},
        {"0-0-0-a-", "machine id", "it is empty"},
        {"0-0-0-no de-b", "node id", "character 3 is a '-', or not printable ASCII"},
        {"0-0-0-a-b\n", "machine id", "character 2 is a '-', or not printable ASCII"},
        {"0-0-0-n\xc3\xb6-b", "node id", "character 2 is a '-', or not printable ASCII"},
        {"0-0-0-12345678901234567890123456789012345678901234567890123456789012345-b", "node id",
         "it has 65 characters; at most 64 are allowed"},
        {"\x1b[2J-0-0-a-b", "signal offset 1", "'?[2J' is no plain decimal number"},
        {"0123456789012345678901234567890123456789x-0-0-a-b", "signal offset 1",
         "'0123456789012345678901234567890123...' is no plain decimal number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct addr addr;
        struct addr_error error;
        CHECK_EQ(parse(cases[i].text, &addr, &error), UV_EINVAL);
        CHECK_TEXT(error.field, cases[i].field);
        CHECK_TEXT(error.reason, cases[i].reason);
        CHECK_EQ(parse(cases[i].text, &addr, NULL), UV_EINVAL);
    }
}

static void zero_bytes_do_not_end_a_text(void) {
    struct addr addr;
    CHECK_EQ(addr_parse("0-0-0-a\0x-b", 11, &addr, NULL), UV_EINVAL);
    CHECK_EQ(addr_parse("0-0-0-a-b\0", 10, &addr, NULL), UV_EINVAL);
    CHECK_EQ(addr_parse("0\0-0-0-a-b", 10, &addr, NULL), UV_EINVAL);
    CHECK_EQ(addr_parse("None\0-0-0-a-b", 13, &addr, NULL), UV_EINVAL);
    CHECK_EQ(addr_parse(NULL, 0, &addr, NULL), UV_EINVAL);
}

static void local_addresses_stand_for_themselves_only(void) {
    static const struct {
        const char *text;
        int status;
    } cases[] = {
        {ENTRY("[1,0,127.0.0.1,127.0.0.1,1,5,6,0]"), 0},
        {ENTRY("[1,0,127.0.0.1,127.0.0.2,1,5,6,0]"), UV_EINVAL},
        {ENTRY("[1,0,192.168.1.5,192.168.1.5,1,5,6,0]"), 0},
        {ENTRY("[1,0,169.254.1.5,169.254.1.5,1,5,6,0]"), 0},
        {ENTRY("[1,0,169.254.1.5,8.8.8.8,1,5,6,0]"), UV_EINVAL},
        {ENTRY("[1,0,240.0.0.1,192.168.1.5,1,5,6,0]"), UV_EINVAL},
        {ENTRY("[1,0,100.64.0.1,192.168.1.5,1,5,6,0]"), 0},
        {ENTRY("[1,0,192.0.2.1,192.168.1.5,1,5,6,0]"), 0},
        {ENTRY("[1,0,198.51.100.1,192.168.1.5,1,5,6,0]"), 0},
        {ENTRY("[1,0,203.0.113.7,192.168.1.5,1,5,6,0]"), 0},
        {ENTRY("[1,0,198.19.0.7,192.168.1.5,1,5,6,0]"), 0},
        {"0-0-[1,0,fd00::1,fe80::1,1,5,6,0]-a-b", 0},
        {"0-0-[1,0,::1,::1,1,5,6,0]-a-b", 0},
        {"0-0-[1,0,::1,fe80::1,1,5,6,0]-a-b", UV_EINVAL},
        {"0-0-[1,0,fe80::1%eth0,fe80::1,1,5,6,0]-a-b", 0},
        {"0-0-[1,0,ff02::1,fe80::1,1,5,6,0]-a-b", UV_EINVAL},
        {"0-0-[1,0,::,fe80::1,1,5,6,0]-a-b", UV_EINVAL},
        {"0-0-[1,0,::ffff:127.0.0.1,fe80::1,1,5,6,0]-a-b", UV_EINVAL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct addr addr;
        int status = parse(cases[i].text, &addr, NULL);
        if (status != cases[i].status)
            printf("  %s\n", cases[i].text);
        CHECK_EQ(status, cases[i].status);
    }
}

static void a_peer_with_a_key_is_one_of_ours(void) {
    struct addr addr;
    struct key *key;
    char text[ADDR_TEXT_SIZE];
    CHECK_EQ(key_generate(&key), 0);
    snprintf(text, sizeof text, "0-0-0-%s-m", key_id(key));
    CHECK_EQ(parse(text, &addr, NULL), 0);
    CHECK(addr.ours);
    CHECK(memcmp(addr.key, key_public(key), KEY_PUBLIC_SIZE) == 0);
    key_drop(key);
    CHECK_EQ(parse(SEED, &addr, NULL), 0);
    CHECK(!addr.ours);
    CHECK_EQ(addr.key[0], 0);
}

static void what_is_built_in_c_is_checked_as_well(void) {
    struct addr addr;
    struct addr_error error;
    CHECK_EQ(parse(SEED, &addr, NULL), 0);
    CHECK_EQ(addr_check(&addr, &error), 0);
    addr.signal[0] = 15;
    CHECK_EQ(addr_check(&addr, &error), UV_EINVAL);
    CHECK_TEXT(error.field, "signal offset 1");
    addr.signal[0] = 0;
    addr.signal_count = ADDR_SIGNAL_MAX + 1;
    CHECK_EQ(addr_check(&addr, &error), UV_EINVAL);
    addr.signal_count = 0;
    addr.ipv4.count = ADDR_INTERFACES_MAX + 1;
    CHECK_EQ(addr_check(&addr, &error), UV_EINVAL);
    addr.ipv4.count = 1;
    addr.ipv4.interfaces[0].nat = 0;
    CHECK_EQ(addr_check(&addr, &error), UV_EINVAL);
    CHECK_TEXT(error.field, "ipv4 interface 1: nat type");
    addr.ipv4.interfaces[0].nat = 1;
    addr.ipv4.interfaces[0].external.family = 6;
    CHECK_EQ(addr_check(&addr, &error), UV_EINVAL);
    CHECK_TEXT(error.field, "ipv4 interface 1: external ip");
    addr.ipv4.count = 0;
    memset(addr.node_id, 'n', sizeof addr.node_id); /* no end */
    CHECK_EQ(addr_check(&addr, &error), UV_EINVAL);
    CHECK_TEXT(error.field, "node id");
    strcpy(addr.node_id, "a-b");
    CHECK_EQ(addr_check(&addr, &error), UV_EINVAL);
}

static void the_longest_address_fits(void) {
    struct addr addr = {.signal_count = ADDR_SIGNAL_MAX, .signal = {10, 11, 12, 13, 14, 14}};
    struct addr_interface *entries[] = {addr.ipv4.interfaces, addr.ipv6.interfaces};
    for (size_t family = 0; family < 2; family++)
        for (uint32_t i = 0; i < ADDR_INTERFACES_MAX; i++) {
            struct addr_interface *entry = &entries[family][i];
            const char *ip = family == 0 ? "200.200.200.200" : "2600::1";
            *entry =
                (struct addr_interface){ADDR_INDEX_MAX, ADDR_INDEX_MAX - i, .port = 65535,
                                        .nat = 7,       .delta = 6,         .delta_value = 65535};
            CHECK_EQ(ip_parse(ip, strlen(ip), &entry->external), 0);
            entry->internal = entry->external;
        }
    addr.ipv4.count = addr.ipv6.count = ADDR_INTERFACES_MAX;
    memset(addr.node_id, 'n', ADDR_NODE_ID_MAX);
    memset(addr.machine_id, 'm', ADDR_MACHINE_ID_MAX);
    CHECK_EQ(addr_check(&addr, NULL), 0);
    char text[ADDR_TEXT_SIZE];
    size_t length = addr_format(&addr, text);
    CHECK_EQ(length, strlen(text));
    CHECK_EQ(length, 787);
    CHECK_EQ(parse(text, &addr, NULL), 0);
}

static void words_and_numbers_match(void) {
    for (unsigned i = 1; i <= ADDR_NAT_BLOCKED; i++)
        CHECK_EQ(addr_nat_number(addr_nat_word(i)), i);
    for (unsigned i = 1; i <= ADDR_DELTA_RANDOM; i++)
        CHECK_EQ(addr_delta_number(addr_delta_word(i)), i);
    CHECK_TEXT(addr_nat_word(2), "udp-firewall");
    CHECK_TEXT(addr_delta_word(5), "dependent");
    CHECK(!addr_nat_word(0) && !addr_nat_word(8));
    CHECK(!addr_delta_word(0) && !addr_delta_word(7));
    CHECK_EQ(addr_nat_number("Open"), 0);
    CHECK_EQ(addr_delta_number(""), 0);
}

/* Every text one step away from a good one either is refused, or comes back as it was written. */
static void small_changes_never_confuse(void) {
    static const char good[] = "1,14-[1,0,8.8.8.8,192.168.21.21,58959,3,2,0]-"
                               "[1,0,2600::1,fe80::1,58959,3,2,0]-zmUGXPOFxUBuToh-easdasd";
    static const char changes[] = {'-', ',', '|', '[', ']', '.', ':',
                                   '%', '0', '9', 'f', ' ', '\0'};
    for (size_t at = 0; at < sizeof good - 1; at++)
        for (size_t with = 0; with < sizeof changes; with++) {
            char text[sizeof good], first[ADDR_TEXT_SIZE], second[ADDR_TEXT_SIZE];
            struct addr addr;
            memcpy(text, good, sizeof good);
            text[at] = changes[with];
            if (addr_parse(text, sizeof good - 1, &addr, NULL) != 0)
                continue;
            addr_format(&addr, first);
            CHECK_EQ(parse(first, &addr, NULL), 0);
            addr_format(&addr, second);
            CHECK_TEXT(first, second);
        }
}

int main(void) {
    RUN(the_seeds_example_parses);
    RUN(texts_are_written_in_one_form);
    RUN(refusals_name_field_and_reason);
    RUN(zero_bytes_do_not_end_a_text);
    RUN(local_addresses_stand_for_themselves_only);
    RUN(a_peer_with_a_key_is_one_of_ours);
    RUN(what_is_built_in_c_is_checked_as_well);
    RUN(the_longest_address_fits);
    RUN(words_and_numbers_match);
    RUN(small_changes_never_confuse);
    return check_report();
}
