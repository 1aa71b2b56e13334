/* bytes: numbers, hexadecimal and base58 to and from bytes.
 *
 * Provides  big-endian put and get, hex, base58btc
 * Uses      nothing of ours
 * Pure. All that goes over a network is big-endian ("network order", RFC 1700). */
#ifndef CORE_BYTES_H
#define CORE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline void put_u16(uint8_t *out, uint16_t value) {
    out[0] = (uint8_t)(value >> 8);
    out[1] = (uint8_t)value;
}

static inline void put_u32(uint8_t *out, uint32_t value) {
    put_u16(out, (uint16_t)(value >> 16));
    put_u16(out + 2, (uint16_t)value);
}

static inline void put_u64(uint8_t *out, uint64_t value) {
    put_u32(out, (uint32_t)(value >> 32));
    put_u32(out + 4, (uint32_t)value);
}

static inline uint16_t get_u16(const uint8_t *in) {
    return (uint16_t)(in[0] << 8 | in[1]);
}

static inline uint32_t get_u32(const uint8_t *in) {
    return (uint32_t)get_u16(in) << 16 | get_u16(in + 2);
}

static inline uint64_t get_u64(const uint8_t *in) {
    return (uint64_t)get_u32(in) << 32 | get_u32(in + 4);
}

/* Writes 2 * length lower-case digits and the final NUL. */
void hex_encode(const uint8_t *bytes, size_t length, char *out);

/* Reads exactly 2 * `size` digits of either case. False when the text is anything else. */
bool hex_decode(const char *text, size_t length, uint8_t *out, size_t size);

/* Characters that base58 needs at most for `length` bytes, with the final NUL. */
#define BASE58_SIZE(length) ((length)*138 / 100 + 2)

/* base58btc (draft-msporny-base58-03): each leading zero byte is a '1', the rest one number in
 * base 58. Writes the text and the final NUL to `out`, BASE58_SIZE(length) characters; returns its
 * length. The cost grows with the square of the length: for keys and hashes, not for data. */
size_t base58_encode(const uint8_t *bytes, size_t length, char *out);

/* Reads a text that stands for exactly `size` bytes. False when it holds another character, or
 * another length. */
bool base58_decode(const char *text, size_t length, uint8_t *out, size_t size);

#endif
