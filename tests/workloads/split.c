/* split MS: MS of CPU time, 70% in seventy() and 30% in thirty(), a second of both after another. */
#include "workload.h"

WORK static void seventy(int64_t deadline) { COMPUTE_UNTIL_CPU(deadline); }
WORK static void thirty(int64_t deadline) { COMPUTE_UNTIL_CPU(deadline); }

int main(int argc, char **argv)
{
	int64_t left = (argc > 1 ? atol(argv[1]) : 10000) * INT64_C(1000000);
	int64_t in_seventy = 0, in_thirty = 0;

	while (left > 0) {
		int64_t cycle = left < 1000000000 ? left : 1000000000;
		int64_t start = clock_ns(CLOCK_THREAD_CPUTIME_ID), middle, end;

		seventy(start + cycle * 7 / 10);
		middle = clock_ns(CLOCK_THREAD_CPUTIME_ID);
		thirty(start + cycle);
		end = clock_ns(CLOCK_THREAD_CPUTIME_ID);
		in_seventy += middle - start;
		in_thirty += end - middle;
		left -= end - start;
	}
	printf("seventy=%ld thirty=%ld\n", (long)in_seventy, (long)in_thirty);
	return 0;
}
