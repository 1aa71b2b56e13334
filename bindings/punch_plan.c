/* core.punch.predict, between, wanted, tactic, plan: what is sent where, before anything is. */
#include "bindings/punch_plan.h"

#include "core/err.h"
#include "core/predict.h"
#include "core/punch_plan.h"

#include "bindings/fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Whose mistake it is: of ours, it is thrown at the caller's line; the peer's is told. */
struct reader {
    lua_State *L;
    const char *whose; /* "the peer's "; NULL for our own */
    char wrong[160];   /* the first that the peer got wrong */
};

__attribute__((format(printf, 2, 3))) static void wrong(struct reader *reader, const char *format,
                                                        ...) {
    char text[128];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (!reader->whose)
        luaL_error(reader->L, "%s", text);
    if (!reader->wrong[0])
        snprintf(reader->wrong, sizeof reader->wrong, "%s%s", reader->whose, text);
}

/* A whole number from `least` to `most`; `otherwise` where there is none. */
static lua_Integer whole(struct reader *reader, int index, const char *what, lua_Integer least,
                         lua_Integer most, lua_Integer otherwise) {
    lua_State *L = reader->L;
    int good = 0;
    if (lua_isnoneornil(L, index))
        return otherwise;
    /* What is text, and what has a fraction, is no number here. */
    lua_Integer value = lua_type(L, index) == LUA_TNUMBER ? lua_tointegerx(L, index, &good) : 0;
    if (good && value >= least && value <= most)
        return value;
    if (lua_type(L, index) == LUA_TNUMBER)
        wrong(reader, "'%s' is %g, and no whole number from %lld to %lld", what,
              lua_tonumber(L, index), (long long)least, (long long)most);
    else
        wrong(reader, "'%s' is a %s, and no whole number", what, luaL_typename(L, index));
    return otherwise;
}

static lua_Integer whole_field(struct reader *reader, int table, const char *key, lua_Integer least,
                               lua_Integer most, lua_Integer otherwise) {
    lua_getfield(reader->L, table, key);
    lua_Integer value = whole(reader, -1, key, least, most, otherwise);
    lua_pop(reader->L, 1);
    return value;
}

static bool bool_field(lua_State *L, int table, const char *key) {
    lua_getfield(L, table, key);
    bool value = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

static unsigned word_field(struct reader *reader, int table, const char *key,
                           unsigned (*number_of)(const char *word), unsigned otherwise) {
    lua_State *L = reader->L;
    bool absent = lua_getfield(L, table, key) == LUA_TNIL;
    const char *word = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
    unsigned number = absent ? otherwise : word ? number_of(word) : 0;
    if (number == 0 && word)
        wrong(reader, "'%s' cannot be '%.24s'", key, word);
    else if (number == 0)
        wrong(reader, "'%s' is no word", key);
    lua_pop(L, 1);
    return number ? number : otherwise;
}

/* The list in a field stays on the stack; returns how long it is. */
static size_t push_list(struct reader *reader, int table, const char *key, size_t most) {
    lua_State *L = reader->L;
    int type = lua_getfield(L, table, key);
    if (type == LUA_TNIL)
        return 0;
    if (type != LUA_TTABLE) {
        wrong(reader, "'%s' is no list", key);
        return 0;
    }
    size_t count = lua_rawlen(L, -1);
    if (count > most) {
        wrong(reader, "'%s' has %zu entries, more than %zu", key, count, most);
        return 0;
    }
    return count;
}

static size_t ports_field(struct reader *reader, int table, const char *key, uint16_t *out,
                          size_t most) {
    size_t count = push_list(reader, table, key, most);
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(reader->L, -1, (lua_Integer)i + 1);
        out[i] = (uint16_t)whole(reader, -1, key, 1, UINT16_MAX, 1);
        lua_pop(reader->L, 1);
    }
    lua_pop(reader->L, 1);
    return count;
}

