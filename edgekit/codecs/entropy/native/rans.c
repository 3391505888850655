#include "rans.h"

/* Writes the symbols of each chunk to `sizes`, and returns how many chunks there are: `chunks` in ../reference/rans.py. */
static int64_t chunks_of(const int64_t *runs, int64_t count, int64_t bound, int32_t *sizes)
{
    int64_t left = count, chunks = 0;
    while (left) {
        for (int64_t run = *runs++; run;) {
            int64_t size = lesser(run, bound);
            if (8 * left < count)
                size = lesser(size, greater(8 * left * bound / count, greater(bound / 12, 1)));
            sizes[chunks++] = (int32_t)size;
            run -= size;
            left -= size;
        }
    }
    return chunks;
}

/* The bits of `high`, which is at least 1, below the leading one. */
static int32_t bits_below(uint32_t high) { return 31 - __builtin_clz(high); }

/* Writes the states above bit 16 to `out`, and returns the end of what it wrote. */
static uint8_t *write_states(const uint32_t *states, int64_t lanes, uint8_t *out)
{
    for (int64_t i = 0; i < lanes; i += 2) {
        int32_t second = i + 1 < lanes ? bits_below(states[i + 1] >> 16) : 0;
        *out++ = (uint8_t)(bits_below(states[i] >> 16) << 4 | second);
    }
    uint32_t held = 0;
    int32_t holds = 0;
    for (int64_t i = 0; i < lanes; i++) {
        const uint32_t high = states[i] >> 16;
        const int32_t below = bits_below(high);
        held = held << below | (high ^ 1u << below);
        for (holds += below; holds >= 8; holds -= 8)
            *out++ = (uint8_t)(held >> (holds - 8));
    }
    if (holds)
        *out++ = (uint8_t)(held << (8 - holds));
    return out;
}

int64_t rans_encode(const uint32_t *slots, int64_t count, const int64_t *runs, int64_t bits_per_lane, int64_t cost,
                    int32_t *sizes, uint32_t *states, uint8_t *out)
{
    if (!count)
        return 0;
    int64_t bound = lesser(cost / (256 * bits_per_lane), RANS_LANES);
    bound = greater(1, greater(bound, count / RANS_SYMBOLS_PER_LANE));
    if (bound > RANS_LANES)
        return NO_ROOM;
    const int64_t chunks = chunks_of(runs, count, bound, sizes);
    int64_t most = 0;
    for (int64_t i = 0; i < chunks; i++)
        most = greater(most, sizes[i]);
    /* The stack grows downwards, from the end of `out`; above its first word are zeros for lanes that find it empty. */
    uint16_t *stack = (uint16_t *)(void *)(out + (rans_room(count) & ~(int64_t)1)) - most;
    memset(stack, 0, (size_t)most * sizeof *stack);
    int64_t top = 0, bottom = 0, lanes = 0;
    const uint32_t *slot = slots + count;
    for (int64_t chunk = chunks - 1; chunk >= 0; chunk--) {
        const int64_t size = sizes[chunk];
        for (; lanes < size; lanes++)
            states[lanes] = stack[top++] | RANS_LOW;
        bottom = greater(bottom, top);
        for (int64_t lane = size - 1; lane >= 0; lane--) {
            const uint32_t start = *--slot & 0xFFFF, width = *slot >> 16;
            uint32_t state = states[lane];
            const uint32_t full = state >> (32 - RANS_PRECISION) >= width;
            /* Without a branch, which would often be guessed wrong. */
            stack[top - 1] = (uint16_t)state;
            top -= full;
            state >>= 16 * full;
            states[lane] = state + state / width * (RANS_TOTAL - width) + start;
        }
    }
    for (int64_t lane = lanes - 1; lane >= 0; lane--)
        stack[--top] = (uint16_t)states[lane];
    uint8_t *end = out;
    *end++ = (uint8_t)bound;
    *end++ = (uint8_t)(bound >> 8);
    end = write_states(states, lanes, end);
    const size_t words = (size_t)(bottom - top) * sizeof *stack;
    memmove(end, stack + top, words);
    return (int64_t)words + (end - out);
}

/* Reads the `lanes` states at `at`, and puts the words after them on the stack. 0, or BAD_PAYLOAD. */
static int32_t read_states(struct rans_decoder *decoder, const uint8_t *payload, int64_t size, int64_t at,
                           int64_t lanes)
{
    const uint8_t *lengths = payload + at;
    int64_t total = 0;
    at += (lanes + 1) / 2;
    if (at > size || (lanes & 1 && payload[at - 1] & 15))
        return BAD_PAYLOAD;
    for (int64_t i = 0; i < lanes; i++)
        total += i & 1 ? lengths[i / 2] & 15 : lengths[i / 2] >> 4;
    const int64_t begin = at, words = at + (total + 7) / 8;
    if (words > size || (size - words) & 1 || size - words < 2 * lanes)
        return BAD_PAYLOAD;
    if (total & 7 && payload[words - 1] & (0xFF >> (total & 7)))
        return BAD_PAYLOAD;
    /* With room below for the states that lanes give back; above are words for a chunk that asks for too many. */
    memcpy(decoder->stack + lanes, payload + words, (size_t)(size - words));
    decoder->end = lanes + (size - words) / 2;
    memset(decoder->stack + decoder->end, 0, (size_t)(lanes + 1) * sizeof *decoder->stack);
    decoder->top = decoder->read = 2 * lanes;
    decoder->lanes = lanes;
    uint32_t held = 0;
    int32_t holds = 0;
    at = begin;
    for (int64_t i = 0; i < lanes; i++) {
        const int32_t length = i & 1 ? lengths[i / 2] & 15 : lengths[i / 2] >> 4;
        for (; holds < length; holds += 8)
            held = held << 8 | payload[at++];
        holds -= length;
        const uint32_t high = 1u << length | (held >> holds & ((1u << length) - 1));
        decoder->states[i] = high << 16 | decoder->stack[lanes + i];
    }
    return 0;
}

