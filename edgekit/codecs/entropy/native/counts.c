/* The tables that learn: counts of what was coded, and the logarithms of probabilities that come from them. */
#include "context.h"

/* Adds `codes` to `counts` (neighbours, groups, words + 1, words), and halves those of a group that has `limit` or more.
 *
 * `volume` has room for an image with its border; `known` and `before` are as for edgekit_context_pack. 0, or BAD_CODES. */
EDGEKIT_EXPORT int32_t edgekit_context_count(const int32_t *codes, const uint8_t *known, const uint8_t *before,
                                             int64_t images, int64_t groups, int64_t height, int64_t width,
                                             int32_t words, int32_t neighbours, int64_t limit, uint16_t *volume,
                                             int32_t *counts)
{
    const struct shape s = {images, groups, height, width, words};
    const int64_t group = (int64_t)(words + 1) * words, table = groups * group, each = groups * height * width;
    int64_t steps[NEIGHBOURS];
    if (check_codes(s, codes))
        return BAD_CODES;
    set_steps(s, steps);
    clear(s, volume, 1);
    for (int64_t image = 0; image < images; image++, codes += each) {
        const int remembers = neighbours > NEIGHBOURS, has = remembers && known[image];
        enter(s, codes, volume);
        for (int64_t g = 0; g < groups; g++)
            for (int64_t y = 0; y < height; y++) {
                const uint16_t *at = volume + place_of(s, g, y, 0);
                for (int64_t x = 0; x < width; x++, at++) {
                    int32_t *cell = counts + g * group + *at;
                    for (int k = 0; k < NEIGHBOURS; k++, cell += table)
                        cell[at[-steps[k]] * words]++;
                    if (remembers)
                        cell[(has ? *before : words) * words]++;
                    before += remembers;
                }
            }
    }
    for (int64_t g = 0; g < groups; g++) {
        int64_t seen = limit;
        while (seen >= limit) {
            seen = 0;
            for (int64_t i = 0; i < group; i++)
                seen += counts[g * group + i];
            for (int k = 0; seen >= limit && k < neighbours; k++)
                for (int64_t i = 0; i < group; i++)
                    counts[k * table + g * group + i] >>= 1;
        }
    }
    return 0;
}

/* 256 times the binary logarithm of count + 1, which is below 2**24; `log2` has it for the first 65,536 counts. */
static inline int32_t log_of(const int16_t *log2, int32_t count)
{
    return count < 1 << 16 ? log2[count] : log2[count >> 8] + 2048;
}

/* Writes the `logs` of `counts`, of the same shape. A neighbour's part counts in eighths, `exponents`; a context starts
 * as if it had seen `words` indices in parts of `scale`. */
EDGEKIT_EXPORT void edgekit_context_logs(const int32_t *counts, int64_t groups, int32_t words, int32_t neighbours,
                                 const int32_t *exponents, int32_t scale, const int16_t *log2, int16_t *logs)
{
    const int64_t group = (int64_t)(words + 1) * words;
    for (int64_t g = 0; g < groups; g++) {
        int64_t every[256] = {0}, all = 0;
        int32_t order0[256], start[256];
        for (int64_t i = 0; i < group; i++)
            every[i & (words - 1)] += counts[g * group + i];
        for (int32_t i = 0; i < words; i++)
            all += every[i];
        for (int32_t i = 0; i < words; i++) {
            const int64_t share = (every[i] << 16) / (all ? all : 1);
            order0[i] = log_of(log2, (int32_t)share);
            start[i] = (int32_t)(scale * words * share >> 16);
        }
        for (int32_t k = 0; k < neighbours; k++) {
            const int32_t *seen = counts + (k * groups + g) * group;
            int16_t *out = logs + (k * groups + g) * group;
            for (int64_t i = 0; i < group; i++) {
                const int32_t word = (int32_t)(i & (words - 1));
                const int32_t given = log_of(log2, scale * seen[i] + start[word]);
                const int32_t log = (exponents[k] * (given - order0[word])) >> 3;
                out[i] = (int16_t)(k ? log : log + order0[word]);
            }
        }
    }
}