static void read_kind(struct reader *reader, int table, struct predict_kind *out) {
    *out = (struct predict_kind){
        .nat = word_field(reader, table, "nat", addr_nat_number, ADDR_NAT_PORT_RESTRICTED),
        .delta = word_field(reader, table, "delta", addr_delta_number, ADDR_DELTA_RANDOM),
        .value = (int)whole_field(reader, table, "value", -UINT16_MAX, UINT16_MAX, 0),
        .first = (uint16_t)whole_field(reader, table, "first", 0, UINT16_MAX, 0),
        .last = (uint16_t)whole_field(reader, table, "last", 0, UINT16_MAX, 0),
    };
    if (!predict_kind_check(out))
        wrong(reader, "ports from %d to %d are no range", out->first, out->last);
}

static void read_side(struct reader *reader, int table, struct plan_side *out) {
    memset(out, 0, sizeof *out);
    read_kind(reader, table, &out->kind);
    out->port_count = (unsigned)ports_field(reader, table, "ports", out->ports, PLAN_PORTS_MAX);
    if (!reader->whose)
        out->local_count =
            (unsigned)ports_field(reader, table, "locals", out->locals, PLAN_PORTS_MAX);
    out->exact = bool_field(reader->L, table, "exact");
}

static void own_side(lua_State *L, int table, struct plan_side *out) {
    struct reader reader = {.L = L};
    luaL_checktype(L, table, LUA_TTABLE);
    read_side(&reader, table, out);
}

/* Whether what the peer says can be; otherwise nil, message and code are on the stack. */
static bool peer_side(lua_State *L, int table, struct plan_side *out) {
    struct reader reader = {.L = L, .whose = "what the peer says of its router cannot be: "};
    luaL_checktype(L, table, LUA_TTABLE);
    read_side(&reader, table, out);
    if (!reader.wrong[0])
        return true;
    push_refusal(L, UV_EINVAL, "%s", reader.wrong);
    return false;
}

/* Prediction ----------------------------------------------------------------------------------- */

static const char *const faults[] = {
    [PREDICT_RANDOM] = "the router takes external ports at random: none can be predicted",
    [PREDICT_BLOCKED] = "the router lets nothing out, so that there is nothing to predict",
    [PREDICT_NO_SAMPLE] = "no STUN server said which external port a new local port gets",
    [PREDICT_CHAIN] = "no local port is free that the router would map as predicted",
    [PREDICT_RANGE] = "no local port is mapped to that external port",
};

/* {local_port =, external_port =} or {local, external}; an external one that is missing is 0. */
static struct predict_pair read_pair(struct reader *reader, const char *key) {
    lua_State *L = reader->L;
    int entry = lua_gettop(L);
    if (lua_type(L, entry) != LUA_TTABLE)
        wrong(reader, "'%s' is no list of tables", key);
    if (lua_getfield(L, entry, "local_port") == LUA_TNIL)
        lua_rawgeti(L, entry, 1);
    uint16_t local = (uint16_t)whole(reader, -1, "local_port", 1, UINT16_MAX, 0);
    if (lua_getfield(L, entry, "external_port") == LUA_TNIL)
        lua_rawgeti(L, entry, 2);
    uint16_t external = (uint16_t)whole(reader, -1, "external_port", 0, UINT16_MAX, 0);
    if (local == 0)
        wrong(reader, "'%s' has an entry without local port", key);
    lua_settop(L, entry);
    return (struct predict_pair){local, external};
}

static size_t pairs_field(struct reader *reader, int table, const char *key,
                          struct predict_pair *out, size_t most) {
    lua_State *L = reader->L;
    size_t count = push_list(reader, table, key, most);
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        out[i] = read_pair(reader, key);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return count;
}

static void push_pair(lua_State *L, const struct predict_pair *pair) {
    lua_createtable(L, 0, 2);
    lua_pushinteger(L, pair->local);
    lua_setfield(L, -2, "local_port");
    lua_pushinteger(L, pair->external);
    lua_setfield(L, -2, "external_port");
}

