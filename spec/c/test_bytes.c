#include "core/bucket.h"
#include "core/bytes.h"
#include "core/derive.h"
#include "spec/c/check.h"

#include <stdlib.h>

static void numbers_are_big_endian(void) {
    uint8_t bytes[8];
    put_u16(bytes, 0x0102);
    CHECK(memcmp(bytes, "\x01\x02", 2) == 0);
    CHECK_EQ(get_u16(bytes), 0x0102);
    put_u32(bytes, 0xfedcba98);
    CHECK(memcmp(bytes, "\xfe\xdc\xba\x98", 4) == 0);
    CHECK_EQ(get_u32(bytes), 0xfedcba98);
    put_u64(bytes, 0x0123456789abcdef);
    CHECK(memcmp(bytes, "\x01\x23\x45\x67\x89\xab\xcd\xef", 8) == 0);
    CHECK_EQ(get_u64(bytes), 0x0123456789abcdef);
    memset(bytes, 0xff, sizeof bytes);
    CHECK(get_u64(bytes) == UINT64_MAX);
}

static void hex_round_trips(void) {
    char text[9];
    uint8_t bytes[4];
    hex_encode((const uint8_t *)"\x00\x9f\xa0\xff", 4, text);
    CHECK_TEXT(text, "009fa0ff");
    CHECK(hex_decode("009Fa0fF", 8, bytes, 4) && memcmp(bytes, "\x00\x9f\xa0\xff", 4) == 0);
    CHECK(!hex_decode("009fa0f", 7, bytes, 4));
    CHECK(!hex_decode("009fa0ff0", 9, bytes, 4));
    CHECK(!hex_decode("009fa0fg", 8, bytes, 4));
    CHECK(!hex_decode("009fa0 f", 8, bytes, 4));
    CHECK(hex_decode("", 0, bytes, 0));
    hex_encode(bytes, 0, text);
    CHECK_TEXT(text, "");
}

/* The examples of draft-msporny-base58-03, section 5, and corners of our own. */
static void base58_matches_its_draft(void) {
    static const struct {
        const char *hex, *text;
    } cases[] = {
        {"48656c6c6f20576f726c6421", "2NEpo7TZRRrLZSi2U"},
        {"54686520717569636b2062726f776e20666f78206a756d7073206f76657220746865206c617a7920646f672e",
         "USm3fpXnKG5EUBx2ndxBDMPVciP5hGey2Jh4NDv6gmeo1LkMeiKrLJUUBk6Z"},
        {"0000287fb4cd", "11233QC4"},
        {"", ""},
        {"00", "1"},
        {"000000", "111"},
        {"39", "z"},
        {"3a", "21"},
        {"ff", "5Q"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t bytes[64], back[64];
        char text[BASE58_SIZE(64)];
        size_t length = strlen(cases[i].hex) / 2;
        CHECK(hex_decode(cases[i].hex, 2 * length, bytes, length));
        CHECK_EQ(base58_encode(bytes, length, text), strlen(cases[i].text));
        CHECK_TEXT(text, cases[i].text);
        CHECK(base58_decode(text, strlen(text), back, length));
        CHECK(memcmp(back, bytes, length) == 0);
        CHECK(!base58_decode(text, strlen(text), back, length + 1));
        if (length > 0)
            CHECK(!base58_decode(text, strlen(text), back, length - 1));
    }
}

static void base58_refuses_other_characters(void) {
    uint8_t out[8];
    static const char *const bad[] = {"0", "O", "I", "l", "+", " 2", "2 ", "\xc3\xa4"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        for (size_t size = 0; size <= 2; size++)
            CHECK(!base58_decode(bad[i], strlen(bad[i]), out, size));
    CHECK(!base58_decode("2\0", 2, out, 1));
    CHECK(!base58_decode("2\0", 2, out, 2));
}

static void base58_fits_its_bound(void) {
    for (size_t length = 0; length <= 64; length++) {
        uint8_t bytes[64];
        char text[BASE58_SIZE(64)];
        memset(bytes, 0xff, sizeof bytes);
        CHECK(base58_encode(bytes, length, text) < (size_t)BASE58_SIZE(length));
    }
}

static void ports_follow_from_texts(void) {
    CHECK_EQ(derive_port("a", 1), 21194);
    CHECK_EQ(derive_port("easdasd", 7), 14256);
    for (int i = 0; i < 2000; i++) {
        uint16_t port = derive_port((const char *)&i, sizeof i);
        CHECK(port >= DERIVE_PORT_FIRST && port <= DERIVE_PORT_LAST);
    }
}

static void broker_orders_are_permutations(void) {
    static const uint16_t wanted[15] = {0, 9, 6, 1, 13, 2, 7, 10, 4, 3, 5, 8, 11, 12, 14};
    uint16_t order[DERIVE_BROKERS_MAX];
    derive_broker_order("aa11ce1bd891caee5f80433a0", 25, 15, order);
    CHECK(memcmp(order, wanted, sizeof wanted) == 0);
    for (size_t count = 0; count <= DERIVE_BROKERS_MAX; count += 17) {
        bool seen[DERIVE_BROKERS_MAX] = {false};
        derive_broker_order("some node", 9, count, order);
        for (size_t i = 0; i < count; i++) {
            CHECK(order[i] < count && !seen[order[i]]);
            seen[order[i]] = true;
        }
    }
}

static int take_all(struct bucket *bucket, uint64_t now_ms) {
    int taken = 0;
    while (bucket_take(bucket, now_ms))
        taken++;
    return taken;
}

static void a_bucket_gives_its_burst_and_its_rate(void) {
    struct bucket bucket = bucket_full(250, 64, 1000);
    CHECK_EQ(take_all(&bucket, 1000), 64);
    CHECK_EQ(bucket_wait_ms(&bucket, 1000), 4);
    CHECK_EQ(take_all(&bucket, 1003), 0);
    CHECK_EQ(take_all(&bucket, 1004), 1);
    int taken = 0;
    for (uint64_t now = 1005; now <= 11004; now++)
        taken += take_all(&bucket, now);
    CHECK_EQ(taken, 2500);
    CHECK_EQ(take_all(&bucket, UINT64_MAX), 64);
}

static void a_bucket_survives_odd_clocks_and_rates(void) {
    struct bucket bucket = bucket_full(10, 2, 1000);
    CHECK_EQ(take_all(&bucket, 1000), 2);
    CHECK_EQ(take_all(&bucket, 0), 0);
    CHECK_EQ(take_all(&bucket, 100), 1);
    struct bucket dry = bucket_full(0, 1, 0);
    CHECK_EQ(bucket_wait_ms(&dry, 0), 0);
    CHECK_EQ(take_all(&dry, 0), 1);
    CHECK_EQ(take_all(&dry, UINT64_MAX), 0);
    CHECK(bucket_wait_ms(&dry, UINT64_MAX) == UINT64_MAX);
}

int main(void) {
    RUN(numbers_are_big_endian);
    RUN(hex_round_trips);
    RUN(base58_matches_its_draft);
    RUN(base58_refuses_other_characters);
    RUN(base58_fits_its_bound);
    RUN(ports_follow_from_texts);
    RUN(broker_orders_are_permutations);
    RUN(a_bucket_gives_its_burst_and_its_rate);
    RUN(a_bucket_survives_odd_clocks_and_rates);
    return check_report();
}
