/* The library of twin.c. */
#include "workload.h"

#define PASTE(a, b) a##_##b
#define NAMED(a, b) PASTE(a, b)

#ifdef SHIFT
WORK static void NAMED(NAME, lib_shift)(void) { COMPUTE(); }
#endif
WORK static void NAMED(NAME, lib_first)(void) { COMPUTE(); }
WORK static void NAMED(NAME, lib_second)(void) { COMPUTE(); }

void work(void);
void work(void)
{
#ifdef SHIFT
	NAMED(NAME, lib_shift)();
#endif
	NAMED(NAME, lib_first)();
	NAMED(NAME, lib_second)();
}
