/* recursion DEPTH MS: DEPTH frames of descend(), then main and _start; the lowest one computes. */
#include "entry.h"

WORK static void descend(long left)
{
	if (left > 1)
		descend(left - 1);
	else
		while (!stop)
			sink++;
	sink++;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	stop_after_ms(atol(argv[2]));
	descend(atol(argv[1]));
	return 0;
}
