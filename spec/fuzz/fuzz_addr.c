/* Any text is refused with a field and a reason that a terminal can show, or has one canonical form
 * that reads back as the same address. */
#include "core/addr.h"

#include <stdlib.h>
#include <string.h>

#define MUST(condition) ((condition) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void check_shown(const char *text, size_t size) {
    size_t length = strnlen(text, size);
    MUST(length > 0 && length < size);
    for (size_t i = 0; i < length; i++)
        MUST(text[i] >= ' ' && text[i] <= '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
    struct addr addr, again;
    struct addr_error error;
    char text[ADDR_TEXT_SIZE], second[ADDR_TEXT_SIZE];
    if (addr_parse((const char *)bytes, length, &addr, &error) != 0) {
        check_shown(error.field, sizeof error.field);
        check_shown(error.reason, sizeof error.reason);
        return 0;
    }
    size_t written = addr_format(&addr, text);
    MUST(written == strlen(text));
    MUST(addr_parse(text, written, &again, NULL) == 0);
    MUST(addr_check(&again, NULL) == 0);
    MUST(addr_format(&again, second) == written);
    MUST(strcmp(text, second) == 0);
    MUST(addr.ours == again.ours);
    return 0;
}
