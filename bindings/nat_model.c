/* core.nat_model: a router without a network, for specs: packets at any time that one likes. */
#include "core/nat_model.h"

#include "bindings/fail.h"
#include "bindings/module.h"

#include <math.h>
#include <string.h>

#define MODEL_TYPE "p2pd.nat_model"

struct holder {
    struct nat_model *model;
};

static const char *const reasons[] = {
    [NAT_MAPPED_NEW] = "mapped-new",     [NAT_MAPPED] = "mapped",
    [NAT_UNTRANSLATED] = "untranslated", [NAT_NO_MAPPING] = "no-mapping",
    [NAT_FILTERED] = "filtered",         [NAT_BLOCKED] = "blocked",
    [NAT_TABLE_FULL] = "table-full",     [NAT_NO_PORT] = "no-port",
    [NAT_NO_HAIRPIN] = "no-hairpin",     [NAT_BAD_STATE] = "bad-state",
};

static const char *const scopes[] = {"endpoint-independent", "address-dependent",
                                     "address-and-port-dependent", NULL};
static const char *const uninvited[] = {"drop", "reset", "unreachable", NULL};

static lua_Integer whole_field(lua_State *L, const char *key, lua_Integer otherwise) {
    lua_getfield(L, 1, key);
    lua_Integer value = luaL_optinteger(L, -1, otherwise);
    lua_pop(L, 1);
    return value;
}

static const char *text_field(lua_State *L, const char *key) {
    lua_getfield(L, 1, key);
    return luaL_optstring(L, -1, NULL); /* it stays on the stack */
}

