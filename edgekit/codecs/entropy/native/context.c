#include "context.h"
#include "rans.h"

/* The tables that probabilities come from. */
struct tables {
    /* (neighbours, groups, words + 1, words), 256ths of a bit. */
    const int16_t *logs;
    int32_t neighbours;
    /* What a word weighs that is so many 256ths of a bit less probable than the most probable one: `last` + 1 numbers,
     * of which the last one is 0. */
    const uint32_t *weights;
    int16_t last;
};

/* The order of one image's indices, wave by wave. */
struct plan {
    /* waves + 1: the indices before each wave. */
    const int64_t *first;
    int64_t waves;
    /* Of each index: where it lies in the image and in the image with its border, and its group. */
    const int32_t *flat, *place, *group;
};

static int64_t waves_of(struct shape s) { return 3 * (s.groups - 1) + 2 * (s.height - 1) + s.width; }

/* Lays out the plan of an image in `first` (waves + 1) and `numbers` (3 * indices of an image). `runs` (waves) becomes
 * the indices of each wave in all images. */
static struct plan plan_of(struct shape s, int64_t *first, int64_t *runs, int32_t *numbers)
{
    const int64_t waves = waves_of(s), all = s.groups * s.height * s.width;
    memset(runs, 0, (size_t)waves * sizeof *runs);
    for (int64_t g = 0; g < s.groups; g++)
        for (int64_t y = 0; y < s.height; y++)
            for (int64_t x = 0; x < s.width; x++)
                runs[3 * g + 2 * y + x]++;
    first[0] = 0;
    for (int64_t t = 0; t < waves; t++) {
        first[t + 1] = first[t] + runs[t];
        runs[t] = first[t];
    }
    int32_t flat = 0;
    for (int64_t g = 0; g < s.groups; g++)
        for (int64_t y = 0; y < s.height; y++)
            for (int64_t x = 0; x < s.width; x++, flat++) {
                const int64_t turn = runs[3 * g + 2 * y + x]++;
                numbers[turn] = flat;
                numbers[all + turn] = (int32_t)place_of(s, g, y, x);
                numbers[2 * all + turn] = (int32_t)g;
            }
    for (int64_t t = 0; t < waves; t++)
        runs[t] = s.images * (first[t + 1] - first[t]);
    return (struct plan){first, waves, numbers, numbers + all, numbers + 2 * all};
}

/* Eight numbers that are worked on at once, in a register of SSE2 or NEON. Sums wrap, as numpy's do. */
typedef int16_t eight __attribute__((vector_size(16)));
typedef uint16_t eight_wrapping __attribute__((vector_size(16)));

static inline eight load(const int16_t *from)
{
    eight loaded;
    memcpy(&loaded, from, sizeof loaded);
    return loaded;
}

static inline eight add(eight a, eight b) { return (eight)((eight_wrapping)a + (eight_wrapping)b); }
static inline eight subtract(eight a, eight b) { return (eight)((eight_wrapping)a - (eight_wrapping)b); }
static inline eight larger(eight a, eight b) { return (a & (a > b)) | (b & ~(a > b)); }
static inline eight smaller(eight a, eight b) { return (a & (a < b)) | (b & ~(a < b)); }

/* The rows of the tables that the neighbours of an index choose: the index lies at `at`, and the first neighbour's table
 * for its group at `logs`; `past` is what a memory has of it, where there is one. */
struct rows {
    const int16_t *logs;
    int64_t table;
    const uint16_t *at;
    const int64_t *steps;
    int32_t past;
};

/* Of neighbour k. */
static inline const int16_t *row(struct rows rows, int words, int k)
{
    return rows.logs + k * rows.table + (k < NEIGHBOURS ? rows.at[-rows.steps[k]] : rows.past) * words;
}

