/* Computes 300 ms before main, in before_main(), and 100 ms in main; says its whole CPU time. */
#include "workload.h"

WORK __attribute__((constructor)) static void before_main(void) { COMPUTE_FOR_MS(300); }

int main(void)
{
	COMPUTE_FOR_MS(100);
	printf("%ld\n", (long)clock_ns(CLOCK_PROCESS_CPUTIME_ID));
	return 0;
}
