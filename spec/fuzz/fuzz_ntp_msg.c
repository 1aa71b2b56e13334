/* Any bytes: parsed within bounds, and what is taken for good keeps its promises. */
#include "core/ntp_msg.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    struct ntp_msg msg;
    if (ntp_msg_parse(bytes, length, &msg) != 0)
        return 0;
    if (length < NTP_SIZE || strlen(msg.kiss) >= NTP_KISS_SIZE || msg.receive_ns < 0 ||
        msg.transmit_ns < 0)
        abort();
    if (ntp_msg_worth(&msg) == NTP_GOOD &&
        (msg.stratum == 0 || msg.stratum > 15 || msg.leap == 3 || msg.mode != 4 ||
         msg.transmit_ns < msg.receive_ns || msg.root_delay_us / 2 > 16000000))
        abort();
    return 0;
}
