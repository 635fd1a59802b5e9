/* Computes for 300 ms in handler(), on a stack of its own, in the midst of interrupted(). */
#include <sys/time.h>
#include "workload.h"

static volatile sig_atomic_t handled;

WORK static void handler(int number)
{
	(void)number;
	COMPUTE_FOR_MS(300);
	handled = 1;
}

WORK static void interrupted(void)
{
	while (!handled)
		sink++;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = SA_ONSTACK };
	struct itimerval soon = { .it_value = { .tv_usec = 20000 } };
	stack_t stack = { .ss_sp = malloc(1 << 16), .ss_size = 1 << 16 };

	sigaltstack(&stack, NULL);
	sigaction(SIGVTALRM, &action, NULL);
	setitimer(ITIMER_VIRTUAL, &soon, NULL);
	interrupted();
	return 0;
}
