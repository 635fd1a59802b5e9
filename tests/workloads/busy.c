/* busy [SECONDS]: computes in busy_loop() until it is killed; says "ready", and CPU ns at the end of time. */
#include "workload.h"

WORK static void busy_loop(int64_t deadline)
{
	while (clock_ns(CLOCK_MONOTONIC) < deadline)
		COMPUTE();
}

int main(int argc, char **argv)
{
	int64_t seconds = argc > 1 ? atol(argv[1]) : 600;

	say("ready");
	busy_loop(clock_ns(CLOCK_MONOTONIC) + seconds * 1000000000);
	printf("%ld\n", (long)clock_ns(CLOCK_PROCESS_CPUTIME_ID));
	return 0;
}
