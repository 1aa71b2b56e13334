/* notice: a callback that is wanted once.
 *
 * Provides  struct notice, and the one way to call it
 * All zero is nobody. It is cleared before the call, so that what is called may ask again. */
#ifndef CORE_NOTICE_H
#define CORE_NOTICE_H

typedef void (*notice_cb)(void *arg, int status);

struct notice {
    notice_cb call;
    void *arg;
};

static inline void notice_fire(struct notice *notice, int status) {
    struct notice now = *notice;
    *notice = (struct notice){0};
    if (now.call)
        now.call(now.arg, status);
}

#endif
