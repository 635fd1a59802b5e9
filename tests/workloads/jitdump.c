/*
 * jitdump DIRECTORY MS [fork|delete]: a JIT compiler in small.  It writes the same loop into executable memory
 * again and again, under different names, and tells of it in DIRECTORY/jit-PID.dump (with the PID that it has in
 * its own namespace).  Says the dump's path, waits for a line, and runs for MS of CPU time in 20 rounds.  In each,
 * with its share of the round:
 *
 *     alpha 20 %   loaded at the first place
 *     beta  40 %   loaded over alpha
 *     gamma 10 %   loaded at the second place
 *     gamma 20 %   moved to the third place
 *     delta 10 %   loaded where gamma was
 *
 * fork: after a round a child runs alpha (its copy) for MS, while the parent has loaded beta there and runs that.
 * delete: the dump is gone before the end.
 */
#include "workload.h"
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <fcntl.h>

#if defined(__x86_64__)
#define ELF_MACHINE 62
static const unsigned char loop[] = {
	0x55,                         /* push %rbp */
	0x48, 0x89, 0xe5,             /* mov %rsp,%rbp */
	0xb9, 0xa0, 0x86, 0x01, 0x00, /* mov $100000,%ecx */
	0xff, 0xc9,                   /* dec %ecx */
	0x75, 0xfc,                   /* jne the dec */
	0x5d,                         /* pop %rbp */
	0xc3,                         /* ret */
};
#elif defined(__aarch64__)
#define ELF_MACHINE 183
static const unsigned char loop[] = {
	0x00, 0xd4, 0x90, 0x52, /* mov w0, #0x86a0 */
	0x20, 0x00, 0xa0, 0x72, /* movk w0, #0x1, lsl #16 */
	0x00, 0x04, 0x00, 0x71, /* subs w0, w0, #1 */
	0xe1, 0xff, 0xff, 0x54, /* b.ne the subs */
	0xc0, 0x03, 0x5f, 0xd6, /* ret */
};
#endif

#define ROUNDS 20
#define PLACES 3
#define PLACE_SIZE 64

static unsigned char *code;
static int dump;
static uint64_t loads;

struct record {
	uint32_t id, size;
	uint64_t ts_ns;
	uint32_t pid, tid;
	uint64_t vma;
};

static void write_all(const struct iovec *parts, int count)
{
	ssize_t size = 0;

	for (int i = 0; i < count; i++)
		size += parts[i].iov_len;
	if (writev(dump, parts, count) != size)
		exit(1);
}

static struct record head(uint32_t id, size_t size, const unsigned char *at)
{
	return (struct record){ id,	  sizeof(struct record) + size, clock_ns(CLOCK_MONOTONIC), getpid(), gettid(),
				(uint64_t)at };
}

static void load(int place, const char *name)
{
	unsigned char *at = code + place * PLACE_SIZE;
	uint64_t rest[] = { (uint64_t)at, sizeof(loop), loads++ };
	struct record record;

	memcpy(at, loop, sizeof(loop));
	__builtin___clear_cache((char *)at, (char *)at + sizeof(loop));
	record = head(0, sizeof(rest) + strlen(name) + 1 + sizeof(loop), at);
	write_all((struct iovec[]){ { &record, sizeof(record) },
				    { rest, sizeof(rest) },
				    { (void *)name, strlen(name) + 1 },
				    { (void *)loop, sizeof(loop) } },
		  4);
}

static void move(int from, int to)
{
	uint64_t rest[] = { (uint64_t)code + from * PLACE_SIZE, (uint64_t)code + to * PLACE_SIZE, sizeof(loop), loads - 1 };
	struct record record;

	memmove(code + to * PLACE_SIZE, code + from * PLACE_SIZE, sizeof(loop));
	__builtin___clear_cache((char *)code, (char *)code + PLACES * PLACE_SIZE);
	record = head(1, sizeof(rest), code + to * PLACE_SIZE);
	write_all((struct iovec[]){ { &record, sizeof(record) }, { rest, sizeof(rest) } }, 2);
}

/* Runs the code at a place until this thread has had `deadline` of CPU time. */
WORK static void run_until(int place, int64_t deadline)
{
	while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < deadline)
		((void (*)(void))(code + place * PLACE_SIZE))();
}

WORK static int64_t round_from(int64_t begin, int64_t tenth)
{
	load(0, "alpha");
	run_until(0, begin + 2 * tenth);
	load(0, "beta");
	run_until(0, begin + 6 * tenth);
	load(1, "gamma");
	run_until(1, begin + 7 * tenth);
	move(1, 2);
	run_until(2, begin + 9 * tenth);
	load(1, "delta");
	run_until(1, begin + 10 * tenth);
	return begin + 10 * tenth;
}

WORK static void fork_with_alpha(int64_t ms)
{
	pid_t child;

	load(0, "alpha");
	child = fork();
	if (child)
		load(0, "beta");
	run_until(0, clock_ns(CLOCK_THREAD_CPUTIME_ID) + ms * 1000000);
	if (!child)
		_exit(0);
	waitpid(child, NULL, 0);
}

static void open_dump(const char *directory, char *path, size_t size)
{
	uint32_t header[] = { 0x4a695444, 1, 40, ELF_MACHINE, 0, getpid() };
	uint64_t rest[] = { clock_ns(CLOCK_MONOTONIC), 0 };

	snprintf(path, size, "%s/jit-%d.dump", directory, getpid());
	dump = open(path, O_CREAT | O_TRUNC | O_RDWR, 0666);
	if (dump < 0)
		exit(1);
	write_all((struct iovec[]){ { header, sizeof(header) }, { rest, sizeof(rest) } }, 2);
	/* The mark by which profilers find the dump. */
	if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, dump, 0) == MAP_FAILED)
		exit(1);
}

int main(int argc, char **argv)
{
	const char *mode = argc > 3 ? argv[3] : "";
	char path[4096];
	int64_t at;
	long ms;

	if (argc < 3)
		return 2;
	ms = atol(argv[2]);
	code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (code == MAP_FAILED)
		return 1;
	open_dump(argv[1], path, sizeof(path));
	say(path);
	await_line();
	at = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	for (int i = 0; i < ROUNDS; i++)
		at = round_from(at, ms * 1000000 / ROUNDS / 10);
	if (!strcmp(mode, "fork"))
		fork_with_alpha(ms);
	if (!strcmp(mode, "delete"))
		unlink(path);
	return 0;
}
