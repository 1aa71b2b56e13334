/* warm: which TLS sessions keep OpenSSL's record buffers (33 KiB) between records.
 *
 * Provides  struct warmth, a session's place among the warm ones
 * Uses      OpenSSL
 * Owns      the order of the thread's warm sessions; never a session
 * To allocate these buffers anew for each record costs a small message a tenth of its time; to keep
 * them costs an idle pipe twice what it needs. So the few sessions that were used last keep them. A
 * struct of zeros is a cold session. */
#ifndef CORE_WARM_H
#define CORE_WARM_H

#include <openssl/types.h>

#define WARM_SESSIONS 16 /* of a thread */

struct warmth {
    SSL *ssl; /* NULL while it is cold */
    struct warmth *colder, *warmer;
};

/* It is in use: it becomes the warmest, and where there are too many the coldest one's buffers are
 * freed as soon as they are empty. */
void warm_use(struct warmth *session, SSL *ssl);

/* It ends. */
void warm_forget(struct warmth *session);

#endif
