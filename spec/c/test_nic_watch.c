/* Interfaces that come, change and go, in a network namespace of its own. Where none can be made,
 * only what needs none is tested. */
#include "core/nic.h"
#include "core/nic_watch.h"
#include "spec/c/check.h"

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#define QUIET_MS 200

static uv_loop_t loop;
static struct nic_change last;
static unsigned changes;

static void on_changed(void *arg, const struct nic_change *change) {
    struct nic_watch **to_close = arg;
    last = *change;
    changes++;
    if (to_close)
        nic_watch_close(*to_close);
}

static void ip(const char *words) {
    char command[256];
    snprintf(command, sizeof command, "PATH=$PATH:/usr/sbin:/sbin ip %s", words);
    int status = system(command);
    CHECK_EQ(status, 0);
}

static void on_time(uv_timer_t *timer) {
    (void)timer;
}

/* Turns the loop for so long, or until a change was told. */
static void turn(unsigned ms, bool until_changed) {
    uv_timer_t timer;
    uv_timer_init(&loop, &timer);
    uv_timer_start(&timer, on_time, ms, 0);
    while (uv_is_active((uv_handle_t *)&timer) && !(until_changed && changes))
        uv_run(&loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
}

static struct nic_watch *open_watch(void) {
    struct nic_watch *watch = NULL;
    turn(QUIET_MS, false);
    changes = 0;
    last = (struct nic_change){0};
    CHECK_EQ(nic_watch_open(&loop, on_changed, NULL, &watch), 0);
    return watch;
}

static void expect(bool link, bool address, bool route) {
    turn(3000, true);
    CHECK_EQ(changes, 1);
    CHECK_EQ(last.link, link);
    CHECK_EQ(last.address, address);
    CHECK_EQ(last.route, route);
    CHECK(!last.overflow);
    turn(QUIET_MS, false);
    CHECK_EQ(changes, 1);
    changes = 0;
}

static void it_is_opened_and_closed(void) {
    nic_watch_close(open_watch());
    turn(10, false);
}

static void addresses_come_and_go(void) {
    struct nic_watch *watch = open_watch();
    ip("address add 192.0.2.5/24 dev d0");
    expect(false, true, false);
    ip("address del 192.0.2.5/24 dev d0");
    expect(false, true, false);
    ip("address add 2001:db8::5/64 dev d0 nodad");
    expect(false, true, false);
    nic_watch_close(watch);
}

static void routes_change(void) {
    ip("address add 192.0.2.5/24 dev d0");
    struct nic_watch *watch = open_watch();
    ip("route add default via 192.0.2.1 metric 100");
    expect(false, false, true);
    ip("route add default via 192.0.2.2 metric 50");
    expect(false, false, true);
    ip("route add 198.51.100.0/24 via 192.0.2.1"); /* is not of interest */
    turn(QUIET_MS, false);
    CHECK_EQ(changes, 0);
    struct nic_route *routes = NULL;
    size_t count = 0;
    CHECK_EQ(nic_routes(&routes, &count), 0);
    CHECK_EQ(count, 2);
    CHECK(count == 2 && routes[0].metric == 50 && routes[0].gateway.bytes[3] == 2);
    nic_free_routes(routes);
    nic_watch_close(watch);
}

static void a_link_goes_down_and_takes_its_routes_with_it(void) {
    struct nic_watch *watch = open_watch();
    ip("link set d0 down");
    turn(3000, true);
    CHECK(last.link);
    ip("link set d0 up");
    turn(QUIET_MS, false);
    changes = 0;
    ip("link set d0 mtu 1300");
    expect(true, false, false);
    nic_watch_close(watch);
}

static void what_comes_back_at_once_is_told(void) {
    struct nic_watch *watch = open_watch();
    system("PATH=$PATH:/usr/sbin:/sbin; ip address del 192.0.2.5/24 dev d0; "
           "ip address add 192.0.2.5/24 dev d0");
    turn(3000, true);
    CHECK_EQ(changes, 1);
    CHECK(last.address);
    nic_watch_close(watch);
}

static void what_is_said_anew_is_not(void) {
    ip("address add 2001:db8::9/64 dev d0 nodad valid_lft 5000 preferred_lft 4000");
    struct nic_watch *watch = open_watch();
    ip("address change 2001:db8::9/64 dev d0 nodad valid_lft 5001 preferred_lft 4001");
    turn(QUIET_MS, false);
    CHECK_EQ(changes, 0);
    nic_watch_close(watch);
}

static void it_may_be_closed_from_its_callback(void) {
    struct nic_watch *watch = NULL;
    changes = 0;
    CHECK_EQ(nic_watch_open(&loop, on_changed, &watch, &watch), 0);
    ip("address add 192.0.2.77/24 dev d0");
    turn(3000, true);
    CHECK_EQ(changes, 1);
}

/* 64 interfaces, ends of 32 cables, are made, and removed while they are listed. */
static void many_interfaces(void) {
    struct nic_watch *watch = open_watch();
    ip("-batch - <<END\n$(for n in $(seq 32); do echo link add m$n type veth peer name m-$n; "
       "for d in m$n m-$n; do echo address add 198.18.$n.1/24 dev $d; echo link set $d up; done; "
       "done)\nEND");
    turn(3000, true);
    CHECK(changes > 0 && last.link && last.address);
    struct nic *list = NULL;
    size_t count = 0, found = 0;
    CHECK_EQ(nic_list(&list, &count), 0);
    for (size_t i = 0; i < count; i++)
        found += list[i].name[0] == 'm' && list[i].up && list[i].ip.family == 4;
    CHECK_EQ(found, 64);
    nic_free(list);
    CHECK_EQ(system("PATH=$PATH:/usr/sbin:/sbin; (for n in $(seq 32); do echo link del m$n; done | "
                    "ip -batch -) &"),
             0);
    for (found = 1; found > 0;) {
        found = 0;
        CHECK_EQ(nic_list(&list, &count), 0);
        for (size_t i = 0; i < count; i++) {
            found += list[i].name[0] == 'm';
            CHECK(list[i].name[0] != '\0' && list[i].index > 0);
        }
        nic_free(list);
    }
    turn(QUIET_MS, false);
    CHECK(last.link);
    nic_watch_close(watch);
}

static void lost_news_are_news(void) {
    struct nic_watch *watch = open_watch();
    ip("-batch - <<END\n$(for n in $(seq 250); do echo address add 203.0.113.$n/32 dev d0; "
       "echo address del 203.0.113.$n/32 dev d0; done)\nEND");
    turn(3000, true);
    CHECK_EQ(changes, 1);
    CHECK(last.overflow);
    turn(QUIET_MS, false);
    changes = 0;
    ip("address add 192.0.2.9/24 dev d0"); /* it goes on */
    expect(false, true, false);
    nic_watch_close(watch);
}

/* Root in namespaces of its own, whoever it is outside. */
static bool apart(void) {
    uid_t uid = geteuid();
    if (uid == 0)
        return unshare(CLONE_NEWNET) == 0;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
        return false;
    FILE *map = fopen("/proc/self/uid_map", "w");
    if (!map)
        return false;
    fprintf(map, "0 %u 1", uid);
    return fclose(map) == 0;
}

static bool make_cable(void) {
    return system("PATH=$PATH:/usr/sbin:/sbin; ip link add d0 type veth peer name d1 && "
                  "for d in d0 d1; do ip link set $d addrgenmode none up; done") == 0;
}

int main(void) {
    bool own = apart() && make_cable();
    uv_loop_init(&loop);
    RUN(it_is_opened_and_closed);
    if (own) {
        RUN(addresses_come_and_go);
        RUN(routes_change);
        RUN(a_link_goes_down_and_takes_its_routes_with_it);
        RUN(what_comes_back_at_once_is_told);
        RUN(what_is_said_anew_is_not);
        RUN(it_may_be_closed_from_its_callback);
        RUN(many_interfaces);
        RUN(lost_news_are_news);
    } else {
        printf("  there are no namespaces here\n");
    }
    uv_run(&loop, check_failed ? UV_RUN_NOWAIT : UV_RUN_DEFAULT);
    int left = uv_loop_close(&loop);
    if (left != 0)
        printf("handles were left open\n");
    return check_report() || left != 0;
}
