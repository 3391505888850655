/* Code indices given those around them: what packing, unpacking and counting share. See ../context.py. */
#ifndef EDGEKIT_CONTEXT_H
#define EDGEKIT_CONTEXT_H

#include "coder.h"

/* Indices of shape (images, groups, height, width), each below `words`, a power of two up to 256. */
struct shape {
    int64_t images, groups, height, width;
    int32_t words;
};

/* Groups, rows and columns before: `NEIGHBOURS` in ../context.py, without their weights. */
#define NEIGHBOURS 7
static const int8_t NEIGHBOUR[NEIGHBOURS][3] = {
    {0, 0, 1}, {0, 1, 0}, {0, 1, -1}, {1, 0, 0}, {1, 0, -1}, {1, -1, 0}, {2, 0, 0},
};

/* An image has a border, of two groups before and of rows and columns on both sides, which holds `words`: "none". */
static inline int64_t row_step(struct shape s) { return s.width + 2; }
static inline int64_t group_step(struct shape s) { return (s.height + 2) * row_step(s); }
static inline int64_t image_step(struct shape s) { return (s.groups + 2) * group_step(s); }
static inline int64_t place_of(struct shape s, int64_t group, int64_t row, int64_t column)
{
    return (group + 2) * group_step(s) + (row + 1) * row_step(s) + column + 1;
}

/* How far before each neighbour lies. */
static inline void set_steps(struct shape s, int64_t *steps)
{
    for (int k = 0; k < NEIGHBOURS; k++)
        steps[k] = NEIGHBOUR[k][0] * group_step(s) + NEIGHBOUR[k][1] * row_step(s) + NEIGHBOUR[k][2];
}

/* Writes "none" to `images` images with their borders. */
static inline void clear(struct shape s, uint16_t *volume, int64_t images)
{
    for (int64_t i = 0; i < images * image_step(s); i++)
        volume[i] = (uint16_t)s.words;
}

/* 0 where all of `codes` are indices of words, or BAD_CODES. */
static inline int32_t check_codes(struct shape s, const int32_t *codes)
{
    uint32_t beyond = 0;
    for (int64_t i = 0; i < s.images * s.groups * s.height * s.width; i++)
        beyond |= (uint32_t)codes[i] & ~(uint32_t)(s.words - 1);
    return beyond ? BAD_CODES : 0;
}

/* Writes one image's indices inside its border. */
static inline void enter(struct shape s, const int32_t *codes, uint16_t *volume)
{
    for (int64_t g = 0; g < s.groups; g++)
        for (int64_t y = 0; y < s.height; y++) {
            uint16_t *line = volume + place_of(s, g, y, 0);
            for (int64_t x = 0; x < s.width; x++)
                line[x] = (uint16_t)*codes++;
        }
}

/* What a memory has of all images: whether it knows each, and codes (images, groups, height, width), below `words`. */
struct past {
    const uint8_t *known, *codes;
};

#endif
