/* Levels of rows, see ../rows.py for the format and ../reference/rows.py for the same in Python. */
#include "adaptive.h"

/* Values of a group, at most. */
#define GROUP 4
/* Beyond these, a value adds no more to what is expected around it. */
#define COUNTED 8
#define SIZED 0xFFFF
/* Lengths are symbols up to the last, which a second symbol is added to; of a value's bits below the leading one, so
 * many are a symbol, and the others plain. */
#define LENGTHS 16
#define TOP 4

/* Of a group: its values, each counted up to COUNTED, and its magnitudes. As an average, 16 times as much or more. */
struct around {
    int32_t count, size;
};

struct models {
    struct model maps[24], rows[4], lengths[22], longer, tops[LENGTHS], signs[9];
};

static void begin(struct models *models)
{
    forget(models->rows, 4, 2);
    forget(models->maps, 24, 1 << GROUP);
    forget(models->lengths, 22, LENGTHS);
    forget(&models->longer, 1, LENGTHS);
    for (int length = 1; length < LENGTHS; length++)
        forget(&models->tops[length], 1, 1 << lesser(length, TOP));
    forget(models->signs, 9, 2);
}

/* Before an array: how large levels are is each array's own, rather than which of them are not 0. */
static void begin_array(struct models *models)
{
    fade(models->rows, 4);
    fade(models->lengths, 22);
    fade(&models->longer, 1);
    fade(models->tops + 1, LENGTHS - 1);
    fade(models->signs, 9);
}

/* 0, 1, 2 and 3, 4 to 7, 8 to 15 ... are 0, 1, 2, 3, 4 ... */
INLINE int32_t octave(int32_t value) { return value ? 32 - __builtin_clz((uint32_t)value) : 0; }

/* Half octaves: 0, 1, 2, 3, 4 and 5, 6 and 7, 8 to 11, 12 to 15 ... are 0, 1, 2, 3, 4 ... */
INLINE int32_t half_octave(int32_t value)
{
    if (value < 2)
        return value;
    const int32_t octave = 31 - __builtin_clz((uint32_t)value);
    return 2 * octave + (value >> (octave - 1) & 1);
}

INLINE int64_t magnitude_of(int64_t level)
{
    const int64_t sign = level >> 63;
    return (int64_t)(((uint64_t)level ^ (uint64_t)sign) - (uint64_t)sign);
}

/* 0 for none, 1 for a positive level, 2 for a negative one. */
INLINE int32_t sign_of(int64_t level) { return level > 0 ? 1 : level < 0 ? 2 : 0; }

/* Writes `level`, which is not 0, or reads it; `size` is about the octave expected of its magnitude. */
INLINE int64_t code_level(struct adaptive *coder, struct models *models, int64_t level, int32_t size, int32_t signs,
                          const int reading)
{
    const uint32_t given = reading ? 1 : (uint32_t)magnitude_of(level);
    uint32_t length = 31 - (uint32_t)__builtin_clz(given);
    const uint32_t symbol = code(coder, &models->lengths[size], length < 15 ? length : 15, LENGTHS, reading);
    length = symbol < 15 ? symbol : 15 + code(coder, &models->longer, length - 15, LENGTHS, reading);
    uint32_t magnitude = 1;
    if (length) {
        const int top = length < TOP ? (int)length : TOP, rest = (int)length - top;
        magnitude <<= top;
        magnitude |= code(coder, &models->tops[symbol], given >> rest & ((1u << top) - 1), 1u << top, reading);
        magnitude = magnitude << rest | plain(coder, given & ((1u << rest) - 1), rest, reading);
    }
    return code(coder, &models->signs[signs], level < 0, 2, reading) ? -(int64_t)magnitude : magnitude;
}

