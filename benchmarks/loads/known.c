/*
 * A load of known structure: main -> descend (DEPTH times) -> seventy | thirty.
 *
 *     known seconds SECONDS     known rounds ROUNDS
 *
 * seventy and thirty run the same loop 7 and 3 parts long; the length of a round varies at random around
 * 1 ms, so that no sampling period can run in step with it.  Prints the elapsed seconds, and the CPU
 * nanoseconds that each of the two really took.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEPTH 20
#define NOINLINE __attribute__((noinline))

static volatile unsigned long sink;

static long long now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

NOINLINE static void seventy(long n)
{
	for (long i = 0; i < n; i++)
		sink += i;
}

NOINLINE static void thirty(long n)
{
	for (long i = 0; i < n; i++)
		sink += i;
}

NOINLINE static void descend(int depth, void (*leaf)(long), long n)
{
	if (depth > 1)
		descend(depth - 1, leaf, n);
	else
		leaf(n);
	sink++; /* no tail call */
}

static long long timed(void (*leaf)(long), long n)
{
	long long start = now_ns(CLOCK_THREAD_CPUTIME_ID);

	descend(DEPTH, leaf, n);
	return now_ns(CLOCK_THREAD_CPUTIME_ID) - start;
}

int main(int argc, char **argv)
{
	long long start = now_ns(CLOCK_MONOTONIC), seventy_ns = 0, thirty_ns = 0;
	unsigned int seed = 1;
	double limit;
	int seconds;

	if (argc != 3 || ((seconds = !strcmp(argv[1], "seconds")) == 0 && strcmp(argv[1], "rounds")))
		return 2;
	limit = atof(argv[2]);
	for (long round = 0;; round++) {
		double done = seconds ? (now_ns(CLOCK_MONOTONIC) - start) / 1e9 : (double)round;
		long part;

		if (done >= limit)
			break;
		part = 25000 + rand_r(&seed) % 50000;
		seventy_ns += timed(seventy, part * 7);
		thirty_ns += timed(thirty, part * 3);
	}
	printf("%.6f %lld %lld\n", (now_ns(CLOCK_MONOTONIC) - start) / 1e9, seventy_ns, thirty_ns);
	return 0;
}
