/* core.nat: what kind of NAT it is, from what servers have said of us. */
#include "core/nat.h"

#include "bindings/fail.h"
#include "bindings/module.h"

#include <string.h>

#define TRIES_MAX 1000

/* Fields of the table on top of the stack ------------------------------------------------------ */

static void wrong(lua_State *L, const char *key, const char *what) {
    luaL_argerror(L, 1, lua_pushfstring(L, "'%s' is no %s", key, what));
}

static struct ip ip_field(lua_State *L, const char *key, bool needed) {
    struct ip ip = {0};
    size_t length = 0;
    bool absent = lua_getfield(L, -1, key) == LUA_TNIL;
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &length) : NULL;
    if (absent ? needed : !text || ip_parse(text, length, &ip) != 0)
        wrong(L, key, "IP address");
    lua_pop(L, 1);
    return ip;
}

static unsigned whole_field(lua_State *L, const char *key, unsigned most, unsigned otherwise) {
    int whole = 1;
    bool absent = lua_getfield(L, -1, key) == LUA_TNIL;
    lua_Integer value = absent ? (lua_Integer)otherwise : lua_tointegerx(L, -1, &whole);
    if (!whole || value < 0 || value > (lua_Integer)most)
        wrong(L, key, most == UINT16_MAX ? "port" : "number that it can be");
    lua_pop(L, 1);
    return (unsigned)value;
}

static uint16_t port_field(lua_State *L, const char *key) {
    return (uint16_t)whole_field(L, key, UINT16_MAX, 0);
}

