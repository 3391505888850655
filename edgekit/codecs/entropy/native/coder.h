/* The compiled kernels of entropy coding: what all files here share. Their numpy counterparts are in ../reference.
 *
 * Lengths are in elements, and every function is told how long its arrays are. What comes from outside (payloads, and
 * what is read from them) is checked here; arrays that Python made are of the sizes that the comments say. No function
 * keeps anything between calls, so several threads may call at once. The machine is little-endian.
 */
#ifndef EDGEKIT_CODER_H
#define EDGEKIT_CODER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Count up when any function's arguments change; `ABI` in library.py has to be the same. */
#define EDGEKIT_ABI 5

/* What functions return when they fail. What is wrong with a payload, the numpy counterpart says. */
#define BAD_PAYLOAD -1
#define NO_ROOM -2
#define BAD_CODES -3

#define EDGEKIT_EXPORT __attribute__((visibility("default")))

#endif
