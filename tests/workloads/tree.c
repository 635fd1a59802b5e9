/*
 * tree MS: after a line, each for MS of CPU time: the parent in of_parent(), its forked child in
 * of_child(), the child's vforked child, which execs this program again, in of_grandchild().
 * Says "pid function nanoseconds" for each.
 */
#include "workload.h"
#include <sys/wait.h>

#define BRANCH(name)                                                                           \
	WORK static void name(long ms)                                                         \
	{                                                                                      \
		int64_t start = clock_ns(CLOCK_THREAD_CPUTIME_ID);                             \
                                                                                               \
		COMPUTE_FOR_MS(ms);                                                            \
		printf("%d %s %ld\n", getpid(), #name,                                         \
		       (long)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - start));                     \
		fflush(stdout);                                                                \
	}

BRANCH(of_parent)
BRANCH(of_child)
BRANCH(of_grandchild)

static void child(long ms, char *self, char *ms_text)
{
	pid_t grandchild = vfork();

	if (grandchild == 0) {
		execl(self, "grandchild", ms_text, "grandchild", NULL);
		_exit(127);
	}
	of_child(ms);
	waitpid(grandchild, NULL, 0);
	exit(0);
}

int main(int argc, char **argv)
{
	long ms = argc > 1 ? atol(argv[1]) : 0;
	pid_t pid;

	if (argc > 2) {
		of_grandchild(ms);
		return 0;
	}
	say("ready");
	await_line();
	pid = fork();
	if (pid == 0)
		child(ms, "/proc/self/exe", argv[1]);
	of_parent(ms);
	waitpid(pid, NULL, 0);
	return 0;
}
