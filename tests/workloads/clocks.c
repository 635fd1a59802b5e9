/* clocks MS: asks for the time over and over, which the vDSO answers without a system call. */
#include "workload.h"

int main(int argc, char **argv)
{
	int64_t deadline = clock_ns(CLOCK_MONOTONIC) + (argc > 1 ? atol(argv[1]) : 500) * INT64_C(1000000);

	while (clock_ns(CLOCK_MONOTONIC) < deadline)
		sink++;
	return 0;
}