/* A list of them, with the ports alone in its fields `locals` and `ports`. */
static int push_pairs(lua_State *L, const struct predict_pair *pairs, size_t count) {
    lua_createtable(L, (int)count, 2);
    lua_createtable(L, (int)count, 0);
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        lua_pushinteger(L, pairs[i].local);
        lua_rawseti(L, -3, (lua_Integer)i + 1);
        lua_pushinteger(L, pairs[i].external);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
        push_pair(L, &pairs[i]);
        lua_rawseti(L, -4, (lua_Integer)i + 1);
    }
    lua_setfield(L, -3, "ports");
    lua_setfield(L, -2, "locals");
    return 1;
}

struct prediction {
    struct predict_asked asked;
    struct predict_pair samples[PREDICT_SAMPLES_MAX];
    uint16_t taken[PREDICT_TAKEN_MAX];
};

static void read_steps(struct reader *reader, struct predict_kind *out) {
    read_kind(reader, 1, out);
    if ((out->delta == ADDR_DELTA_INDEPENDENT || out->delta == ADDR_DELTA_DEPENDENT) &&
        out->value == 0)
        wrong(reader, "'value' is 0, which no %s delta has", addr_delta_word(out->delta));
}

static void read_prediction(lua_State *L, struct reader *reader, struct prediction *out) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    read_steps(reader, &out->asked.kind);
    out->asked.samples = out->samples;
    out->asked.sample_count = pairs_field(reader, 1, "samples", out->samples, PREDICT_SAMPLES_MAX);
    out->asked.taken = out->taken;
    out->asked.taken_count = ports_field(reader, 1, "taken", out->taken, PREDICT_TAKEN_MAX);
}

/* predict{nat, delta, value, first, last, samples = {{local_port, external_port}, …}, count = 1,
 * taken = {local port, …}} -> {{local_port =, external_port =}, …, locals = {…}, ports = {…}}, at
 * least one and at most count; or nil, message, code. Our own mistakes throw. */
static int predict(lua_State *L) {
    struct reader reader = {.L = L};
    struct prediction given;
    struct predict_pair found[PREDICT_COUNT_MAX];
    enum predict_fault fault;
    read_prediction(L, &reader, &given);
    size_t count = (size_t)whole_field(&reader, 1, "count", 1, PREDICT_COUNT_MAX, 1);
    size_t made = predict_next(&given.asked, found, count, &fault);
    if (made == 0)
        return push_refusal(L, ERR_EUNREACHABLE, "%s", faults[fault]);
    return push_pairs(L, found, made);
}

/* wanted{nat, …, samples, taken, port =} -> {local_port =, external_port = port}: which local port
 * gets this external one; or nil, message, code. */
static int wanted(lua_State *L) {
    struct reader reader = {.L = L};
    struct prediction given;
    struct predict_pair found;
    read_prediction(L, &reader, &given);
    lua_Integer port = whole_field(&reader, 1, "port", 1, UINT16_MAX, 0);
    luaL_argcheck(L, port != 0, 1, "'port' is missing");
    enum predict_fault fault = predict_wanted(&given.asked, (uint16_t)port, &found);
    if (fault != PREDICT_FINE)
        return push_refusal(L, ERR_EUNREACHABLE, "%s", faults[fault]);
    push_pair(L, &found);
    return 1;
}

/* between{nat, …, list = {{local_port, external_port or 0}, …}} -> the list with what is certain
 * filled in, how many still are not: the shots that were fired between two samples. */
static int between(lua_State *L) {
    struct reader reader = {.L = L};
    struct predict_kind kind;
    struct predict_pair list[PREDICT_SAMPLES_MAX];
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    read_steps(&reader, &kind);
    size_t count = pairs_field(&reader, 1, "list", list, PREDICT_SAMPLES_MAX);
    size_t unknown = predict_between(&kind, list, count);
    push_pairs(L, list, count);
    lua_pushinteger(L, (lua_Integer)unknown);
    return 2;
}

