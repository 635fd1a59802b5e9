/* work() is called by generated code that keeps no frame pointer, and that by code which uses it otherwise. */
#include "workload.h"

#include <sys/mman.h>

/* void with_other_use_of_rbp(void (*work)(void), void (*trampoline)(void (*)(void))) */
void with_other_use_of_rbp(void (*work)(void), void *trampoline);
__asm__(".text\n"
	".globl with_other_use_of_rbp\n"
	".type with_other_use_of_rbp, @function\n"
	"with_other_use_of_rbp:\n"
	".cfi_startproc\n"
	"	push %rbp\n"
	".cfi_def_cfa_offset 16\n"
	".cfi_offset %rbp, -16\n"
	"	mov $0x1234, %ebp\n"
	"	call *%rsi\n"
	"	pop %rbp\n"
	".cfi_def_cfa_offset 8\n"
	"	ret\n"
	".cfi_endproc\n"
	".size with_other_use_of_rbp, . - with_other_use_of_rbp\n");

/* sub $8,%rsp; call *%rdi; add $8,%rsp; ret: what CPython makes for each function under -X perf. */
static const unsigned char TRAMPOLINE[] = {0x48, 0x83, 0xec, 0x08, 0xff, 0xd7, 0x48, 0x83, 0xc4, 0x08, 0xc3};

static WORK void work(void)
{
	for (int i = 0; i < 10000000; i++)
		sink++;
}

int main(void)
{
	void *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (code == MAP_FAILED)
		return 1;
	memcpy(code, TRAMPOLINE, sizeof(TRAMPOLINE));
	for (int i = 0; i < 250; i++)
		with_other_use_of_rbp(work, code);
	return 0;
}
