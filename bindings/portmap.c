/* core.portmap: the blocking calls of port mapping. Only the program has it, for the process that
 * lua/p2pd/portmap/child.lua runs in; a task that called these would stop all others. */
#include "core/portmap.h"

#include "bindings/fail.h"
#include "bindings/module.h"
#include "core/err.h"

#include <arpa/inet.h>
#include <errno.h>
#include <miniupnpc/upnpcommands.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

/* The sanitizers keep terabytes of addresses that they never use, and write what they found. */
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define NUMBER_SIZE 16
#define TEXT_SIZE 256 /* of what routers' answers are copied into: no less than 128 */

static lua_Integer bounded(lua_State *L, int arg, lua_Integer least, lua_Integer most) {
    lua_Integer value = luaL_checkinteger(L, arg);
    luaL_argcheck(L, value >= least && value <= most, arg, "out of range");
    return value;
}

static const char *check_number(lua_State *L, int arg, lua_Integer most, char out[NUMBER_SIZE]) {
    snprintf(out, NUMBER_SIZE, "%lld", (long long)bounded(L, arg, 0, most));
    return out;
}

static void set_text(lua_State *L, const char *key, const char *text) {
    lua_pushstring(L, text);
    lua_setfield(L, -2, key);
}

static void set_integer(lua_State *L, const char *key, lua_Integer value) {
    lua_pushinteger(L, value);
    lua_setfield(L, -2, key);
}

/* What this process maps now. */
static size_t mapped_bytes(void) {
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file) {
        if (fscanf(file, "%lu", &pages) != 1)
            pages = 0;
        fclose(file);
    }
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static int set_limits(rlim_t memory, rlim_t cpu_s) {
    struct rlimit none = {0, 0}, cpu = {cpu_s, cpu_s + 1}, addresses = {memory, memory};
    if (setrlimit(RLIMIT_CPU, &cpu) != 0 || setrlimit(RLIMIT_CORE, &none) != 0)
        return -1;
    return SANITIZED ? 0 : setrlimit(RLIMIT_FSIZE, &none) || setrlimit(RLIMIT_AS, &addresses);
}

/* confine(bytes, cpu_seconds, seconds): from now on this process gets no more than so many bytes of
 * memory and so much time, writes no file, and ends with the one that started it. */
static int confine(lua_State *L) {
    size_t bytes = (size_t)bounded(L, 1, 0, 1 << 30);
    rlim_t cpu_s = (rlim_t)bounded(L, 2, 1, 60);
    unsigned seconds = (unsigned)bounded(L, 3, 1, 60);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        set_limits(mapped_bytes() + bytes, cpu_s) != 0)
        return push_failure(L, -errno, "cannot confine the process");
    alarm(seconds);
    lua_pushboolean(L, 1);
    return 1;
}

/* natpmp(gateway, timeout_s, [protocol, internal_port, external_port, lifetime_s]) ->
 * {external_ip=} or {external_port=, lifetime=}, each with epoch= */
static int natpmp(lua_State *L) {
    static const char *const protocols[] = {"tcp", "udp", NULL};
    static const uint8_t numbers[] = {IPPROTO_TCP, IPPROTO_UDP};
    struct natpmp_request request = {0};
    struct natpmp_answer answer;
    const char *gateway = luaL_checkstring(L, 1);
    luaL_argcheck(L, inet_pton(AF_INET, gateway, &request.gateway) == 1, 1, "no IPv4 address");
    double timeout_s = luaL_checknumber(L, 2);
    luaL_argcheck(L, timeout_s >= 0 && timeout_s <= 60, 2, "out of range");
    if (!lua_isnoneornil(L, 3)) {
        request.protocol = numbers[luaL_checkoption(L, 3, NULL, protocols)];
        request.internal_port = (uint16_t)bounded(L, 4, 1, UINT16_MAX);
        request.external_port = (uint16_t)bounded(L, 5, 0, UINT16_MAX);
        request.lifetime_s = (uint32_t)bounded(L, 6, 0, UINT32_MAX);
    }
    int status = natpmp_ask(&request, (unsigned)(timeout_s * 1e3), &answer);
    if (status != 0)
        return push_failure(L, status, "asking %s by NAT-PMP", gateway);
    lua_createtable(L, 0, 3);
    set_integer(L, "epoch", answer.epoch_s);
    if (request.protocol == 0) {
        char text[INET_ADDRSTRLEN];
        set_text(L, "external_ip", inet_ntop(AF_INET, &answer.external, text, sizeof text));
    } else {
        set_integer(L, "external_port", answer.external_port);
        set_integer(L, "lifetime", answer.lifetime_s);
    }
    return 1;
}

