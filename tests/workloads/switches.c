/* switches N: sleeps N times, in sleep_once(): as many context switches. */
#include "entry.h"
#include <sys/syscall.h>

WORK static void sleep_once(void)
{
	struct timespec shortly = {0, 1000000};

	WITH_FRAME();
#if defined(__x86_64__)
	long result;

	/* glibc's wrapper makes no frame, and would hide its caller. */
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(SYS_nanosleep), "D"(&shortly), "S"(NULL)
			 : "rcx", "r11", "memory");
#else
	nanosleep(&shortly, NULL);
#endif
	sink++;
}

int main(int argc, char **argv)
{
	for (long left = argc > 1 ? atol(argv[1]) : 100; left > 0; left--)
		sleep_once();
	return 0;
}
