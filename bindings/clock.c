/* core.clock: NTP servers' time, and the time that follows from it. Times are integers, in
 * nanoseconds, as floats have too few digits for both a date and a microsecond. */
#include "core/clock.h"

#include "bindings/fail.h"
#include "bindings/module.h"
#include "bindings/wait.h"
#include "core/ip.h"
#include "core/ntp.h"

#include <limits.h>
#include <string.h>

#define TIMEOUT_S 2.0
#define SAMPLES 4

/* One question; lies in a userdata on the stack of the task that asks. */
struct question {
    struct ntp *ntp; /* NULL once it is over */
    struct wait *wait;
    struct ntp_result result;
};

/* The time of this process, which all its nodes share. */
static struct clock process_clock;

static const char *const worths[] = {
    [NTP_GOOD] = "good",
    [NTP_REFUSAL] = "refusal",
    [NTP_NO_TIME] = "no time",
    [NTP_NONSENSE] = "nonsense",
};

static void on_done(void *arg, int status, const struct ntp_result *result) {
    struct question *question = arg;
    question->ntp = NULL;
    question->result = *result;
    wait_wake(question->wait, status);
}

static void detach(void *arg) {
    struct question *question = arg;
    ntp_cancel(question->ntp);
    question->ntp = NULL;
}

static void set_integer(lua_State *L, const char *key, int64_t value) {
    lua_pushinteger(L, value);
    lua_setfield(L, -2, key);
}

/* The stack: options, question, ip, port. */
static int answered(lua_State *L, int status, lua_KContext context) {
    const struct question *question = lua_touserdata(L, (int)context);
    const struct ntp_result *result = &question->result;
    const char *ip = lua_tostring(L, 3);
    if (status == UV_EPROTO && result->worth == NTP_REFUSAL)
        return push_refusal(L, status, "clock %s refuses: %s", ip,
                            result->kiss[0] ? result->kiss : "it does not say why");
    if (status == UV_EPROTO && result->worth == NTP_NO_TIME)
        return push_refusal(L, status, "clock %s does not know the time itself", ip);
    if (status == UV_EPROTO)
        return push_refusal(L, status, "clock %s contradicts itself", ip);
    if (status)
        return push_failure(L, status, "asking clock %s", ip);
    lua_createtable(L, 0, 7);
    set_integer(L, "offset_ns", result->view.offset_ns);
    set_integer(L, "error_ns", result->view.error_ns);
    set_integer(L, "delay_ns", result->delay_ns);
    set_integer(L, "samples", result->samples);
    set_integer(L, "requests", result->requests);
    set_integer(L, "stratum", result->stratum);
    lua_pushstring(L, worths[result->worth]); /* of the last answer: after good ones, a refusal */
    lua_setfield(L, -2, "last");
    return 1;
}

static lua_Integer integer_field(lua_State *L, const char *key, lua_Integer otherwise,
                                 lua_Integer most) {
    int is_integer = 1;
    lua_getfield(L, 1, key);
    lua_Integer value = lua_isnil(L, -1) ? otherwise : lua_tointegerx(L, -1, &is_integer);
    if (!is_integer || value < 1 || value > most)
        luaL_argerror(L, 1, lua_pushfstring(L, "'%s' is not from 1 to %I", key, (LUAI_UACINT)most));
    lua_pop(L, 1);
    return value;
}

/* ask{ip, port, samples, timeout} -> {offset_ns=, error_ns=, delay_ns=, samples=, requests=,
 * stratum=, last=}: how far one server's time is from the steady clock */
