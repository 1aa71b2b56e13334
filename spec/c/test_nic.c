#include "core/nic.h"
#include "spec/c/check.h"

#include <string.h>
#include <uv.h>

static struct ip ip_of(const char *text) {
    struct ip ip = {0};
    CHECK_EQ(ip_parse(text, strlen(text), &ip), 0);
    return ip;
}

static struct nic made(const char *name, unsigned index, const char *ip, uint8_t prefix,
                       bool loopback) {
    struct nic nic = {.index = index, .up = true, .loopback = loopback, .prefix = prefix};
    nic.ip = ip_of(ip);
    memcpy(nic.name, name, strlen(name));
    return nic;
}

static void the_system_has_a_loopback(void) {
    struct nic *list = NULL;
    size_t count = 0;
    struct ip loopback = ip_of("127.0.0.1");
    CHECK_EQ(nic_list(&list, &count), 0);
    const struct nic *nic = nic_with(list, count, &loopback);
    CHECK(nic && nic->up && nic->loopback && nic->prefix == 8 && nic->index > 0);
    CHECK(nic && strcmp(nic->name, "lo") == 0);
    for (size_t i = 0; i < count; i++) {
        CHECK(list[i].ip.family == 4 || list[i].ip.family == 6);
        CHECK(list[i].prefix <= (list[i].ip.family == 4 ? 32 : 128));
        if (list[i].ip.family == 6 && ip_kind(&list[i].ip) == IP_LINK_LOCAL)
            CHECK_EQ(list[i].ip.zone, list[i].index);
    }
    nic_free(list);
}

static void the_source_toward_loopback_is_loopback(void) {
    struct ip destination = ip_of("127.0.0.9"), source = {0};
    char text[IP_TEXT_SIZE];
    CHECK_EQ(nic_source(&destination, &source), 0);
    ip_format(&source, text);
    CHECK_TEXT(text, "127.0.0.1");
    destination = ip_of("255.255.255.255"); /* needs a permission that we do not take */
    CHECK(nic_source(&destination, &source) < 0);
}

static void prefixes_decide_who_is_on_link(void) {
    struct nic list[] = {made("lo", 1, "127.0.0.1", 8, true), made("a", 2, "192.0.2.5", 24, false),
                         made("b", 3, "2001:db8::5", 64, false)};
    struct ip near = ip_of("192.0.2.200"), far = ip_of("192.0.3.1"), six = ip_of("2001:db8::9");
    CHECK(nic_on_link(list, 3, &near) == &list[1]);
    CHECK(nic_on_link(list, 3, &far) == NULL);
    CHECK(nic_on_link(list, 3, &six) == &list[2]);
    list[1].up = false;
    CHECK(nic_on_link(list, 3, &near) == NULL);
    list[1].up = true;
    list[1].prefix = 0; /* all the world is not on the link */
    CHECK(nic_on_link(list, 3, &far) == NULL);
}

static void loopback_alone_is_told(void) {
    struct nic list[] = {made("lo", 1, "127.0.0.1", 8, true), made("lo", 1, "::1", 128, true),
                         made("a", 2, "fe80::1", 64, false), made("b", 3, "10.1.2.3", 24, false)};
    CHECK(nic_loopback_only(list, 3));
    CHECK(!nic_loopback_only(list, 4));
    list[3].up = false;
    CHECK(nic_loopback_only(list, 4));
    CHECK(nic_loopback_only(list, 0));
}

int main(void) {
    RUN(the_system_has_a_loopback);
    RUN(the_source_toward_loopback_is_loopback);
    RUN(prefixes_decide_who_is_on_link);
    RUN(loopback_alone_is_told);
    return check_report();
}
