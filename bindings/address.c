#include "bindings/module.h"

#include "bindings/fail.h"
#include "core/addr.h"
#include "core/addr_rules.h"
#include "core/derive.h"

#include <string.h>
#include <uv.h>

static const char *const kinds[] = {
    [IP_UNSPECIFIED] = "unspecified", [IP_LOOPBACK] = "loopback", [IP_LINK_LOCAL] = "link-local",
    [IP_PRIVATE] = "private",         [IP_SHARED] = "shared",     [IP_MULTICAST] = "multicast",
    [IP_BROADCAST] = "broadcast",     [IP_GLOBAL] = "global",
};

/* The numbers of an interface that are numbers in Lua too. */
static const struct {
    const char *key;
    enum addr_number number;
} numbers[] = {
    {"netiface_index", ADDR_NETIFACE_INDEX},
    {"if_index", ADDR_IF_INDEX},
    {"port", ADDR_PORT},
    {"delta_value", ADDR_DELTA_VALUE},
};

/* And those that are words. */
static const struct {
    const char *key;
    enum addr_number number;
    const char *(*word)(unsigned number);
    unsigned (*find)(const char *word);
    unsigned last;
} words[] = {
    {"nat", ADDR_NAT, addr_nat_word, addr_nat_number, ADDR_NAT_BLOCKED},
    {"delta", ADDR_DELTA, addr_delta_word, addr_delta_number, ADDR_DELTA_RANDOM},
};

#define LENGTH(list) (sizeof(list) / sizeof((list)[0]))

static void push_ip(lua_State *L, const struct ip *ip) {
    char text[IP_TEXT_SIZE];
    ip_format(ip, text);
    lua_pushstring(L, text);
}

static void push_interface(lua_State *L, const struct addr_interface *entry) {
    lua_createtable(L, 0, 8);
    const lua_Integer values[] = {entry->netiface_index, entry->if_index, entry->port,
                                  entry->delta_value};
    for (size_t i = 0; i < LENGTH(numbers); i++) {
        lua_pushinteger(L, values[i]);
        lua_setfield(L, -2, numbers[i].key);
    }
    push_ip(L, &entry->external);
    lua_setfield(L, -2, "external");
    push_ip(L, &entry->internal);
    lua_setfield(L, -2, "internal");
    lua_pushstring(L, addr_nat_word(entry->nat));
    lua_setfield(L, -2, "nat");
    lua_pushstring(L, addr_delta_word(entry->delta));
    lua_setfield(L, -2, "delta");
}

static void push_family(lua_State *L, const struct addr_family *list) {
    lua_createtable(L, list->count, 0);
    for (unsigned i = 0; i < list->count; i++) {
        push_interface(L, &list->interfaces[i]);
        lua_rawseti(L, -2, i + 1);
    }
}

static int refuse(lua_State *L, const struct addr_error *error) {
    return push_refusal(L, UV_EINVAL, "%s: %s", error->field, error->reason);
}

