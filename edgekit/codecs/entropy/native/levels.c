/* Levels that are mostly 0, see ../levels.py for the format and ../reference/levels.py for the same in numpy. */
#include "rans.h"

/* Bytes of bits of a count, and of bytes of bits. */
#define HEAD 5

/* Buckets of gaps: 0 to 7 have one each, an octave from 8 on four. */
static inline int32_t octave_of(uint64_t gap) { return 63 - __builtin_clzll(gap); }

/* The bits of a gap's place in `bucket`. */
static inline int32_t width_of(int32_t bucket) { return bucket < 8 ? 0 : 1 + (bucket - 8) / 4; }

/* The class of a segment of `size` elements of which `count` are chosen: `classes` in ../gaps.py. */
static int64_t class_of(int64_t count, int64_t size)
{
    const int64_t sparsity = count ? size * size / (count * count) : 0;
    return sparsity < 2 ? 0 : octave_of((uint64_t)sparsity);
}

/* Bits, most significant first. */
struct writer {
    uint8_t *out;
    uint64_t held;
    int32_t holds;
};

/* Writes the lowest `width` bits of `value`, at most 32, which has no others. */
static inline void put(struct writer *writer, uint64_t value, int32_t width)
{
    writer->held = writer->held << width | value;
    for (writer->holds += width; writer->holds >= 8; writer->holds -= 8)
        *writer->out++ = (uint8_t)(writer->held >> (writer->holds - 8));
}

/* Writes the lowest `width` bits of `value`, at most 63, which may have others. */
static void put_long(struct writer *writer, uint64_t value, int32_t width)
{
    for (; width > 32; width -= 32)
        put(writer, value >> (width - 32) & 0xFFFFFFFF, 32);
    put(writer, value & (((uint64_t)1 << width) - 1), width);
}

static inline uint64_t excess_of(int64_t value) { return (uint64_t)(value < 0 ? -value : value) - 1; }

/* Where gaps go: their places in their buckets to `writer`, the buckets' slots to `slots`. */
struct gaps {
    struct writer writer;
    const uint32_t *starts, *widths;
    const int16_t *cost;
    uint32_t *slots;
    /* Of all slots, in 256ths of a bit. */
    int64_t bits;
};

/* Writes a gap; the slots of its class begin at `line`. */
static inline void put_gap(struct gaps *gaps, int64_t gap, int64_t line)
{
    int32_t bucket = (int32_t)gap;
    if (gap >= 8) {
        const int32_t octave = octave_of((uint64_t)gap), width = octave - 2;
        bucket = 4 * octave - 4 + (int32_t)(gap >> width & 3);
        put(&gaps->writer, (uint64_t)gap & (((uint64_t)1 << width) - 1), width);
    }
    const uint32_t width = gaps->widths[line + bucket];
    gaps->bits += gaps->cost[width];
    *gaps->slots++ = gaps->starts[line + bucket] | width << 16;
}

/* Writes the lengths of what `values` at `beyond` (count) are beyond 1, in unary, then what they are beyond 1. */
static void put_excesses(struct writer *writer, const int64_t *values, const int64_t *beyond, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        const int32_t below = octave_of(excess_of(values[beyond[i]]));
        put_long(writer, ((uint64_t)1 << (below + 1)) - 2, below + 1);
    }
    for (int64_t i = 0; i < count; i++) {
        const uint64_t excess = excess_of(values[beyond[i]]);
        put_long(writer, excess, octave_of(excess));
    }
}

/* Codes the levels that are not 0: their ascending `places` and their `values` (count), in segments of `sizes`
 * (segments). Returns how many bytes of buckets it wrote to `out`, or NO_ROOM.
 *
 * The fields before the buckets come to `fields`, which has LEVELS_ROOM bytes, and `*written` is how many there are.
 * `starts` and `widths` have the slots of `buckets` buckets for each class, `cost` is as in ../slots.py. `counts` and
 * `beyond` have room for segments + 1 numbers and for `count`; `slots`, `lanes`, `states` and `out` are those of
 * rans_encode, for 2 * count symbols. */
