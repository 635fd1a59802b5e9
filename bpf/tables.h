/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The unwind tables, as native/src/capture/tables.rs lays them out and bpf/unwind.bpf.h searches them.
 *
 * All words lie in chunks of one size; a word has a number that goes through all chunks.  A file's index has
 * one word for each KiB of its code: {24 bits: number of its first row, 8 bits: how many rows}.  A row is
 * {10 bits: offset in that KiB, 22 bits: rule}; the first row of a KiB has offset 0, and its rows never
 * cross the end of a chunk.
 */
#ifndef SBERF_TABLES_H
#define SBERF_TABLES_H

#define SBERF_TABLE_PAGE_SHIFT 10
#define SBERF_CHUNK_SHIFT 15
#define SBERF_CHUNK_WORDS (1 << SBERF_CHUNK_SHIFT)
#define SBERF_MAX_CHUNKS 512
#define SBERF_MAX_RULES 65536
#define SBERF_MAX_FILES 16384

/* Where the canonical frame address is: the value of the stack pointer before the call. */
enum sberf_cfa {
	SBERF_CFA_NONE = 0,        /* no table describes this code */
	SBERF_CFA_UNSUPPORTED = 1, /* a description that is none of the others */
	SBERF_CFA_END = 2,         /* no caller: the thread's outermost function */
	SBERF_CFA_SP = 3,          /* sp + offset */
	SBERF_CFA_FP = 4,          /* fp + offset */
	SBERF_CFA_SP_DEREF = 5,    /* *(sp + offset / 256) + offset % 256 */
	SBERF_CFA_FP_DEREF = 6,    /* *(fp + offset / 256) + offset % 256 */
	SBERF_CFA_PLT = 7,         /* sp + word, from byte `offset` of a stub of 16 bytes on sp + 2 * word */
	SBERF_CFA_SIGNAL = 8,      /* a signal's frame: the interrupted sp is saved at sp + offset */
	SBERF_CFA_RETURN_IN = 9,   /* sp + offset; the return address is in the register whose place is fp_offset */
	/* Never in a table: for code that has none, and what the end of the frame pointers then means. */
	SBERF_CFA_FP_CHAIN = 10,   /* the thread's outermost frame */
	SBERF_CFA_FP_GUESS = 11,   /* that there were none */
	SBERF_CFA_REGISTER = 16,   /* and above: 16 + the register's place in struct pt_regs, in words */
};

/* Where the caller's frame pointer is. */
enum sberf_fp {
	SBERF_FP_SAME = 0,
	SBERF_FP_AT_CFA = 1, /* *(cfa + offset) */
	SBERF_FP_AT_FP = 2,  /* *(fp + offset) */
};

/* 16 bytes */
struct sberf_rule {
	int cfa_offset;
	short fp_offset;
	unsigned char cfa; /* enum sberf_cfa */
	unsigned char fp;  /* enum sberf_fp */
	short bx_offset;   /* x86-64: rbx is saved at cfa + offset; 0: it is not */
	short lr_offset;   /* arm64: the return address is saved at cfa + offset; 0: it is in lr */
	short unused[2];
};

enum sberf_file_kind {
	SBERF_FILE_ON_DISK = 0,
	SBERF_FILE_VDSO = 1,   /* inode 0 for 64-bit programs, 1 for 32-bit ones */
};

/* 16 bytes */
struct sberf_file_key {
	unsigned long long inode;
	unsigned int device; /* as the kernel has it: 12 bits major, 20 bits minor */
	unsigned int kind;   /* enum sberf_file_kind */
};

enum sberf_file_state {
	SBERF_TABLE_PENDING = 0, /* user space was asked for it */
	SBERF_TABLE_READY = 1,
	SBERF_TABLE_NONE = 2,    /* the file describes no call frames: by frame pointer */
	SBERF_TABLE_REFUSED = 3, /* too large, or no room */
};

/* 24 bytes */
struct sberf_file {
	unsigned int state;      /* enum sberf_file_state */
	unsigned int index;      /* number of the index's first word */
	unsigned int first_page; /* file offset of the first KiB of code, in KiB */
	unsigned int pages;
	unsigned long long used_ns; /* CLOCK_MONOTONIC; only now and then */
};

_Static_assert(sizeof(struct sberf_rule) == 16, "native/src/unwind/rule.rs");
_Static_assert(sizeof(struct sberf_file_key) == 16, "native/src/capture/tables.rs");
_Static_assert(sizeof(struct sberf_file) == 24, "native/src/capture/tables.rs");

#endif
