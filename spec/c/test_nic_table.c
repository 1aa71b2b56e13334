/* Messages as the kernel sends them, whole, cut and nonsensical. */
#include "core/err.h"
#include "core/nic_table.h"
#include "spec/c/check.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

static struct {
    _Alignas(struct nlmsghdr) char bytes[4096];
    size_t length, start; /* of all messages; where the last one begins */
} sent;

static struct nlmsghdr *header(void) {
    return (void *)(sent.bytes + sent.start);
}

static void begin(uint16_t type, const void *fixed, size_t size) {
    sent.start = sent.length;
    memset(header(), 0, sizeof *header());
    header()->nlmsg_type = type;
    memcpy(NLMSG_DATA(header()), fixed, size);
    header()->nlmsg_len = (uint32_t)NLMSG_LENGTH(size);
    sent.length = sent.start + NLMSG_ALIGN(header()->nlmsg_len);
}

static void add(uint16_t type, const void *value, size_t size) {
    struct rtattr *attribute = (void *)(sent.bytes + sent.length);
    memset(attribute, 0, RTA_SPACE(size));
    attribute->rta_type = type;
    attribute->rta_len = (unsigned short)RTA_LENGTH(size);
    memcpy(RTA_DATA(attribute), value, size);
    sent.length += RTA_SPACE(size);
    header()->nlmsg_len = (uint32_t)(sent.length - sent.start);
}

static void add_u32(uint16_t type, uint32_t value) {
    add(type, &value, sizeof value);
}

static void link_message(uint16_t type, int index, const char *name, unsigned flags) {
    struct ifinfomsg fixed = {.ifi_index = index, .ifi_flags = flags};
    begin(type, &fixed, sizeof fixed);
    add(IFLA_IFNAME, name, strlen(name) + 1);
    add_u32(IFLA_MTU, 1400);
}

static void address_message(int index, uint8_t family, const void *ip, uint32_t flags) {
    struct ifaddrmsg fixed = {
        .ifa_family = family, .ifa_prefixlen = 24, .ifa_index = (uint32_t)index};
    begin(RTM_NEWADDR, &fixed, sizeof fixed);
    add(IFA_ADDRESS, ip, family == AF_INET ? 4 : 16);
    add_u32(IFA_FLAGS, flags);
}

static void route_message(uint16_t type, uint8_t length, uint8_t kind, uint32_t table) {
    struct rtmsg fixed = {.rtm_family = AF_INET, .rtm_dst_len = length, .rtm_type = kind};
    begin(type, &fixed, sizeof fixed);
    add_u32(RTA_TABLE, table);
}

static struct nic_table taken(int wanted) {
    struct nic_table table = {0};
    int end = 0;
    bool torn = false;
    CHECK_EQ(nic_table_take(&table, sent.bytes, sent.length, &end, &torn), wanted);
    CHECK(!torn);
    sent.length = 0;
    return table;
}

static const uint8_t four[4] = {192, 0, 2, 5}, gateway[4] = {192, 0, 2, 1};
static const uint8_t six[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 5},
                     local[16] = {0xfe, 0x80, [15] = 1};

static void links_and_addresses_are_read(void) {
    char text[IP_TEXT_SIZE];
    link_message(RTM_NEWLINK, 2, "eth0", IFF_UP | IFF_RUNNING);
    link_message(RTM_NEWLINK, 1, "lo", IFF_UP | IFF_LOOPBACK);
    address_message(2, AF_INET, four, IFA_F_SECONDARY); /* the same bit as temporary */
    address_message(2, AF_INET6, six, IFA_F_TEMPORARY | IFA_F_DEPRECATED);
    address_message(2, AF_INET6, local, IFA_F_TENTATIVE);
    struct nic_table table = taken(0);
    CHECK_EQ(table.link_count, 2);
    CHECK_TEXT(table.links[0].name, "eth0");
    CHECK(table.links[0].up && !table.links[0].loopback && table.links[0].mtu == 1400);
    CHECK(!table.links[1].up && table.links[1].loopback);
    CHECK(nic_table_link(&table, 1) == &table.links[1] && nic_table_link(&table, 3) == NULL);
    CHECK_EQ(table.address_count, 3);
    ip_format(&table.addresses[0].ip, text);
    CHECK_TEXT(text, "192.0.2.5");
    CHECK(table.addresses[0].prefix == 24 && !table.addresses[0].temporary);
    CHECK(table.addresses[1].temporary && table.addresses[1].deprecated);
    CHECK(table.addresses[2].tentative && table.addresses[2].ip.zone == 2);
    nic_table_free(&table);
}

