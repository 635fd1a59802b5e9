/* modes MS: half of the CPU time in user mode, in compute(), half in the kernel, in reads of /dev/zero. */
#include "workload.h"
#include <fcntl.h>

static char buffer[1 << 20];

WORK static void compute(void) { COMPUTE_FOR_MS(10); }

WORK static void read_zeros(int fd)
{
	int64_t deadline = clock_ns(CLOCK_THREAD_CPUTIME_ID) + 10000000;

	while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < deadline)
		if (read(fd, buffer, sizeof(buffer)) < 0)
			exit(1);
}

int main(int argc, char **argv)
{
	int64_t end = (argc > 1 ? atol(argv[1]) : 1000) * INT64_C(1000000);
	int fd = open("/dev/zero", O_RDONLY);

	while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < end) {
		compute();
		read_zeros(fd);
	}
	return 0;
}
