/* Any bytes: parsed within bounds, and what is accepted keeps its promises. */
#include "core/stun_msg.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    struct stun_msg message;
    if (stun_msg_parse(bytes, length, &message) != 0)
        return 0;
    if (message.class > STUN_ERROR || message.method > 0xFFF ||
        (message.mapped.family != 0 && message.mapped.family != 4 && message.mapped.family != 6) ||
        (message.error != 0 && (message.error < 300 || message.error > 699)))
        abort();
    return 0;
}
