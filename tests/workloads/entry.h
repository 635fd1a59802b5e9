/*
 * An own _start, to link with -nostartfiles: glibc's is built without frame pointers, so only here
 * are a stack's last frames known.  The stack ends with main and _start.
 */
#ifndef ENTRY_H
#define ENTRY_H

#include "workload.h"

int main(int argc, char **argv);

#if defined(__x86_64__)
__asm__(".globl _start\n"
	".type _start, @function\n"
	"_start:\n"
	"	xor %ebp, %ebp\n"
	"	mov (%rsp), %edi\n"
	"	lea 8(%rsp), %rsi\n"
	"	and $-16, %rsp\n"
	"	call main\n"
	"	mov %eax, %edi\n"
	"	call exit\n"
	"	hlt\n"
	".size _start, . - _start\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n"
	".type _start, %function\n"
	"_start:\n"
	"	mov x29, #0\n"
	"	mov x30, #0\n"
	"	ldr w0, [sp]\n"
	"	add x1, sp, #8\n"
	"	bl main\n"
	"	bl exit\n"
	"	brk #0\n"
	".size _start, . - _start\n");
#else
#error "unsupported architecture"
#endif

static volatile sig_atomic_t stop;

static void on_alarm(int signal)
{
	(void)signal;
	stop = 1;
}

/* Computing loops look at `stop`, so nothing but themselves runs until then. */
static inline void stop_after_ms(long ms)
{
	struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	timer_t timer;
	struct itimerspec when = {.it_value = {ms / 1000, ms % 1000 * 1000000}};

	sigaction(SIGALRM, &action, NULL);
	timer_create(CLOCK_PROCESS_CPUTIME_ID, NULL, &timer);
	timer_settime(timer, 0, &when, NULL);
}

#endif
