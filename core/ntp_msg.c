#include "core/ntp_msg.h"
#include "core/bytes.h"
#include "core/err.h"

#include <ctype.h>
#include <string.h>

#define VERSION 4
#define OLDEST_VERSION 3
#define CLIENT 3 /* modes: RFC 5905, figure 10 */
#define SERVER 4
#define NO_LEAP_STATE 3           /* leap indicator of who is not synchronized: figure 9 */
#define MAX_STRATUM 15            /* figure 11 */
#define MAX_DISTANCE_US 16000000u /* MAXDISP: figure 5 */

#define SECOND_NS 1000000000
#define UNTIL_1970 2208988800u /* seconds since 1900: RFC 5905, figure 4 */
#define UNTIL_2020 (UNTIL_1970 + 1577836800u)

void ntp_msg_request(uint64_t nonce, uint8_t out[NTP_SIZE]) {
    memset(out, 0, NTP_SIZE);
    out[0] = VERSION << 3 | CLIENT;
    put_u64(out + 40, nonce);
}

int64_t ntp_time_ns(uint64_t timestamp) {
    uint32_t seconds = (uint32_t)(timestamp >> 32);
    uint64_t fraction = timestamp & UINT32_MAX;
    int64_t since_1900 = (int64_t)seconds + (seconds < UNTIL_2020 ? (int64_t)1 << 32 : 0);
    return (since_1900 - UNTIL_1970) * SECOND_NS + (int64_t)(fraction * SECOND_NS >> 32);
}

static uint32_t microseconds(const uint8_t *bytes) { /* of 16.16 bits: less than 2^36 */
    uint64_t us = (uint64_t)get_u32(bytes) * 1000000 >> 16;
    return us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

int ntp_msg_parse(const uint8_t *bytes, size_t length, struct ntp_msg *out) {
    *out = (struct ntp_msg){0};
    if (length < NTP_SIZE)
        return ERR_EFORMAT;
    out->leap = bytes[0] >> 6;
    out->version = bytes[0] >> 3 & 7;
    out->mode = bytes[0] & 7;
    if (out->version < OLDEST_VERSION || out->version > VERSION)
        return ERR_EFORMAT;
    out->stratum = bytes[1];
    out->precision = (int8_t)bytes[3];
    out->root_delay_us = microseconds(bytes + 4);
    out->root_dispersion_us = microseconds(bytes + 8);
    if (out->stratum == 0) /* RFC 5905, 7.4: four letters; strangers' bytes reach no terminal */
        for (size_t i = 0; i < NTP_KISS_SIZE - 1 && isalnum(bytes[12 + i]); i++)
            out->kiss[i] = (char)bytes[12 + i];
    out->origin = get_u64(bytes + 24);
    out->receive_ns = ntp_time_ns(get_u64(bytes + 32));
    out->transmit_ns = ntp_time_ns(get_u64(bytes + 40));
    return 0;
}

enum ntp_worth ntp_msg_worth(const struct ntp_msg *msg) {
    if (msg->mode != SERVER)
        return NTP_NONSENSE;
    if (msg->stratum == 0)
        return NTP_REFUSAL;
    if (msg->leap == NO_LEAP_STATE || msg->stratum > MAX_STRATUM)
        return NTP_NO_TIME;
    if (msg->root_delay_us / 2 >= MAX_DISTANCE_US || /* so that the sum cannot overflow */
        msg->root_dispersion_us >= MAX_DISTANCE_US ||
        msg->root_delay_us / 2 + msg->root_dispersion_us >= MAX_DISTANCE_US)
        return NTP_NO_TIME;
    return msg->transmit_ns < msg->receive_ns ? NTP_NONSENSE : NTP_GOOD;
}