/* Plans ---------------------------------------------------------------------------------------- */

static const char *const tactics[] = {
    [PLAN_NONE] = "none",   [PLAN_MEET] = "meet", [PLAN_WINDOW] = "window",
    [PLAN_CROSS] = "cross", [PLAN_CALL] = "call", [PLAN_BIRTHDAY] = "birthday",
};

static const char *const reasons[] = {
    [PLAN_OWN_BLOCKED] = "our network lets nothing out but to a few well-known ports",
    [PLAN_PEER_BLOCKED] = "the peer's network lets nothing out but to a few well-known ports",
    [PLAN_BOTH_RANDOM] = "both routers scatter ports",
    [PLAN_OWN_RANDOM] = "our router scatters ports, and the peer's has another one for each "
                        "destination: neither can tell where to aim",
    [PLAN_PEER_RANDOM] = "the peer's router scatters ports, and ours has another one for each "
                         "destination: neither can tell where to aim",
    [PLAN_OWN_PORTS] = "no port of ours is known that the peer could aim at",
    [PLAN_PEER_PORTS] = "the peer named no port that we could aim at",
    [PLAN_NO_BUDGET] = "the budget allows no sockets or no packets",
};

static void set_whole(lua_State *L, const char *key, lua_Integer value) {
    lua_pushinteger(L, value);
    lua_setfield(L, -2, key);
}

static void set_needs(lua_State *L, const char *who, const struct plan_needs *needs) {
    char key[32];
    snprintf(key, sizeof key, "%s_samples", who);
    set_whole(L, key, needs->samples);
    snprintf(key, sizeof key, "%s_ports", who);
    set_whole(L, key, needs->ports);
    snprintf(key, sizeof key, "%s_hold", who);
    lua_pushboolean(L, needs->hold);
    lua_setfield(L, -2, key);
}

/* tactic(own, peer) -> name, {own_samples =, own_ports =, own_hold =, peer_…}, and of "none" the
 * reason as a sentence; nil, message, code when the peer's facts cannot be. Ports are not needed.
 */
static int tactic(lua_State *L) {
    struct plan_side own, peer;
    struct plan_needs own_needs, peer_needs;
    enum plan_reason reason;
    own_side(L, 1, &own);
    if (!peer_side(L, 2, &peer))
        return 3;
    enum plan_tactic found = plan_tactic(&own, &peer, &own_needs, &peer_needs, &reason);
    lua_pushstring(L, tactics[found]);
    lua_createtable(L, 0, 6);
    set_needs(L, "own", &own_needs);
    set_needs(L, "peer", &peer_needs);
    lua_pushstring(L, reasons[reason]);
    return 3;
}

static void push_shots(lua_State *L, const struct plan *plan) {
    lua_createtable(L, (int)plan->shot_count, 0);
    for (unsigned i = 0; i < plan->shot_count; i++) {
        const struct plan_shot *shot = &plan->shots[i];
        lua_createtable(L, 0, 4);
        lua_pushnumber(L, shot->at_us / 1e3);
        lua_setfield(L, -2, "at_ms");
        set_whole(L, "local_port", shot->local);
        set_whole(L, "remote_port", shot->remote);
        if (shot->ttl != 0)
            set_whole(L, "ttl", shot->ttl);
        if (shot->listens) {
            lua_pushboolean(L, true);
            lua_setfield(L, -2, "listens");
        }
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "shots");
}

