/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Each program that is started, with its arguments and its container: /proc/PID is gone before anybody
 * reads it when the process lives for a few milliseconds.
 */
#ifndef SBERF_EXEC_BPF_H
#define SBERF_EXEC_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "event.h"
#include "emit.bpf.h"
#include "container.bpf.h"

struct exec_scratch {
	struct sberf_exec head;
	char arguments[SBERF_MAX_ARGUMENTS + 8]; /* room for the padding */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct exec_scratch);
} exec_scratch SEC(".maps");

struct program_key {
	u64 inode;
	u64 device;
	u64 container;
};

/*
 * Programs that were run lately.  One that is new, or new to its container, may be gone at once, and
 * the container with it, so user space is woken.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct program_key);
	__type(value, u8);
} known_programs SEC(".maps");

static __always_inline bool is_new_program(struct task_struct *task, u64 container)
{
	struct inode *inode = BPF_CORE_READ(task, mm, exe_file, f_inode);
	struct program_key key = {
		.inode = BPF_CORE_READ(inode, i_ino),
		.device = BPF_CORE_READ(inode, i_sb, s_dev),
		.container = container,
	};
	u8 known = 1;

	if (bpf_map_lookup_elem(&known_programs, &key))
		return false;
	bpf_map_update_elem(&known_programs, &key, &known, BPF_ANY);
	return true;
}

/* How many bytes of arguments there are; they are read into the scratch. */
static __always_inline u32 read_arguments(struct exec_scratch *s, struct task_struct *task)
{
	u64 start = BPF_CORE_READ(task, mm, arg_start), end = BPF_CORE_READ(task, mm, arg_end);
	u64 len = end - start;

	if (end <= start)
		return 0;
	if (len > SBERF_MAX_ARGUMENTS)
		len = SBERF_MAX_ARGUMENTS;
	return bpf_probe_read_user(s->arguments, len, (void *)start) ? 0 : len;
}

/* After the new program was loaded, in the context of its process. */
SEC("tp_btf/sched_process_exec")
int on_exec(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct exec_scratch *s;
	struct container where;
	struct emitter e;
	u32 zero = 0, len;

	(void)ctx;
	s = bpf_map_lookup_elem(&exec_scratch, &zero);
	if (!s || !emitter_init(&e))
		return 0;
	len = read_arguments(s, task);
	where = container_of_task(task);
	if (is_new_container(where.key))
		emit_cgroups(&e, task, &where);
	record_init(&e, &s->head.rec, SBERF_EXEC, 0);
	s->head.ts_ns = bpf_ktime_get_ns();
	s->head.tgid = bpf_get_current_pid_tgid() >> 32;
	s->head.len = len;
	s->head.container_key = where.key;
	s->head.ns_tgid = where.pid;
	emit_copy(&e, &s->head.rec, sizeof(s->head) + (len + 7) / 8 * 8,
		  is_new_program(task, where.key) ? BPF_RB_FORCE_WAKEUP : wake_flags(&e, s->head.rec.seq));
	return 0;
}

#endif
