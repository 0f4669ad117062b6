/* Secrets: see the header for the model. */

#include "core/secret.h"

#include <errno.h>
#include <sha2.h>
#include <string.h>
#include <sys/random.h>

#include "util/error.h"

int secret_draw(uint8_t *ret, size_t n) {
        /* So few bytes come whole, or not at all (getrandom(2)). */
        return getrandom(ret, n, 0) == (ssize_t)n ? 0 : error_origin(-EIO);
}

void secret_digest(const void *secret, size_t n, uint8_t ret[SECRET_DIGEST_BYTES]) {
        SHA2_CTX context;

        SHA256Init(&context);
        SHA256Update(&context, secret, n);
        SHA256Final(ret, &context);
        explicit_bzero(&context, sizeof(context));
}
