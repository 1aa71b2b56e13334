#include "core/err.h"

static const struct {
    int status;
    const char *name;
    const char *message;
} own[] = {
#define X(name, number, sentence) {number, #name, sentence},
    ERR_LIST(X)
#undef X
};

/* libuv allocates the text of a number that it does not know, so such numbers never reach it. */
static const struct {
    int status;
    const char *name;
    const char *message;
} system_[] = {
#define X(name, sentence) {UV_##name, #name, sentence},
    UV_ERRNO_MAP(X)
#undef X
};

#define LENGTH(list) (sizeof(list) / sizeof((list)[0]))

const char *err_name(int status) {
    if (status == 0)
        return "OK";
    for (size_t i = 0; i < LENGTH(own); i++)
        if (own[i].status == status)
            return own[i].name;
    for (size_t i = 0; i < LENGTH(system_); i++)
        if (system_[i].status == status)
            return system_[i].name;
    return "EUNKNOWN";
}

const char *err_message(int status) {
    if (status == 0)
        return "success";
    for (size_t i = 0; i < LENGTH(own); i++)
        if (own[i].status == status)
            return own[i].message;
    for (size_t i = 0; i < LENGTH(system_); i++)
        if (system_[i].status == status)
            return system_[i].message;
    return "an unknown error";
}