static bool bool_field(lua_State *L, const char *key) {
    lua_getfield(L, -1, key);
    bool value = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

static void read_seen(lua_State *L, struct nat_seen *out) {
    *out = (struct nat_seen){
        .server = ip_field(L, "server_ip", true),
        .server_port = port_field(L, "server_port"),
        .local_port = port_field(L, "local_port"),
        .external = ip_field(L, "external_ip", false),
        .external_port = port_field(L, "external_port"),
        .refused = bool_field(L, "refused"),
        .tries = whole_field(L, "tries", TRIES_MAX, 1),
    };
}

static void read_test(lua_State *L, struct nat_filter_test *out) {
    *out = (struct nat_filter_test){
        .server = ip_field(L, "server_ip", true),
        .server_port = port_field(L, "server_port"),
        .from = ip_field(L, "from_ip", true),
        .from_port = port_field(L, "from_port"),
        .answered = bool_field(L, "answered"),
        .tries = whole_field(L, "tries", TRIES_MAX, 1),
    };
}

/* Pushes the list in field `key` (nil where it may be missing); returns how much of it counts. */
static size_t push_list(lua_State *L, const char *key, size_t most) {
    int type = lua_getfield(L, 1, key);
    if (type != LUA_TTABLE && type != LUA_TNIL)
        wrong(L, key, "list");
    size_t count = type == LUA_TNIL ? 0 : (size_t)luaL_len(L, -1);
    return count < most ? count : most;
}

static void push_entry(lua_State *L, const char *key, size_t place) {
    if (lua_geti(L, -1, (lua_Integer)place + 1) != LUA_TTABLE)
        wrong(L, key, "list of tables");
}

static enum nat_protocol protocol_field(lua_State *L) {
    static const char *const words[] = {[NAT_UDP] = "udp", [NAT_TCP] = "tcp", NULL};
    lua_getfield(L, 1, "transport");
    const char *word = luaL_optstring(L, -1, "udp");
    for (int i = 0; words[i]; i++)
        if (strcmp(words[i], word) == 0)
            return (enum nat_protocol)i;
    wrong(L, "transport", "transport");
    return NAT_UDP;
}

static int stranger_field(lua_State *L) {
    if (lua_getfield(L, 1, "stranger") == LUA_TNIL)
        return 0;
    return lua_toboolean(L, -1) ? 1 : -1;
}

/* Answers -------------------------------------------------------------------------------------- */

static const char *const scopes[] = {
    [NAT_ENDPOINT_INDEPENDENT] = "endpoint-independent",
    [NAT_ADDRESS_DEPENDENT] = "address-dependent",
    [NAT_ADDRESS_AND_PORT_DEPENDENT] = "address-and-port-dependent",
};

static void set_text(lua_State *L, const char *key, const char *text) {
    lua_pushstring(L, text);
    lua_setfield(L, -2, key);
}

static void set_number(lua_State *L, const char *key, double value) {
    lua_pushnumber(L, value);
    lua_setfield(L, -2, key);
}

static void set_ip(lua_State *L, const char *key, const struct ip *ip) {
    char text[IP_TEXT_SIZE];
    if (ip->family == 0)
        return;
    ip_format(ip, text);
    set_text(L, key, text);
}

static void push_report(lua_State *L, const struct nat_report *report) {
    lua_createtable(L, 0, 12);
    set_text(L, "nat", addr_nat_word(report->type));
    set_text(L, "delta", addr_delta_word(report->delta));
    lua_pushinteger(L, report->value);
    lua_setfield(L, -2, "value");
    if (report->first != 0) {
        lua_createtable(L, 2, 0);
        lua_pushinteger(L, report->first);
        lua_rawseti(L, -2, 1);
        lua_pushinteger(L, report->last);
        lua_rawseti(L, -2, 2);
        lua_setfield(L, -2, "range");
    }
    if (report->translated)
        set_text(L, "mapping", scopes[report->mapping]);
    set_text(L, "filtering", scopes[report->filtering]);
    lua_pushboolean(L, report->translated);
    lua_setfield(L, -2, "translated");
    set_ip(L, "external", &report->external);
    set_ip(L, "liar", &report->liar);
    set_number(L, "confidence", report->confidence);
    set_number(L, "type_confidence", report->type_confidence);
    set_number(L, "delta_confidence", report->delta_confidence);
}

/* classify{transport, ip, seen = {{server_ip, server_port, local_port, external_ip, external_port,
 * refused, tries}, …}, tests = {{server_ip, server_port, from_ip, from_port, answered, tries}, …},
 * udp_silent, stranger} -> {nat, delta, value, range, mapping, filtering, translated, external,
 * liar, confidence, type_confidence, delta_confidence} */
static int classify(lua_State *L) {
    static const char *const keys[] = {"transport",  "ip",       "seen", "tests",
                                       "udp_silent", "stranger", NULL};
    struct nat_seen seen[NAT_SEEN_MAX];
    struct nat_filter_test tests[NAT_TESTS_MAX];
    struct nat_report report;
    check_options(L, 1, keys);
    lua_settop(L, 1);
    struct nat_observations observations = {
        .local = ip_field(L, "ip", true),
        .udp_silent = bool_field(L, "udp_silent"),
        .seen = seen,
        .tests = tests,
    };
    observations.protocol = protocol_field(L);
    observations.stranger = stranger_field(L);
    observations.seen_count = push_list(L, "seen", NAT_SEEN_MAX);
    for (size_t i = 0; i < observations.seen_count; i++, lua_pop(L, 1)) {
        push_entry(L, "seen", i);
        read_seen(L, &seen[i]);
    }
    observations.test_count = push_list(L, "tests", NAT_TESTS_MAX);
    for (size_t i = 0; i < observations.test_count; i++, lua_pop(L, 1)) {
        push_entry(L, "tests", i);
        read_test(L, &tests[i]);
    }
    nat_classify(&observations, &report);
    push_report(L, &report);
    return 1;
}

/* is_common_port(port): whether what blocks all else lets TCP pass to it */
static int is_common_port(lua_State *L) {
    lua_pushboolean(L, nat_is_common_port((uint16_t)luaL_checkinteger(L, 1)));
    return 1;
}

int open_nat(lua_State *L) {
    luaL_newlib(L, ((const luaL_Reg[]){
                       {"classify", classify}, {"is_common_port", is_common_port}, {NULL, NULL}}));
    return 1;
}
