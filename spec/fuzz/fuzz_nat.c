/* Any observations: the report is whole, and the same again when it is asked for again.
 *
 *   transport and more, own address, then steps of 8 bytes: an answer, silence, or a filter test */
#include "core/nat.h"

#include <stdlib.h>
#include <string.h>

#define MUST(condition) ((condition) ? (void)0 : abort())

enum { HEAD_SIZE = 2, STEP_SIZE = 8, SEEN_SIZE = NAT_SEEN_MAX + 8, TESTS_SIZE = NAT_TESTS_MAX + 8 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static struct nat_seen seen[SEEN_SIZE];
static struct nat_filter_test tests[TESTS_SIZE];

static struct ip address(uint8_t net, unsigned last) {
    return (struct ip){.family = 4, .bytes = {30, net, 1, (uint8_t)last}};
}

static uint16_t word(const uint8_t *bytes) {
    return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

/* kind and server, server port, local port, external address and port, tries */
static void step(const uint8_t *bytes, struct nat_observations *out) {
    struct ip server = address(1, bytes[0] % 16);
    uint16_t server_port = (uint16_t)(3478 + bytes[1] % 3);
    if (bytes[0] >> 6 == 0 && out->test_count < TESTS_SIZE) {
        tests[out->test_count++] = (struct nat_filter_test){
            .server = server,
            .server_port = server_port,
            .from = address(1, bytes[2] % 16),
            .from_port = (uint16_t)(3478 + bytes[3] % 3),
            .answered = bytes[4] & 1,
            .tries = word(bytes + 5),
        };
    } else if (out->seen_count < SEEN_SIZE) {
        seen[out->seen_count++] = (struct nat_seen){
            .server = server,
            .server_port = server_port,
            .local_port = word(bytes + 2),
            .external = bytes[0] >> 6 == 1 ? (struct ip){0} : address(2, bytes[6] % 5),
            .external_port = word(bytes + 4),
            .refused = bytes[1] & 128,
            .tries = bytes[7],
        };
    }
}

static bool was_asked(const struct nat_observations *given, const struct ip *ip) {
    for (size_t i = 0; i < given->seen_count; i++)
        if (ip_equal(&given->seen[i].server, ip))
            return true;
    return false;
}

static bool is_share(double value) {
    return value >= 0 && value <= 1; /* which NaN is not */
}

static void check(const struct nat_observations *given, const struct nat_report *report) {
    bool steps = report->delta == ADDR_DELTA_INDEPENDENT || report->delta == ADDR_DELTA_DEPENDENT;
    MUST(report->type >= ADDR_NAT_OPEN && report->type <= ADDR_NAT_BLOCKED);
    MUST(report->delta >= ADDR_DELTA_NA && report->delta <= ADDR_DELTA_RANDOM);
    MUST(steps || report->value == 0);
    MUST(abs(report->value) <= UINT16_MAX);
    MUST(report->first <= report->last && (report->first != 0 || report->last == 0));
    MUST(report->mapping <= NAT_ADDRESS_AND_PORT_DEPENDENT);
    MUST(report->filtering <= NAT_ADDRESS_AND_PORT_DEPENDENT);
    MUST(is_share(report->confidence) && is_share(report->type_confidence) &&
         is_share(report->delta_confidence));
    MUST(report->confidence <= report->type_confidence &&
         report->confidence <= report->delta_confidence);
    MUST(report->liar.family == 0 || was_asked(given, &report->liar));
    MUST(report->external.family != 0 || report->type == ADDR_NAT_BLOCKED);
    MUST((report->delta == ADDR_DELTA_NA) ==
         (!report->translated || report->type == ADDR_NAT_BLOCKED));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    struct nat_report report, again;
    if (length < HEAD_SIZE)
        return 0;
    struct nat_observations given = {
        .protocol = bytes[0] & 1 ? NAT_TCP : NAT_UDP,
        .udp_silent = bytes[0] & 2,
        .stranger = bytes[0] / 4 % 3 - 1,
        .local = address(2, bytes[1] % 5),
        .seen = seen,
        .tests = tests,
    };
    for (size_t at = HEAD_SIZE; at + STEP_SIZE <= length; at += STEP_SIZE)
        step(bytes + at, &given);
    nat_classify(&given, &report);
    check(&given, &report);
    nat_classify(&given, &again);
    MUST(memcmp(&report, &again, sizeof report) == 0);
    return 0;
}
