#include "bindings/fail.h"
#include "bindings/router_inner.h"

#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DELAY_MAX_MS 60000
#define RATE_MAX_MBIT 100000

const char *const router_protocols[] = {
    [NAT_UDP] = "udp", [NAT_TCP] = "tcp", [NAT_ICMP] = "icmp", [NAT_PROTOCOLS] = NULL};

static const char *const scopes[] = {
    [NAT_ENDPOINT_INDEPENDENT] = "endpoint-independent",
    [NAT_ADDRESS_DEPENDENT] = "address-dependent",
    [NAT_ADDRESS_AND_PORT_DEPENDENT] = "address-and-port-dependent",
    [NAT_UNFILTERED] = "none",
    NULL,
};

static const char *const allocations[] = {
    [NAT_PORT_EQUAL] = "equal",
    [NAT_PORT_PRESERVING] = "preserving",
    [NAT_PORT_INDEPENDENT] = "independent",
    [NAT_PORT_DEPENDENT] = "dependent",
    [NAT_PORT_RANDOM] = "random",
    NULL,
};

static const char *const answers[] = {
    [NAT_SILENT] = "drop", [NAT_RESET] = "reset", [NAT_UNREACHABLE] = "unreachable", NULL};

enum { IPV6_FIREWALL, IPV6_OPEN, IPV6_NONE };
static const char *const ipv6_words[] = {
    [IPV6_FIREWALL] = "firewall", [IPV6_OPEN] = "open", [IPV6_NONE] = "none", NULL};

/* --- one field of the table on top of the stack: absent, it leaves *out as it is ------------ */

static int wrong(lua_State *L, const char *key, const char *what) {
    return luaL_error(L, "a router's '%s' is %s", key, what);
}

static void number_field(lua_State *L, const char *key, double least, double most, double *out) {
    if (lua_getfield(L, -1, key) != LUA_TNIL) {
        double value = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : NAN;
        if (!(value >= least && value <= most))
            wrong(L, key, lua_pushfstring(L, "no number from %f to %f", least, most));
        *out = value;
    }
    lua_pop(L, 1);
}

static void whole_field(lua_State *L, const char *key, long least, long most, long *out) {
    double value = (double)*out;
    number_field(L, key, (double)least, (double)most, &value);
    *out = (long)value;
    if ((double)*out != value)
        wrong(L, key, "no whole number");
}

static void port_field(lua_State *L, const char *key, uint16_t *out) {
    long value = *out;
    whole_field(L, key, 1, UINT16_MAX, &value);
    *out = (uint16_t)value;
}

static void seconds_field(lua_State *L, const char *key, uint32_t *out) {
    long value = *out;
    whole_field(L, key, 1, INT32_MAX, &value);
    *out = (uint32_t)value;
}

static void bool_field(lua_State *L, const char *key, bool *out) {
    if (lua_getfield(L, -1, key) != LUA_TNIL) {
        if (!lua_isboolean(L, -1))
            wrong(L, key, "neither true nor false");
        *out = lua_toboolean(L, -1);
    }
    lua_pop(L, 1);
}

static int word_field(lua_State *L, const char *key, const char *const words[], int otherwise) {
    int found = otherwise;
    if (lua_getfield(L, -1, key) != LUA_TNIL) {
        const char *word = lua_tostring(L, -1);
        for (found = 0; word && words[found] && strcmp(words[found], word) != 0; found++)
            ;
        if (!word || !words[found])
            wrong(L, key, lua_pushfstring(L, "no '%s'", luaL_tolstring(L, -1, NULL)));
    }
    lua_pop(L, 1);
    return found;
}

/* Pushes the table that the field holds; false, and pushes nothing, when it is absent. */
static bool table_field(lua_State *L, const char *key, const char *const keys[]) {
    if (lua_getfield(L, -1, key) == LUA_TNIL) {
        lua_pop(L, 1);
        return false;
    }
    if (!lua_istable(L, -1))
        wrong(L, key, "no table");
    if (keys)
        check_options(L, lua_gettop(L), keys);
    return true;
}

/* --- the parts ----------------------------------------------------------------------------- */

