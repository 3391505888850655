#include "coder.h"

EDGEKIT_EXPORT int32_t edgekit_abi(void);
EDGEKIT_EXPORT int32_t edgekit_abi(void) { return EDGEKIT_ABI; }
