/* Coefficients of gradients <-> levels, see ../reference/coefficients.py for the same in numpy. */
#include <math.h>

#include "coder.h"

/* The sum of the squares of `values`, added up in the order of numpy's sum: by halves, down to 128 at most, and of those
 * every eighth. */
static double sum_of_squares(const float *values, int64_t count)
{
    double sums[8], sum = 0;
    if (count > 128) {
        const int64_t half = count / 2 - count / 2 % 8;
        return sum_of_squares(values, half) + sum_of_squares(values + half, count - half);
    }
    int64_t i = 0;
    if (count >= 8) {
        for (; i < 8; i++)
            sums[i] = (double)values[i] * values[i];
        for (; i < count - count % 8; i += 8)
            for (int32_t k = 0; k < 8; k++)
                sums[k] += (double)values[i + k] * values[i + k];
        sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    }
    for (; i < count; i++)
        sum += (double)values[i] * values[i];
    return sum;
}

static float largest_of(const float *values, int64_t count)
{
    /* Eight at a time, which a compiler does at once. */
    float most[8] = {0};
    for (int64_t i = 0; i < count - count % 8; i += 8) {
        for (int32_t k = 0; k < 8; k++) {
            const float size = fabsf(values[i + k]);
            most[k] = size > most[k] ? size : most[k];
        }
    }
    for (int64_t i = count - count % 8; i < count; i++)
        most[0] = fabsf(values[i]) > most[0] ? fabsf(values[i]) : most[0];
    for (int32_t k = 1; k < 8; k++)
        most[0] = most[k] > most[0] ? most[k] : most[0];
    return most[0];
}

/* For each of the `rows` of `values`, `length` long: the sum of squares, and the largest magnitude. */
EDGEKIT_EXPORT void edgekit_measure(const float *values, int64_t rows, int64_t length, double *squares, float *largest)
{
    for (int64_t row = 0; row < rows; row++, values += length) {
        largest[row] = largest_of(values, length);
        squares[row] = sum_of_squares(values, length);
    }
}

/* Finds which of `coefficients`, planes (images, channels) of `area` each, are at least as long as their image's unit, of
 * `units`: writes their places to `found`, which has room for all and one more, and of each frequency how many there are
 * to `counts` (area), which are 0. Returns how many there are. */
EDGEKIT_EXPORT int64_t edgekit_find(const float *coefficients, int64_t images, int64_t channels, int64_t area,
                                    const float *units, int32_t *found, int64_t *counts)
{
    int64_t sent = 0;
    for (int64_t plane = 0; plane < images * channels; plane++) {
        const int64_t begin = plane * area, before = sent;
        const float unit = units[plane / channels];
        for (int64_t i = begin; i < begin + area; i++) {
            /* Written in any case: a branch would be guessed wrong too often. */
            found[sent] = (int32_t)i;
            sent += fabsf(coefficients[i]) >= unit;
        }
        for (int64_t i = before; i < sent; i++)
            counts[found[i] - begin]++;
    }
    return sent;
}

/* Quantises the coefficients `found`, as edgekit_find has found them (sent): their length in units, cut off, is their
 * level.
 *
 * Frequency `order[k]` of all planes comes as number k, so `places` rise. `levels` have their signs, `sizes` are the
 * coefficients' magnitudes, `own` their units, `back` is the scale of the channel, of `scales`, over the weight of the
 * frequency, of `weights`. `counts` are lost; `first` has room for `area` numbers. */
EDGEKIT_EXPORT void edgekit_quantise(const float *coefficients, int64_t images, int64_t channels, int64_t area,
                                     const float *units, const int64_t *order, const float *weights,
                                     const float *scales, const int32_t *found, int64_t sent, int64_t *counts,
                                     int64_t *first, int64_t *places, int64_t *levels, float *sizes, float *own,
                                     float *back)
{
    int64_t *const next = counts;
    int64_t at = 0, plane = 0, begin = 0, image = 0, channel = 0;
    for (int64_t k = 0; k < area; k++) {
        const int64_t count = counts[order[k]];
        next[order[k]] = at;
        first[order[k]] = k * images * channels;
        at += count;
    }
    for (int64_t i = 0; i < sent; i++) {
        for (; found[i] >= begin + area; begin += area, plane++) {
            if (++channel == channels) {
                channel = 0;
                image++;
            }
        }
        const int64_t frequency = found[i] - begin;
        const float value = coefficients[found[i]], size = fabsf(value), unit = units[image];
        const int64_t level = (int64_t)(size / unit);
        at = next[frequency]++;
        places[at] = first[frequency] + plane;
        levels[at] = value < 0 ? -level : level;
        sizes[at] = size;
        own[at] = unit;
        back[at] = scales[channel] / weights[frequency];
    }
}

/* The inverse of edgekit_quantise: writes `levels` (count) at `places` to `coefficients`, which are 0. A level l stands
 * for |l| + excess units, of the coefficient times `weights` (area), over `scales` of images and of channels. No
 * magnitude is above `most`. */
EDGEKIT_EXPORT void edgekit_restore(const int64_t *places, const int64_t *levels, int64_t count, int64_t images,
                                    int64_t channels, int64_t area, const int64_t *order, const float *weights,
                                    const float *scales, double unit, double excess, double most, float *coefficients)
{
    const int64_t planes = images * channels;
    int64_t k = 0, first = 0;
    for (int64_t i = 0; i < count; i++) {
        for (; places[i] >= first + planes; first += planes)
            k++;
        const int64_t plane = places[i] - first, frequency = order[k], image = plane / channels;
        const double length = (double)levels[i] + (levels[i] < 0 ? -excess : excess);
        double value = length * unit / (double)weights[frequency];
        value *= (double)scales[image] * (double)scales[images + plane - image * channels];
        value = value > most ? most : value < -most ? -most : value;
        coefficients[plane * area + frequency] = (float)value;
    }
}
