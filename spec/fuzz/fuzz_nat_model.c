/* Any packets at any times, and changes of configuration between them: no two mappings share an
 * external endpoint, new ports lie in the range, the table keeps to its limit, and what comes in
 * goes where a mapping leads, by a filter that something outbound has opened.
 *
 *   configuration, 12 bytes (see configure), then steps of 8 bytes (see step) */
#include "core/nat_model_state.h"

#include <stdlib.h>

#define MUST(condition) ((condition) ? (void)0 : abort())
#define STEPS_MAX 256

enum { CONFIG_SIZE = 12, STEP_SIZE = 8, MAPPINGS_MAX = 32 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static struct nat_model *model;
static struct nat_config config;
static uint64_t now_ms;

static struct past { /* what went out, as the outside saw it */
    struct nat_packet packet;
    uint64_t at_ms;
} past[STEPS_MAX];
static size_t past_count;

static const struct nat_mapping *mappings[MAPPINGS_MAX];
static size_t mapping_count;

static struct ip address(uint8_t a, uint8_t b, unsigned last) {
    return (struct ip){.family = 4, .bytes = {a, b, 0, (uint8_t)last}};
}

static struct ip external_ip(unsigned index) {
    return address(30, 2, 2 + index);
}

static void behaviour(const uint8_t *bytes, struct nat_behaviour *out) {
    out->translates = bytes[0] % 8 != 0;
    out->blocked = bytes[0] / 8 % 8 == 0;
    out->mapping = bytes[1] % 3;
    out->filtering = bytes[1] / 3 % 4;
    out->delta = bytes[1] / 12 % 5;
    out->uninvited = bytes[2] % 3;
    out->value = bytes[2] / 3 - 40;
    out->first = (uint16_t)(1 + bytes[3] * 257);
    out->last = (uint16_t)(out->first + bytes[0] / 64 * 11);
    out->idle_s = 1 + bytes[2] % 7;
    out->established_s = 20;
    out->transitory_s = 5;
}

static void configure(const uint8_t *bytes) {
    config = (struct nat_config){
        .external_count = bytes[8] % 4,
        .paired = bytes[8] & 4,
        .hairpin = bytes[8] & 8,
        .noise = bytes[9] / 16,
        .table_limit = 1 + bytes[10] % MAPPINGS_MAX,
        .time_scale = 0.5 + bytes[11] / 64,
        .open_ports = {1, 3},
    };
    for (unsigned i = 0; i < config.external_count; i++)
        config.external[i] = external_ip(i + bytes[9] % 2);
    behaviour(bytes, &config.protocols[NAT_UDP]);
    behaviour(bytes + 4, &config.protocols[NAT_TCP]);
    config.protocols[NAT_ICMP] = config.protocols[NAT_UDP];
}

static bool same_end(struct ip a, uint16_t a_port, struct ip b, uint16_t b_port) {
    return a_port == b_port && ip_equal(&a, &b);
}

static void collect(void *context, struct nat_mapping *mapping) {
    (void)context;
    MUST(mapping_count < MAPPINGS_MAX);
    mappings[mapping_count++] = mapping;
}

static void check_table(uint32_t limit) {
    mapping_count = 0;
    nat_each_mapping(&model->store, collect, NULL);
    MUST(mapping_count == nat_store_mappings(&model->store));
    MUST(mapping_count <= limit && nat_store_sessions(&model->store) <= 4 * limit);
    for (size_t i = 0; i < mapping_count; i++) {
        const struct nat_mapping *a = mappings[i];
        MUST(a->sessions > 0);
        if (a->translated)
            MUST(nat_is_external(&config, &a->external.ip) && a->external.port != 0 &&
                 ip_equal(&config.external[a->address], &a->external.ip));
        for (size_t j = 0; j < i; j++)
            MUST(a->protocol != mappings[j]->protocol ||
                 !same_end(a->external.ip, a->external.port, mappings[j]->external.ip,
                           mappings[j]->external.port));
    }
}

static bool has_mapping(enum nat_protocol protocol, struct ip external, uint16_t port,
                        const struct nat_packet *sent) {
    for (size_t i = 0; i < mapping_count; i++)
        if (mappings[i]->protocol == protocol &&
            same_end(mappings[i]->external.ip, mappings[i]->external.port, external, port))
            return same_end(mappings[i]->inside.ip, mappings[i]->inside.port, sent->destination,
                            sent->destination_port);
    return false;
}

/* Whether something went out that opens a filter for this packet, not too long ago. */
static bool was_invited(const struct nat_packet *packet, bool by_port) {
    uint64_t life_ms = model->lives_ms[packet->protocol == NAT_UDP ? NAT_LIFE_UDP : NAT_LIFE_ICMP];
    for (size_t i = 0; i < past_count; i++) {
        const struct nat_packet *out = &past[i].packet;
        if (packet->protocol == out->protocol && now_ms - past[i].at_ms < life_ms &&
            same_end(out->source, out->source_port, packet->destination,
                     packet->destination_port) &&
            ip_equal(&out->destination, &packet->source) &&
            (!by_port || out->destination_port == packet->source_port))
            return true;
    }
    return false;
}

static void check_unchanged(const struct nat_packet *a, const struct nat_packet *b) {
    MUST(same_end(a->source, a->source_port, b->source, b->source_port));
    MUST(same_end(a->destination, a->destination_port, b->destination, b->destination_port));
}

static void came_in(const struct nat_packet *packet, const struct nat_packet *sent,
                    const struct nat_behaviour *rule) {
    if (!rule->translates && rule->filtering == NAT_FILTER_NONE) {
        check_unchanged(packet, sent);
        return;
    }
    MUST(has_mapping(packet->protocol, packet->destination, packet->destination_port, sent));
    if (packet->protocol == NAT_TCP)
        return;
    if (rule->filtering == NAT_ADDRESS_DEPENDENT)
        MUST(was_invited(packet, false));
    if (rule->filtering == NAT_ADDRESS_AND_PORT_DEPENDENT)
        MUST(was_invited(packet, true));
}

static void send_out(struct nat_packet packet) {
    const struct nat_behaviour *rule = &config.protocols[packet.protocol];
    enum nat_reason reason = NAT_BAD_STATE;
    struct nat_packet sent = packet;
    enum nat_verdict verdict = nat_model_out(model, now_ms, &sent, &reason);
    if (verdict != NAT_PASS && verdict != NAT_HAIRPIN) {
        MUST(reason > NAT_UNTRANSLATED);
        check_unchanged(&packet, &sent);
    }
    struct nat_packet seen = sent;
    if (verdict == NAT_HAIRPIN) {
        seen.destination = packet.destination;
        seen.destination_port = packet.destination_port;
        check_table(config.table_limit);
        MUST(rule->translates && config.hairpin);
        MUST(has_mapping(packet.protocol, packet.destination, packet.destination_port, &sent));
    }
    if (reason == NAT_MAPPED_NEW)
        MUST(sent.source_port >= rule->first && sent.source_port <= rule->last &&
             nat_is_external(&config, &sent.source));
    if (reason == NAT_BLOCKED)
        MUST(rule->blocked);
    /* A hairpin that was filtered has opened its own side all the same. */
    struct nat_end inside = {packet.source, packet.source_port};
    struct nat_end remote = {packet.destination, packet.destination_port};
    const struct nat_session *session =
        nat_find_session(&model->store, packet.protocol, &inside, &remote);
    if (session && reason != NAT_BLOCKED && reason != NAT_NO_HAIRPIN) {
        seen.source = session->mapping->external.ip;
        seen.source_port = session->mapping->external.port;
        past[past_count++] = (struct past){seen, now_ms};
    }
}

static void send_in(struct nat_packet packet) {
    const struct nat_behaviour *rule = &config.protocols[packet.protocol];
    enum nat_reason reason = NAT_BAD_STATE;
    struct nat_packet sent = packet;
    nat_model_mappings(model, now_ms);
    check_table(MAPPINGS_MAX); /* and collect what is there before */
    enum nat_verdict verdict = nat_model_in(model, now_ms, &sent, &reason);
    MUST(verdict != NAT_HAIRPIN);
    if (verdict == NAT_PASS) {
        came_in(&packet, &sent, rule);
        MUST(reason == NAT_MAPPED || reason == NAT_UNTRANSLATED);
        return;
    }
    check_unchanged(&packet, &sent);
    if (verdict != NAT_DROP)
        MUST(packet.protocol == NAT_TCP && (packet.tcp_flags & 23) == 2 &&
             (reason == NAT_NO_MAPPING || reason == NAT_FILTERED));
}

/* kind and protocol, time, inside host, inside port, remote, remote port, external, flags */
static void step(const uint8_t *bytes) {
    struct nat_packet packet = {.protocol = bytes[0] / 8 % 3, .tcp_flags = bytes[7] & 23};
    struct ip inside = address(192, 168, bytes[2] % 4u);
    bool hairpin = bytes[4] % 8 >= 6;
    struct ip remote = hairpin ? external_ip(bytes[6] / 64) : address(30, 1, bytes[4] % 4u);
    uint16_t local = bytes[3], port = bytes[5] % 4;
    now_ms += (uint64_t)bytes[1] * bytes[1] / 4;
    if (bytes[0] % 8 < 4) {
        packet.source = inside, packet.source_port = local;
        packet.destination = remote, packet.destination_port = port;
        if (hairpin)
            packet.destination_port = (uint16_t)(config.protocols[0].first + bytes[5] % 34);
        send_out(packet);
        return;
    }
    packet.source = remote, packet.source_port = port;
    packet.destination = bytes[6] % 8 == 0 ? inside : external_ip(bytes[6] / 64);
    const struct nat_behaviour *rule = &config.protocols[packet.protocol];
    packet.destination_port = (uint16_t)(rule->first + bytes[3] % 34);
    if (bytes[6] % 8 == 0)
        packet.destination_port = local;
    if (past_count > 0 && bytes[6] % 8 > 4) { /* an answer to one of the latest */
        const struct nat_packet *out = &past[past_count - 1 - bytes[6] % past_count].packet;
        packet.protocol = out->protocol;
        packet.destination = out->source, packet.destination_port = out->source_port;
        if (bytes[6] % 8 > 5)
            packet.source = out->destination, packet.source_port = out->destination_port;
    }
    if (bytes[0] % 8 < 7) {
        send_in(packet);
        return;
    }
    struct nat_packet quote = packet;
    enum nat_verdict verdict = nat_model_error(model, now_ms, bytes[7] & 64, &quote);
    MUST(verdict == NAT_PASS || verdict == NAT_DROP);
    if (verdict == NAT_DROP)
        check_unchanged(&packet, &quote);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    if (length < CONFIG_SIZE)
        return 0;
    configure(bytes);
    now_ms = 1000000;
    past_count = 0;
    model = NULL;
    bool good = nat_config_check(&config) == 0;
    MUST((nat_model_new(&config, bytes[11], &model) == 0) == good);
    uint32_t limit = config.table_limit;
    for (size_t at = CONFIG_SIZE; good && at + STEP_SIZE <= length; at += STEP_SIZE) {
        if (bytes[at] == 0xFF && at + 1 + CONFIG_SIZE <= length) { /* another configuration */
            struct nat_config before = config;
            configure(bytes + at + 1);
            nat_model_configure(model, &config, bytes[at + 1] & 1);
            if (nat_config_check(&config) != 0)
                config = before;
            /* What is there may stay, but a smaller table takes no more. */
            limit = config.table_limit > limit ? config.table_limit : limit;
            at += 1 + CONFIG_SIZE - STEP_SIZE;
        } else if (past_count < STEPS_MAX) {
            step(bytes + at);
        }
        check_table(limit);
    }
    nat_model_free(model);
    return 0;
}
