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
    [NAT_FILTER_NONE] = "none",
    NULL,
};

static const char *const pairings[] = {[false] = "arbitrary", [true] = "paired", NULL};

static const char *const answers[] = {[NAT_UNINVITED_DROP] = "drop",
                                      [NAT_UNINVITED_RESET] = "reset",
                                      [NAT_UNINVITED_UNREACHABLE] = "unreachable",
                                      NULL};

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

static bool is_listed(const char *const keys[], const char *key) {
    for (; *keys; keys++)
        if (strcmp(*keys, key) == 0)
            return true;
    return false;
}

static void check_keys(lua_State *L, const char *key, const char *const keys[]) {
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
        if (lua_type(L, -2) != LUA_TSTRING || !is_listed(keys, lua_tostring(L, -2)))
            wrong(L, key, lua_pushfstring(L, "no table with '%s'", luaL_tolstring(L, -2, NULL)));
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
        check_keys(L, key, keys);
    return true;
}

/* The same of a list, without regard to metamethods; its length is in *count. */
static bool list_field(lua_State *L, const char *key, unsigned most, unsigned *count) {
    if (!table_field(L, key, NULL))
        return false;
    lua_Unsigned length = lua_rawlen(L, -1);
    if (length > most)
        wrong(L, key, lua_pushfstring(L, "a list of more than %d", (int)most));
    *count = (unsigned)length;
    return true;
}

/* Pushes the list's element; its text, or NULL when it is none or holds a NUL. */
static const char *push_text(lua_State *L, unsigned index) {
    size_t length;
    lua_rawgeti(L, -1, (lua_Integer)index + 1);
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &length) : NULL;
    return text && strlen(text) == length ? text : NULL;
}

/* --- the parts ----------------------------------------------------------------------------- */

/* Type, delta and value of the table on top; false when it names no type. */
static bool named_fields(lua_State *L, struct nat_config *out) {
    long value = 0;
    whole_field(L, "value", -UINT16_MAX, UINT16_MAX, &value);
    bool named = lua_getfield(L, -1, "type") != LUA_TNIL;
    bool has_delta = lua_getfield(L, -2, "delta") != LUA_TNIL;
    const char *type = lua_tostring(L, -2), *delta = lua_tostring(L, -1);
    if (!named && (has_delta || value != 0))
        luaL_error(L, "a router's NAT has a delta or a value, but no type");
    if (named && nat_config_named(type, delta, (int)value, out) != 0)
        luaL_error(L, "a router's NAT is no %s/%s with value %d", type ? type : "?",
                   delta ? delta : "na", (int)value);
    lua_pop(L, 2);
    return named;
}

static uint16_t port_at(lua_State *L, unsigned index) {
    lua_rawgeti(L, -1, (lua_Integer)index + 1);
    lua_Integer port = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : 0;
    lua_pop(L, 1);
    return port >= 1 && port <= UINT16_MAX ? (uint16_t)port : 0;
}

static void ports_field(lua_State *L, struct nat_behaviour *out) {
    unsigned count;
    if (!list_field(L, "ports", 2, &count))
        return;
    out->first = port_at(L, 0);
    out->last = port_at(L, 1);
    if (out->first == 0 || out->last < out->first)
        wrong(L, "ports", "no list of a first and a last port");
    lua_pop(L, 1);
}

static void behaviour_field(lua_State *L, enum nat_protocol protocol, struct nat_behaviour *out) {
    static const char *const keys[] = {"type",      "delta", "value",     "mapping",
                                       "filtering", "ports", "timeout_s", "transitory_s",
                                       "uninvited", NULL};
    struct nat_config named;
    if (!table_field(L, router_protocols[protocol], keys))
        return;
    if (named_fields(L, &named))
        *out = named.protocols[protocol];
    out->mapping = (enum nat_scope)word_field(L, "mapping", scopes, (int)out->mapping);
    out->filtering = (enum nat_scope)word_field(L, "filtering", scopes, (int)out->filtering);
    out->uninvited = (enum nat_uninvited)word_field(L, "uninvited", answers, (int)out->uninvited);
    ports_field(L, out);
    seconds_field(L, "timeout_s", protocol == NAT_TCP ? &out->established_s : &out->idle_s);
    seconds_field(L, "transitory_s", &out->transitory_s);
    lua_pop(L, 1);
}

