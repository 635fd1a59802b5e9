/*
 * Computes MS of CPU time (argument 1) in a function whose name the test overwrites in each copy of the
 * program, together with the build-id.
 */
#include "workload.h"

WORK static void work_of_0000000(long ms) { COMPUTE_FOR_MS(ms); }

int main(int argc, char **argv)
{
	work_of_0000000(argc > 1 ? atol(argv[1]) : 20);
	return 0;
}