static void push_service(lua_State *L, const struct igd_service *service) {
    lua_createtable(L, 0, 2);
    set_text(L, "control", service->control);
    set_text(L, "type", service->type);
}

/* gateway(location) -> {name=, internal_ip=, services={{control=, type=}…}, firewall=} */
static int gateway(lua_State *L) {
    const char *location = luaL_checkstring(L, 1);
    struct igd *igd = lua_newuserdatauv(L, sizeof *igd, 0);
    int status = igd_fetch(location, igd);
    if (status != 0)
        return push_failure(L, status, "reading %s", location);
    lua_createtable(L, 0, 4);
    set_text(L, "name", igd->name);
    set_text(L, "internal_ip", igd->internal_ip);
    lua_newtable(L);
    for (int i = 0, count = 0; i < IGD_WANS; i++)
        if (igd->wan[i].control[0] != '\0') {
            push_service(L, &igd->wan[i]);
            lua_rawseti(L, -2, ++count);
        }
    lua_setfield(L, -2, "services");
    if (igd->firewall.control[0] != '\0') {
        push_service(L, &igd->firewall);
        lua_setfield(L, -2, "firewall");
    }
    return 1;
}

/* All of the following take (control, type, …) of a service first; when the router says no they
 * return nil and UPnP's error number, or miniupnpc's, which is below zero. */

static int refused(lua_State *L, int error) {
    lua_pushnil(L);
    lua_pushinteger(L, error);
    return 2;
}

static int done(lua_State *L, int error) {
    if (error != UPNPCOMMAND_SUCCESS)
        return refused(L, error);
    lua_pushboolean(L, 1);
    return 1;
}

/* status(control, type) -> "Connected", … */
static int status_(lua_State *L) {
    char status[TEXT_SIZE] = "", why[TEXT_SIZE] = "";
    unsigned uptime_s = 0;
    int error =
        UPNP_GetStatusInfo(luaL_checkstring(L, 1), luaL_checkstring(L, 2), status, &uptime_s, why);
    if (error != UPNPCOMMAND_SUCCESS)
        return refused(L, error);
    lua_pushstring(L, status);
    return 1;
}

/* external_ip(control, type) -> text */
static int external_ip(lua_State *L) {
    char ip[TEXT_SIZE] = "";
    int error = UPNP_GetExternalIPAddress(luaL_checkstring(L, 1), luaL_checkstring(L, 2), ip);
    if (error != UPNPCOMMAND_SUCCESS)
        return refused(L, error);
    lua_pushstring(L, ip);
    return 1;
}

/* add(control, type, protocol, external_port, internal_ip, internal_port, name, lifetime_s) */
static int add(lua_State *L) {
    char external[NUMBER_SIZE], internal[NUMBER_SIZE], lifetime[NUMBER_SIZE];
    return done(L, UPNP_AddPortMapping(luaL_checkstring(L, 1), luaL_checkstring(L, 2),
                                       check_number(L, 4, UINT16_MAX, external),
                                       check_number(L, 6, UINT16_MAX, internal),
                                       luaL_checkstring(L, 5), luaL_checkstring(L, 7),
                                       luaL_checkstring(L, 3), NULL,
                                       check_number(L, 8, UINT32_MAX, lifetime)));
}

/* remove(control, type, protocol, external_port) */
static int remove_(lua_State *L) {
    char external[NUMBER_SIZE];
    return done(L, UPNP_DeletePortMapping(luaL_checkstring(L, 1), luaL_checkstring(L, 2),
                                          check_number(L, 4, UINT16_MAX, external),
                                          luaL_checkstring(L, 3), NULL));
}

static int push_entry(lua_State *L, const char *ip, const char *port, const char *name,
                      const char *lifetime) {
    lua_createtable(L, 0, 4);
    set_text(L, "internal_ip", ip);
    set_text(L, "internal_port", port);
    set_text(L, "name", name);
    set_text(L, "lifetime", lifetime);
    return 1;
}

