/* Computes in _start and nowhere else: no loader, no library.  Link with -static -nostdlib. */
#if defined(__x86_64__)
__asm__(".globl _start\n"
	".type _start, @function\n"
	"_start:\n"
	"	mov $1000000000, %ecx\n"
	"1:	dec %ecx\n"
	"	jnz 1b\n"
	"	xor %edi, %edi\n"
	"	mov $231, %eax\n"
	"	syscall\n"
	".size _start, . - _start\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n"
	".type _start, %function\n"
	"_start:\n"
	"	mov w1, #0x3b9a0000\n"
	"1:	subs w1, w1, #1\n"
	"	b.ne 1b\n"
	"	mov x0, #0\n"
	"	mov x8, #94\n"
	"	svc #0\n"
	".size _start, . - _start\n");
#endif
