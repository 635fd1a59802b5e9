/*
 * with_pid PID MS [PROGRAM ARGS...]: a child with just this process ID (clone3's set_tid, which root
 * may) that computes in reused() for MS of CPU time, then execs the program if there is one.
 */
#include "workload.h"
#include <errno.h>
#include <linux/sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>

WORK static void reused(long ms) { COMPUTE_FOR_MS(ms); }

int main(int argc, char **argv)
{
	pid_t wanted = argc > 2 ? atoi(argv[1]) : 0, child;
	int status;
	struct clone_args how = {
		.exit_signal = SIGCHLD,
		.set_tid = (uintptr_t)&wanted,
		.set_tid_size = 1,
	};

	child = syscall(SYS_clone3, &how, sizeof(how));
	if (child < 0) {
		fprintf(stderr, "clone3: %s\n", strerror(errno));
		return 126;
	}
	if (child == 0) {
		reused(atol(argv[2]));
		if (argc > 3)
			execv(argv[3], argv + 3);
		_exit(argc > 3 ? 127 : 0);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
