/* Shared by the workloads: programs whose profile is known before it is taken. */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A function that shows up in stacks under its own name.  FLAGS of tests/kernel/workloads.py do the rest. */
#define WORK __attribute__((noinline, noclone, used))

/* GCC leaves the frame out of a function that calls none, whatever its options say. */
#define WITH_FRAME() __asm__ volatile("" : : "r"(__builtin_frame_address(0)))

static volatile unsigned long sink;

static inline int64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* About a millisecond of pure computing, in the function that it stands in. */
#define COMPUTE()                                            \
	do {                                                 \
		for (unsigned long i_ = 0; i_ < 500000; i_++) \
			sink += i_;                          \
	} while (0)

/* Computes until this thread has had `deadline` of CPU time: what others do changes nothing. */
#define COMPUTE_UNTIL_CPU(deadline)                                     \
	do {                                                            \
		int64_t until_ = (deadline);                            \
		while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < until_)      \
			COMPUTE();                                      \
	} while (0)

#define COMPUTE_FOR_MS(ms) \
	COMPUTE_UNTIL_CPU(clock_ns(CLOCK_THREAD_CPUTIME_ID) + (ms) * INT64_C(1000000))

/* Says one line, which the test waits for. */
static inline void say(const char *line)
{
	printf("%s\n", line);
	fflush(stdout);
}

/* Waits for the test's line; ends with the test. */
static inline void await_line(void)
{
	char line[256];

	if (!fgets(line, sizeof(line), stdin))
		exit(0);
}

#endif
