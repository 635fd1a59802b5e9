/* chain MS: the one stack is c < b < a < main < _start. */
#include "entry.h"

WORK static void c(void)
{
	WITH_FRAME();
	while (!stop)
		sink++;
}
WORK static void b(void)
{
	c();
	sink++;
}
WORK static void a(void)
{
	b();
	sink++;
}

int main(int argc, char **argv)
{
	stop_after_ms(argc > 1 ? atol(argv[1]) : 1000);
	a();
	return 0;
}
