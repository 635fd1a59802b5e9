/*
 * jit MS [delete]: writes a loop into anonymous executable memory, names it "generated_loop" in
 * /tmp/perf-PID.map (with the PID that it has in its own namespace), and runs it.  delete: the map is gone
 * before the end.
 * Says the map's path once it is written and waits for a line, so that the test can give the map away.
 */
#include "workload.h"
#include <sys/mman.h>

#if defined(__x86_64__)
static const unsigned char loop[] = {
	0x55,                         /* push %rbp */
	0x48, 0x89, 0xe5,             /* mov %rsp,%rbp */
	0xb9, 0x40, 0x42, 0x0f, 0x00, /* mov $1000000,%ecx */
	0xff, 0xc9,                   /* dec %ecx */
	0x75, 0xfc,                   /* jne the dec */
	0x5d,                         /* pop %rbp */
	0xc3,                         /* ret */
};
#elif defined(__aarch64__)
static const unsigned char loop[] = {
	0x00, 0x48, 0x88, 0x52, /* mov w0, #0x4240 */
	0xe0, 0x01, 0xa0, 0x72, /* movk w0, #0xf, lsl #16 */
	0x00, 0x04, 0x00, 0x71, /* subs w0, w0, #1 */
	0xe1, 0xff, 0xff, 0x54, /* b.ne the subs */
	0xc0, 0x03, 0x5f, 0xd6, /* ret */
};
#endif

WORK static void run(void (*code)(void), long ms)
{
	int64_t deadline = clock_ns(CLOCK_THREAD_CPUTIME_ID) + ms * 1000000;

	while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < deadline)
		code();
}

int main(int argc, char **argv)
{
	void *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char path[64];
	FILE *map;

	if (argc < 2 || code == MAP_FAILED)
		return 2;
	memcpy(code, loop, sizeof(loop));
	__builtin___clear_cache((char *)code, (char *)code + sizeof(loop));
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	map = fopen(path, "w");
	if (!map)
		return 1;
	fprintf(map, "%lx %zx generated_loop\n", (unsigned long)code, sizeof(loop));
	fclose(map);
	say(path);
	await_line();
	run((void (*)(void))code, atol(argv[1]));
	if (argc > 2)
		unlink(path);
	return 0;
}
