/*
 * Threads alpha and beta compute in functions of their own and say their IDs, the main thread sleeps.
 * After a line: thread "delta" and a child process "child" start too.  After another: the end.
 */
#include "workload.h"
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static volatile int stop;
static pthread_barrier_t said;

#define THREAD(name)                                             \
	WORK static void spin_in_##name(void)                    \
	{                                                        \
		while (!stop)                                    \
			COMPUTE();                               \
	}                                                        \
	static void *name(void *unused)                          \
	{                                                        \
		(void)unused;                                    \
		pthread_setname_np(pthread_self(), #name);       \
		printf("%s %d\n", #name, gettid());              \
		fflush(stdout);                                  \
		pthread_barrier_wait(&said);                     \
		spin_in_##name();                                \
		return NULL;                                     \
	}

THREAD(alpha)
THREAD(beta)
THREAD(delta)

WORK static void spin_in_child(void)
{
	for (;;)
		COMPUTE();
}

static void start(pthread_t *thread, void *(*body)(void *))
{
	pthread_create(thread, NULL, body, NULL);
	pthread_barrier_wait(&said);
}

int main(void)
{
	pthread_t threads[3];
	pid_t child;

	pthread_barrier_init(&said, NULL, 2);
	start(&threads[0], alpha);
	start(&threads[1], beta);
	await_line();
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_NAME, "child");
		spin_in_child();
	}
	printf("child %d\n", child);
	start(&threads[2], delta);
	await_line();
	stop = 1;
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	return 0;
}
