/* Symbols whose probabilities are learned from the symbols before, see ../reference/adaptive.py for the same in Python.
 *
 * The coder is the rANS of rans.h with two lanes that take turns: each symbol may depend on all before it.
 */
#ifndef EDGEKIT_ADAPTIVE_H
#define EDGEKIT_ADAPTIVE_H

#include "rans.h"

#define SYMBOLS 16
/* A count starts at 1, and grows by GAIN. All are halved when they add up to more than COUNTS. */
#define GAIN 16
#define COUNTS 32768
/* What counts may add up to in a model that is to learn anew, but not from nothing. */
#define FADED 1024
/* Slots are shared out anew after 1, 2, 4 ... symbols, and at last every PERIOD. */
#define PERIOD 32
/* Bits that are coded at once, at most. */
#define PIECE 14

#define INLINE static inline __attribute__((always_inline))

/* How probable each symbol is. */
struct model {
    uint16_t counts[SYMBOLS];
    /* The first slot of each symbol, and then RANS_TOTAL. */
    int16_t starts[SYMBOLS + 1];
    /* Symbols until slots are shared out anew, and from then to the next time. */
    uint16_t left, period;
};

/* One end of a payload. */
struct adaptive {
    /* Written: the slots of `count` symbols. */
    uint32_t *slots;
    int64_t count;
    /* Read: words from byte `at` to `end`, the state of the lane whose turn it is, and that of the other. */
    const uint8_t *payload;
    int64_t at, end;
    uint32_t state, other;
    /* Read: not 0 where a symbol was found that cannot be there. */
    uint32_t wrong;
};

/* Halves the counts until they add up to `most` or less. Returns what they add up to. */
static uint32_t halve(struct model *model, uint32_t most)
{
    for (;;) {
        uint32_t sum = 0;
        for (int i = 0; i < SYMBOLS; i++)
            sum += model->counts[i];
        if (sum <= most)
            return sum;
        for (int i = 0; i < SYMBOLS; i++)
            model->counts[i] = (uint16_t)((model->counts[i] + 1) >> 1);
    }
}

/* Shares out the slots by the counts. */
static void share(struct model *model)
{
    const uint32_t sum = halve(model, COUNTS);
    uint32_t below = 0;
    const uint32_t scale = ((RANS_TOTAL - SYMBOLS) << 16) / sum;
    for (uint32_t i = 0; i < SYMBOLS; i++) {
        model->starts[i] = (int16_t)((below * scale >> 16) + i);
        below += model->counts[i];
    }
    model->left = model->period;
    model->period = (uint16_t)lesser(2 * model->period, PERIOD);
}

/* Makes `count` models that know no more than how many `symbols` there are. */
static void forget(struct model *models, int count, int symbols)
{
    for (int i = 0; i < SYMBOLS; i++)
        models->counts[i] = i < symbols;
    models->starts[SYMBOLS] = RANS_TOTAL;
    models->period = 1;
    share(models);
    for (int i = 1; i < count; i++)
        models[i] = *models;
}

/* Has `count` models learn anew, but not from nothing. */
static void fade(struct model *models, int count)
{
    for (int i = 0; i < count; i++) {
        halve(models + i, FADED);
        models[i].period = 1;
        share(models + i);
    }
}

/* Moves past the symbol that owns `width` slots from `start` on: one is written, or the one at hand is read. */
INLINE void pass(struct adaptive *coder, uint32_t start, uint32_t width, const int reading)
{
    if (!reading) {
        coder->slots[coder->count++] = start | width << 16;
        return;
    }
    uint32_t state = width * (coder->state >> RANS_PRECISION) + (coder->state & (RANS_TOTAL - 1)) - start;
    /* Without a branch, which would often be guessed wrong. After the end the last word is read again: that there was no
     * more shows when all is read. */
    const int32_t empty = state < RANS_LOW;
    uint16_t word;
    memcpy(&word, coder->payload + lesser(coder->at, coder->end - 2), sizeof word);
    coder->at += 2 * empty;
    state = empty ? state << 16 | word : state;
    coder->state = coder->other;
    coder->other = state;
}

