/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Stacks: hash them, send each distinct one once.  Kernel stacks are walked by the kernel's own unwinder. */
#ifndef SBERF_STACK_BPF_H
#define SBERF_STACK_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "event.h"
#include "emit.bpf.h"
#include "hash.bpf.h"
#include "mapping.bpf.h"

const volatile u32 max_kernel_frames = 127;

/* Stacks that this many slots remember are not sent again. */
#define SEEN_SLOTS (1 << 17)
/* Values of sberf_sample.user_callers below this are 1 + enum sberf_stack_end. */
#define FIRST_STACK_HASH 256

/*
 * The stack is read in windows: a call of bpf_probe_read_user takes 68 ns for 8 bytes and 76 ns for 256, and
 * the words that a walk needs lie close to one another.
 */
#define WINDOW_WORDS 64

/*
 * Direct-mapped, shared by all CPUs, no locks.  A lost race or a collision sends a body twice,
 * which costs bytes and nothing else.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SEEN_SLOTS);
	__type(key, u32);
	__type(value, u64);
} seen_stacks SEC(".maps");

struct window {
	u64 words[WINDOW_WORDS];
};

/* Each hook has scratch of its own: hooks interrupt one another. */
struct stack_scratch {
	struct sberf_stack head;
	u64 addresses[SBERF_MAX_USER_FRAMES];
	struct window window;
	struct mapping_scratch mapping;
};

/* Sends the stack in scratch unless it was sent before; returns its hash. */
static __always_inline u64 send_stack(struct emitter *e, struct stack_scratch *s, u32 nr, u8 kind, u8 end,
				      u32 tgid, u64 hash)
{
	u64 *slot;
	u32 index;

	hash = hash_step(hash, (u64)nr << 16 | (u64)kind << 8 | end);
	if (hash < FIRST_STACK_HASH)
		hash += FIRST_STACK_HASH;
	index = hash & (SEEN_SLOTS - 1);
	slot = bpf_map_lookup_elem(&seen_stacks, &index);
	if (!slot || *slot == hash)
		return hash;
	if (nr > SBERF_MAX_USER_FRAMES)
		nr = SBERF_MAX_USER_FRAMES;
	record_init(e, &s->head.rec, SBERF_STACK, 0);
	s->head.hash = hash;
	s->head.nr = nr;
	s->head.kind = kind;
	s->head.end = end;
	s->head.tgid = tgid;
	/* A body that found no room is tried again with the next sample of this stack. */
	if (emit_copy(e, &s->head.rec, sizeof(s->head) + 8 * (u64)nr, wake_flags(e, s->head.rec.seq)))
		*slot = hash;
	return hash;
}

/* The kernel stack of a context that was interrupted in the kernel; 0 when there is none. */
static __always_inline u64 kernel_stack(struct emitter *e, void *ctx, struct stack_scratch *s, u32 tgid)
{
	u32 nr, i, end = SBERF_END_ENTRY;
	u64 hash = 1;
	long size;

	size = bpf_get_stack(ctx, s->addresses, SBERF_MAX_KERNEL_FRAMES * 8, 0);
	if (size <= 0)
		return 0;
	nr = (u64)size / 8;
	if (nr >= max_kernel_frames) {
		nr = max_kernel_frames;
		end = SBERF_END_DEPTH_LIMIT;
	}
	for (i = 0; i < SBERF_MAX_KERNEL_FRAMES; i++) {
		if (i >= nr)
			break;
		hash = hash_step(hash, s->addresses[i]);
	}
	return send_stack(e, s, nr, SBERF_STACK_KERNEL, end, tgid, hash);
}

#endif