/* Writes to `less` how much less probable each word is than the most probable one, from 0 to `last`. */
static inline __attribute__((always_inline)) void compare(const struct tables *tables, struct rows rows, int words,
                                                          uint16_t *less)
{
    const eight none = {0}, last = none + tables->last;
    const int16_t *from = row(rows, words, 0);
    eight likely[32], most;
    for (int i = 0; i < words / 8; i++)
        likely[i] = load(from + 8 * i);
    for (int k = 1; k < NEIGHBOURS; k++) {
        from = row(rows, words, k);
        for (int i = 0; i < words / 8; i++)
            likely[i] = add(likely[i], load(from + 8 * i));
    }
    if (tables->neighbours > NEIGHBOURS) {
        from = row(rows, words, NEIGHBOURS);
        for (int i = 0; i < words / 8; i++)
            likely[i] = add(likely[i], load(from + 8 * i));
    }
    most = likely[0];
    for (int i = 1; i < words / 8; i++)
        most = larger(most, likely[i]);
    int16_t best = most[0];
    for (int i = 1; i < 8; i++)
        best = most[i] > best ? most[i] : best;
    for (int i = 0; i < words / 8; i++) {
        const eight found = smaller(larger(subtract(none + best, likely[i]), none), last);
        memcpy(less + 8 * i, &found, sizeof found);
    }
}

/* The same for fewer words than eight. */
static inline __attribute__((always_inline)) void compare_few(const struct tables *tables, struct rows rows, int words,
                                                              uint16_t *less)
{
    int16_t likely[8], best = INT16_MIN;
    for (int i = 0; i < words; i++) {
        likely[i] = row(rows, words, 0)[i];
        for (int k = 1; k < tables->neighbours; k++)
            likely[i] = (int16_t)(likely[i] + row(rows, words, k)[i]);
        best = likely[i] > best ? likely[i] : best;
    }
    for (int i = 0; i < words; i++) {
        const int16_t found = (int16_t)(best - likely[i]);
        less[i] = (uint16_t)(found < 0 ? 0 : found < tables->last ? found : tables->last);
    }
}

/* Writes to `ends` the weight of all words below each, and that of all. */
static inline __attribute__((always_inline)) void weigh(const struct tables *tables, struct rows rows, int words,
                                                        uint32_t *ends)
{
    uint16_t less[256];
    if (words < 8)
        compare_few(tables, rows, words, less);
    else
        compare(tables, rows, words, less);
    uint32_t all = ends[0] = 0;
    for (int i = 0; i < words; i++)
        ends[i + 1] = all += tables->weights[less[i]];
}

/* The slots of `word`, as rans.h has them: its share of those that are left when every word has one. */
static inline uint32_t slots_of(const uint32_t *ends, int words, uint32_t word)
{
    const uint32_t spare = RANS_TOTAL - (uint32_t)words, all = ends[words];
    const uint32_t start = ends[word] * spare / all + word, stop = ends[word + 1] * spare / all + word + 1;
    return start | (stop - start) << 16;
}

/* The word that owns `slot`: the number of words after the first that begin at `slot` or below. */
static inline __attribute__((always_inline)) uint32_t word_at(const uint32_t *ends, int words, uint32_t slot)
{
    const int64_t spare = RANS_TOTAL - words, all = ends[words];
    uint32_t word = 0;
    /* A word begins at ends * spare / all + word, rounded down: without the division. */
    for (uint32_t half = (uint32_t)words / 2; half; half /= 2) {
        const uint32_t next = word + half;
        word = ends[next] * spare < ((int64_t)slot - next + 1) * all ? next : word;
    }
    return word;
}

/* What a memory has of an image, or NULL. */
static inline const uint8_t *past_of(struct past past, const struct tables *tables, struct shape s, int64_t image)
{
    const int remembers = tables->neighbours > NEIGHBOURS && past.known[image];
    return remembers ? past.codes + image * s.groups * s.height * s.width : NULL;
}

/* The rows of index i of the plan, which lies at `at`; `past` is what a memory has of its image, or NULL. */
static inline struct rows rows_of(const struct tables *tables, struct shape s, const struct plan *plan, int64_t i,
                                  const uint8_t *past, const int64_t *steps, const uint16_t *at)
{
    const int64_t group = (int64_t)(s.words + 1) * s.words;
    const int32_t known = past ? past[plan->flat[i]] : s.words;
    return (struct rows){tables->logs + plan->group[i] * group, s.groups * group, at, steps, known};
}

