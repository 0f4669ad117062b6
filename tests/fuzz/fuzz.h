/* A fuzz target is one function in the manner of libFuzzer. Built with --enable-fuzzers (clang)
 * it is a fuzzer; otherwise replay.c gives it a main() that feeds it the corpus, so that what a
 * fuzzer once found stays found in every `make check`.
 *
 * A target checks more than that nothing crashes: what it must hold for any input it asserts
 * with FUZZ_REQUIRE().
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Return: 0. Must leave nothing behind: no memory, no descriptor, no state. */
__attribute__((visibility("default"))) int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define FUZZ_REQUIRE(condition)                                                         \
        do {                                                                            \
                if (!(condition)) {                                                     \
                        fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
                        abort();                                                        \
                }                                                                       \
        } while (0)

#endif