EDGEKIT_EXPORT int64_t edgekit_levels_encode(const int64_t *places, const int64_t *values, int64_t count,
                                             const int64_t *sizes, int64_t segments, const uint32_t *starts,
                                             const uint32_t *widths, int64_t buckets, int64_t bits_per_lane,
                                             const int16_t *cost, int64_t *counts, int64_t *beyond, uint8_t *fields,
                                             int64_t *written, uint32_t *slots, int32_t *lanes, uint32_t *states,
                                             uint8_t *out)
{
    int64_t above = 0, end = 0, at = 0, most = 0;
    for (int64_t i = 0; i < count; i++)
        if (values[i] > 1 || values[i] < -1)
            beyond[above++] = i;
    for (int64_t s = 0; s < segments; s++) {
        const int64_t first = at;
        for (end += sizes[s]; at < count && places[at] < end; at++)
            continue;
        counts[s] = at - first;
        most = greater(most, counts[s]);
    }
    counts[segments] = above;
    most = greater(most, above);
    struct gaps gaps = {{fields + HEAD, 0, 0}, starts, widths, cost, slots, 0};
    struct writer *const writer = &gaps.writer;
    const int32_t width = most ? octave_of((uint64_t)most) + 1 : 0;
    for (int64_t s = 0; s <= segments; s++)
        put(writer, (uint64_t)counts[s], width);
    for (int64_t i = 0; i < count; i++)
        put(writer, values[i] < 0, 1);
    end = 0;
    for (int64_t s = 0; s < segments; s++) {
        const int64_t line = class_of(counts[s], sizes[s]) * buckets;
        int64_t next = end;
        for (int64_t i = 0; i < counts[s]; i++, next = *places++ + 1)
            put_gap(&gaps, *places - next, line);
        end += sizes[s];
    }
    const int64_t line = class_of(above, count) * buckets;
    for (int64_t i = 0; i < above; i++)
        put_gap(&gaps, beyond[i] - (i ? beyond[i - 1] + 1 : 0), line);
    put_excesses(writer, values, beyond, above);
    put(writer, 0, -writer->holds & 7);
    const int64_t bytes = writer->out - fields - HEAD, symbols = count + above;
    fields[0] = (uint8_t)width;
    for (int32_t i = 0; i < 4; i++)
        fields[1 + i] = (uint8_t)(bytes >> 8 * i);
    *written = HEAD + bytes;
    return rans_encode(slots, symbols, &symbols, bits_per_lane, gaps.bits, lanes, states, out);
}

/* Bits that are read from `at` to `end`. */
struct reader {
    const uint8_t *payload;
    int64_t at, end;
};

/* The next `width` bits, at most 56, which have to be there. */
static inline uint64_t take(struct reader *reader, int32_t width)
{
    const int64_t first = reader->at >> 3;
    const int32_t skipped = (int32_t)(reader->at & 7);
    uint64_t word = 0;
    if (first + 8 <= reader->end >> 3) {
        memcpy(&word, reader->payload + first, 8);
        word = __builtin_bswap64(word);
    } else {
        for (int64_t i = 0; i < 8; i++)
            word = word << 8 | (first + i < reader->end >> 3 ? reader->payload[first + i] : 0);
    }
    reader->at += width;
    return width ? word << skipped >> (64 - width) : 0;
}

/* Reads the places of the chosen `count` of the `size` elements from `begin` on, whose gaps are in the buckets at
 * `*bucket`. 0, or BAD_PAYLOAD. */
static int32_t take_places(struct reader *reader, const uint8_t **bucket, int64_t count, int64_t begin, int64_t size,
                           int64_t *places)
{
    int64_t place = begin;
    for (int64_t i = 0; i < count; i++) {
        const int32_t number = *(*bucket)++, width = width_of(number);
        const int64_t start = number < 8 ? number : (int64_t)(4 + (number & 3)) << width;
        place += start + (int64_t)take(reader, width);
        if (place >= begin + size)
            return BAD_PAYLOAD;
        places[i] = place++;
    }
    return 0;
}