static int push_plan(lua_State *L, const struct plan *plan) {
    lua_createtable(L, 0, 5);
    lua_pushstring(L, tactics[plan->tactic]);
    lua_setfield(L, -2, "tactic");
    push_shots(L, plan);
    lua_createtable(L, (int)plan->listen_count, 0);
    for (unsigned i = 0; i < plan->listen_count; i++) {
        lua_pushinteger(L, plan->listen[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "listen");
    lua_createtable(L, 0, 2);
    set_whole(L, "times", plan->revive_times);
    set_whole(L, "gap_ms", plan->revive_gap_ms);
    lua_setfield(L, -2, "revive");
    set_whole(L, "wait_ms", plan->wait_ms);
    return 1;
}

static bool role_field(lua_State *L) {
    static const char *const roles[] = {"connect", "respond", NULL};
    lua_getfield(L, 1, "role");
    const char *role = lua_tostring(L, -1);
    for (int i = 0; role && roles[i]; i++)
        if (strcmp(role, roles[i]) == 0) {
            lua_pop(L, 1);
            return i == 0;
        }
    return luaL_error(L, "'role' is \"connect\" or \"respond\"") != 0;
}

static void read_asked(lua_State *L, struct plan_asked *out) {
    struct reader reader = {.L = L};
    out->connects = role_field(L);
    out->attempt = (unsigned)whole_field(&reader, 1, "try", 1, PLAN_TRIES_MAX, 1);
    out->ttl = (uint8_t)whole_field(&reader, 1, "ttl", 1, UINT8_MAX, 0);
    out->seed = (uint64_t)whole_field(&reader, 1, "seed", LUA_MININTEGER, LUA_MAXINTEGER, 0);
    lua_getfield(L, 1, "rtt_ms");
    double rtt_ms = luaL_optnumber(L, -1, 0);
    if (!(rtt_ms >= 0))
        luaL_error(L, "'rtt_ms' is no time");
    out->rtt_ms = rtt_ms < PLAN_RTT_MAX_MS ? (unsigned)(rtt_ms + 0.999) : PLAN_RTT_MAX_MS;
    out->sockets = PLAN_SOCKETS;
    out->sprays = PLAN_SPRAYS;
    if (lua_getfield(L, 1, "budget") != LUA_TNIL) {
        static const char *const keys[] = {"sockets", "sprays", NULL};
        int budget = lua_gettop(L);
        check_options(L, budget, keys);
        out->sockets =
            (unsigned)whole_field(&reader, budget, "sockets", 0, PLAN_SHOTS_MAX, PLAN_SOCKETS);
        out->sprays =
            (unsigned)whole_field(&reader, budget, "sprays", 0, PLAN_SHOTS_MAX, PLAN_SPRAYS);
    }
    lua_settop(L, 1);
}

/* plan{own = facts, peer = facts, role = "connect"|"respond", try = 1, budget = {sockets = 256,
 * sprays = 1024}, ttl = 2, rtt_ms =, seed = 0} -> {tactic, shots = {{at_ms, local_port (0: any),
 * remote_port, ttl, listens}, …}, listen = {local ports}, revive = {times, gap_ms}, wait_ms};
 * nil, sentence, code when there is none or the peer's facts cannot be. */
static int plan(lua_State *L) {
    static const char *const keys[] = {"own", "peer",   "role", "try", "budget",
                                       "ttl", "rtt_ms", "seed", NULL};
    struct plan_asked asked = {0};
    check_options(L, 1, keys);
    lua_settop(L, 1);
    read_asked(L, &asked);
    lua_getfield(L, 1, "own");
    lua_getfield(L, 1, "peer");
    own_side(L, 2, &asked.own);
    if (!peer_side(L, 3, &asked.peer))
        return 3;
    struct plan *made = lua_newuserdatauv(L, sizeof *made, 0); /* freed whatever is thrown */
    enum plan_reason reason = plan_make(&asked, made);
    if (reason == PLAN_PEER_PORTS)
        return push_refusal(L, UV_EINVAL, "%s", reasons[reason]);
    if (reason != PLAN_FINE)
        return push_refusal(L, ERR_EUNREACHABLE, "%s", reasons[reason]);
    return push_plan(L, made);
}

void add_punch_plan(lua_State *L) {
    static const luaL_Reg functions[] = {{"predict", predict}, {"between", between},
                                         {"wanted", wanted},   {"tactic", tactic},
                                         {"plan", plan},       {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
