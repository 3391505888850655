/* Sums over the stripes of each codeword, see ../reference/codebooks.py for the same in numpy. */
#include "coder.h"

/* Of features, images of `groups` of `width` planes each, `area` long, with one of `codes` for each stripe of a group: the
 * sum of each of `words` codewords' stripes (groups, words, width), and their `counts` (groups, words); the squared
 * errors of the stripes by `books` (groups, words, width), as `errors` (groups, images, area); and the squared
 * deviation from the mean of each group, `spreads` (groups). All but the last are 0; `squares` has room for words * width
 * numbers. 0, or BAD_PAYLOAD where there is no such codeword. */
EDGEKIT_EXPORT int32_t edgekit_stripes(const float *feature, const int32_t *codes, const float *books, int64_t images,
                                       int64_t groups, int64_t width, int64_t area, int64_t words, double *squares,
                                       double *sums, int64_t *counts, float *errors, double *spreads)
{
    const int64_t cells = words * width;
    for (int64_t i = 0; i < images * groups * area; i++)
        if (codes[i] < 0 || codes[i] >= words)
            return BAD_PAYLOAD;
    for (int64_t g = 0; g < groups; g++, sums += cells, books += cells, counts += words) {
        memset(squares, 0, (size_t)cells * sizeof *squares);
        for (int64_t image = 0; image < images; image++, errors += area) {
            const int32_t *picked = codes + (image * groups + g) * area;
            const float *values = feature + (image * groups + g) * width * area;
            for (int64_t i = 0; i < area; i++)
                counts[picked[i]]++;
            for (int64_t c = 0; c < width; c++) {
                for (int64_t i = 0; i < area; i++, values++) {
                    const int64_t cell = picked[i] * width + c;
                    const float off = *values - books[cell];
                    errors[i] += off * off;
                    sums[cell] += *values;
                    squares[cell] += (double)*values * *values;
                }
            }
        }
        double square = 0, means = 0;
        for (int64_t cell = 0; cell < cells; cell++)
            square += squares[cell];
        for (int64_t c = 0; c < width; c++) {
            double total = 0;
            for (int64_t cell = c; cell < cells; cell += width)
                total += sums[cell];
            means += total * total;
        }
        spreads[g] = square - means / (double)(images * area);
    }
    return 0;
}
