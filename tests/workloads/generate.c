/* generate N: a build's own tool, with a symbol table: computes for 20 ms in generate(), then prints a unit. */
#include "workload.h"

WORK static void generate(int unit)
{
	COMPUTE_FOR_MS(20);
	for (int i = 0; i < 15; i++)
		printf("int f%d_%d(int x) { return x * %d + x / %d; }\n", unit, i, i, i + 1);
}

int main(int argc, char **argv)
{
	generate(argc > 1 ? atoi(argv[1]) : 0);
	return 0;
}
