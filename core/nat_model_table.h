/* nat_model_table: the mappings and sessions of a model, found in constant time and kept in the
 * order in which they fall idle.
 *
 * Provides  struct nat_store: add, find, touch, remove
 * Uses      chance
 * Owns      all mappings and sessions; memory that was used once is kept for the next ones
 * Pure. A mapping is added without sessions; it goes with its last one. */
#ifndef CORE_NAT_MODEL_TABLE_H
#define CORE_NAT_MODEL_TABLE_H

#include "core/nat_model.h"

#include <stddef.h>

struct nat_end {
    struct ip ip;
    uint16_t port;
};

struct nat_link { /* lies in what a table holds */
    struct nat_link *next;
    uint64_t hash;
};

struct nat_table {
    struct nat_link **buckets;
    size_t bucket_count, count; /* the former is 0 or a power of two */
};

struct nat_mapping {
    struct nat_link by_inside, by_external;
    enum nat_protocol protocol;
    bool translated;
    unsigned address; /* which one of the external addresses, when translated */
    unsigned sessions;
    struct nat_end inside;
    struct nat_end remote; /* as much of it as the mapping depends on, else zero */
    struct nat_end external;
};

struct nat_peer { /* a remote address that has sessions with one mapping */
    struct nat_link by_address;
    const struct nat_mapping *mapping;
    struct ip ip;
    unsigned sessions;
};

/* How long a session may be idle: one list for each. */
enum nat_life {
    NAT_LIFE_UDP,
    NAT_LIFE_ICMP,
    NAT_LIFE_TRANSITORY,
    NAT_LIFE_ESTABLISHED,
    NAT_LIFE_RESET
};
#define NAT_LIVES 5

struct nat_session {
    struct nat_link by_ends;
    struct nat_session *older, *newer; /* in the list of its life */
    struct nat_mapping *mapping;
    struct nat_peer *peer;
    struct nat_end remote;
    uint64_t touched_ms;
    enum nat_life life;
    uint8_t tcp; /* nat_model_tcp: what was seen */
};

struct nat_pool { /* equal pieces of memory */
    size_t size;
    void *free, *chunks;
};

struct nat_store {
    uint64_t key; /* of hashes, so that nobody can choose what collides */
    struct nat_table by_inside, by_external, by_ends, by_address;
    struct nat_pool mappings, peers, sessions;
    struct nat_session *oldest[NAT_LIVES], *newest[NAT_LIVES];
};

void nat_store_init(struct nat_store *store, uint64_t key);
void nat_store_free(struct nat_store *store);

static inline size_t nat_store_mappings(const struct nat_store *store) {
    return store->by_inside.count;
}
static inline size_t nat_store_sessions(const struct nat_store *store) {
    return store->by_ends.count;
}

uint64_t nat_store_hash(const struct nat_store *store, const struct ip *ip);

/* `like` has all but the links and `sessions`. NULL: no memory. */
struct nat_mapping *nat_add_mapping(struct nat_store *store, const struct nat_mapping *like);
struct nat_session *nat_add_session(struct nat_store *store, struct nat_mapping *mapping,
                                    const struct nat_end *remote, enum nat_life life,
                                    uint64_t now_ms);

/* What has the same protocol, translated, inside and remote. */
struct nat_mapping *nat_find_inside(const struct nat_store *store, const struct nat_mapping *like);
struct nat_mapping *nat_find_external(const struct nat_store *store, enum nat_protocol protocol,
                                      const struct nat_end *external);
struct nat_session *nat_find_session(const struct nat_store *store, enum nat_protocol protocol,
                                     const struct nat_end *inside, const struct nat_end *remote);
bool nat_has_peer(const struct nat_store *store, const struct nat_mapping *mapping,
                  const struct ip *ip);

/* It was used: idle from now on, for a life that may be another one. */
void nat_touch(struct nat_store *store, struct nat_session *session, enum nat_life life,
               uint64_t now_ms);

void nat_remove_session(struct nat_store *store, struct nat_session *session);
void nat_remove_mapping(struct nat_store *store, struct nat_mapping *mapping);

/* Calls `each` for all mappings; it adds and removes nothing. */
void nat_each_mapping(const struct nat_store *store,
                      void (*each)(void *context, struct nat_mapping *mapping), void *context);

#endif
