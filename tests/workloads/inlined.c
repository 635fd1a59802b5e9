/* All its time goes to squares(), which is inlined into sum_of_squares(), and that into work(). */
#include "workload.h"

static inline __attribute__((always_inline)) unsigned long squares(unsigned long sum)
{
	for (int i = 0; i < 1000000; i++)
		__asm__ volatile("imul %0, %0\n\timul %0, %0\n\timul %0, %0\n\timul %0, %0" : "+r"(sum)); /* hot line */
	return sum;
}

static inline __attribute__((always_inline)) unsigned long sum_of_squares(unsigned long n)
{
	return squares(n) + 1;
}

static WORK void work(void)
{
	sink = sum_of_squares(sink);
	sink++;
}

int main(void)
{
	for (int i = 0; i < 200; i++)
		work();
	return 0;
}
