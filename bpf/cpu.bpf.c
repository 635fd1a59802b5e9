// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Samples of perf events: clocks, faults, hardware counters. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "event.h"
#include "emit.bpf.h"
#include "unwind.bpf.h"
#include "cgroup.bpf.h"
#include "exec.bpf.h"

#define MAX_SOURCES 8

struct source {
	u64 period; /* samples of another weight carry it */
	bool user;
	bool kernel;
};

const volatile struct source sources[MAX_SOURCES] = {};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct stack_scratch);
} cpu_scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct rule_cache);
} cpu_known_rules SEC(".maps");

static __always_inline bool in_exec(struct task_struct *task)
{
	return bpf_core_field_exists(task->in_execve) && BPF_CORE_READ_BITFIELD(task, in_execve);
}

static __always_inline void sampled_user_stack(struct emitter *e, struct bpf_perf_event_data *ctx,
					       struct stack_scratch *s, u32 tgid, bool in_user,
					       struct user_stack *user)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rule_cache *known;
	struct user_regs regs;
	struct pt_regs *task_regs;
	u32 zero = 0;

	if (in_user) {
		regs_of_context(&ctx->regs, &regs);
	} else {
		user->callers = 1 + SBERF_END_KERNEL_THREAD;
		if (task->flags & PF_KTHREAD || !task->mm)
			return;
		/* Half-way through an exec the registers are the old program's, the memory is the new one's. */
		user->callers = 1 + SBERF_END_NO_REGISTERS;
		task_regs = in_exec(task) ? NULL : (struct pt_regs *)bpf_task_pt_regs(task);
		if (!task_regs)
			return;
		regs_of_task(task_regs, &regs);
	}
	known = bpf_map_lookup_elem(&cpu_known_rules, &zero);
	if (!known)
		return;
	user->ip = regs.ip;
	user->callers = user_callers(e, &regs, s, known, task, tgid);
}

static __always_inline void fill_sample(struct emitter *e, struct sberf_sample *sample, u8 type, u8 source,
					u64 pid_tgid, u64 kernel, const struct user_stack *user)
{
	record_init(e, &sample->rec, type, source);
	sample->ts_ns = bpf_ktime_get_ns();
	sample->tgid = pid_tgid >> 32;
	sample->tid = (u32)pid_tgid;
	sample->user_ip = user->ip;
	sample->kernel_stack = kernel;
	sample->user_callers = user->callers;
}

static __always_inline void emit_sample(struct emitter *e, u8 source, u64 weight, u64 pid_tgid, u64 kernel,
					const struct user_stack *user)
{
	struct sberf_sample_weighted *weighted;
	struct sberf_sample *sample;

	if (weight == sources[source].period) {
		sample = bpf_ringbuf_reserve(e->ring, sizeof(*sample), 0);
		if (!sample)
			return count_drop(e);
		fill_sample(e, sample, SBERF_SAMPLE, source, pid_tgid, kernel, user);
		bpf_ringbuf_submit(sample, wake_flags(e, sample->rec.seq));
		return;
	}
	weighted = bpf_ringbuf_reserve(e->ring, sizeof(*weighted), 0);
	if (!weighted)
		return count_drop(e);
	fill_sample(e, &weighted->sample, SBERF_SAMPLE_WEIGHTED, source, pid_tgid, kernel, user);
	weighted->weight = weight;
	bpf_ringbuf_submit(weighted, wake_flags(e, weighted->sample.rec.seq));
}

static __always_inline int on_sample(struct bpf_perf_event_data *ctx, u8 source)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	bool in_user = context_is_user(&ctx->regs);
	struct user_stack user = { .callers = 1 + SBERF_END_NOT_ASKED };
	struct stack_scratch *scratch;
	struct emitter e;
	u64 kernel = 0;
	u32 zero = 0;

	if (!in_chosen_cgroup())
		return 0;
	scratch = bpf_map_lookup_elem(&cpu_scratch, &zero);
	if (!scratch || !emitter_init(&e))
		return 0;
	if (sources[source].kernel && !in_user)
		kernel = kernel_stack(&e, ctx, scratch, pid_tgid >> 32);
	if (sources[source].user)
		sampled_user_stack(&e, ctx, scratch, pid_tgid >> 32, in_user, &user);
	emit_sample(&e, source, ctx->sample_period, pid_tgid, kernel, &user);
	return 0;
}

/* One program a source: inherited perf events lose their attach cookie, so the code tells. */
#define ON_SAMPLE(source)                                                   \
	SEC("perf_event")                                                   \
	int on_sample_##source(struct bpf_perf_event_data *ctx)             \
	{                                                                   \
		return on_sample(ctx, source);                              \
	}

ON_SAMPLE(0)
ON_SAMPLE(1)
ON_SAMPLE(2)
ON_SAMPLE(3)
ON_SAMPLE(4)
ON_SAMPLE(5)
ON_SAMPLE(6)
ON_SAMPLE(7)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
