/* pages N: touch_pages() touches N pages that were never touched before, and nothing else faults there. */
#include "entry.h"
#include <sys/mman.h>

WORK static void touch_pages(volatile char *memory, long pages, long page_size)
{
	WITH_FRAME();
	for (long i = 0; i < pages; i++)
		memory[i * page_size] = 1;
}

int main(int argc, char **argv)
{
	long pages = argc > 1 ? atol(argv[1]) : 1000, page_size = sysconf(_SC_PAGESIZE);
	char *memory = mmap(NULL, pages * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return 1;
	madvise(memory, pages * page_size, MADV_NOHUGEPAGE);
	touch_pages(memory, pages, page_size);
	return 0;
}
