/* Secrets: random bytes of which only a digest is kept, and by which something is found.
 *
 * To compare digests may well take longer the more bytes of them agree: to make the digest of a guess
 * agree in one byte more is a search of its own, and tells nothing about a secret drawn at random.
 */
#ifndef CORE_SECRET_H
#define CORE_SECRET_H

#include <stddef.h>
#include <stdint.h>

#define SECRET_DIGEST_BYTES 32          /* SHA-256 */

/* Return: 0, or a negative errno. */
int secret_draw(uint8_t *ret, size_t n);
void secret_digest(const void *secret, size_t n, uint8_t ret[SECRET_DIGEST_BYTES]);

#endif
