/* hostile NAME MS: gives itself the name NAME, which may hold anything, and computes. */
#include "workload.h"
#include <sys/prctl.h>

WORK static void harmless(long ms) { COMPUTE_FOR_MS(ms); }

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	prctl(PR_SET_NAME, argv[1]);
	harmless(atol(argv[2]));
	return 0;
}