int32_t rans_open(struct rans_decoder *decoder, const uint8_t *payload, int64_t size, int64_t start,
                  const int64_t *runs, int64_t count, struct rans_space space)
{
    memset(decoder, 0, sizeof *decoder);
    if (!count)
        return size == start ? 0 : BAD_PAYLOAD;
    if (size < start + 2)
        return BAD_PAYLOAD;
    const int64_t bound = payload[start] | payload[start + 1] << 8;
    if (bound < greater(1, count / RANS_SYMBOLS_PER_LANE) || bound > count)
        return BAD_PAYLOAD;
    int32_t *needed = space.sizes + count;
    int32_t lanes = 0;
    decoder->chunks = chunks_of(runs, count, bound, space.sizes);
    for (int64_t i = decoder->chunks - 1; i >= 0; i--)
        needed[i] = lanes = space.sizes[i] > lanes ? space.sizes[i] : lanes;
    decoder->sizes = space.sizes;
    decoder->needed = needed;
    decoder->states = space.states;
    decoder->stack = space.stack;
    return read_states(decoder, payload, size, start + 2, lanes);
}

int32_t rans_next(struct rans_decoder *decoder)
{
    if (decoder->top > decoder->end)
        return BAD_PAYLOAD;
    decoder->read = greater(decoder->read, decoder->top);
    decoder->chunk++;
    const int64_t needed = decoder->chunk < decoder->chunks ? decoder->needed[decoder->chunk] : 0;
    while (decoder->lanes > needed) {
        const uint32_t word = decoder->states[--decoder->lanes] - RANS_LOW;
        if (word >= RANS_LOW)
            return BAD_PAYLOAD;
        decoder->stack[--decoder->top] = (uint16_t)word;
    }
    return 0;
}

int32_t rans_close(const struct rans_decoder *decoder)
{
    if (decoder->read != decoder->end)
        return BAD_PAYLOAD;
    for (int64_t i = decoder->top; i < decoder->end; i++)
        if (decoder->stack[i])
            return BAD_PAYLOAD;
    return 0;
}

/* Writes the bytes of `count` symbols in `runs` to `out`, and returns their number, or NO_ROOM.
 *
 * `cost` has RANS_TOTAL + 1 numbers, 256ths of a bit; `slots` has room for `count` numbers; else as rans_encode. */
EDGEKIT_EXPORT int64_t edgekit_rans_encode(const uint32_t *starts, const uint32_t *widths, int64_t count,
                                      const int64_t *runs, int64_t bits_per_lane, const int16_t *cost,
                                      uint32_t *slots, int32_t *sizes, uint32_t *states, uint8_t *out)
{
    int64_t bits = 0;
    for (int64_t i = 0; i < count; i++) {
        bits += cost[widths[i]];
        slots[i] = starts[i] | widths[i] << 16;
    }
    return rans_encode(slots, count, runs, bits_per_lane, bits, sizes, states, out);
}

/* Reads `count` symbols from byte `start` of `payload` to `size`; `kinds` has the distribution of each. 0, or
 * BAD_PAYLOAD.
 *
 * There are `distributions`, of `symbols` each: `of_slot` has the symbols of their RANS_TOTAL slots, `starts` and `widths`
 * the slots of their symbols. */
EDGEKIT_EXPORT int32_t edgekit_rans_decode(const uint8_t *payload, int64_t size, int64_t start, const int64_t *kinds,
                                      int64_t count, int64_t distributions, int64_t symbols, const uint8_t *of_slot,
                                      const uint32_t *starts, const uint32_t *widths, int32_t *sizes, uint32_t *states,
                                      uint16_t *stack, int64_t *found)
{
    struct rans_decoder decoder;
    if (rans_open(&decoder, payload, size, start, &count, count, (struct rans_space){sizes, states, stack}))
        return BAD_PAYLOAD;
    while (decoder.chunk < decoder.chunks) {
        const int64_t lanes = decoder.sizes[decoder.chunk];
        for (int64_t lane = 0; lane < lanes; lane++) {
            const int64_t kind = *kinds++;
            if (kind < 0 || kind >= distributions)
                return BAD_PAYLOAD;
            const uint8_t symbol = of_slot[kind * RANS_TOTAL + rans_slot(&decoder, lane)];
            const int64_t column = kind * symbols + symbol;
            rans_advance(&decoder, lane, starts[column], widths[column]);
            *found++ = symbol;
        }
        if (rans_next(&decoder))
            return BAD_PAYLOAD;
    }
    return rans_close(&decoder);
}
