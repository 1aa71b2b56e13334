/* core.router: the lab's router, which translates, delays and loses packets. */
#include "core/router.h"

#include "bindings/fail.h"
#include "bindings/module.h"
#include "bindings/router_inner.h"
#include "bindings/wait.h"
#include "core/err.h"

#include <string.h>

#define ROUTER_TYPE "p2pd.router"

struct holder {
    struct router *router; /* NULL once it is closed */
};

static const char *const verdicts[] = {
    [NAT_PASS] = "pass",
    [NAT_HAIRPIN] = "hairpin",
    [NAT_DROP] = "drop",
    [NAT_ANSWER_RESET] = "reset",
    [NAT_ANSWER_UNREACHABLE] = "unreachable",
};

static const char *const reasons[ROUTER_REASONS] = {
    [NAT_MAPPED_NEW] = "mapped-new",
    [NAT_MAPPED] = "mapped",
    [NAT_UNTRANSLATED] = "untranslated",
    [NAT_NO_MAPPING] = "no-mapping",
    [NAT_FILTERED] = "filtered",
    [NAT_BLOCKED] = "blocked",
    [NAT_TABLE_FULL] = "table-full",
    [NAT_NO_PORT] = "no-port",
    [NAT_NO_HAIRPIN] = "no-hairpin",
    [NAT_BAD_STATE] = "bad-state",
    [ROUTER_UNREADABLE] = "unreadable",
    [ROUTER_UNSUPPORTED] = "unsupported",
    [ROUTER_STRAY] = "stray",
    [ROUTER_NO_IPV6] = "no-ipv6",
    [ROUTER_UNKNOWN_ERROR] = "unknown-error",
    [ROUTER_MAPPED_BEFORE] = "mapped-before",
    [ROUTER_LINK] = "link",
};

static const char *const fates[LINK_FATES] = {
    [LINK_QUEUED] = "queued",       [LINK_DUPLICATED] = "duplicated",
    [LINK_REORDERED] = "reordered", [LINK_LOST] = "lost",
    [LINK_FULL] = "full",           [LINK_DOWN] = "down",
};

static const char *const directions[] = {[ROUTER_OUT] = "out", [ROUTER_IN] = "in"};

static struct holder *check_holder(lua_State *L) {
    return luaL_checkudata(L, 1, ROUTER_TYPE);
}

static int push_closed(lua_State *L) {
    return push_refusal(L, ERR_ECLOSED, "the router was closed");
}

static const char *string_field(lua_State *L, const char *key) {
    int type = lua_getfield(L, 1, key);
    if (type != LUA_TNIL && type != LUA_TSTRING)
        luaL_argerror(L, 1, lua_pushfstring(L, "'%s' is no string", key));
    return lua_tostring(L, -1); /* it stays on the stack */
}

/* open{device, kernel_device, seed} -> router; kernel_device is the other end of device's pair */
static int open_(lua_State *L) {
    static const char *const keys[] = {"device", "kernel_device", "seed", NULL};
    check_options(L, 1, keys);
    const char *device = string_field(L, "device");
    const char *kernel_device = string_field(L, "kernel_device");
    luaL_argcheck(L, device, 1, "'device' is missing");
    lua_getfield(L, 1, "seed");
    lua_Integer seed = luaL_optinteger(L, -1, 1);
    struct holder *holder = lua_newuserdatauv(L, sizeof *holder, 0);
    holder->router = NULL;
    luaL_setmetatable(L, ROUTER_TYPE);
    int status = router_open(wait_loop(L), device, kernel_device, (uint64_t)seed, &holder->router);
    if (status != 0)
        return push_failure(L, status, "cannot open the device %s%s", device,
                            status == UV_EPERM ? ", which takes CAP_NET_RAW and CAP_NET_ADMIN"
                                               : "");
    return 1;
}

/* router:configure{…} -> true: see router_inner.h */
static int configure(lua_State *L) {
    struct holder *holder = check_holder(L);
    struct router_config config;
    bool flush;
    check_router_config(L, 2, &config, &flush);
    if (!holder->router)
        return push_closed(L);
    int status = router_configure(holder->router, &config, flush);
    if (status != 0)
        return push_failure(L, status, "the router cannot be configured so");
    lua_pushboolean(L, 1);
    return 1;
}

static void set_number(lua_State *L, const char *key, uint64_t value) {
    lua_pushinteger(L, (lua_Integer)value);
    lua_setfield(L, -2, key);
}

static void push_flow(lua_State *L, const struct router_flow *flow) {
    lua_createtable(L, 0, 4 + LINK_FATES);
    set_number(L, "packets", flow->packets);
    set_number(L, "bytes", flow->bytes);
    set_number(L, "passed", flow->passed);
    set_number(L, "passed_bytes", flow->passed_bytes);
    for (int i = 0; i < LINK_FATES; i++)
        set_number(L, fates[i], flow->fates[i]);
}

/* router:stats() -> {out = {packets=, bytes=, passed=, passed_bytes=, queued=, lost=, …}, ["in"] =
 * {…}, dropped = {["no-mapping"]=, …}, mappings=, mappings_ipv6=, …} */
