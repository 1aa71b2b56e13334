#include "core/nat_model_table.h"

#include "core/chance.h"
#include "core/loop.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKETS_MIN = 64, CHUNK = 128 /* pieces */ };

/* --- pieces of memory --------------------------------------------------------------------- */

struct piece {
    struct piece *next;
};

static void *pool_take(struct nat_pool *pool) {
    if (!pool->free) {
        char *chunk = malloc(sizeof(struct piece) + CHUNK * pool->size);
        if (!chunk)
            return NULL;
        ((struct piece *)(void *)chunk)->next = pool->chunks;
        pool->chunks = chunk;
        for (size_t i = 0; i < CHUNK; i++) {
            struct piece *piece = (void *)(chunk + sizeof *piece + i * pool->size);
            piece->next = pool->free;
            pool->free = piece;
        }
    }
    struct piece *piece = pool->free;
    pool->free = piece->next;
    return memset(piece, 0, pool->size);
}

static void pool_give(struct nat_pool *pool, void *memory) {
    struct piece *piece = memory;
    piece->next = pool->free;
    pool->free = piece;
}

static void pool_free(struct nat_pool *pool) {
    for (struct piece *chunk = pool->chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
}

/* --- hash tables -------------------------------------------------------------------------- */

static struct nat_link *chain(const struct nat_table *table, uint64_t hash) {
    return table->bucket_count ? table->buckets[hash & (table->bucket_count - 1)] : NULL;
}

static void hang(struct nat_table *table, struct nat_link *link) {
    struct nat_link **bucket = &table->buckets[link->hash & (table->bucket_count - 1)];
    link->next = *bucket;
    *bucket = link;
}

/* Without memory, the chains grow instead, if there are any. */
static bool grow(struct nat_table *table) {
    size_t count = table->bucket_count ? 2 * table->bucket_count : BUCKETS_MIN;
    struct nat_link **buckets = calloc(count, sizeof(struct nat_link *));
    if (!buckets)
        return table->bucket_count > 0;
    struct nat_table wider = {.buckets = buckets, .bucket_count = count, .count = table->count};
    for (size_t i = 0; i < table->bucket_count; i++)
        for (struct nat_link *link = table->buckets[i], *next; link; link = next) {
            next = link->next;
            hang(&wider, link);
        }
    free(table->buckets);
    *table = wider;
    return true;
}

static bool table_add(struct nat_table *table, struct nat_link *link, uint64_t hash) {
    if (table->count >= table->bucket_count && !grow(table))
        return false;
    link->hash = hash;
    hang(table, link);
    table->count++;
    return true;
}

static void table_remove(struct nat_table *table, struct nat_link *link) {
    struct nat_link **at = &table->buckets[link->hash & (table->bucket_count - 1)];
    while (*at != link)
        at = &(*at)->next;
    *at = link->next;
    table->count--;
}

/* --- keys --------------------------------------------------------------------------------- */

static uint64_t word(const uint8_t *bytes) {
    uint64_t out;
    memcpy(&out, bytes, sizeof out);
    return out;
}

static uint64_t hash_ip(uint64_t hash, const struct ip *ip) {
    if (ip->family != 6) {
        uint32_t v4;
        memcpy(&v4, ip->bytes, sizeof v4);
        return chance_mix(hash ^ v4 ^ (uint64_t)ip->family << 32);
    }
    return chance_mix(chance_mix(hash ^ word(ip->bytes)) ^ word(ip->bytes + 8) ^ ip->zone);
}

static uint64_t hash_end(uint64_t hash, const struct nat_end *end) {
    return chance_mix(hash_ip(hash, &end->ip) ^ end->port);
}

static uint64_t hash_pair(const struct nat_store *store, unsigned kind, const struct nat_end *a,
                          const struct nat_end *b) {
    return hash_end(hash_end(store->key ^ kind, a), b);
}

static uint64_t hash_peer(const struct nat_store *store, const struct nat_mapping *mapping,
                          const struct ip *ip) {
    return hash_ip(store->key ^ (uintptr_t)mapping, ip);
}

uint64_t nat_store_hash(const struct nat_store *store, const struct ip *ip) {
    return hash_ip(store->key, ip);
}

static bool same_end(const struct nat_end *a, const struct nat_end *b) {
    return a->port == b->port && ip_equal(&a->ip, &b->ip);
}

/* --- finding ------------------------------------------------------------------------------ */

static uint64_t hash_inside(const struct nat_store *store, const struct nat_mapping *mapping) {
    return hash_pair(store, mapping->protocol, &mapping->inside, &mapping->remote);
}

struct nat_mapping *nat_find_inside(const struct nat_store *store, const struct nat_mapping *like) {
    uint64_t hash = hash_inside(store, like);
    for (struct nat_link *link = chain(&store->by_inside, hash); link; link = link->next) {
        struct nat_mapping *mapping = container_of(link, struct nat_mapping, by_inside);
        if (link->hash == hash && mapping->protocol == like->protocol &&
            mapping->translated == like->translated && same_end(&mapping->inside, &like->inside) &&
            same_end(&mapping->remote, &like->remote))
            return mapping;
    }
    return NULL;
}

struct nat_mapping *nat_find_external(const struct nat_store *store, enum nat_protocol protocol,
                                      const struct nat_end *external) {
    uint64_t hash = hash_end(store->key ^ protocol, external);
    for (struct nat_link *link = chain(&store->by_external, hash); link; link = link->next) {
        struct nat_mapping *mapping = container_of(link, struct nat_mapping, by_external);
        if (link->hash == hash && mapping->protocol == protocol &&
            same_end(&mapping->external, external))
            return mapping;
    }
    return NULL;
}

struct nat_session *nat_find_session(const struct nat_store *store, enum nat_protocol protocol,
                                     const struct nat_end *inside, const struct nat_end *remote) {
    uint64_t hash = hash_pair(store, protocol, inside, remote);
    for (struct nat_link *link = chain(&store->by_ends, hash); link; link = link->next) {
        struct nat_session *session = container_of(link, struct nat_session, by_ends);
        if (link->hash == hash && session->mapping->protocol == protocol &&
            same_end(&session->mapping->inside, inside) && same_end(&session->remote, remote))
            return session;
    }
    return NULL;
}

static struct nat_peer *find_peer(const struct nat_store *store, const struct nat_mapping *mapping,
                                  const struct ip *ip) {
    uint64_t hash = hash_peer(store, mapping, ip);
    for (struct nat_link *link = chain(&store->by_address, hash); link; link = link->next) {
        struct nat_peer *peer = container_of(link, struct nat_peer, by_address);
        if (link->hash == hash && peer->mapping == mapping && ip_equal(&peer->ip, ip))
            return peer;
    }
    return NULL;
}

bool nat_has_peer(const struct nat_store *store, const struct nat_mapping *mapping,
                  const struct ip *ip) {
    return find_peer(store, mapping, ip) != NULL;
}

void nat_each_mapping(const struct nat_store *store,
                      void (*each)(void *context, struct nat_mapping *mapping), void *context) {
    for (size_t i = 0; i < store->by_inside.bucket_count; i++)
        for (struct nat_link *link = store->by_inside.buckets[i]; link; link = link->next)
            each(context, container_of(link, struct nat_mapping, by_inside));
}

/* --- adding and removing ------------------------------------------------------------------ */

struct nat_mapping *nat_add_mapping(struct nat_store *store, const struct nat_mapping *like) {
    struct nat_mapping *mapping = pool_take(&store->mappings);
    if (!mapping)
        return NULL;
    *mapping = *like;
    mapping->sessions = 0;
    if (!table_add(&store->by_inside, &mapping->by_inside, hash_inside(store, mapping))) {
        pool_give(&store->mappings, mapping);
        return NULL;
    }
    uint64_t hash = hash_end(store->key ^ mapping->protocol, &mapping->external);
    if (!table_add(&store->by_external, &mapping->by_external, hash)) {
        table_remove(&store->by_inside, &mapping->by_inside);
        pool_give(&store->mappings, mapping);
        return NULL;
    }
    return mapping;
}

void nat_remove_mapping(struct nat_store *store, struct nat_mapping *mapping) {
    table_remove(&store->by_inside, &mapping->by_inside);
    table_remove(&store->by_external, &mapping->by_external);
    pool_give(&store->mappings, mapping);
}

static struct nat_peer *take_peer(struct nat_store *store, const struct nat_mapping *mapping,
                                  const struct ip *ip) {
    struct nat_peer *peer = find_peer(store, mapping, ip);
    if (!peer) {
        peer = pool_take(&store->peers);
        if (!peer)
            return NULL;
        peer->mapping = mapping;
        peer->ip = *ip;
        if (!table_add(&store->by_address, &peer->by_address, hash_peer(store, mapping, ip))) {
            pool_give(&store->peers, peer);
            return NULL;
        }
    }
    peer->sessions++;
    return peer;
}

static void leave_peer(struct nat_store *store, struct nat_peer *peer) {
    if (--peer->sessions > 0)
        return;
    table_remove(&store->by_address, &peer->by_address);
    pool_give(&store->peers, peer);
}

static void append(struct nat_store *store, struct nat_session *session) {
    struct nat_session **newest = &store->newest[session->life];
    session->older = *newest;
    session->newer = NULL;
    *(*newest ? &(*newest)->newer : &store->oldest[session->life]) = session;
    *newest = session;
}

static void detach(struct nat_store *store, struct nat_session *session) {
    *(session->older ? &session->older->newer : &store->oldest[session->life]) = session->newer;
    *(session->newer ? &session->newer->older : &store->newest[session->life]) = session->older;
}

struct nat_session *nat_add_session(struct nat_store *store, struct nat_mapping *mapping,
                                    const struct nat_end *remote, enum nat_life life,
                                    uint64_t now_ms) {
    struct nat_session *session = pool_take(&store->sessions);
    if (!session)
        return NULL;
    session->peer = take_peer(store, mapping, &remote->ip);
    if (!session->peer) {
        pool_give(&store->sessions, session);
        return NULL;
    }
    session->mapping = mapping;
    session->remote = *remote;
    session->life = life;
    session->touched_ms = now_ms;
    uint64_t hash = hash_pair(store, mapping->protocol, &mapping->inside, remote);
    if (!table_add(&store->by_ends, &session->by_ends, hash)) {
        leave_peer(store, session->peer);
        pool_give(&store->sessions, session);
        return NULL;
    }
    append(store, session);
    mapping->sessions++;
    return session;
}

void nat_touch(struct nat_store *store, struct nat_session *session, enum nat_life life,
               uint64_t now_ms) {
    if (session->life == life && session->touched_ms == now_ms)
        return;
    detach(store, session);
    session->life = life;
    session->touched_ms = now_ms;
    append(store, session);
}

void nat_remove_session(struct nat_store *store, struct nat_session *session) {
    detach(store, session);
    table_remove(&store->by_ends, &session->by_ends);
    leave_peer(store, session->peer);
    struct nat_mapping *mapping = session->mapping;
    pool_give(&store->sessions, session);
    if (--mapping->sessions == 0)
        nat_remove_mapping(store, mapping);
}

void nat_store_init(struct nat_store *store, uint64_t key) {
    *store = (struct nat_store){
        .key = key,
        .mappings = {.size = sizeof(struct nat_mapping)},
        .peers = {.size = sizeof(struct nat_peer)},
        .sessions = {.size = sizeof(struct nat_session)},
    };
}

void nat_store_free(struct nat_store *store) {
    pool_free(&store->mappings);
    pool_free(&store->peers);
    pool_free(&store->sessions);
    free(store->by_inside.buckets);
    free(store->by_external.buckets);
    free(store->by_ends.buckets);
    free(store->by_address.buckets);
}