/* Adds to `values` what those at `beyond` (count) are beyond 1; `lengths` has room for `count`. 0, or BAD_PAYLOAD. */
static int32_t take_excesses(struct reader *reader, const int64_t *beyond, int64_t count, uint8_t *lengths,
                             int64_t *values)
{
    int64_t bits = 0;
    for (int64_t i = 0; i < count; i++) {
        int32_t ones = 0;
        for (;; ones++) {
            if (reader->at == reader->end || ones > 40)
                return BAD_PAYLOAD;
            if (!take(reader, 1))
                break;
        }
        bits += lengths[i] = (uint8_t)ones;
    }
    if (bits > reader->end - reader->at)
        return BAD_PAYLOAD;
    for (int64_t i = 0; i < count; i++) {
        const int64_t excess = (int64_t)(take(reader, lengths[i]) | (uint64_t)1 << lengths[i]);
        values[beyond[i]] += values[beyond[i]] < 0 ? -excess : excess;
    }
    return 0;
}

/* Reads the buckets of all gaps, which are range coded from byte `start` of `payload` to `size`, and how many bits their
 * places take. 0, or BAD_PAYLOAD. */
static int32_t read_buckets(const uint8_t *payload, int64_t size, int64_t start, const int64_t *counts,
                            const int64_t *sizes, int64_t symbols, const uint32_t *starts, const uint32_t *widths,
                            const uint8_t *of_slot, int64_t buckets, struct rans_space space, uint8_t *found,
                            int64_t *bits)
{
    struct rans_decoder decoder;
    if (rans_open(&decoder, payload, size, start, &symbols, symbols, space))
        return BAD_PAYLOAD;
    int64_t left = 0, line = 0;
    while (decoder.chunk < decoder.chunks) {
        const int64_t lanes = decoder.sizes[decoder.chunk];
        for (int64_t lane = 0; lane < lanes; lane++, left--) {
            for (; !left; sizes++) {
                left = *counts++;
                line = class_of(left, *sizes);
            }
            const uint8_t bucket = of_slot[line * RANS_TOTAL + rans_slot(&decoder, lane)];
            const int64_t column = line * buckets + bucket;
            rans_advance(&decoder, lane, starts[column], widths[column]);
            *bits += width_of(bucket);
            *found++ = bucket;
        }
        if (rans_next(&decoder))
            return BAD_PAYLOAD;
    }
    return rans_close(&decoder);
}

/* Reads the levels that are not 0, the inverse of edgekit_levels_encode: their `places` and `values`. 0, or BAD_PAYLOAD.
 *
 * In segments of `sizes` there are `counts` of them (segments), and after those counts[segments] are beyond 1, of
 * sizes[segments], which is how many there are in all; no count is above its size. The bits after the counts are from bit
 * `at` to bit `end` of `payload`, the buckets in the bytes after them, to `size`. `starts`, `widths` and `of_slot` are
 * the tables of `buckets` buckets for each class. `found` and `beyond` have room for all symbols and for those beyond 1;
 * `lanes`, `states` and `stack` are as in rans_space. */
EDGEKIT_EXPORT int32_t edgekit_levels_decode(const uint8_t *payload, int64_t size, int64_t at, int64_t end,
                                             const int64_t *counts, const int64_t *sizes, int64_t segments,
                                             const uint32_t *starts, const uint32_t *widths, const uint8_t *of_slot,
                                             int64_t buckets, int32_t *lanes, uint32_t *states, uint16_t *stack,
                                             uint8_t *found, int64_t *beyond, int64_t *places, int64_t *values)
{
    const int64_t chosen = sizes[segments], above = counts[segments];
    int64_t bits = chosen, begin = 0;
    if (read_buckets(payload, size, end / 8, counts, sizes, chosen + above, starts, widths, of_slot, buckets,
                     (struct rans_space){lanes, states, stack}, found, &bits))
        return BAD_PAYLOAD;
    if (bits > end - at)
        return BAD_PAYLOAD;
    struct reader reader = {payload, at, end};
    for (int64_t i = 0; i < chosen; i++)
        values[i] = take(&reader, 1) ? -1 : 1;
    const uint8_t *bucket = found;
    for (int64_t s = 0; s < segments; s++) {
        if (take_places(&reader, &bucket, counts[s], begin, sizes[s], places))
            return BAD_PAYLOAD;
        begin += sizes[s];
        places += counts[s];
    }
    if (take_places(&reader, &bucket, above, 0, chosen, beyond))
        return BAD_PAYLOAD;
    if (take_excesses(&reader, beyond, above, found, values))
        return BAD_PAYLOAD;
    const int64_t rest = end - reader.at;
    return rest < 8 && !take(&reader, (int32_t)rest) ? 0 : BAD_PAYLOAD;
}
