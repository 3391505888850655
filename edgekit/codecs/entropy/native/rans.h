/* Interleaved rANS, see ../rans.py for the format and ../reference/rans.py for the same in numpy.
 *
 * A symbol's slots are one number: its first slot, and above 16 bits how many slots it owns, 1 to RANS_TOTAL.
 */
#ifndef EDGEKIT_RANS_H
#define EDGEKIT_RANS_H

#include "coder.h"

#define RANS_PRECISION 14
#define RANS_TOTAL (1u << RANS_PRECISION)
#define RANS_LOW (1u << 16)
/* The most lanes that a payload can tell of. */
#define RANS_LANES 0xFFFF
#define RANS_SYMBOLS_PER_LANE 2048

static inline int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t greater(int64_t a, int64_t b) { return a > b ? a : b; }

/* Bytes of `out` that rans_encode needs for `count` symbols: of the stack, and of the states before it. */
static inline int64_t rans_room(int64_t count) { return 2 * count + 8 * lesser(count, RANS_LANES) + 8; }

/* Writes to `out`, which has rans_room(count) bytes and is aligned to 2, and returns the number of bytes, or NO_ROOM
 * where there would be more lanes than RANS_LANES. `cost` is what all symbols take, in 256ths of a bit; `sizes` has
 * room for `count` numbers, `states` for as many or RANS_LANES. */
int64_t rans_encode(const uint32_t *slots, int64_t count, const int64_t *runs, int64_t bits_per_lane, int64_t cost,
                    int32_t *sizes, uint32_t *states, uint8_t *out);

/* One end of a payload that is read. */
struct rans_decoder {
    uint32_t *states;
    uint16_t *stack;
    /* By chunk: its symbols, and the lanes that it and later ones need. */
    const int32_t *sizes, *needed;
    int64_t chunks, chunk, lanes, top, end, read;
};

/* Memory for a decoder of `count` symbols in a payload of `size` bytes. */
struct rans_space {
    /* 2 * count */
    int32_t *sizes;
    /* The lesser of count and RANS_LANES. */
    uint32_t *states;
    /* Twice as many, and size / 2 + 1. */
    uint16_t *stack;
};

/* Opens the payload from byte `start` to `size`, of `count` symbols in `runs`. 0, or BAD_PAYLOAD. */
int32_t rans_open(struct rans_decoder *decoder, const uint8_t *payload, int64_t size, int64_t start,
                  const int64_t *runs, int64_t count, struct rans_space space);

/* Ends a chunk, when each of its lanes has been advanced. 0, or BAD_PAYLOAD. */
int32_t rans_next(struct rans_decoder *decoder);

/* 0 when every byte has been used, or BAD_PAYLOAD. */
int32_t rans_close(const struct rans_decoder *decoder);

/* The slot of the next symbol on `lane`, below RANS_TOTAL. */
static inline uint32_t rans_slot(const struct rans_decoder *decoder, int64_t lane)
{
    return decoder->states[lane] & (RANS_TOTAL - 1);
}

/* Moves `lane` past the symbol that owns `width` slots from `start` on. Without a branch, which would often be guessed
 * wrong: so the next word is read in any case, and that a payload ends too early shows at the end of the chunk. */
static inline void rans_advance(struct rans_decoder *decoder, int64_t lane, uint32_t start, uint32_t width)
{
    uint32_t state = decoder->states[lane];
    state = (state >> RANS_PRECISION) * width + (state & (RANS_TOTAL - 1)) - start;
    const uint32_t low = state < RANS_LOW, longer = state << 16 | decoder->stack[decoder->top];
    decoder->states[lane] = low ? longer : state;
    decoder->top += low;
}

#endif
