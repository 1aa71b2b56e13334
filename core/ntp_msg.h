/* ntp_msg: what an NTP client sends and gets, as bytes (RFC 5905, 7.3).
 *
 * Provides  the request, the reader of answers, what an answer is worth, and NTP's time as ours
 * Uses      bytes, err
 * Pure: no I/O, no randomness, no clock.
 *
 *   0                   1                   2                   3
 *   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *  +---+-----+-----+---------------+---------------+---------------+
 *  |LI | VN  |Mode | stratum       | poll          | precision     |
 *  +---+-----+-----+---------------+---------------+---------------+
 *  | root delay, in seconds of 16.16 bits                          |
 *  +---------------------------------------------------------------+
 *  | root dispersion, likewise                                     |
 *  +---------------------------------------------------------------+
 *  | reference ID; at stratum 0 the kiss code                      |
 *  +---------------------------------------------------------------+
 *  | reference, origin, receive, transmit timestamps, in seconds   |
 *  | since 1900 of 32.32 bits each                                 |
 *  +---------------------------------------------------------------+
 *  | extension fields and a MAC, which are passed over             |
 */
#ifndef CORE_NTP_MSG_H
#define CORE_NTP_MSG_H

#include <stddef.h>
#include <stdint.h>

#define NTP_SIZE 48
#define NTP_PORT 123
#define NTP_KISS_SIZE 5 /* four letters and the final NUL */

struct ntp_msg {
    uint8_t leap, version, mode, stratum;
    int8_t precision;                /* log2 of seconds */
    uint32_t root_delay_us;          /* to the server's own source of time, there and back */
    uint32_t root_dispersion_us;     /* how far the server may be off besides */
    char kiss[NTP_KISS_SIZE];        /* of a refusal: "RATE", "DENY", …; else "" */
    uint64_t origin;                 /* what the request gave as its transmit timestamp */
    int64_t receive_ns, transmit_ns; /* since 1970 */
};

enum ntp_worth {
    NTP_GOOD,
    NTP_REFUSAL,  /* kiss-o'-death (RFC 5905, 7.4): this server is to be left alone */
    NTP_NO_TIME,  /* it is not synchronized itself */
    NTP_NONSENSE, /* no server's answer, or one that contradicts itself */
};

/* Writes a client's request that tells nothing but `nonce`, which the answer's origin repeats
 * (draft-ietf-ntp-data-minimization, 4). */
void ntp_msg_request(uint64_t nonce, uint8_t out[NTP_SIZE]);

/* Reads one packet. 0, or ERR_EFORMAT when it is too short or of another version. */
int ntp_msg_parse(const uint8_t *bytes, size_t length, struct ntp_msg *out);

enum ntp_worth ntp_msg_worth(const struct ntp_msg *msg);

/* A timestamp as nanoseconds since 1970. NTP's seconds begin anew in 2036: they are taken for
 * those from 2020 to 2156, whatever this machine's clock says. */
int64_t ntp_time_ns(uint64_t timestamp);

#endif
