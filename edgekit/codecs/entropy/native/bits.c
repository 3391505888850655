/* Fixed-width bit packing, most significant bit first: see ../bits.py. 1 <= bits <= 16. */
#include "coder.h"

/* Writes the (count * bits + 7) / 8 bytes of `values` to `out`. Of a value, its lowest `bits` bits count. */
EDGEKIT_EXPORT void edgekit_pack_bits(const int32_t *values, int64_t count, int32_t bits, uint8_t *out)
{
    const uint32_t mask = (1u << bits) - 1;
    uint32_t held = 0;
    int32_t holds = 0;
    for (int64_t i = 0; i < count; i++) {
        held = held << bits | ((uint32_t)values[i] & mask);
        for (holds += bits; holds >= 8; holds -= 8)
            *out++ = (uint8_t)(held >> (holds - 8));
    }
    if (holds)
        *out = (uint8_t)(held << (8 - holds));
}

/* Reads `count` values from byte `start` of `payload` to `size`. 0, or BAD_PAYLOAD. */
EDGEKIT_EXPORT int32_t edgekit_unpack_bits(const uint8_t *payload, int64_t size, int64_t start, int64_t count,
                                           int32_t bits, int32_t *values)
{
    const uint32_t mask = (1u << bits) - 1;
    const int32_t spare = (int32_t)(-count * bits & 7);
    uint32_t held = 0;
    int32_t holds = 0;
    if (size - start != (count * bits + 7) / 8 || (spare && payload[size - 1] & ((1 << spare) - 1)))
        return BAD_PAYLOAD;
    payload += start;
    for (int64_t i = 0; i < count; i++) {
        for (; holds < bits; holds += 8)
            held = held << 8 | *payload++;
        holds -= bits;
        values[i] = (int32_t)(held >> holds & mask);
    }
    return 0;
}