/* Type, delta and value of the table on top; false when it names no type. */
static bool named_fields(lua_State *L, struct nat_config *out) {
    long value = 0;
    bool named = lua_getfield(L, -1, "type") != LUA_TNIL;
    lua_getfield(L, -2, "delta");
    const char *type = lua_tostring(L, -2), *delta = lua_tostring(L, -1);
    lua_pop(L, 2); /* both stay in the table */
    whole_field(L, "value", -UINT16_MAX, UINT16_MAX, &value);
    if (named && nat_config_named(type, delta, (int)value, out) != 0)
        luaL_error(L, "a router's NAT is no %s/%s with value %d", type ? type : "?",
                   delta ? delta : "na", (int)value);
    return named;
}

static void behaviour_field(lua_State *L, enum nat_protocol protocol, struct nat_behaviour *out) {
    static const char *const keys[] = {
        "type",       "delta",  "value",         "mapping",      "first",     "last", "filtering",
        "allocation", "idle_s", "established_s", "transitory_s", "uninvited", NULL};
    struct nat_config named;
    if (!table_field(L, router_protocols[protocol], keys))
        return;
    if (named_fields(L, &named))
        *out = named.protocols[protocol];
    out->mapping = (enum nat_scope)word_field(L, "mapping", scopes, (int)out->mapping);
    out->filtering = (enum nat_scope)word_field(L, "filtering", scopes, (int)out->filtering);
    out->allocation =
        (enum nat_allocation)word_field(L, "allocation", allocations, (int)out->allocation);
    out->uninvited = (enum nat_uninvited)word_field(L, "uninvited", answers, (int)out->uninvited);
    long value = out->value;
    whole_field(L, "value", -UINT16_MAX, UINT16_MAX, &value);
    out->value = (int)value;
    port_field(L, "first", &out->first);
    port_field(L, "last", &out->last);
    seconds_field(L, "idle_s", &out->idle_s);
    seconds_field(L, "established_s", &out->established_s);
    seconds_field(L, "transitory_s", &out->transitory_s);
    lua_pop(L, 1);
}

static void external_field(lua_State *L, struct nat_config *out) {
    if (!table_field(L, "external", NULL))
        return;
    lua_Integer count = luaL_len(L, -1);
    if (count > NAT_ADDRESSES)
        wrong(L, "external", "longer than 8 addresses");
    for (lua_Integer i = 1; i <= count; i++) {
        size_t length;
        lua_geti(L, -1, i);
        const char *text = lua_tolstring(L, -1, &length);
        if (!text || ip_parse(text, length, &out->external[i - 1]) != 0 ||
            out->external[i - 1].family != 4)
            wrong(L, "external", "no list of IPv4 addresses");
        lua_pop(L, 1);
    }
    out->external_count = (unsigned)count;
    lua_pop(L, 1);
}

