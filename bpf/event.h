/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The records that travel from the BPF programs to the spool: the one definition that
 * the kernel side and native/src/wire.rs share.  Everything is little or big endian as
 * the machine is; a spool is finished on the machine that wrote it.
 *
 * Every record starts with struct sberf_record and is a multiple of 8 bytes long.
 * Record types below 64 come from BPF, those from 64 on from the drain thread.
 */
#ifndef SBERF_EVENT_H
#define SBERF_EVENT_H

#define SBERF_MAX_KERNEL_FRAMES 127
#define SBERF_MAX_USER_FRAMES 1024
#define SBERF_MAX_ARGUMENTS 512
#define SBERF_MAX_COPY 28672
#define SBERF_MAX_CGROUP_PATH 1024 /* a power of two */

enum sberf_record_type {
	SBERF_SAMPLE = 1,          /* struct sberf_sample, weight = the event's configured period */
	SBERF_SAMPLE_WEIGHTED = 2, /* struct sberf_sample_weighted */
	SBERF_STACK = 3,           /* struct sberf_stack and its addresses */
	SBERF_EXEC = 4,            /* struct sberf_exec and the arguments */
	SBERF_WANTED = 5,          /* struct sberf_wanted */
	SBERF_STACK_COPY = 6,      /* struct sberf_stack_copy and a part of the stack */
	SBERF_CGROUP = 7,          /* struct sberf_cgroup and the names of cgroups */
};

enum sberf_stack_kind {
	SBERF_STACK_KERNEL = 0,
	SBERF_STACK_USER = 1,
};

/* How a stack ended.  The closed list; native/src/wire.rs names them. */
enum sberf_stack_end {
	SBERF_END_ENTRY = 0,          /* the thread's outermost frame was reached */
	SBERF_END_DEPTH_LIMIT = 1,    /* cut at --max-depth */
	SBERF_END_UNREADABLE = 2,     /* stack memory could not be read */
	SBERF_END_BAD_FRAME_POINTER = 3, /* the frame left the stack */
	SBERF_END_NO_REGISTERS = 4,   /* the user registers were not available */
	SBERF_END_KERNEL_THREAD = 5,  /* a kernel thread: there is no user stack */
	SBERF_END_NOT_ASKED = 6,      /* --kernel: user stacks were not asked for */
	SBERF_END_SCRATCH_BUSY = 7,   /* the scratch buffer was in use: a nested event */
	SBERF_END_NO_TABLE = 8,       /* no table describes the code of the last frame */
	SBERF_END_UNSUPPORTED_RULE = 9, /* its table needs what the unwinder cannot do */
	SBERF_END_TABLE_PENDING = 10, /* its table was not made yet */
	SBERF_END_TABLE_REFUSED = 11, /* its table is too large, or was evicted */
	SBERF_END_NOT_CODE = 12,      /* it returns to where no code is mapped */
};

/* 8 bytes */
struct sberf_record {
	unsigned char type;   /* enum sberf_record_type */
	unsigned char source; /* index of the event in the spool's header.json "events" */
	unsigned short cpu;
	unsigned int seq;     /* per CPU, counts every record that was attempted */
};

/*
 * 48 bytes.  The user stack comes in two parts: where the thread was, and who called that.  Most stacks
 * differ from another one in the first part alone.
 */
struct sberf_sample {
	struct sberf_record rec;
	unsigned long long ts_ns; /* CLOCK_MONOTONIC */
	unsigned int tgid;
	unsigned int tid;
	unsigned long long user_ip; /* 0: there is no user stack */
	unsigned long long kernel_stack; /* hash of a SBERF_STACK_KERNEL body; 0: none */
	unsigned long long user_callers; /* hash of a SBERF_STACK_USER body; below 256: no
					  * body, the value is 1 + enum sberf_stack_end */
};

/* 56 bytes */
struct sberf_sample_weighted {
	struct sberf_sample sample;
	unsigned long long weight; /* in the event's unit: ns, faults, cycles ... */
};

/* 24 bytes, then nr addresses of 8 bytes, leaf first; of a user stack the callers, that is all but the leaf */
struct sberf_stack {
	struct sberf_record rec;
	unsigned long long hash; /* over the addresses, the kind and the end; never below 256 */
	unsigned short nr;
	unsigned char kind; /* enum sberf_stack_kind */
	unsigned char end;  /* enum sberf_stack_end */
	unsigned int tgid;  /* the process in which it was first seen */
};

/* 40 bytes, then len bytes of arguments, each with its NUL, padded to 8 */
struct sberf_exec {
	struct sberf_record rec;
	unsigned long long ts_ns; /* CLOCK_MONOTONIC */
	unsigned int tgid;
	unsigned int len;
	unsigned long long container_key; /* see bpf/container.bpf.h */
	unsigned int ns_tgid; /* the process ID in its own PID namespace */
	unsigned int unused;
};

/*
 * 48 bytes, then len bytes padded to 8: the names of a cgroup and of those above it, each with its NUL, the
 * innermost first.  A key has one for each hierarchy in which its tasks are not at the root, and one for v2.
 */
struct sberf_cgroup {
	struct sberf_record rec;
	unsigned long long container_key;
	unsigned int mount_ns; /* inode numbers */
	unsigned int pid_ns;
	unsigned int len;
	unsigned int unused;
	char controller[16]; /* of a v1 hierarchy; empty: v2 */
};

/* 48 bytes: the unwind table of a file is wanted, and where the file is mapped */
struct sberf_wanted {
	struct sberf_record rec;
	unsigned long long inode; /* with device and kind: struct sberf_file_key */
	unsigned int device;
	unsigned int kind;
	unsigned long long start;
	unsigned long long end;
	unsigned int tgid;
	unsigned int unused;
};

/* 64 bytes, then len bytes of the stack from sp on: it needs a table that is not there yet */
struct sberf_stack_copy {
	struct sberf_record rec;
	unsigned long long id;     /* stands for the callers in sberf_sample.user_callers */
	unsigned long long prefix; /* hash of the callers that were found */
	unsigned long long ip;     /* of the last one found */
	unsigned long long sp;
	unsigned long long fp;
	unsigned int len;
	unsigned char is_return;
	unsigned char is_32bit;
	unsigned char address_bits; /* arm64: above them a return address is signed; 0: it is not */
	unsigned char unused;
	unsigned long long lr;     /* arm64: the link register; only when is_return is 0 */
};

_Static_assert(sizeof(struct sberf_stack_copy) == 64, "native/src/wire.rs");
_Static_assert(sizeof(struct sberf_cgroup) == 48, "native/src/wire.rs");
_Static_assert(sizeof(struct sberf_wanted) == 48, "native/src/wire.rs");
_Static_assert(sizeof(struct sberf_exec) == 40, "native/src/wire.rs");
_Static_assert(sizeof(struct sberf_record) == 8, "native/src/wire.rs");
_Static_assert(sizeof(struct sberf_sample) == 48, "native/src/wire.rs");
_Static_assert(sizeof(struct sberf_sample_weighted) == 56, "native/src/wire.rs");
_Static_assert(sizeof(struct sberf_stack) == 24, "native/src/wire.rs");

#endif
