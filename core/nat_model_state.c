#include "core/nat_model_state.h"

#include "core/err.h"
#include "core/nat_model_tcp.h"

#include <stdlib.h>

#define SESSIONS_PER_MAPPING 4
#define RESET_S 10 /* what a session has left after a RST; netfilter's "close" is as long */
#define CATCH_UP_FLOWS 65536 /* of noise after a silence; what else would have come did not */

/* --- time --------------------------------------------------------------------------------- */

static void end_session(struct nat_model *model, struct nat_session *session) {
    const struct nat_mapping *mapping = session->mapping;
    if (mapping->sessions == 1 && mapping->translated)
        nat_ports_release(&model->ports[mapping->protocol][mapping->address],
                          mapping->external.port);
    nat_remove_session(&model->store, session);
}

static void expire(struct nat_model *model, uint64_t now_ms) {
    for (unsigned i = 0; i < NAT_LIVES; i++)
        for (struct nat_session *oldest; (oldest = model->store.oldest[i]);) {
            if (now_ms - oldest->touched_ms < model->lives_ms[i])
                break;
            end_session(model, oldest);
        }
    nat_noise_expire(&model->noise, model->ports, now_ms);
}

void nat_advance(struct nat_model *model, uint64_t now_ms) {
    struct nat_noise *noise = &model->noise;
    if (!model->started)
        nat_noise_schedule(noise, &model->config, (double)now_ms);
    else if (now_ms < model->now_ms)
        now_ms = model->now_ms;
    for (int flows = 0; noise->next_ms <= (double)now_ms; flows++) {
        if (flows == CATCH_UP_FLOWS) {
            nat_noise_schedule(noise, &model->config, (double)now_ms);
            break;
        }
        double at_ms = noise->next_ms;
        uint64_t then_ms = at_ms < (double)now_ms ? (uint64_t)at_ms : now_ms;
        expire(model, then_ms);
        nat_noise_arrive(noise, &model->config, model->offset, model->ports, then_ms);
        nat_noise_schedule(noise, &model->config, at_ms);
    }
    expire(model, now_ms);
    model->now_ms = now_ms;
    model->started = true;
}

static enum nat_life life_of(const struct nat_passage *passage, uint8_t seen) {
    static const enum nat_life tcp[] = {
        [NAT_TCP_OPENING] = NAT_LIFE_TRANSITORY,
        [NAT_TCP_ESTABLISHED] = NAT_LIFE_ESTABLISHED,
        [NAT_TCP_CLOSING] = NAT_LIFE_TRANSITORY,
        [NAT_TCP_RESET] = NAT_LIFE_RESET,
    };
    if (passage->protocol == NAT_TCP)
        return tcp[nat_tcp_phase(seen)];
    return passage->protocol == NAT_UDP ? NAT_LIFE_UDP : NAT_LIFE_ICMP;
}

void nat_use(struct nat_model *model, const struct nat_passage *passage,
             struct nat_session *session, bool outbound) {
    if (passage->protocol == NAT_TCP) {
        bool was_reset = nat_tcp_phase(session->tcp) == NAT_TCP_RESET;
        session->tcp = nat_tcp_see(session->tcp, outbound, passage->tcp_flags);
        if (was_reset && nat_tcp_phase(session->tcp) == NAT_TCP_RESET)
            return;
    } else if (!outbound) {
        return;
    }
    nat_touch(&model->store, session, life_of(passage, session->tcp), model->now_ms);
}

/* --- making ------------------------------------------------------------------------------- */

struct nat_session *nat_begin_session(struct nat_model *model, struct nat_passage *passage,
                                      struct nat_mapping *mapping) {
    size_t limit = (size_t)model->config.table_limit * SESSIONS_PER_MAPPING;
    struct nat_session *session = NULL;
    if (nat_store_sessions(&model->store) < limit)
        session = nat_add_session(&model->store, mapping, &passage->remote, life_of(passage, 0),
                                  model->now_ms);
    if (!session)
        passage->reason = NAT_TABLE_FULL;
    return session;
}

static bool take_external(struct nat_model *model, const struct nat_passage *passage,
                          struct nat_mapping *mapping) {
    const struct nat_config *config = &model->config;
    unsigned count = config->external_count, tries = config->paired ? 1 : count;
    unsigned first = config->paired
                         ? (unsigned)(nat_store_hash(&model->store, &passage->inside.ip) % count)
                         : chance_below(&model->chance, count);
    for (unsigned i = 0; i < tries; i++) {
        unsigned address = (first + i) % count;
        uint16_t port = nat_ports_take(&model->ports[passage->protocol][address], passage->rule,
                                       model->offset, passage->inside.port, &model->chance);
        if (port != 0) {
            mapping->address = address;
            mapping->external = (struct nat_end){config->external[address], port};
            return true;
        }
    }
    return false;
}

/* Where the external port follows from the local one, each destination gets the same: no packet
 * tells such a mapping from an endpoint-independent one. */