/* Writes a row of `count` levels, or reads it. `above` and `columns` are of its groups, with one more on both sides. */
INLINE void code_row(struct adaptive *coder, struct models *models, int64_t *levels, int64_t count,
                     struct around *above, struct around *columns, const int reading)
{
    struct around left = {0, 0}, second = {0, 0}, row = {0, 0}, corner = {0, 0};
    for (int64_t first = 0; first < count; first += GROUP, levels += GROUP, above++, columns++) {
        const int width = (int)lesser(GROUP, count - first);
        const struct around up = above[1], column = columns[1];
        const int32_t expected = 4 * left.count + 2 * second.count + 4 * up.count + corner.count + above[2].count +
                                 column.count + row.count;
        uint32_t map = 0;
        if (!reading)
            for (int i = 0; i < width; i++)
                map |= (uint32_t)(levels[i] != 0) << i;
        map = code(coder, &models->maps[half_octave(expected)], map, 1u << width, reading) & ((1u << width) - 1);
        const int32_t size = 4 * left.size + 2 * second.size + 4 * up.size + corner.size + above[2].size +
                             column.size + row.size;
        second = left;
        left = (struct around){0, 0};
        for (; map; map &= map - 1) {
            const int i = __builtin_ctz(map);
            const int32_t before = first + i ? sign_of(levels[i - 1]) : 0;
            const int32_t third = first + i > 2 ? sign_of(levels[i - 3]) : 0;
            const int64_t level = code_level(coder, models, levels[i], octave(size >> 5), 3 * before + third, reading);
            const int64_t magnitude = magnitude_of(level);
            if (reading)
                levels[i] = level;
            left.count += (int32_t)lesser(magnitude, COUNTED);
            left.size += (int32_t)lesser(magnitude, SIZED);
        }
        corner = up;
        above[1] = left;
        columns[1].count += 4 * left.count - (column.count >> 2);
        columns[1].size += 4 * left.size - (column.size >> 2);
        row.count += 4 * left.count - (row.count >> 4);
        row.size += 4 * left.size - (row.size >> 4);
    }
}

/* Writes `levels`, or reads them: arrays of `sizes` values in `rows` rows (arrays). `around` has room for twice the
 * groups of the longest row and 4 more. 0, or BAD_CODES where a magnitude takes more than 31 bits. */
INLINE int32_t code_all(struct adaptive *coder, int64_t *levels, const int64_t *sizes, const int64_t *rows,
                        int64_t arrays, struct around *around, const int reading)
{
    struct models models;
    begin(&models);
    for (int64_t array = 0; array < arrays; array++) {
        const int64_t lines = rows[array], count = sizes[array] / lines;
        const int64_t groups = (count + GROUP - 1) / GROUP + 2;
        uint32_t zeros = 0;
        begin_array(&models);
        memset(around, 0, (size_t)(2 * groups) * sizeof *around);
        for (int64_t row = 0; row < lines; row++, levels += count) {
            int64_t any = 0;
            if (reading)
                memset(levels, 0, (size_t)count * sizeof *levels);
            else
                for (int64_t i = 0; i < count; i++)
                    any |= magnitude_of(levels[i]);
            if (any >> 31)
                return BAD_CODES;
            const uint32_t zero = lines > 1 && code(coder, &models.rows[zeros], any == 0, 2, reading);
            zeros = (zeros << 1 | zero) & 3;
            if (!zero)
                code_row(coder, &models, levels, count, around, around + groups, reading);
        }
    }
    return 0;
}

/* Codes `levels`, arrays of `sizes` values in `rows` rows (arrays), to the end of `out`, which has an even number of
 * bytes, `room`. Returns where the payload starts, or BAD_CODES where a magnitude takes more than 31 bits.
 *
 * `around` is as in code_all; `slots` has room for one symbol of each row and of each group, and 6 of each value, `out`
 * for 2 bytes of each of them and 8. */
EDGEKIT_EXPORT int64_t edgekit_rows_encode(int64_t *levels, const int64_t *sizes, const int64_t *rows, int64_t arrays,
                                           struct around *around, uint32_t *slots, uint8_t *out, int64_t room)
{
    struct adaptive coder = {.slots = slots};
    const int32_t bad = code_all(&coder, levels, sizes, rows, arrays, around, 0);
    return bad ? bad : write_all(&coder, out, room);
}

/* Reads `levels`, the inverse of edgekit_rows_encode, from byte `start` of `payload` to `size`. 0, or BAD_PAYLOAD. */
EDGEKIT_EXPORT int32_t edgekit_rows_decode(const uint8_t *payload, int64_t size, int64_t start, const int64_t *sizes,
                                           const int64_t *rows, int64_t arrays, struct around *around, int64_t *levels)
{
    struct adaptive coder;
    if (open_all(&coder, payload, size, start))
        return BAD_PAYLOAD;
    code_all(&coder, levels, sizes, rows, arrays, around, 1);
    return close_all(&coder);
}
