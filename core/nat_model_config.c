#include "core/err.h"
#include "core/nat_model.h"

#include <math.h>
#include <string.h>

#define LENGTH(list) (sizeof(list) / sizeof((list)[0]))

/* What each type does: 4 to 6 in the terms of RFC 4787, section 5. */
static const struct nat_type {
    const char *name;
    bool translates, blocked;
    enum nat_scope mapping, filtering;
} types[] = {
    {"open", false, false, NAT_ENDPOINT_INDEPENDENT, NAT_FILTER_NONE},
    {"udp-firewall", false, false, NAT_ENDPOINT_INDEPENDENT, NAT_ADDRESS_AND_PORT_DEPENDENT},
    {"full-cone", true, false, NAT_ENDPOINT_INDEPENDENT, NAT_ENDPOINT_INDEPENDENT},
    {"restricted", true, false, NAT_ENDPOINT_INDEPENDENT, NAT_ADDRESS_DEPENDENT},
    {"port-restricted", true, false, NAT_ENDPOINT_INDEPENDENT, NAT_ADDRESS_AND_PORT_DEPENDENT},
    {"symmetric", true, false, NAT_ADDRESS_AND_PORT_DEPENDENT, NAT_ADDRESS_AND_PORT_DEPENDENT},
    {"blocked", true, true, NAT_ADDRESS_AND_PORT_DEPENDENT, NAT_ADDRESS_AND_PORT_DEPENDENT},
};

static const char *const deltas[] = {
    [NAT_DELTA_EQUAL] = "equal",
    [NAT_DELTA_PRESERVING] = "preserving",
    [NAT_DELTA_INDEPENDENT] = "independent",
    [NAT_DELTA_DEPENDENT] = "dependent",
    [NAT_DELTA_RANDOM] = "random",
};

/* HTTP, HTTPS, MQTT, MQTT over TLS, STUN and TURN, the same over TLS. */
static const uint16_t open_ports[NAT_OPEN_PORTS] = {80, 443, 1883, 8883, 3478, 5349};

/* RFC 4787, 4.2.1 keeps off the well-known ports, 4.3 (REQ-5) recommends 5 minutes; RFC 5508, 3.2
 * (REQ-2) asks for 60 s; RFC 5382, 5 (REQ-5) for 2 hours 4 minutes, and 4 minutes. */
static const struct nat_behaviour usual = {
    .first = 1024,
    .last = 65535,
    .idle_s = 300,
    .established_s = 7440,
    .transitory_s = 240,
};
enum { ICMP_IDLE_S = 60, TABLE_LIMIT = 65536 };

static void lay_out(const struct nat_behaviour *behaviour, struct nat_config *out) {
    *out = (struct nat_config){.paired = true, .table_limit = TABLE_LIMIT, .time_scale = 1};
    memcpy(out->open_ports, open_ports, sizeof open_ports);
    for (unsigned i = 0; i < NAT_PROTOCOLS; i++)
        out->protocols[i] = *behaviour;
    out->protocols[NAT_ICMP].idle_s = ICMP_IDLE_S;
}

static const struct nat_type *find_type(const char *name) {
    for (size_t i = 0; name && i < LENGTH(types); i++)
        if (strcmp(types[i].name, name) == 0)
            return &types[i];
    return NULL;
}

static bool find_delta(const char *name, enum nat_delta *out) {
    for (size_t i = 0; i < LENGTH(deltas); i++)
        if (strcmp(deltas[i], name) == 0) {
            *out = (enum nat_delta)i;
            return true;
        }
    return false;
}

static bool steps(enum nat_delta delta) {
    return delta == NAT_DELTA_INDEPENDENT || delta == NAT_DELTA_DEPENDENT;
}

int nat_config_named(const char *type_name, const char *delta_name, int value,
                     struct nat_config *out) {
    const struct nat_type *type = find_type(type_name);
    enum nat_delta delta = NAT_DELTA_EQUAL;
    if (!type)
        return UV_EINVAL;
    bool has_delta = delta_name && strcmp(delta_name, "na") != 0;
    if (has_delta ? !find_delta(delta_name, &delta) : type->translates && !type->blocked)
        return UV_EINVAL;
    if (!type->translates && delta != NAT_DELTA_EQUAL)
        return UV_EINVAL; /* where nothing is translated, ports stay as they are */
    if (steps(delta) && (value == 0 || value < -UINT16_MAX || value > UINT16_MAX))
        return UV_EINVAL;
    struct nat_behaviour behaviour = usual;
    behaviour.translates = type->translates;
    behaviour.blocked = type->blocked;
    behaviour.mapping = type->mapping;
    behaviour.filtering = type->filtering;
    behaviour.delta = delta;
    behaviour.value = steps(delta) ? value : 0;
    lay_out(&behaviour, out);
    return 0;
}

void nat_config_firewall(enum nat_scope filtering, struct nat_config *out) {
    struct nat_behaviour behaviour = usual; /* RFC 6092, REC-14 (UDP), REC-35 (TCP): these times */
    behaviour.filtering = filtering;
    lay_out(&behaviour, out);
}

static bool check_behaviour(const struct nat_behaviour *rule) {
    unsigned ports = rule->first <= rule->last ? rule->last - rule->first + 1u : 0;
    return (unsigned)rule->mapping <= NAT_ADDRESS_AND_PORT_DEPENDENT &&
           (unsigned)rule->filtering <= NAT_FILTER_NONE &&
           (unsigned)rule->delta <= NAT_DELTA_RANDOM &&
           (unsigned)rule->uninvited <= NAT_UNINVITED_UNREACHABLE && rule->first > 0 && ports > 0 &&
           (rule->delta != NAT_DELTA_PRESERVING || ports > 1) && /* the distance is not 0 */
           (!steps(rule->delta) ||
            (rule->value != 0 && rule->value >= -UINT16_MAX && rule->value <= UINT16_MAX)) &&
           rule->idle_s > 0 && rule->established_s > 0 && rule->transitory_s > 0;
}

int nat_config_check(const struct nat_config *config) {
    bool good = config->external_count <= NAT_ADDRESSES && config->table_limit > 0 &&
                config->noise >= 0 && config->noise <= NAT_NOISE_MAX &&
                isfinite(config->time_scale) && config->time_scale > 0;
    for (unsigned i = 0; good && i < NAT_PROTOCOLS; i++)
        good = check_behaviour(&config->protocols[i]) &&
               (!config->protocols[i].translates || config->external_count > 0);
    for (unsigned i = 0; good && i < config->external_count; i++) {
        good = config->external[i].family == 4;
        for (unsigned j = 0; good && j < i; j++)
            good = !ip_equal(&config->external[i], &config->external[j]);
    }
    return good ? 0 : UV_EINVAL;
}

bool nat_is_external(const struct nat_config *config, const struct ip *ip) {
    for (unsigned i = 0; i < config->external_count; i++)
        if (ip_equal(&config->external[i], ip))
            return true;
    return false;
}
