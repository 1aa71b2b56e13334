#include "core/derive.h"

#include "core/crypto.h"

#include <assert.h>

static void hash_number(const char *text, size_t length, uint8_t out[SHA256_SIZE]) {
    sha256(&(struct piece){text, length}, 1, out);
}

/* Long division of a little-endian number, from its highest byte down. */
static uint32_t remainder_of(const uint8_t number[SHA256_SIZE], uint32_t divisor) {
    uint64_t rest = 0;
    for (int i = SHA256_SIZE - 1; i >= 0; i--)
        rest = (rest << 8 | number[i]) % divisor;
    return (uint32_t)rest;
}

uint16_t derive_port(const char *text, size_t length) {
    uint8_t number[SHA256_SIZE];
    hash_number(text, length, number);
    uint32_t port = remainder_of(number, DERIVE_PORT_LAST + 1);
    return (uint16_t)(port < DERIVE_PORT_FIRST ? port + DERIVE_PORT_FIRST : port);
}

void derive_broker_order(const char *text, size_t length, size_t count, uint16_t out[]) {
    uint8_t number[SHA256_SIZE];
    uint16_t left[DERIVE_BROKERS_MAX];
    assert(count <= DERIVE_BROKERS_MAX);
    hash_number(text, length, number);
    for (size_t i = 0; i < count; i++)
        left[i] = (uint16_t)i;
    for (size_t rest = count; rest > 0; rest--) {
        size_t taken = remainder_of(number, (uint32_t)rest);
        *out++ = left[taken];
        for (size_t i = taken + 1; i < rest; i++)
            left[i - 1] = left[i];
    }
}
