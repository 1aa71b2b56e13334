#include "core/nat_model.h"

#include "core/nat_model_state.h"
#include "core/nat_model_tcp.h"

/* --- outbound ----------------------------------------------------------------------------- */

static bool is_open_port(const struct nat_config *config, uint16_t port) {
    for (unsigned i = 0; i < NAT_OPEN_PORTS && config->open_ports[i] != 0; i++)
        if (config->open_ports[i] == port)
            return true;
    return false;
}

static bool keeps_state(const struct nat_behaviour *rule) {
    return rule->translates || rule->filtering != NAT_FILTER_NONE;
}

static bool is_blocked(const struct nat_model *model, const struct nat_passage *passage) {
    return passage->rule->blocked &&
           (passage->protocol != NAT_TCP || !is_open_port(&model->config, passage->remote.port));
}

static struct nat_passage begin(const struct nat_model *model, const struct nat_packet *packet) {
    return (struct nat_passage){
        .rule = &model->config.protocols[packet->protocol],
        .protocol = packet->protocol,
        .tcp_flags = packet->tcp_flags,
        .syn = packet->protocol == NAT_TCP && nat_tcp_opens(packet->tcp_flags),
        .reason = NAT_MAPPED,
    };
}

static struct nat_end source_of(const struct nat_packet *packet) {
    return (struct nat_end){packet->source, packet->source_port};
}

static struct nat_end destination_of(const struct nat_packet *packet) {
    return (struct nat_end){packet->destination, packet->destination_port};
}

static void put_source(struct nat_packet *packet, const struct nat_end *end) {
    packet->source = end->ip;
    packet->source_port = end->port;
}

static void put_destination(struct nat_packet *packet, const struct nat_end *end) {
    packet->destination = end->ip;
    packet->destination_port = end->port;
}

/* TCP begins with a SYN, and a ping with the request, not with the reply: the answering end's
 * identifier is none. */
static bool may_begin(const struct nat_passage *passage) {
    switch (passage->protocol) {
    case NAT_TCP:
        return passage->syn;
    case NAT_ICMP:
        return passage->remote.port == 0;
    case NAT_UDP:
        break;
    }
    return true;
}

static bool leave(struct nat_model *model, struct nat_passage *passage) {
    struct nat_session *session =
        nat_find_session(&model->store, passage->protocol, &passage->inside, &passage->remote);
    if (!session && !may_begin(passage)) {
        passage->reason = NAT_BAD_STATE;
        return false;
    }
    if (!session) {
        struct nat_mapping key = nat_mapping_key(passage);
        struct nat_mapping *mapping = nat_find_inside(&model->store, &key);
        if (!mapping)
            passage->reason = NAT_MAPPED_NEW;
        session = mapping ? nat_begin_session(model, passage, mapping)
                          : nat_begin_mapping(model, passage, &key);
        if (!session)
            return false;
    }
    nat_use(model, passage, session, true);
    passage->external = session->mapping->external;
    return true;
}

/* --- inbound ------------------------------------------------------------------------------ */

static bool lets_in(struct nat_model *model, const struct nat_passage *passage,
                    const struct nat_mapping *mapping, const struct nat_session *session) {
    switch (passage->rule->filtering) {
    case NAT_ADDRESS_DEPENDENT:
        return nat_has_peer(&model->store, mapping, &passage->remote.ip);
    case NAT_ADDRESS_AND_PORT_DEPENDENT:
        return session && !(passage->syn && nat_tcp_over(session->tcp));
    case NAT_ENDPOINT_INDEPENDENT:
    case NAT_FILTER_NONE:
        break;
    }
    return true;
}

static bool enter(struct nat_model *model, struct nat_passage *passage) {
    struct nat_store *store = &model->store;
    struct nat_mapping *mapping = nat_find_external(store, passage->protocol, &passage->external);
    if (!mapping) {
        passage->reason = NAT_NO_MAPPING;
        return false;
    }
    passage->inside = mapping->inside;
    struct nat_session *session =
        nat_find_session(store, passage->protocol, &passage->inside, &passage->remote);
    bool elsewhere = session && session->mapping != mapping;
    if (!lets_in(model, passage, mapping, elsewhere ? NULL : session)) {
        passage->reason = NAT_FILTERED;
        return false;
    }
    if (passage->protocol == NAT_TCP && (elsewhere || (!session && !passage->syn))) {
        passage->reason = NAT_BAD_STATE;
        return false;
    }
    if (!session && passage->protocol == NAT_TCP) {
        session = nat_begin_session(model, passage, mapping);
        if (!session)
            return false;
    }
    if (session)
        nat_use(model, passage, session, false);
    return true;
}

/* Only a SYN that nobody asked for is answered, whatever else is dropped is so in silence. RFC
 * 5382, REQ-4 would have the answer wait for 6 seconds: routers that answer do it at once. */
static enum nat_verdict refuse(const struct nat_passage *passage) {
    static const enum nat_verdict answers[] = {
        [NAT_UNINVITED_DROP] = NAT_DROP,
        [NAT_UNINVITED_RESET] = NAT_ANSWER_RESET,
        [NAT_UNINVITED_UNREACHABLE] = NAT_ANSWER_UNREACHABLE,
    };
    bool uninvited = passage->reason == NAT_NO_MAPPING || passage->reason == NAT_FILTERED;
    return uninvited && passage->syn ? answers[passage->rule->uninvited] : NAT_DROP;
}