/* The symbol that owns `slot`: eight starts are compared at once, in a register of SSE2 or NEON. */
INLINE uint32_t owner(const struct model *model, int16_t slot)
{
    typedef int16_t eight __attribute__((vector_size(16)));
    eight first, second;
    memcpy(&first, model->starts, sizeof first);
    memcpy(&second, model->starts + 8, sizeof second);
    const eight wanted = (eight){0} + slot, begun = -((first <= wanted) + (second <= wanted));
    uint64_t sums[2];
    memcpy(sums, &begun, sizeof sums);
    return (uint32_t)((sums[0] + sums[1]) * 0x0001000100010001 >> 48) - 1;
}

/* Writes `symbol`, which is below `symbols`, by `model`, or reads it; the model learns it. Returns it. */
INLINE uint32_t code(struct adaptive *coder, struct model *model, uint32_t symbol, uint32_t symbols, const int reading)
{
    if (reading) {
        const int16_t slot = coder->state & (RANS_TOTAL - 1);
        /* Often it is the first, which the processor guesses. */
        if (symbols == 2 || slot < model->starts[1])
            symbol = (slot >= model->starts[1]) + (slot >= model->starts[2]);
        else
            symbol = owner(model, slot);
        coder->wrong |= symbol >= symbols;
    }
    const uint32_t start = (uint32_t)model->starts[symbol], end = (uint32_t)model->starts[symbol + 1];
    pass(coder, start, end - start, reading);
    model->counts[symbol] += GAIN;
    if (!--model->left)
        share(model);
    return symbol;
}

/* Writes the lowest `bits` of `value`, which has no others, or reads them: all values are as probable. Returns them. */
INLINE uint32_t plain(struct adaptive *coder, uint32_t value, int bits, const int reading)
{
    uint32_t found = 0;
    while (bits) {
        const int piece = bits < PIECE ? bits : PIECE, spare = RANS_PRECISION - piece;
        bits -= piece;
        const uint32_t part = reading ? (coder->state & (RANS_TOTAL - 1)) >> spare : value >> bits & ((1u << piece) - 1);
        pass(coder, part << spare, 1u << spare, reading);
        found = found << piece | part;
    }
    return found;
}

/* Writes the payload of all symbols to the end of `out`, of `room` bytes: at least 8, and 2 for each symbol. Returns where
 * it starts. */
static int64_t write_all(const struct adaptive *coder, uint8_t *out, int64_t room)
{
    uint32_t states[2] = {RANS_LOW, RANS_LOW};
    int64_t top = room;
    for (int64_t i = coder->count - 1; i >= 0; i--) {
        const uint32_t start = coder->slots[i] & 0xFFFF, width = coder->slots[i] >> 16;
        uint32_t state = states[i & 1];
        if (state >> (32 - RANS_PRECISION) >= width) {
            const uint16_t word = (uint16_t)state;
            memcpy(out + (top -= 2), &word, sizeof word);
            state >>= 16;
        }
        states[i & 1] = state + state / width * (RANS_TOTAL - width) + start;
    }
    memcpy(out + (top -= 8), states, sizeof states);
    return top;
}

/* Begins to read from byte `start` of `payload` to `size`. 0, or BAD_PAYLOAD. */
INLINE int32_t open_all(struct adaptive *coder, const uint8_t *payload, int64_t size, int64_t start)
{
    *coder = (struct adaptive){0};
    if (size - start < 8 || (size - start) % 2)
        return BAD_PAYLOAD;
    memcpy(&coder->state, payload + start, 4);
    memcpy(&coder->other, payload + start + 4, 4);
    coder->payload = payload;
    coder->at = start + 8;
    coder->end = size;
    return coder->state < RANS_LOW || coder->other < RANS_LOW ? BAD_PAYLOAD : 0;
}

/* 0 when every byte was read and all is as it was when writing began, or BAD_PAYLOAD. */
INLINE int32_t close_all(const struct adaptive *coder)
{
    return !coder->wrong && coder->at == coder->end && coder->state == RANS_LOW && coder->other == RANS_LOW
               ? 0
               : BAD_PAYLOAD;
}

#endif