static void of_a_tunnel_the_own_address_counts(void) {
    char text[IP_TEXT_SIZE];
    address_message(3, AF_INET, gateway, 0);
    add(IFA_LOCAL, four, 4);
    struct nic_table table = taken(0);
    CHECK_EQ(table.address_count, 1);
    ip_format(&table.addresses[0].ip, text);
    CHECK_TEXT(text, "192.0.2.5");
    nic_table_free(&table);
}

static void default_routes_alone_count_the_best_first(void) {
    char text[IP_TEXT_SIZE];
    route_message(RTM_NEWROUTE, 0, RTN_UNICAST, RT_TABLE_MAIN);
    add_u32(RTA_OIF, 4);
    add_u32(RTA_PRIORITY, 600);
    route_message(RTM_NEWROUTE, 0, RTN_UNICAST, RT_TABLE_MAIN);
    add_u32(RTA_OIF, 2);
    add_u32(RTA_PRIORITY, 100);
    add(RTA_GATEWAY, gateway, sizeof gateway);
    route_message(RTM_NEWROUTE, 24, RTN_UNICAST, RT_TABLE_MAIN);
    route_message(RTM_NEWROUTE, 0, RTN_UNREACHABLE, RT_TABLE_MAIN);
    route_message(RTM_NEWROUTE, 0, RTN_UNICAST, 1000);
    struct nic_table table = taken(0);
    CHECK_EQ(table.route_count, 2);
    CHECK(table.routes[0].index == 2 && table.routes[0].metric == 100);
    ip_format(&table.routes[0].gateway, text);
    CHECK_TEXT(text, "192.0.2.1");
    CHECK(table.routes[1].index == 4 && table.routes[1].gateway.family == 0);
    nic_table_free(&table);
}

static void a_route_may_have_several_hops_or_another_family(void) {
    struct {
        struct rtnexthop hop;
        struct rtattr attribute;
        uint8_t ip[4];
    } hops[3] = {0};
    struct {
        uint16_t family;
        uint8_t ip[16];
    } via = {AF_INET6, {0}};
    for (int i = 0; i < 3; i++) {
        hops[i].hop = (struct rtnexthop){.rtnh_len = sizeof hops[i], .rtnh_ifindex = 5 + i};
        hops[i].attribute =
            (struct rtattr){.rta_len = RTA_LENGTH(sizeof gateway), .rta_type = RTA_GATEWAY};
        memcpy(hops[i].ip, gateway, sizeof gateway);
    }
    hops[1].hop.rtnh_flags = RTNH_F_LINKDOWN;
    memcpy(via.ip, local, sizeof local);
    route_message(RTM_NEWROUTE, 0, RTN_UNICAST, RT_TABLE_MAIN);
    add(RTA_MULTIPATH, hops, sizeof hops);
    route_message(RTM_NEWROUTE, 0, RTN_UNICAST, RT_TABLE_MAIN);
    add_u32(RTA_PRIORITY, 9);
    add_u32(RTA_OIF, 8);
    add(RTA_VIA, &via, sizeof via);
    struct nic_table table = taken(0);
    CHECK_EQ(table.route_count, 3);
    CHECK_EQ(table.routes[0].index, 5);
    CHECK_EQ(table.routes[1].index, 7);
    CHECK_EQ(table.routes[1].gateway.family, 4);
    CHECK(table.routes[2].gateway.family == 6 && table.routes[2].gateway.zone == 8);
    nic_table_free(&table);
    hops[2].hop.rtnh_len = 2;
    route_message(RTM_NEWROUTE, 0, RTN_UNICAST, RT_TABLE_MAIN);
    add(RTA_MULTIPATH, hops, sizeof hops);
    table = taken(ERR_EFORMAT);
    nic_table_free(&table);
}

static void the_end_and_errors_are_told(void) {
    struct nic_table table = {0};
    int end = 0, error = -95;
    bool torn = false;
    link_message(RTM_NEWLINK, 2, "eth0", 0);
    header()->nlmsg_flags = NLM_F_MULTI | NLM_F_DUMP_INTR;
    begin(NLMSG_DONE, &(int){0}, sizeof(int));
    CHECK_EQ(nic_table_take(&table, sent.bytes, sent.length, &end, &torn), 0);
    CHECK(end == NLMSG_DONE && torn && table.link_count == 1);
    sent.length = 0;
    begin(NLMSG_ERROR, &error, sizeof error);
    CHECK_EQ(nic_table_take(&table, sent.bytes, sent.length, &end, &torn), -95);
    sent.length = 0;
    nic_table_free(&table);
}

