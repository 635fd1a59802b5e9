/*
 * Writes C source: generate NUMBER > file.c.  A program with a symbol table that lives for a moment, as
 * code generators in builds do.  Its FUNCTIONS differ, so that the compiler has something to do.
 */
#include <stdio.h>
#include <stdlib.h>

#define FUNCTIONS 60
#define SEARCHED 400000UL

/* A prime above n: some work of our own. */
__attribute__((noinline)) static unsigned long prime_above(unsigned long n)
{
	for (unsigned long candidate = n | 1;; candidate += 2) {
		unsigned long divisor = 3;

		while (divisor * divisor <= candidate && candidate % divisor)
			divisor += 2;
		if (divisor * divisor > candidate)
			return candidate;
	}
}

__attribute__((noinline)) static unsigned long mixed(unsigned long seed)
{
	for (unsigned long i = 0; i < SEARCHED; i++)
		seed = (seed ^ i) * 0x9e3779b97f4a7c15UL;
	return prime_above(seed >> 34);
}

int main(int argc, char **argv)
{
	unsigned long seed = argc > 1 ? strtoul(argv[1], NULL, 10) + 1 : 1;

	puts("#include <stdio.h>\n#include <string.h>");
	for (int i = 0; i < FUNCTIONS; i++) {
		unsigned long prime = mixed(seed * 1000 + i);

		printf("unsigned long f_%lu_%d(const unsigned char *text, unsigned long length)\n"
		       "{\n\tunsigned long hash = %luUL, table[%d];\n"
		       "\tmemset(table, 0, sizeof(table));\n"
		       "\tfor (unsigned long i = 0; i < length; i++) {\n"
		       "\t\thash = (hash ^ text[i]) * %luUL;\n"
		       "\t\tswitch (text[i] & 7) {\n"
		       "\t\tcase 0: table[i %% %d] += hash; break;\n"
		       "\t\tcase 1: case 2: table[(i + 1) %% %d] ^= hash >> 3; break;\n"
		       "\t\tcase 5: printf(\"%%lu\\n\", hash); break;\n"
		       "\t\tdefault: hash += table[hash %% %d];\n\t\t}\n\t}\n"
		       "\treturn hash;\n}\n",
		       seed, i, prime, 8 + i, prime + 2, 8 + i, 8 + i, 8 + i);
	}
	return 0;
}