/* Sets the slots of one image's indices at their places in coding order. 0. */
static inline __attribute__((always_inline)) int32_t
pack_image(int words, const struct tables *tables, struct shape s, const struct plan *plan, int64_t image,
           const uint8_t *past, const uint16_t *volume, const int64_t *steps, uint32_t *slots)
{
    s.words = words;
    for (int64_t t = 0; t < plan->waves; t++) {
        const int64_t first = plan->first[t], size = plan->first[t + 1] - first;
        uint32_t *out = slots + s.images * first + image * size;
        for (int64_t i = first; i < first + size; i++) {
            uint32_t ends[257];
            const uint16_t *at = volume + plan->place[i];
            weigh(tables, rows_of(tables, s, plan, i, past, steps, at), words, ends);
            *out++ = slots_of(ends, words, *at);
        }
    }
    return 0;
}

/* So many indices of one chunk are read together: all are weighed first, so that the steps by which each one's word is
 * found, of which every step waits for the one before, run beside those of others. */
#define TOGETHER 64
#define AT_ONCE(words) (1024 / (words) < TOGETHER ? 1024 / (words) : TOGETHER)

/* Reads the indices into `volume`, whose images are all "none". 0, or BAD_PAYLOAD. */
static inline __attribute__((always_inline)) int32_t
unpack_waves(int words, const struct tables *tables, struct shape s, const struct plan *plan, struct past past,
             const int64_t *steps, struct rans_decoder *decoder, uint16_t *volume)
{
    uint32_t ends[1024 + TOGETHER];
    uint16_t *places[TOGETHER];
    int64_t lane = 0;
    int weighed = 0;
    s.words = words;
    for (int64_t t = 0; t < plan->waves; t++)
        for (int64_t image = 0; image < s.images; image++)
            for (int64_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
                uint16_t *at = volume + image * image_step(s) + plan->place[i];
                const struct rows rows = rows_of(tables, s, plan, i, past_of(past, tables, s, image), steps, at);
                weigh(tables, rows, words, ends + weighed * (words + 1));
                places[weighed++] = at;
                const int64_t size = decoder->sizes[decoder->chunk];
                if (weighed < AT_ONCE(words) && lane + weighed < size)
                    continue;
                for (int k = 0; k < weighed; k++, lane++) {
                    const uint32_t *weights = ends + k * (words + 1);
                    const uint32_t word = word_at(weights, words, rans_slot(decoder, lane));
                    const uint32_t taken = slots_of(weights, words, word);
                    rans_advance(decoder, lane, taken & 0xFFFF, taken >> 16);
                    *places[k] = (uint16_t)word;
                }
                weighed = 0;
                if (lane == size) {
                    lane = 0;
                    if (rans_next(decoder))
                        return BAD_PAYLOAD;
                }
            }
    return rans_close(decoder);
}

/* Each number of words has a copy of the loops of its own, in which theirs have a known length. */
#define WITH(function, count, ...)                                                                                     \
    case count:                                                                                                        \
        return function(count, __VA_ARGS__)
#define BY_WORDS(words, function, ...)                                                                                 \
    switch (words) {                                                                                                   \
        WITH(function, 2, __VA_ARGS__);                                                                                \
        WITH(function, 4, __VA_ARGS__);                                                                                \
        WITH(function, 8, __VA_ARGS__);                                                                                \
        WITH(function, 16, __VA_ARGS__);                                                                               \
        WITH(function, 32, __VA_ARGS__);                                                                               \
        WITH(function, 64, __VA_ARGS__);                                                                               \
        WITH(function, 128, __VA_ARGS__);                                                                              \
        WITH(function, 256, __VA_ARGS__);                                                                              \
    }                                                                                                                  \
    return NO_ROOM

static int32_t pack_any(const struct tables *tables, struct shape s, const struct plan *plan, int64_t image,
                        const uint8_t *past, const uint16_t *volume, const int64_t *steps, uint32_t *slots)
{
    BY_WORDS(s.words, pack_image, tables, s, plan, image, past, volume, steps, slots);
}