static void what_is_cut_is_no_message(void) {
    link_message(RTM_NEWLINK, 2, "eth0", 0);
    for (size_t length = sizeof(struct nlmsghdr); length < sent.length; length++) {
        struct nic_table table = {0};
        int end = 0;
        bool torn = false;
        CHECK_EQ(nic_table_take(&table, sent.bytes, length, &end, &torn), ERR_EFORMAT);
        CHECK_EQ(table.link_count, 0);
    }
    header()->nlmsg_len = NLMSG_LENGTH(4); /* shorter than what it should begin with */
    struct nic_table table = {0};
    int end = 0;
    bool torn = false;
    CHECK_EQ(nic_table_take(&table, sent.bytes, NLMSG_LENGTH(4), &end, &torn), 0);
    CHECK_EQ(table.link_count, 0);
    sent.length = 0;
}

static void differences_are_seen(void) {
    struct nic_table tables[2];
    for (int i = 0; i < 2; i++) {
        link_message(RTM_NEWLINK, 2, "eth0", 0);
        address_message(2, AF_INET, four, 0);
        route_message(RTM_NEWROUTE, 0, RTN_UNICAST, RT_TABLE_MAIN);
        tables[i] = taken(0);
    }
    CHECK_EQ(nic_table_differ(&tables[0], &tables[1]), 0);
    tables[1].links[0].mtu++;
    CHECK_EQ(nic_table_differ(&tables[0], &tables[1]), NIC_LINKS);
    tables[1].addresses[0].deprecated = true;
    CHECK_EQ(nic_table_differ(&tables[0], &tables[1]), NIC_LINKS | NIC_ADDRESSES);
    tables[1].routes[0].metric++;
    CHECK_EQ(nic_table_differ(&tables[0], &tables[1]), NIC_ALL);
    tables[0].links[0].mtu++;
    tables[1].address_count = 0;
    CHECK_EQ(nic_table_differ(&tables[0], &tables[1]), NIC_ADDRESSES | NIC_ROUTES);
    nic_table_free(&tables[0]);
    nic_table_free(&tables[1]);
}

static void news_are_told_apart(void) {
    struct nic_link link;
    bool gone;
    link_message(RTM_DELLINK, 7, "eth0", 0);
    CHECK_EQ(nic_table_about(header(), &gone, &link), NIC_LINKS);
    CHECK(gone && link.index == 7);
    ((struct ifinfomsg *)NLMSG_DATA(header()))->ifi_family = AF_BRIDGE;
    CHECK_EQ(nic_table_about(header(), &gone, &link), 0); /* it left a bridge */
    route_message(RTM_NEWROUTE, 0, RTN_UNICAST, RT_TABLE_MAIN);
    CHECK_EQ(nic_table_about(header(), &gone, &link), NIC_ROUTES);
    CHECK(!gone);
    route_message(RTM_DELROUTE, 24, RTN_UNICAST, RT_TABLE_MAIN);
    CHECK_EQ(nic_table_about(header(), &gone, &link), 0);
    sent.length = 0;
}

static void the_kernel_is_asked(void) {
    struct nic_table table, again;
    CHECK_EQ(nic_table_read(NIC_ALL, &table), 0);
    CHECK_EQ(nic_table_read(NIC_ALL, &again), 0);
    CHECK(table.link_count > 0 && table.link_count == again.link_count);
    nic_table_free(&table);
    nic_table_free(&again);
    CHECK_EQ(nic_table_read(NIC_ADDRESSES, &table), 0);
    CHECK_EQ(table.link_count, 0);
    nic_table_free(&table);
}

int main(void) {
    RUN(links_and_addresses_are_read);
    RUN(of_a_tunnel_the_own_address_counts);
    RUN(default_routes_alone_count_the_best_first);
    RUN(a_route_may_have_several_hops_or_another_family);
    RUN(the_end_and_errors_are_told);
    RUN(what_is_cut_is_no_message);
    RUN(differences_are_seen);
    RUN(news_are_told_apart);
    RUN(the_kernel_is_asked);
    return check_report();
}
