/* addr_rules: what an address may hold, field by field.
 *
 * Provides  the checks that addr_parse and Lua's tables go through on their way into a struct addr
 * Uses      addr, ip
 * Pure. Each check returns 0, or UV_EINVAL after addr_refuse has filled the error of the place. */
#ifndef CORE_ADDR_RULES_H
#define CORE_ADDR_RULES_H

#include "core/addr.h"

/* Which part is looked at: "ipv4 interface", 2, "port". */
struct addr_place {
    const char *section;
    unsigned number;   /* from 1; 0 when there is only one */
    const char *field; /* or NULL */
    struct addr_error *error;
};

enum addr_number {
    ADDR_NETIFACE_INDEX,
    ADDR_IF_INDEX,
    ADDR_PORT,
    ADDR_NAT,
    ADDR_DELTA,
    ADDR_DELTA_VALUE,
    ADDR_NUMBERS,
};

/* Says at the place what is wrong; returns UV_EINVAL. */
int addr_refuse(const struct addr_place *place, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

struct addr_place addr_place_signal(unsigned number, struct addr_error *error);
struct addr_place addr_place_interface(uint8_t family, unsigned number, struct addr_error *error);

/* One more offset at the end of the list. */
int addr_add_signal(struct addr *addr, int64_t offset, struct addr_error *error);

/* Sets a number of an interface, and the place's field to its name. */
int addr_set_number(struct addr_interface *entry, enum addr_number which, int64_t value,
                    struct addr_place *place);

#endif
