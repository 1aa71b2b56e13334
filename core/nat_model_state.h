/* nat_model_state: what a model knows, and how it changes with time and configuration.
 *
 * Provides  struct nat_model; its time, external addresses and ports, new mappings and sessions
 * Uses      nat_model_noise, nat_model_ports, nat_model_table, nat_model_tcp
 * Owns      all that a model has
 * Pure. */
#ifndef CORE_NAT_MODEL_STATE_H
#define CORE_NAT_MODEL_STATE_H

#include "core/nat_model_noise.h"
#include "core/nat_model_table.h"

struct nat_model {
    struct nat_config config;
    bool started; /* now_ms holds a time */
    uint64_t now_ms;
    uint64_t lives_ms[NAT_LIVES];
    uint64_t offset; /* of the delta preserving */
    struct chance chance;
    struct nat_store store;
    struct nat_noise noise;
    nat_ports_table ports;
};

/* A packet on its way: what it is about, seen from the inside. */
struct nat_passage {
    const struct nat_behaviour *rule;
    enum nat_protocol protocol;
    struct nat_end inside, remote, external;
    uint8_t tcp_flags;
    bool syn; /* one that begins a TCP connection */
    enum nat_reason reason;
};

/* All that happened since the last packet happens in its order, whenever that packet was. */
void nat_advance(struct nat_model *model, uint64_t now_ms);

/* The packet passes on this session. After a RST nothing makes it live longer but a new start. */
void nat_use(struct nat_model *model, const struct nat_passage *passage,
             struct nat_session *session, bool outbound);

/* What a mapping of this packet is found by. */
struct nat_mapping nat_mapping_key(const struct nat_passage *passage);

/* NULL, and `reason` is set, when there is no room. The first makes a mapping too. */
struct nat_session *nat_begin_mapping(struct nat_model *model, struct nat_passage *passage,
                                      struct nat_mapping *key);
struct nat_session *nat_begin_session(struct nat_model *model, struct nat_passage *passage,
                                      struct nat_mapping *mapping);

#endif