static void external_field(lua_State *L, struct nat_config *out) {
    if (!list_field(L, "external", NAT_ADDRESSES, &out->external_count))
        return;
    for (unsigned i = 0; i < out->external_count; i++) {
        const char *text = push_text(L, i);
        struct ip *ip = &out->external[i];
        if (!text || ip_parse(text, strlen(text), ip) != 0 || ip->family != 4)
            wrong(L, "external", "no list of IPv4 addresses");
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void open_ports_field(lua_State *L, struct nat_config *out) {
    unsigned count;
    if (!list_field(L, "open_ports", NAT_OPEN_PORTS, &count))
        return;
    memset(out->open_ports, 0, sizeof out->open_ports);
    for (unsigned i = 0; i < count; i++) {
        out->open_ports[i] = port_at(L, i);
        if (out->open_ports[i] == 0)
            wrong(L, "open_ports", "no list of ports");
    }
    lua_pop(L, 1);
}

static void nat_field(lua_State *L, struct nat_config *out) {
    static const char *const keys[] = {"type",  "delta",      "value",      "udp",     "tcp",
                                       "icmp",  "external",   "pairing",    "hairpin", "noise",
                                       "table", "time_scale", "open_ports", NULL};
    if (!table_field(L, "nat", keys) || !named_fields(L, out))
        luaL_error(L, "a router needs 'nat' with a type");
    for (int i = 0; i < NAT_PROTOCOLS; i++)
        behaviour_field(L, (enum nat_protocol)i, &out->protocols[i]);
    long table_limit = out->table_limit;
    whole_field(L, "table", 1, 1 << 20, &table_limit);
    out->table_limit = (uint32_t)table_limit;
    out->paired = word_field(L, "pairing", pairings, out->paired) != 0;
    bool_field(L, "hairpin", &out->hairpin);
    number_field(L, "noise", 0, NAT_NOISE_MAX, &out->noise);
    number_field(L, "time_scale", 1e-6, 1e6, &out->time_scale);
    external_field(L, out);
    open_ports_field(L, out);
    lua_pop(L, 1);
}

/* A firewall lets in what was asked for and nothing else, as Linux' connection tracking does. What
 * is said of the router and not of its translation holds for IPv6 too. */
static void ipv6_field(lua_State *L, struct router_config *out) {
    int word = word_field(L, "ipv6", ipv6_words, IPV6_FIREWALL);
    const struct nat_config *ipv4 = &out->ipv4;
    struct nat_config *ipv6 = &out->ipv6;
    out->no_ipv6 = word == IPV6_NONE;
    nat_config_firewall(word == IPV6_OPEN ? NAT_FILTER_NONE : NAT_ADDRESS_AND_PORT_DEPENDENT, ipv6);
    ipv6->table_limit = ipv4->table_limit;
    ipv6->time_scale = ipv4->time_scale;
    memcpy(ipv6->open_ports, ipv4->open_ports, sizeof ipv6->open_ports);
    for (int i = 0; i < NAT_PROTOCOLS; i++) {
        const struct nat_behaviour *like = &ipv4->protocols[i];
        struct nat_behaviour *rule = &ipv6->protocols[i];
        rule->blocked = like->blocked;
        rule->uninvited = like->uninvited;
        rule->idle_s = like->idle_s;
        rule->established_s = like->established_s;
        rule->transitory_s = like->transitory_s;
    }
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
    if (!list_field(L, "inside", ROUTER_PREFIXES, &out->inside_count))
        return;
    for (unsigned i = 0; i < out->inside_count; i++) {
        if (!parse_prefix(push_text(L, i), &out->inside[i]))
            wrong(L, "inside", "no list of prefixes like 192.168.1.0/24");
        lua_pop(L, 1);
    }
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
