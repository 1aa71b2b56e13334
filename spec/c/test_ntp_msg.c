#include "core/bytes.h"
#include "core/err.h"
#include "core/ntp_msg.h"
#include "spec/c/check.h"

/* An answer of a server of stratum 2, with all fields in use. */
static const uint8_t answer[NTP_SIZE] = {
    0x24, 0x02, 0x06, 0xe7, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x01, 0x80, 0xc0, 0x00, 0x02, 0x07,
    0xea, 0x00, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,
    0xea, 0x00, 0x00, 0x01, 0x40, 0x00, 0x00, 0x00, 0xea, 0x00, 0x00, 0x01, 0x80, 0x00, 0x00, 0x00,
};

static struct ntp_msg read_with(size_t place, uint8_t value) {
    uint8_t bytes[NTP_SIZE];
    struct ntp_msg msg;
    memcpy(bytes, answer, sizeof bytes);
    bytes[place] = value;
    CHECK_EQ(ntp_msg_parse(bytes, sizeof bytes, &msg), 0);
    return msg;
}

static void a_request_tells_nothing_but_its_nonce(void) {
    uint8_t bytes[NTP_SIZE];
    ntp_msg_request(0x0102030405060708, bytes);
    CHECK_EQ(bytes[0], 0x23); /* version 4, client */
    for (size_t i = 1; i < 40; i++)
        CHECK_EQ(bytes[i], 0);
    CHECK_EQ(get_u64(bytes + 40), 0x0102030405060708);
}

static void an_answer_is_read(void) {
    struct ntp_msg msg = read_with(0, answer[0]);
    CHECK_EQ(msg.leap, 0);
    CHECK_EQ(msg.version, 4);
    CHECK_EQ(msg.mode, 4);
    CHECK_EQ(msg.stratum, 2);
    CHECK_EQ(msg.precision, -25);
    CHECK_EQ(msg.root_delay_us, 7812);
    CHECK_EQ(msg.root_dispersion_us, 5859);
    CHECK_TEXT(msg.kiss, "");
    CHECK_EQ(msg.origin, 0x0102030405060708);
    CHECK_EQ(msg.transmit_ns - msg.receive_ns, 250000000);
    CHECK_EQ(ntp_msg_worth(&msg), NTP_GOOD);
}

static void what_is_no_packet_is_refused(void) {
    uint8_t bytes[NTP_SIZE + 20] = {0};
    struct ntp_msg msg;
    memcpy(bytes, answer, sizeof answer);
    for (size_t length = 0; length < NTP_SIZE; length++)
        CHECK_EQ(ntp_msg_parse(bytes, length, &msg), ERR_EFORMAT);
    CHECK_EQ(ntp_msg_parse(bytes, sizeof bytes, &msg), 0); /* a MAC, which we did not ask for */
    for (int version = 0; version < 8; version++) {
        bytes[0] = (uint8_t)(version << 3 | 4);
        CHECK_EQ(ntp_msg_parse(bytes, NTP_SIZE, &msg),
                 version == 3 || version == 4 ? 0 : ERR_EFORMAT);
    }
}

static void a_server_says_what_it_is_worth(void) {
    struct ntp_msg msg = read_with(0, 0xe4); /* leap 3 */
    CHECK_EQ(ntp_msg_worth(&msg), NTP_NO_TIME);
    msg = read_with(1, 16);
    CHECK_EQ(ntp_msg_worth(&msg), NTP_NO_TIME);
    msg = read_with(1, 15);
    CHECK_EQ(ntp_msg_worth(&msg), NTP_GOOD);
    msg = read_with(4, 1); /* 256 s to its source */
    CHECK_EQ(ntp_msg_worth(&msg), NTP_NO_TIME);
    msg = read_with(8, 0xff); /* more than 32 bits of microseconds */
    CHECK_EQ(msg.root_dispersion_us, UINT32_MAX);
    CHECK_EQ(ntp_msg_worth(&msg), NTP_NO_TIME);
    msg = read_with(0, 0x23); /* a client */
    CHECK_EQ(ntp_msg_worth(&msg), NTP_NONSENSE);
    msg = read_with(43, 0); /* it answered before it was asked */
    CHECK_EQ(ntp_msg_worth(&msg), NTP_NONSENSE);
}

static void a_refusal_says_why(void) {
    uint8_t bytes[NTP_SIZE];
    struct ntp_msg msg;
    memcpy(bytes, answer, sizeof bytes);
    bytes[1] = 0;
    memcpy(bytes + 12, "RATE", 4);
    CHECK_EQ(ntp_msg_parse(bytes, sizeof bytes, &msg), 0);
    CHECK_TEXT(msg.kiss, "RATE");
    CHECK_EQ(ntp_msg_worth(&msg), NTP_REFUSAL);
    memcpy(bytes + 12, "A\x1b[2", 4); /* what is for a terminal does not pass */
    CHECK_EQ(ntp_msg_parse(bytes, sizeof bytes, &msg), 0);
    CHECK_TEXT(msg.kiss, "A");
}

static void time_goes_on_in_2036(void) {
    CHECK_EQ(ntp_time_ns((uint64_t)(2208988800 + 1700000000ULL) << 32), 1700000000000000000);
    CHECK_EQ(ntp_time_ns((uint64_t)1 << 31 | (uint64_t)UINT32_MAX << 32), 2085978495500000000);
    CHECK_EQ(ntp_time_ns(0), 2085978496000000000); /* 2036-02-07 06:28:16 */
    CHECK_EQ(ntp_time_ns(UINT32_MAX), 2085978496999999999);
    CHECK(ntp_time_ns((2208988800ULL + 1577836799) << 32) > 5000000000000000000); /* 2156 */
}

int main(void) {
    RUN(a_request_tells_nothing_but_its_nonce);
    RUN(an_answer_is_read);
    RUN(what_is_no_packet_is_refused);
    RUN(a_server_says_what_it_is_worth);
    RUN(a_refusal_says_why);
    RUN(time_goes_on_in_2036);
    return check_report();
}