/* --- the model ---------------------------------------------------------------------------- */

static enum nat_verdict say(enum nat_reason why, enum nat_verdict verdict,
                            enum nat_reason *reason) {
    if (reason)
        *reason = why;
    return verdict;
}

/* An outbound packet whose source is `source` by now comes back in: filters apply to it. */
static enum nat_verdict turn_back(struct nat_model *model, struct nat_packet *packet,
                                  const struct nat_end *source, enum nat_reason *reason) {
    struct nat_passage passage = begin(model, packet);
    passage.remote = *source;
    passage.external = destination_of(packet);
    if (!enter(model, &passage))
        return say(passage.reason, refuse(&passage), reason);
    put_source(packet, source);
    put_destination(packet, &passage.inside);
    return NAT_HAIRPIN;
}

enum nat_verdict nat_model_out(struct nat_model *model, uint64_t now_ms, struct nat_packet *packet,
                               enum nat_reason *reason) {
    nat_advance(model, now_ms);
    struct nat_passage passage = begin(model, packet);
    const struct nat_behaviour *rule = passage.rule;
    passage.inside = source_of(packet);
    passage.remote = destination_of(packet);
    if (is_blocked(model, &passage))
        return say(NAT_BLOCKED, NAT_DROP, reason);
    if (!keeps_state(rule))
        return say(NAT_UNTRANSLATED, NAT_PASS, reason);
    bool back = rule->translates && nat_is_external(&model->config, &packet->destination);
    /* The echo of an external address is the router's own to answer. */
    if (back && (!model->config.hairpin || passage.protocol == NAT_ICMP))
        return say(NAT_NO_HAIRPIN, NAT_DROP, reason);
    if (!leave(model, &passage))
        return say(passage.reason, NAT_DROP, reason);
    say(rule->translates ? passage.reason : NAT_UNTRANSLATED, NAT_PASS, reason);
    if (back)
        return turn_back(model, packet, &passage.external, reason);
    put_source(packet, &passage.external);
    return NAT_PASS;
}

enum nat_verdict nat_model_in(struct nat_model *model, uint64_t now_ms, struct nat_packet *packet,
                              enum nat_reason *reason) {
    nat_advance(model, now_ms);
    struct nat_passage passage = begin(model, packet);
    passage.remote = source_of(packet);
    passage.external = destination_of(packet);
    if (is_blocked(model, &passage))
        return say(NAT_BLOCKED, NAT_DROP, reason);
    if (!keeps_state(passage.rule))
        return say(NAT_UNTRANSLATED, NAT_PASS, reason);
    if (!enter(model, &passage))
        return say(passage.reason, refuse(&passage), reason);
    put_destination(packet, &passage.inside);
    return say(passage.rule->translates ? NAT_MAPPED : NAT_UNTRANSLATED, NAT_PASS, reason);
}

/* The quoted packet went out: there is a session. */
static bool quote_in(const struct nat_model *model, struct nat_packet *packet) {
    struct nat_end external = source_of(packet), remote = destination_of(packet);
    const struct nat_mapping *mapping =
        nat_find_external(&model->store, packet->protocol, &external);
    if (!mapping)
        return false;
    const struct nat_session *session =
        nat_find_session(&model->store, packet->protocol, &mapping->inside, &remote);
    if (!session || session->mapping != mapping)
        return false;
    put_source(packet, &mapping->inside);
    return true;
}

/* The quoted packet came in: UDP may have done so without a session. */
static bool quote_out(const struct nat_model *model, struct nat_packet *packet) {
    struct nat_passage passage = begin(model, packet);
    passage.inside = destination_of(packet);
    passage.remote = source_of(packet);
    const struct nat_session *session =
        nat_find_session(&model->store, passage.protocol, &passage.inside, &passage.remote);
    struct nat_mapping key = nat_mapping_key(&passage);
    const struct nat_mapping *mapping =
        session ? session->mapping : nat_find_inside(&model->store, &key);
    if (!mapping)
        return false;
    put_destination(packet, &mapping->external);
    return true;
}

/* RFC 5508, REQ-4 (from outside) and REQ-5 (from inside): an error about nothing that passed here
 * is dropped. */
enum nat_verdict nat_model_error(struct nat_model *model, uint64_t now_ms, bool inbound,
                                 struct nat_packet *packet) {
    nat_advance(model, now_ms);
    const struct nat_behaviour *rule = &model->config.protocols[packet->protocol];
    if (!keeps_state(rule))
        return rule->blocked ? NAT_DROP : NAT_PASS;
    bool known = inbound ? quote_in(model, packet) : quote_out(model, packet);
    return known ? NAT_PASS : NAT_DROP;
}

unsigned nat_model_mappings(struct nat_model *model, uint64_t now_ms) {
    nat_advance(model, now_ms);
    return (unsigned)nat_store_mappings(&model->store);
}