/* parse(text) -> table, or nil, "EINVAL: field: reason", "EINVAL" */
static int parse(lua_State *L) {
    size_t length;
    const char *text = luaL_checklstring(L, 1, &length);
    struct addr addr;
    struct addr_error error;
    if (addr_parse(text, length, &addr, &error) != 0)
        return refuse(L, &error);
    lua_createtable(L, 0, 6);
    lua_createtable(L, addr.signal_count, 0);
    for (unsigned i = 0; i < addr.signal_count; i++) {
        lua_pushinteger(L, addr.signal[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "signal");
    push_family(L, &addr.ipv4);
    lua_setfield(L, -2, "ipv4");
    push_family(L, &addr.ipv6);
    lua_setfield(L, -2, "ipv6");
    lua_pushstring(L, addr.node_id);
    lua_setfield(L, -2, "node_id");
    lua_pushstring(L, addr.machine_id);
    lua_setfield(L, -2, "machine_id");
    lua_pushboolean(L, addr.ours);
    lua_setfield(L, -2, "ours");
    return 1;
}

/* Throws: `what` in the table that is argument 1 has the wrong type. */
static int wrong_type(lua_State *L, const char *what, const char *wanted) {
    return luaL_argerror(
        L, 1, lua_pushfstring(L, "%s is no %s but a %s", what, wanted, luaL_typename(L, -1)));
}

/* The integer on top of the stack, which is popped. */
static lua_Integer take_integer(lua_State *L, const char *what) {
    int whole;
    lua_Integer value = lua_tointegerx(L, -1, &whole);
    if (!whole || lua_type(L, -1) != LUA_TNUMBER)
        wrong_type(L, what, "whole number");
    lua_pop(L, 1);
    return value;
}

/* The text of a field of the table on top of the stack; it stays alive in that table. */
static const char *get_text(lua_State *L, const char *key, const char *what, size_t *length) {
    if (lua_getfield(L, -1, key) != LUA_TSTRING)
        wrong_type(L, what, "string");
    const char *text = lua_tolstring(L, -1, length);
    lua_pop(L, 1);
    return text;
}

static int read_ip(lua_State *L, const char *key, struct addr_place *place, struct ip *out) {
    size_t length;
    const char *text = get_text(L, key, key, &length);
    if (ip_parse(text, length, out) != 0) {
        place->field = key;
        return addr_refuse(place, "'%.48s' is no IP address", text);
    }
    out->zone = 0; /* it means nothing on another machine */
    return 0;
}

static int read_word(lua_State *L, size_t which, struct addr_place *place,
                     struct addr_interface *out) {
    const char *key = words[which].key, *word = get_text(L, key, key, NULL);
    unsigned number = words[which].find(word);
    if (number != 0)
        return addr_set_number(out, words[which].number, number, place);
    luaL_Buffer list;
    luaL_buffinit(L, &list);
    for (unsigned i = 1; i <= words[which].last; i++) {
        luaL_addstring(&list, i > 1 ? " " : "");
        luaL_addstring(&list, words[which].word(i));
    }
    luaL_pushresult(&list);
    place->field = key;
    addr_refuse(place, "'%.16s' is none of %s", word, lua_tostring(L, -1));
    lua_pop(L, 1);
    return UV_EINVAL;
}

/* The interface is the table on top of the stack. */
static int read_interface(lua_State *L, struct addr_place *place, struct addr_interface *out) {
    int status = 0;
    for (size_t i = 0; status == 0 && i < LENGTH(numbers); i++) {
        lua_getfield(L, -1, numbers[i].key);
        status = addr_set_number(out, numbers[i].number, take_integer(L, numbers[i].key), place);
    }
    for (size_t i = 0; status == 0 && i < LENGTH(words); i++)
        status = read_word(L, i, place, out);
    if (status == 0)
        status = read_ip(L, "external", place, &out->external);
    if (status == 0)
        status = read_ip(L, "internal", place, &out->internal);
    return status;
}

/* Pushes the list `key` of the table at 1, or an empty one; returns its length. */
static lua_Integer open_list(lua_State *L, const char *key) {
    if (lua_getfield(L, 1, key) == LUA_TNIL) {
        lua_pop(L, 1);
        lua_newtable(L);
    }
    if (!lua_istable(L, -1))
        wrong_type(L, key, "table");
    return luaL_len(L, -1);
}

static int read_family(lua_State *L, uint8_t family, struct addr_error *error,
                       struct addr_family *out) {
    const char *key = family == 4 ? "ipv4" : "ipv6";
    lua_Integer count = open_list(L, key);
    if (count > ADDR_INTERFACES_MAX)
        return addr_refuse(&(struct addr_place){key, 0, NULL, error},
                           "it has %lld interfaces; at most %d are allowed", (long long)count,
                           ADDR_INTERFACES_MAX);
    int status = 0;
    for (lua_Integer i = 1; status == 0 && i <= count; i++) {
        struct addr_place place = addr_place_interface(family, (unsigned)i, error);
        if (lua_geti(L, -1, i) != LUA_TTABLE)
            wrong_type(L, key, "list of tables");
        status = read_interface(L, &place, &out->interfaces[out->count++]);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return status;
}

static int read_id(lua_State *L, const char *key, const char *name, size_t longest,
                   struct addr_error *error, char *out) {
    struct addr_place place = {name, 0, NULL, error};
    size_t length;
    lua_pushvalue(L, 1);
    const char *text = get_text(L, key, key, &length);
    lua_pop(L, 1);
    if (length > longest)
        return addr_refuse(&place, "it has %zu characters; at most %zu are allowed", length,
                           longest);
    if (strlen(text) != length)
        return addr_refuse(&place, "it holds a zero byte");
    memcpy(out, text, length + 1);
    return 0;
}

/* format(table) -> text, or nil, "EINVAL: field: reason", "EINVAL" */
static int format(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    struct addr addr = {0};
    struct addr_error error;
    int status = 0;
    lua_Integer count = open_list(L, "signal");
    for (lua_Integer i = 1; status == 0 && i <= count; i++) {
        lua_geti(L, -1, i);
        status = addr_add_signal(&addr, take_integer(L, "signal offset"), &error);
    }
    lua_settop(L, 1);
    if (status == 0)
        status = read_family(L, 4, &error, &addr.ipv4);
    if (status == 0)
        status = read_family(L, 6, &error, &addr.ipv6);
    if (status == 0)
        status = read_id(L, "node_id", "node id", ADDR_NODE_ID_MAX, &error, addr.node_id);
    if (status == 0)
        status =
            read_id(L, "machine_id", "machine id", ADDR_MACHINE_ID_MAX, &error, addr.machine_id);
    if (status == 0)
        status = addr_check(&addr, &error);
    if (status != 0)
        return refuse(L, &error);
    char text[ADDR_TEXT_SIZE];
    lua_pushlstring(L, text, addr_format(&addr, text));
    return 1;
}

/* broker_order(node_id, count) -> offsets from 0, in the order in which the node tries them */
static int broker_order(lua_State *L) {
    size_t length;
    const char *node_id = luaL_checklstring(L, 1, &length);
    lua_Integer count = luaL_checkinteger(L, 2);
    luaL_argcheck(L, count >= 0 && count <= DERIVE_BROKERS_MAX, 2, "not between 0 and 256");
    uint16_t order[DERIVE_BROKERS_MAX];
    derive_broker_order(node_id, length, (size_t)count, order);
    lua_createtable(L, (int)count, 0);
    for (lua_Integer i = 0; i < count; i++) {
        lua_pushinteger(L, order[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* port(node_id) -> the port that a node listens on unless told otherwise */
static int port(lua_State *L) {
    size_t length;
    const char *node_id = luaL_checklstring(L, 1, &length);
    lua_pushinteger(L, derive_port(node_id, length));
    return 1;
}

/* ip(text) -> {family = 4 or 6, kind = word, text = canonical}, or nil, message, "EINVAL" */
static int ip(lua_State *L) {
    size_t length;
    const char *text = luaL_checklstring(L, 1, &length);
    struct ip parsed;
    if (ip_parse(text, length, &parsed) != 0)
        return push_refusal(L, UV_EINVAL, "'%.64s' is no IP address", text);
    lua_createtable(L, 0, 3);
    lua_pushinteger(L, parsed.family);
    lua_setfield(L, -2, "family");
    lua_pushstring(L, kinds[ip_kind(&parsed)]);
    lua_setfield(L, -2, "kind");
    push_ip(L, &parsed);
    lua_setfield(L, -2, "text");
    return 1;
}

static void check_ip(lua_State *L, int arg, struct ip *out) {
    size_t length;
    const char *text = luaL_checklstring(L, arg, &length);
    if (ip_parse(text, length, out) != 0)
        luaL_argerror(L, arg, "not an IP address");
}

/* same_prefix(ip, ip, bits) -> whether both lie in one subnet; false for different families */
static int same_prefix(lua_State *L) {
    struct ip a, b;
    check_ip(L, 1, &a);
    check_ip(L, 2, &b);
    lua_Integer bits = luaL_checkinteger(L, 3);
    luaL_argcheck(L, bits >= 0 && bits <= 128, 3, "not between 0 and 128");
    lua_pushboolean(L, ip_same_prefix(&a, &b, (unsigned)bits));
    return 1;
}

static const luaL_Reg functions[] = {
    {"parse", parse}, {"format", format}, {"broker_order", broker_order},
    {"port", port},   {"ip", ip},         {"same_prefix", same_prefix},
    {NULL, NULL},
};

int open_address(lua_State *L) {
    luaL_newlib(L, functions);
    return 1;
}
