/* Any servers: who agrees is a majority, and the outcome's bounds touch what each of them says. */
#include "core/clock.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    struct clock_view views[CLOCK_SERVERS_MAX + 1], found;
    bool agrees[CLOCK_SERVERS_MAX + 1] = {false};
    size_t count = length / sizeof *views, agreeing = 0;
    if (count > CLOCK_SERVERS_MAX + 1)
        count = CLOCK_SERVERS_MAX + 1;
    memcpy(views, bytes, count * sizeof *views);
    for (size_t i = 0; i < count && bytes[0] % 2; i++) { /* half of them near each other */
        views[i].offset_ns %= 1000;
        views[i].error_ns = (int64_t)((uint64_t)views[i].error_ns % 1000);
    }
    if (count == 0 || clock_select(views, count, &found, agrees) != 0)
        return 0;
    for (size_t i = 0; i < count; i++)
        agreeing += agrees[i];
    if (2 * agreeing <= count || found.error_ns < 0)
        abort();
    for (size_t i = 0; i < count; i++) /* what holds the truth has room for each of them */
        if (agrees[i] &&
            (found.offset_ns + found.error_ns < views[i].offset_ns - views[i].error_ns ||
             found.offset_ns - found.error_ns > views[i].offset_ns + views[i].error_ns))
            abort();
    return 0;
}
