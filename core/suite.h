/* suite: OpenSSL with the few algorithms that a pipe needs, and no others.
 *
 * Provides  the library context in which TLS sessions are made
 * Uses      OpenSSL's default provider, which does all the work
 * Owns      the context, once per process, for as long as it runs
 * OpenSSL 3 looks through all that its providers offer, a hundred decoders among it, whenever a
 * certificate comes: that is a third of a handshake. A provider that offers a dozen algorithms ends
 * this; it hands out the default provider's own. AES-128-GCM is as TLS uses it: asked for the
 * length of its nonce, it says 12 bytes whatever was set. */
#ifndef CORE_SUITE_H
#define CORE_SUITE_H

#include <openssl/types.h>

/* NULL, OpenSSL's own context, where this one cannot be made. */
OSSL_LIB_CTX *suite_context(void);

#endif