static int ask(lua_State *L) {
    static const char *const keys[] = {"ip", "port", "samples", "timeout", NULL};
    struct sockaddr_storage server;
    struct ip ip;
    size_t length;
    check_options(L, 1, keys);
    lua_settop(L, 1);
    lua_Integer port = integer_field(L, "port", NTP_PORT, UINT16_MAX);
    lua_Integer samples = integer_field(L, "samples", SAMPLES, NTP_SAMPLES_MAX);
    double timeout_s = option_timeout(L, 1, "timeout", TIMEOUT_S);
    struct wait *wait = wait_begin(L);
    struct question *question = lua_newuserdatauv(L, sizeof *question, 0);
    memset(question, 0, sizeof *question);
    question->wait = wait;
    lua_getfield(L, 1, "ip");
    const char *text = lua_tolstring(L, 3, &length);
    luaL_argcheck(L, text && ip_parse(text, length, &ip) == 0, 1, "'ip' is no IP address");
    ip_to_sockaddr(&ip, (uint16_t)port, &server);
    double timeout_ms = timeout_s < 0 || timeout_s > INT_MAX / 1000 ? INT_MAX : timeout_s * 1000;
    int status = ntp_ask(wait_loop(L), (struct sockaddr *)&server, (unsigned)samples,
                         (unsigned)timeout_ms, on_done, question, &question->ntp);
    if (status)
        return answered(L, status, 2);
    return wait_park(L, wait, -1, detach, question, answered, 2);
}

static int64_t view_field(lua_State *L, int arg, const char *key) {
    int is_integer;
    lua_getfield(L, arg, key);
    lua_Integer value = lua_tointegerx(L, -1, &is_integer);
    if (!is_integer)
        luaL_error(L, "'%s' is no integer", key);
    lua_pop(L, 1);
    return value;
}

/* select(list) -> offset_ns, error_ns, agrees: of a list with offset_ns and error_ns each; agrees
 * is a list of booleans */
static int select_(lua_State *L) {
    struct clock_view views[CLOCK_SERVERS_MAX], found;
    bool agrees[CLOCK_SERVERS_MAX];
    luaL_checktype(L, 1, LUA_TTABLE);
    size_t count = (size_t)luaL_len(L, 1);
    luaL_argcheck(L, count > 0 && count <= CLOCK_SERVERS_MAX, 1, "too few or too many");
    for (size_t i = 0; i < count; i++) {
        lua_geti(L, 1, (lua_Integer)i + 1);
        luaL_checktype(L, -1, LUA_TTABLE);
        views[i].offset_ns = view_field(L, -1, "offset_ns");
        views[i].error_ns = view_field(L, -1, "error_ns");
        lua_pop(L, 1);
    }
    int status = clock_select(views, count, &found, agrees);
    if (status == UV_EPROTO)
        return push_refusal(L, status, "the clocks contradict each other");
    if (status)
        return push_failure(L, status, "comparing clocks");
    lua_pushinteger(L, found.offset_ns);
    lua_pushinteger(L, found.error_ns);
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        lua_pushboolean(L, agrees[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 3;
}

/* set(offset_ns, error_ns): the process goes by that from now on */
static int set(lua_State *L) {
    struct clock_view seen = {luaL_checkinteger(L, 1), luaL_checkinteger(L, 2)};
    clock_set(&process_clock, &seen, clock_steady_ns());
    return 0;
}

/* now() -> ns since 1970, which does not run backward */
static int now(lua_State *L) {
    lua_pushinteger(L, clock_now_ns(&process_clock, clock_steady_ns(), clock_machine_ns()));
    return 1;
}

/* view() -> offset_ns, error_ns by now, and the ns since it was set; nil before that */
static int view(lua_State *L) {
    int64_t steady_ns = clock_steady_ns();
    if (!process_clock.set)
        return lua_pushnil(L), 1;
    lua_pushinteger(L, process_clock.view.offset_ns);
    lua_pushinteger(L, clock_error_ns(&process_clock, steady_ns));
    lua_pushinteger(L, steady_ns - process_clock.set_at_ns);
    return 3;
}

/* machine() -> the machine's clock minus the steady one, in ns */
static int machine(lua_State *L) {
    int64_t before_ns = clock_steady_ns(), machine_ns = clock_machine_ns();
    lua_pushinteger(L, machine_ns - before_ns - (clock_steady_ns() - before_ns) / 2);
    return 1;
}

int open_clock(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"ask", ask},   {"select", select_},  {"set", set}, {"now", now},
        {"view", view}, {"machine", machine}, {NULL, NULL},
    };
    luaL_newlib(L, functions);
    return 1;
}