static int stats(lua_State *L) {
    struct holder *holder = check_holder(L);
    struct router_stats now;
    if (!holder->router)
        return push_closed(L);
    router_stats(holder->router, &now);
    lua_newtable(L);
    for (int i = 0; i < 2; i++) {
        push_flow(L, &now.flow[i]);
        lua_setfield(L, -2, directions[i]);
    }
    lua_newtable(L);
    for (int i = 0; i < ROUTER_REASONS; i++)
        if (now.dropped[i] > 0)
            set_number(L, reasons[i], now.dropped[i]);
    lua_setfield(L, -2, "dropped");
    set_number(L, "hairpins", now.hairpins);
    set_number(L, "resets", now.resets);
    set_number(L, "unreachables", now.unreachables);
    set_number(L, "overrun", now.overrun);
    set_number(L, "too_long", now.too_long);
    set_number(L, "unsent", now.unsent);
    set_number(L, "mappings", now.mappings);
    set_number(L, "mappings_ipv6", now.mappings_ipv6);
    set_number(L, "on_link", now.on_link);
    set_number(L, "events", now.events);
    return 1;
}

/* Of what cannot be read the address alone, if so much is known. */
static void set_endpoint(lua_State *L, const char *key, const struct router_event *event,
                         const struct ip *ip, uint16_t port) {
    char text[IP_TEXT_SIZE];
    if (ip->family == 0)
        return;
    ip_format(ip, text);
    if (event->readable)
        lua_pushfstring(L, ip->family == 6 ? "[%s]:%d" : "%s:%d", text, port);
    else
        lua_pushstring(L, text);
    lua_setfield(L, -2, key);
}

/* Letters as tcpdump has them. */
static void set_flags(lua_State *L, uint8_t flags) {
    static const char letters[] = "FSRPAUEC"; /* bit 0 and on (RFC 9293, 3.1) */
    char text[sizeof letters];
    size_t length = 0;
    for (unsigned i = 0; i < 8; i++)
        if (flags & 1u << i)
            text[length++] = letters[i];
    lua_pushlstring(L, text, length);
    lua_setfield(L, -2, "flags");
}

static void set_text(lua_State *L, const char *key, const char *text) {
    lua_pushstring(L, text);
    lua_setfield(L, -2, key);
}

static void push_event(lua_State *L, const struct router_event *event) {
    const struct nat_packet *before = &event->before, *after = &event->after;
    lua_createtable(L, 0, 12);
    set_number(L, "number", event->number);
    set_number(L, "ns", event->at_ns);
    set_text(L, "direction", directions[event->direction]);
    set_text(L, "verdict", verdicts[event->verdict]);
    set_text(L, "reason", reasons[event->reason]);
    if (event->linked)
        set_text(L, "fate", fates[event->fate]);
    set_text(L, "protocol", event->readable ? router_protocols[before->protocol] : "other");
    if (before->protocol == NAT_TCP)
        set_flags(L, before->tcp_flags);
    if (event->error) {
        lua_pushboolean(L, 1);
        lua_setfield(L, -2, "error");
    }
    set_endpoint(L, "source", event, &before->source, before->source_port);
    set_endpoint(L, "destination", event, &before->destination, before->destination_port);
    if (!ip_equal(&before->source, &after->source) || before->source_port != after->source_port)
        set_endpoint(L, "new_source", event, &after->source, after->source_port);
    if (!ip_equal(&before->destination, &after->destination) ||
        before->destination_port != after->destination_port)
        set_endpoint(L, "new_destination", event, &after->destination, after->destination_port);
}

/* router:trace([since]) -> { {number=, ns=, direction=, protocol=, flags=, error=, source=,
 * destination=, new_source=, new_destination=, verdict=, reason=, fate=}, … }, the events after
 * number `since` of those that it remembers; protocol is "other" for what cannot be read */
static int trace(lua_State *L) {
    struct holder *holder = check_holder(L);
    lua_Integer since = luaL_optinteger(L, 2, 0), place = 0;
    luaL_argcheck(L, since >= 0, 2, "an event's number is none below zero");
    if (!holder->router)
        return push_closed(L);
    lua_newtable(L);
    const struct router_event *event = router_next_event(holder->router, (uint64_t)since);
    for (; event; event = router_next_event(holder->router, event->number)) {
        push_event(L, event);
        lua_rawseti(L, -2, ++place);
    }
    return 1;
}

static int close_(lua_State *L) {
    struct holder *holder = check_holder(L);
    if (holder->router)
        router_close(holder->router);
    holder->router = NULL;
    return 0;
}

static int tostring(lua_State *L) {
    lua_pushfstring(L, "router (%s)", check_holder(L)->router ? "open" : "closed");
    return 1;
}

static const luaL_Reg methods[] = {
    {"configure", configure}, {"stats", stats}, {"trace", trace}, {"close", close_}, {NULL, NULL}};

static const luaL_Reg metamethods[] = {
    {"__gc", close_}, {"__close", close_}, {"__tostring", tostring}, {NULL, NULL}};

int open_router(lua_State *L) {
    module_type(L, ROUTER_TYPE, methods, metamethods);
    luaL_newlib(L, ((const luaL_Reg[]){{"open", open_}, {NULL, NULL}}));
    return 1;
}