static enum nat_scope scope_of(const struct nat_behaviour *rule) {
    bool follows = rule->delta == NAT_DELTA_EQUAL || rule->delta == NAT_DELTA_PRESERVING;
    return follows ? NAT_ENDPOINT_INDEPENDENT : rule->mapping;
}

struct nat_mapping nat_mapping_key(const struct nat_passage *passage) {
    const struct nat_behaviour *rule = passage->rule;
    enum nat_scope scope = scope_of(rule);
    struct nat_mapping key = {
        .protocol = passage->protocol,
        .translated = rule->translates,
        .inside = passage->inside,
    };
    if (rule->translates && scope != NAT_ENDPOINT_INDEPENDENT) {
        key.remote.ip = passage->remote.ip;
        if (scope == NAT_ADDRESS_AND_PORT_DEPENDENT)
            key.remote.port = passage->remote.port;
    }
    return key;
}

struct nat_session *nat_begin_mapping(struct nat_model *model, struct nat_passage *passage,
                                      struct nat_mapping *like) {
    if (nat_store_mappings(&model->store) >= model->config.table_limit) {
        passage->reason = NAT_TABLE_FULL;
        return NULL;
    }
    like->external = like->inside;
    if (like->translated && !take_external(model, passage, like)) {
        passage->reason = NAT_NO_PORT;
        return NULL;
    }
    struct nat_mapping *mapping = nat_add_mapping(&model->store, like);
    struct nat_session *session = mapping ? nat_begin_session(model, passage, mapping) : NULL;
    if (session)
        return session;
    if (mapping)
        nat_remove_mapping(&model->store, mapping);
    if (like->translated)
        nat_ports_release(&model->ports[like->protocol][like->address], like->external.port);
    passage->reason = NAT_TABLE_FULL;
    return NULL;
}

/* --- configuration ------------------------------------------------------------------------ */

static uint64_t scaled_ms(const struct nat_config *config, uint32_t seconds) {
    double ms = seconds * 1000.0 * config->time_scale;
    return ms < 1 ? 1 : ms > 1e15 ? UINT64_C(1000000000000000) : (uint64_t)ms;
}

static void set_lives(struct nat_model *model) {
    const struct nat_config *config = &model->config;
    const struct nat_behaviour *tcp = &config->protocols[NAT_TCP];
    uint64_t *lives_ms = model->lives_ms;
    lives_ms[NAT_LIFE_UDP] = scaled_ms(config, config->protocols[NAT_UDP].idle_s);
    lives_ms[NAT_LIFE_ICMP] = scaled_ms(config, config->protocols[NAT_ICMP].idle_s);
    lives_ms[NAT_LIFE_TRANSITORY] = scaled_ms(config, tcp->transitory_s);
    lives_ms[NAT_LIFE_ESTABLISHED] = scaled_ms(config, tcp->established_s);
    lives_ms[NAT_LIFE_RESET] = scaled_ms(config, RESET_S);
}

static void end_where_gone(struct nat_model *model, bool all) {
    for (unsigned i = 0; i < NAT_LIVES; i++)
        for (struct nat_session *session = model->store.oldest[i], *next; session; session = next) {
            next = session->newer;
            const struct nat_mapping *mapping = session->mapping;
            if (all ||
                (mapping->translated && !nat_is_external(&model->config, &mapping->external.ip)))
                end_session(model, session);
        }
}

/* External addresses may have another place in the list now. */
static void mark_again(void *context, struct nat_mapping *mapping) {
    struct nat_model *model = context;
    if (!mapping->translated)
        return;
    mapping->address = 0;
    while (!ip_equal(&model->config.external[mapping->address], &mapping->external.ip))
        mapping->address++;
    nat_ports_mark(&model->ports[mapping->protocol][mapping->address], mapping->external.port);
}

void nat_model_configure(struct nat_model *model, const struct nat_config *config, bool flush) {
    if (nat_config_check(config) != 0)
        return;
    model->config = *config;
    set_lives(model);
    end_where_gone(model, flush);
    for (unsigned i = 0; i < NAT_PROTOCOLS; i++)
        for (unsigned j = 0; j < NAT_ADDRESSES; j++)
            nat_ports_clear(&model->ports[i][j]);
    nat_each_mapping(&model->store, mark_again, model);
    model->noise.count = 0;
    model->noise.hold_ms = scaled_ms(config, NAT_NOISE_HOLD_S);
    if (model->started)
        nat_noise_schedule(&model->noise, config, (double)model->now_ms);
}

int nat_model_new(const struct nat_config *config, uint64_t seed, struct nat_model **out) {
    if (nat_config_check(config) != 0)
        return UV_EINVAL;
    struct nat_model *model = calloc(1, sizeof *model);
    if (!model)
        return UV_ENOMEM;
    struct chance chance = {seed};
    model->chance.state = chance_next(&chance);
    model->noise.chance.state = chance_next(&chance);
    model->offset = chance_next(&chance);
    nat_store_init(&model->store, chance_next(&chance));
    nat_model_configure(model, config, true);
    *out = model;
    return 0;
}

void nat_model_free(struct nat_model *model) {
    if (!model)
        return;
    nat_store_free(&model->store);
    free(model);
}