static int word_field(lua_State *L, const char *key, const char *const words[], int otherwise) {
    const char *word = text_field(L, key);
    for (int i = 0; word && words[i]; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    if (word)
        luaL_error(L, "'%s' is not '%s'", key, word);
    return otherwise;
}

static struct ip check_ip(lua_State *L, int arg) {
    struct ip ip;
    size_t length;
    const char *text = luaL_checklstring(L, arg, &length);
    luaL_argcheck(L, ip_parse(text, length, &ip) == 0, arg, "no IP address");
    return ip;
}

static void externals(lua_State *L, struct nat_config *out) {
    if (lua_getfield(L, 1, "external") != LUA_TTABLE)
        luaL_error(L, "'external' is no list of addresses");
    lua_Integer count = luaL_len(L, -1);
    for (lua_Integer i = 0; i < count && i < NAT_ADDRESSES; i++) {
        lua_geti(L, -1, i + 1);
        out->external[i] = check_ip(L, lua_gettop(L));
        lua_pop(L, 1);
    }
    out->external_count = (unsigned)(count < NAT_ADDRESSES ? count : NAT_ADDRESSES);
    lua_pop(L, 1);
}

static void behaviours(lua_State *L, struct nat_config *out) {
    for (int i = 0; i < NAT_PROTOCOLS; i++) {
        struct nat_behaviour *rule = &out->protocols[i];
        rule->mapping = (enum nat_scope)word_field(L, "mapping", scopes, (int)rule->mapping);
        rule->filtering = (enum nat_scope)word_field(L, "filtering", scopes, (int)rule->filtering);
        rule->uninvited = (enum nat_uninvited)word_field(L, "uninvited", uninvited, 0);
        rule->first = (uint16_t)whole_field(L, "first", rule->first);
        rule->last = (uint16_t)whole_field(L, "last", rule->last);
    }
}

/* new{type, delta, value, mapping, filtering, uninvited, first, last, external = {ip, …},
 * arbitrary, noise, seed} -> model; throws when no router is like that */
static int new_(lua_State *L) {
    static const char *const keys[] = {"type",      "delta", "value", "mapping",  "filtering",
                                       "uninvited", "first", "last",  "external", "arbitrary",
                                       "noise",     "seed",  NULL};
    struct nat_config config;
    check_options(L, 1, keys);
    lua_settop(L, 1);
    const char *type = text_field(L, "type"), *delta = text_field(L, "delta");
    if (nat_config_named(type, delta, (int)whole_field(L, "value", 1), &config) != 0)
        return luaL_error(L, "no NAT is %s/%s", type ? type : "?", delta ? delta : "na");
    externals(L, &config);
    behaviours(L, &config);
    lua_getfield(L, 1, "arbitrary");
    config.paired = !lua_toboolean(L, -1);
    lua_getfield(L, 1, "noise");
    config.noise = luaL_optnumber(L, -1, 0);
    struct holder *holder = lua_newuserdatauv(L, sizeof *holder, 0);
    holder->model = NULL;
    luaL_setmetatable(L, MODEL_TYPE);
    if (nat_model_new(&config, (uint64_t)whole_field(L, "seed", 1), &holder->model) != 0)
        return luaL_error(L, "no NAT is like that");
    return 1;
}

typedef enum nat_verdict pass(struct nat_model *model, uint64_t now_ms, struct nat_packet *packet,
                              enum nat_reason *reason);

static int push_passed(lua_State *L, const struct ip *ip, uint16_t port) {
    char text[IP_TEXT_SIZE];
    lua_pushlstring(L, text, ip_format(ip, text));
    lua_pushinteger(L, port);
    return 2;
}

/* The endpoint that is rewritten comes back; nil, why, and what is answered when it is dropped. */
static int through(lua_State *L, pass *function, bool outbound) {
    static const char *const protocols[] = {"udp", "tcp", NULL};
    static const char *const answers[] = {
        [NAT_ANSWER_RESET] = "reset", [NAT_ANSWER_UNREACHABLE] = "unreachable"};
    const struct holder *holder = luaL_checkudata(L, 1, MODEL_TYPE);
    double now = luaL_checknumber(L, 2);
    luaL_argcheck(L, now >= 0 && now < 1e12, 2, "no time");
    struct nat_packet packet = {
        .protocol = (enum nat_protocol)luaL_checkoption(L, 3, NULL, protocols),
        .source = check_ip(L, 4),
        .source_port = (uint16_t)luaL_checkinteger(L, 5),
        .destination = check_ip(L, 6),
        .destination_port = (uint16_t)luaL_checkinteger(L, 7),
        .tcp_flags = (uint8_t)luaL_optinteger(L, 8, 0),
    };
    enum nat_reason reason = NAT_MAPPED;
    enum nat_verdict verdict =
        function(holder->model, (uint64_t)llround(now * 1e3), &packet, &reason);
    if (verdict == NAT_PASS && outbound)
        return push_passed(L, &packet.source, packet.source_port);
    if (verdict == NAT_PASS)
        return push_passed(L, &packet.destination, packet.destination_port);
    lua_pushnil(L);
    lua_pushstring(L, reasons[reason]);
    lua_pushstring(L, verdict >= NAT_ANSWER_RESET ? answers[verdict] : NULL);
    return 3;
}

/* model:outbound(now, "udp"|"tcp", source_ip, source_port, ip, port, [tcp_flags]) -> the source as
 * the outside sees it: ip, port; or nil, reason, answer */
static int outbound(lua_State *L) {
    return through(L, nat_model_out, true);
}

/* model:inbound(now, "udp"|"tcp", source_ip, source_port, ip, port, [tcp_flags]) -> the inside
 * endpoint that it gets to: ip, port; or nil, reason, answer */
static int inbound(lua_State *L) {
    return through(L, nat_model_in, false);
}

static int close_(lua_State *L) {
    struct holder *holder = luaL_checkudata(L, 1, MODEL_TYPE);
    nat_model_free(holder->model);
    holder->model = NULL;
    return 0;
}

static const luaL_Reg methods[] = {{"outbound", outbound}, {"inbound", inbound}, {NULL, NULL}};
static const luaL_Reg metamethods[] = {{"__gc", close_}, {NULL, NULL}};

int open_nat_model(lua_State *L) {
    module_type(L, MODEL_TYPE, methods, metamethods);
    luaL_newlib(L, ((const luaL_Reg[]){{"new", new_}, {NULL, NULL}}));
    return 1;
}