/* lookup(control, type, protocol, external_port) -> {internal_ip=, internal_port=, name=,
 * lifetime=}, all of them texts */
static int lookup(lua_State *L) {
    char ip[TEXT_SIZE] = "", port[TEXT_SIZE] = "", name[TEXT_SIZE] = "", enabled[TEXT_SIZE] = "",
         lifetime[TEXT_SIZE] = "", external[NUMBER_SIZE];
    int error = UPNP_GetSpecificPortMappingEntry(
        luaL_checkstring(L, 1), luaL_checkstring(L, 2), check_number(L, 4, UINT16_MAX, external),
        luaL_checkstring(L, 3), NULL, ip, port, name, enabled, lifetime);
    if (error != UPNPCOMMAND_SUCCESS)
        return refused(L, error);
    return push_entry(L, ip, port, name, lifetime);
}

/* entry(control, type, index from 0) -> the same with protocol= and external_port= */
static int entry(lua_State *L) {
    char index[NUMBER_SIZE], external[TEXT_SIZE] = "", ip[TEXT_SIZE] = "", port[TEXT_SIZE] = "",
                             protocol[TEXT_SIZE] = "", name[TEXT_SIZE] = "",
                             enabled[TEXT_SIZE] = "", host[TEXT_SIZE] = "",
                             lifetime[TEXT_SIZE] = "";
    int error = UPNP_GetGenericPortMappingEntry(luaL_checkstring(L, 1), luaL_checkstring(L, 2),
                                                check_number(L, 3, UINT16_MAX, index), external, ip,
                                                port, protocol, name, enabled, host, lifetime);
    if (error != UPNPCOMMAND_SUCCESS)
        return refused(L, error);
    push_entry(L, ip, port, name, lifetime);
    set_text(L, "protocol", protocol);
    set_text(L, "external_port", external);
    return 1;
}

/* firewall(control, type) -> whether there is one, whether it lets pinholes be made */
static int firewall(lua_State *L) {
    int enabled = 0, allowed = 0;
    int error =
        UPNP_GetFirewallStatus(luaL_checkstring(L, 1), luaL_checkstring(L, 2), &enabled, &allowed);
    if (error != UPNPCOMMAND_SUCCESS)
        return refused(L, error);
    lua_pushboolean(L, enabled);
    lua_pushboolean(L, allowed);
    return 2;
}

/* open_pinhole(control, type, protocol number, internal_ip, internal_port, lifetime_s) -> id */
static int open_pinhole(lua_State *L) {
    char protocol[NUMBER_SIZE], port[NUMBER_SIZE], lifetime[NUMBER_SIZE], id[TEXT_SIZE] = "";
    int error = UPNP_AddPinhole(luaL_checkstring(L, 1), luaL_checkstring(L, 2), "empty", "0",
                                luaL_checkstring(L, 4), check_number(L, 5, UINT16_MAX, port),
                                check_number(L, 3, UINT8_MAX, protocol),
                                check_number(L, 6, UINT32_MAX, lifetime), id);
    if (error != UPNPCOMMAND_SUCCESS)
        return refused(L, error);
    lua_pushstring(L, id);
    return 1;
}

/* renew_pinhole(control, type, id, lifetime_s) */
static int renew_pinhole(lua_State *L) {
    char lifetime[NUMBER_SIZE];
    return done(L, UPNP_UpdatePinhole(luaL_checkstring(L, 1), luaL_checkstring(L, 2),
                                      luaL_checkstring(L, 3),
                                      check_number(L, 4, UINT32_MAX, lifetime)));
}

/* close_pinhole(control, type, id) */
static int close_pinhole(lua_State *L) {
    return done(L, UPNP_DeletePinhole(luaL_checkstring(L, 1), luaL_checkstring(L, 2),
                                      luaL_checkstring(L, 3)));
}

int open_portmap(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"confine", confine},
        {"natpmp", natpmp},
        {"gateway", gateway},
        {"status", status_},
        {"external_ip", external_ip},
        {"add", add},
        {"remove", remove_},
        {"lookup", lookup},
        {"entry", entry},
        {"firewall", firewall},
        {"open_pinhole", open_pinhole},
        {"renew_pinhole", renew_pinhole},
        {"close_pinhole", close_pinhole},
        {NULL, NULL},
    };
    luaL_newlib(L, functions);
    return 1;
}