static int32_t unpack_any(const struct tables *tables, struct shape s, const struct plan *plan, struct past past,
                          const int64_t *steps, struct rans_decoder *decoder, uint16_t *volume)
{
    BY_WORDS(s.words, unpack_waves, tables, s, plan, past, steps, decoder, volume);
}

/* Writes the bytes of `codes` to `out`, and returns their number, NO_ROOM or BAD_CODES.
 *
 * With one more neighbour than NEIGHBOURS, `known` and `before` are a struct past. Of all indices there
 * are `count`, `each` in an image. Room: waves 2 * waves_of + 1, numbers 3 * each, volume an image with its border, slots
 * `count`; else as rans_encode. */
EDGEKIT_EXPORT int64_t edgekit_context_pack(const int32_t *codes, const uint8_t *known, const uint8_t *before,
                                            int64_t images, int64_t groups, int64_t height, int64_t width,
                                            int32_t words, const int16_t *logs, int32_t neighbours,
                                            const uint32_t *weights, int32_t last, const int16_t *cost,
                                            int64_t bits_per_lane, int64_t *waves, int32_t *numbers, uint16_t *volume,
                                            uint32_t *slots, int32_t *sizes, uint32_t *states, uint8_t *out)
{
    const struct shape s = {images, groups, height, width, words};
    const struct tables tables = {logs, neighbours, weights, (int16_t)last};
    const int64_t each = groups * height * width;
    int64_t steps[NEIGHBOURS], *runs = waves + waves_of(s) + 1, bits = 0;
    const struct plan plan = plan_of(s, waves, runs, numbers);
    if (check_codes(s, codes))
        return BAD_CODES;
    set_steps(s, steps);
    clear(s, volume, 1);
    for (int64_t image = 0; image < images; image++, codes += each) {
        enter(s, codes, volume);
        const uint8_t *of = past_of((struct past){known, before}, &tables, s, image);
        if (pack_any(&tables, s, &plan, image, of, volume, steps, slots))
            return NO_ROOM;
    }
    for (int64_t i = 0; i < images * each; i++)
        bits += cost[slots[i] >> 16];
    return rans_encode(slots, images * each, runs, bits_per_lane, bits, sizes, states, out);
}

/* Reads `codes` from byte `start` of `payload` to `size`. 0, or BAD_PAYLOAD.
 *
 * Room: `volume` for all images with their borders; `sizes`, `states` and `stack` as a struct rans_space; else as for
 * edgekit_context_pack. */
EDGEKIT_EXPORT int32_t edgekit_context_unpack(const uint8_t *payload, int64_t size, int64_t start,
                                              const uint8_t *known, const uint8_t *before, int64_t images,
                                              int64_t groups, int64_t height, int64_t width, int32_t words,
                                              const int16_t *logs, int32_t neighbours, const uint32_t *weights,
                                              int32_t last, int64_t *waves, int32_t *numbers, uint16_t *volume,
                                              int32_t *sizes, uint32_t *states, uint16_t *stack, int32_t *codes)
{
    const struct shape s = {images, groups, height, width, words};
    const struct tables tables = {logs, neighbours, weights, (int16_t)last};
    int64_t steps[NEIGHBOURS], *runs = waves + waves_of(s) + 1;
    const struct plan plan = plan_of(s, waves, runs, numbers);
    struct rans_decoder decoder;
    const int64_t count = images * groups * height * width;
    if (rans_open(&decoder, payload, size, start, runs, count, (struct rans_space){sizes, states, stack}))
        return BAD_PAYLOAD;
    set_steps(s, steps);
    clear(s, volume, images);
    if (unpack_any(&tables, s, &plan, (struct past){known, before}, steps, &decoder, volume))
        return BAD_PAYLOAD;
    for (int64_t image = 0; image < images; image++)
        for (int64_t g = 0; g < groups; g++)
            for (int64_t y = 0; y < height; y++) {
                const uint16_t *line = volume + image * image_step(s) + place_of(s, g, y, 0);
                for (int64_t x = 0; x < width; x++)
                    *codes++ = line[x];
            }
    return 0;
}