static void open_ports_field(lua_State *L, struct nat_config *out) {
    if (!table_field(L, "open_ports", NULL))
        return;
    lua_Integer count = luaL_len(L, -1);
    if (count > NAT_OPEN_PORTS)
        wrong(L, "open_ports", "longer than 16 ports");
    memset(out->open_ports, 0, sizeof out->open_ports);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_geti(L, -1, i);
        lua_Integer port = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : 0;
        if (port < 1 || port > UINT16_MAX)
            wrong(L, "open_ports", "no list of ports");
        out->open_ports[i - 1] = (uint16_t)port;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void nat_field(lua_State *L, struct nat_config *out) {
    static const char *const keys[] = {
        "type",   "delta",   "value", "udp",         "tcp",        "icmp",       "external",
        "paired", "hairpin", "noise", "table_limit", "time_scale", "open_ports", NULL};
    if (!table_field(L, "nat", keys) || !named_fields(L, out))
        luaL_error(L, "a router needs 'nat' with a type");
    for (int i = 0; i < NAT_PROTOCOLS; i++)
        behaviour_field(L, (enum nat_protocol)i, &out->protocols[i]);
    long table_limit = out->table_limit;
    whole_field(L, "table_limit", 1, 1 << 20, &table_limit);
    out->table_limit = (uint32_t)table_limit;
    bool_field(L, "paired", &out->paired);
    bool_field(L, "hairpin", &out->hairpin);
    number_field(L, "noise", 0, 100000, &out->noise);
    number_field(L, "time_scale", 1e-6, 1e6, &out->time_scale);
    external_field(L, out);
    open_ports_field(L, out);
    lua_pop(L, 1);
}

/* A firewall lets in what was asked for and nothing else, as routers with Linux do: RFC 6092,
 * REC-11 and REC-33, leave the choice. */
static void ipv6_field(lua_State *L, struct router_config *out) {
    int word = word_field(L, "ipv6", ipv6_words, IPV6_FIREWALL);
    nat_config_firewall(&out->ipv6);
    out->no_ipv6 = word == IPV6_NONE;
    for (int i = 0; i < NAT_PROTOCOLS; i++)
        out->ipv6.protocols[i].filtering =
            word == IPV6_OPEN ? NAT_UNFILTERED : NAT_ADDRESS_AND_PORT_DEPENDENT;
}

static void link_field(lua_State *L, const char *key, struct link_config *out) {
    static const char *const keys[] = {"delay_ms", "jitter_ms", "loss", "duplicate",
                                       "reorder",  "rate_mbit", "up",   NULL};
    double delay_ms = 0, jitter_ms = 0, rate_mbit = 0;
    bool up = true;
    if (!table_field(L, key, keys))
        return;
    number_field(L, "delay_ms", 0, DELAY_MAX_MS, &delay_ms);
    number_field(L, "jitter_ms", 0, DELAY_MAX_MS, &jitter_ms);
    number_field(L, "loss", 0, 1, &out->loss);
    number_field(L, "duplicate", 0, 1, &out->duplicate);
    number_field(L, "reorder", 0, 1, &out->reorder);
    number_field(L, "rate_mbit", 0, RATE_MAX_MBIT, &rate_mbit);
    bool_field(L, "up", &up);
    out->delay_ns = (uint64_t)(delay_ms * 1e6);
    out->jitter_ns = (uint64_t)(jitter_ms * 1e6);
    out->rate = (uint64_t)(rate_mbit * 1e6);
    out->down = !up;
    lua_pop(L, 1);
}

static bool parse_prefix(const char *text, struct router_prefix *out) {
    const char *slash = text ? strchr(text, '/') : NULL;
    char *end;
    if (!slash || ip_parse(text, (size_t)(slash - text), &out->ip) != 0)
        return false;
    unsigned long bits = strtoul(slash + 1, &end, 10);
    out->bits = (unsigned)bits;
    return slash[1] >= '0' && slash[1] <= '9' && *end == '\0' &&
           bits <= (out->ip.family == 4 ? 32 : 128);
}

static void inside_field(lua_State *L, struct router_config *out) {
    if (!table_field(L, "inside", NULL))
        return;
    lua_Integer count = luaL_len(L, -1);
    if (count > ROUTER_PREFIXES)
        wrong(L, "inside", "longer than 16 prefixes");
    for (lua_Integer i = 1; i <= count; i++) {
        lua_geti(L, -1, i);
        if (!parse_prefix(lua_tostring(L, -1), &out->inside[i - 1]))
            wrong(L, "inside", "no list of prefixes like 192.168.1.0/24");
        lua_pop(L, 1);
    }
    out->inside_count = (unsigned)count;
    lua_pop(L, 1);
}

void check_router_config(lua_State *L, int arg, struct router_config *out, bool *flush) {
    static const char *const keys[] = {"nat", "ipv6", "inside", "out", "in", "flush", NULL};
    check_options(L, arg, keys);
    memset(out, 0, sizeof *out);
    *flush = false;
    lua_pushvalue(L, arg);
    nat_field(L, &out->ipv4);
    ipv6_field(L, out);
    inside_field(L, out);
    link_field(L, "out", &out->link[ROUTER_OUT]);
    link_field(L, "in", &out->link[ROUTER_IN]);
    bool_field(L, "flush", flush);
    lua_pop(L, 1);
}
