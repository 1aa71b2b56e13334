#include "core/bytes.h"

#include <string.h>

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

void hex_encode(const uint8_t *bytes, size_t length, char *out) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < length; i++) {
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
    *out = '\0';
}

bool hex_decode(const char *text, size_t length, uint8_t *out, size_t size) {
    if (length != 2 * size)
        return false;
    for (size_t i = 0; i < size; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* No 0, O, I and l: they look like others. */
static const char alphabet[] = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

static int base58_digit(char c) {
    const char *at = c ? strchr(alphabet, c) : NULL;
    return at ? (int)(at - alphabet) : -1;
}

size_t base58_encode(const uint8_t *bytes, size_t length, char *out) {
    size_t zeros = 0, digits = 0;
    while (zeros < length && bytes[zeros] == 0)
        zeros++;
    /* The number so far, lowest digit first, in the place of the text: out = out * 256 + byte. */
    char *number = out + zeros;
    for (size_t i = zeros; i < length; i++) {
        unsigned carry = bytes[i];
        for (size_t j = 0; j < digits; j++) {
            carry += (unsigned)number[j] << 8;
            number[j] = (char)(carry % 58);
            carry /= 58;
        }
        for (; carry; carry /= 58)
            number[digits++] = (char)(carry % 58);
    }
    for (size_t i = 0; i < digits / 2; i++) {
        char swapped = number[i];
        number[i] = number[digits - 1 - i];
        number[digits - 1 - i] = swapped;
    }
    for (size_t i = 0; i < digits; i++)
        number[i] = alphabet[(unsigned char)number[i]];
    memset(out, alphabet[0], zeros);
    out[zeros + digits] = '\0';
    return zeros + digits;
}

bool base58_decode(const char *text, size_t length, uint8_t *out, size_t size) {
    size_t zeros = 0, used = 0; /* `used` bytes at the end of out hold the number so far */
    while (zeros < length && text[zeros] == alphabet[0])
        zeros++;
    memset(out, 0, size);
    for (size_t i = zeros; i < length; i++) {
        int digit = base58_digit(text[i]);
        if (digit < 0)
            return false;
        unsigned carry = (unsigned)digit;
        for (size_t j = 0; j < used; j++) {
            uint8_t *byte = &out[size - 1 - j];
            carry += 58u * *byte;
            *byte = (uint8_t)carry;
            carry >>= 8;
        }
        for (; carry; carry >>= 8) {
            if (used == size)
                return false;
            out[size - 1 - used++] = (uint8_t)carry;
        }
    }
    return zeros + used == size;
}
