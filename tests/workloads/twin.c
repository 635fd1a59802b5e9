/*
 * Two programs with the same layout and different names: compiled with -DNAME=one and -DNAME=two, with
 * -DSHIFT so that the functions of the second begin elsewhere in the same addresses.  Each loads a
 * library of its own (twin_lib.c) and says where its code lies; then it computes in both, until killed
 * or for MS of CPU time.   twin LIBRARY [MS [PROGRAM ARGS... to exec then]]
 */
#include "workload.h"
#include <dlfcn.h>

#define PASTE(a, b) a##_##b
#define NAMED(a, b) PASTE(a, b)

#ifdef SHIFT
WORK static void NAMED(NAME, shift)(void) { COMPUTE(); }
#endif
WORK static void NAMED(NAME, first)(void) { COMPUTE(); }
WORK static void NAMED(NAME, second)(void)
{
	COMPUTE();
	COMPUTE();
}

static void print_code(const char *what, const char *path)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[4096];

	while (fgets(line, sizeof(line), maps))
		if (strstr(line, " r-xp ") && (!path || strstr(line, path)))
			printf("%s %s", what, line);
	fclose(maps);
}

int main(int argc, char **argv)
{
	int64_t end = argc > 2 ? atol(argv[2]) * INT64_C(1000000) : INT64_MAX;
	void *library = dlopen(argv[1], RTLD_NOW);
	void (*work)(void) = library ? (void (*)(void))dlsym(library, "work") : NULL;

	if (argc < 2 || !work)
		return 2;
	print_code("maps", NULL);
	say("ready");
	end = end == INT64_MAX ? end : clock_ns(CLOCK_THREAD_CPUTIME_ID) + end;
	while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < end) {
#ifdef SHIFT
		NAMED(NAME, shift)();
#endif
		NAMED(NAME, first)();
		NAMED(NAME, second)();
		work();
	}
	if (argc > 3) {
		execv(argv[3], argv + 3);
		return 127;
	}
	return 0;
}
