/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copies of stacks that cannot be walked yet, for user space to walk when the recording is finished. */
#ifndef SBERF_COPY_BPF_H
#define SBERF_COPY_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "event.h"
#include "emit.bpf.h"
#include "stack.bpf.h"
#include "walk.bpf.h"

/* Copies are for the moments in which a table is made: so many bytes of them on a CPU in so long. */
#define MAX_COPIED_BYTES (4 << 20)
#define COPY_WINDOW_NS 100000000ULL
#define COPY_STEP 256

struct copy_scratch {
	u64 window_ns; /* when the window began */
	u64 copied_bytes;
	struct sberf_stack_copy head;
	char bytes[SBERF_MAX_COPY];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct copy_scratch);
} copy_scratch SEC(".maps");

/* Is there room for a copy?  Samples come first: a ring that fills is left to them. */
static __always_inline bool may_copy(struct copy_scratch *c, u64 filled_bytes, u64 now_ns)
{
	if (now_ns - c->window_ns > COPY_WINDOW_NS) {
		c->window_ns = now_ns;
		c->copied_bytes = 0;
	}
	return c->copied_bytes < MAX_COPIED_BYTES && filled_bytes < 2 * wake_at_bytes;
}

/* Reads up to `room` bytes of the stack at `sp`, as far as it can be read; returns how many. */
static __always_inline u32 read_stack(char *bytes, u64 sp, u64 room)
{
	u32 len = 0;

	room = room > SBERF_MAX_COPY ? SBERF_MAX_COPY : room & ~7ULL; /* records are multiples of 8 bytes */
	barrier_var(room); /* what the compiler knows of it, the verifier does not */
	if (room <= SBERF_MAX_COPY && !bpf_probe_read_user(bytes, room, (void *)sp))
		return room;
	for (; len < SBERF_MAX_COPY; len += COPY_STEP) {
		if (len >= room || bpf_probe_read_user(bytes + len, COPY_STEP, (void *)(sp + len)))
			break;
	}
	return len;
}

/* Copies the stack from where the walk is; returns what then stands for the callers, 0 for none. */
static __always_inline u64 copy_stack(struct emitter *e, const struct walk *w, struct task_struct *task,
				      u64 prefix)
{
	/* Above the begin of a main thread's stack lie arguments and environment. */
	u64 begin = task->mm->start_stack + COPY_STEP, room = begin > w->sp ? begin - w->sp : SBERF_MAX_COPY;
	u64 now_ns = bpf_ktime_get_ns(), filled_bytes = bpf_ringbuf_query(e->ring, BPF_RB_AVAIL_DATA);
	struct copy_scratch *c;
	u32 zero = 0, len;

	c = bpf_map_lookup_elem(&copy_scratch, &zero);
	if (!c || !may_copy(c, filled_bytes, now_ns))
		return 0;
	len = read_stack(c->bytes, w->sp, room);
	record_init(e, &c->head.rec, SBERF_STACK_COPY, 0);
	c->head.id = hash_step(hash_step(e->cpu, now_ns), 3) | 1ULL << 63;
	c->head.prefix = prefix;
	c->head.ip = w->ip;
	c->head.sp = w->sp;
	c->head.fp = w->fp;
	c->head.len = len;
	c->head.is_return = w->is_return;
	c->head.is_32bit = w->is_32bit;
#if defined(__TARGET_ARCH_arm64)
	c->head.lr = w->lr;
	c->head.address_bits = w->address_bits;
#endif
	if (len > SBERF_MAX_COPY)
		len = SBERF_MAX_COPY;
	c->copied_bytes += len;
	/* Each one fills the ring by as much as hundreds of samples. */
	return emit_copy(e, &c->head.rec, sizeof(c->head) + len,
			 filled_bytes < wake_at_bytes ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP) ?
		       c->head.id :
		       0;
}

#endif
