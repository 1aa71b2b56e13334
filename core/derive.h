/* derive: what follows from a node's id alone, so that it outlives a restart.
 *
 * Provides  the default listen port, the order of brokers
 * Uses      crypto
 * Pure. H(text) is SHA-256 read as a little-endian number of 256 bits. */
#ifndef CORE_DERIVE_H
#define CORE_DERIVE_H

#include <stddef.h>
#include <stdint.h>

#define DERIVE_PORT_FIRST 10000
#define DERIVE_PORT_LAST 60000
#define DERIVE_BROKERS_MAX 256

/* H(text) folded into the range above. */
uint16_t derive_port(const char *text, size_t length);

/* A permutation of 0 … count - 1 (count at most DERIVE_BROKERS_MAX): again and again the broker at
 * H(text) mod (how many are left) is taken out of the list. */
void derive_broker_order(const char *text, size_t length, size_t count, uint16_t out[]);

#endif
