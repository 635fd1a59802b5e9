/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Stacks: walk them, hash them, send each distinct one once.
 *
 * User stacks are walked by frame pointer, kernel stacks by the kernel's own unwinder.
 */
#ifndef SBERF_UNWIND_BPF_H
#define SBERF_UNWIND_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "event.h"
#include "emit.bpf.h"

const volatile u32 max_user_frames = 127;
const volatile u32 max_kernel_frames = 127;

/* Stacks that this many slots remember are not sent again. */
#define SEEN_SLOTS (1 << 17)
/* Frames that kernels without bpf_loop (before 5.17) can walk: their verifier unrolls the loop. */
#define MAX_UNROLLED_FRAMES 127
/* Values of sberf_sample.user_callers below this are 1 + enum sberf_stack_end. */
#define FIRST_STACK_HASH 256

#define PF_KTHREAD 0x00200000

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

/* Each hook has scratch of its own: hooks interrupt one another. */
struct stack_scratch {
	struct sberf_stack head;
	u64 addresses[SBERF_MAX_USER_FRAMES];
};

struct user_regs {
	u64 ip, sp, fp;
	bool is_32bit;
};

/* As struct sberf_sample has it. */
struct user_stack {
	u64 ip;
	u64 callers;
};

static __always_inline u64 hash_step(u64 hash, u64 word)
{
	/* Each step is a bijection of the hash: stacks that differ in one frame never collide. */
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ (hash >> 29);
}

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

struct walk {
	struct stack_scratch *scratch;
	u64 fp;
	u64 lowest_fp; /* frames only ever go up from here */
	u64 hash;
	u32 nr;
	u8 end;
	bool is_32bit;
};

/* One frame; returns 1 when the walk is over.  Layout of a frame: {saved fp, return address}. */
static long walk_frame(u64 index, void *ctx)
{
	struct walk *w = ctx;
	u32 nr = w->nr;
	u64 frame[2];
	u32 frame32[2];
	long error;

	(void)index;
	if (!w->fp) {
		w->end = SBERF_END_ENTRY;
		return 1;
	}
	/* The leaf is a frame too. */
	if (nr + 1 >= max_user_frames || nr >= SBERF_MAX_USER_FRAMES) {
		w->end = SBERF_END_DEPTH_LIMIT;
		return 1;
	}
	w->end = SBERF_END_BAD_FRAME_POINTER;
	if (w->fp < w->lowest_fp || w->fp % 4)
		return 1;
	if (w->is_32bit) {
		error = bpf_probe_read_user(frame32, sizeof(frame32), (void *)w->fp);
		frame[0] = frame32[0];
		frame[1] = frame32[1];
		w->lowest_fp = w->fp + sizeof(frame32);
	} else {
		error = bpf_probe_read_user(frame, sizeof(frame), (void *)w->fp);
		w->lowest_fp = w->fp + sizeof(frame);
	}
	if (error) {
		w->end = SBERF_END_UNREADABLE;
		return 1;
	}
	/* No return address: the frame that the ABI has the outermost function make. */
	if (!frame[1]) {
		w->end = SBERF_END_ENTRY;
		return 1;
	}
	/* What is certainly no address of code means that fp was some other value. */
	if (frame[1] < 4096 || frame[1] >> 56)
		return 1;
	w->scratch->addresses[nr] = frame[1];
	w->hash = hash_step(w->hash, frame[1]);
	w->nr = nr + 1;
	w->fp = frame[0];
	return 0;
}

/* Walks the user stack that `regs` belong to; returns the hash of the callers. */
static __always_inline u64 user_callers(struct emitter *e, const struct user_regs *regs,
					struct stack_scratch *s, u32 tgid)
{
	struct walk w = {
		.scratch = s,
		.fp = regs->fp,
		.lowest_fp = regs->sp,
		.hash = 2,
		.end = SBERF_END_DEPTH_LIMIT,
		.is_32bit = regs->is_32bit,
	};

	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop)) {
		bpf_loop(SBERF_MAX_USER_FRAMES + 1, walk_frame, &w, 0);
	} else {
		for (int i = 0; i < MAX_UNROLLED_FRAMES; i++) {
			if (walk_frame(i, &w))
				break;
		}
	}
	return send_stack(e, s, w.nr, SBERF_STACK_USER, w.end, tgid, w.hash);
}

#if defined(__TARGET_ARCH_x86)

#define USER32_CS 0x23

static __always_inline bool context_is_user(const struct context_regs *regs)
{
	return regs->cs & 3;
}

static __always_inline void regs_of_context(const struct context_regs *from, struct user_regs *to)
{
	to->ip = from->ip;
	to->sp = from->sp;
	to->fp = from->bp;
	to->is_32bit = (from->cs & 0xffff) == USER32_CS;
}

static __always_inline void regs_of_task(const struct pt_regs *from, struct user_regs *to)
{
	to->ip = BPF_CORE_READ(from, ip);
	to->sp = BPF_CORE_READ(from, sp);
	to->fp = BPF_CORE_READ(from, bp);
	to->is_32bit = (BPF_CORE_READ(from, cs) & 0xffff) == USER32_CS;
}

#else /* arm64 */

#define PSR_MODE_MASK 0xf
#define PSR_MODE32_BIT 0x10

static __always_inline bool context_is_user(const struct context_regs *regs)
{
	return (regs->pstate & PSR_MODE_MASK) == 0;
}

static __always_inline void regs_of_context(const struct context_regs *from, struct user_regs *to)
{
	to->ip = from->pc;
	to->sp = from->sp;
	to->fp = from->regs[29];
	to->is_32bit = from->pstate & PSR_MODE32_BIT;
}

static __always_inline void regs_of_task(const struct pt_regs *from, struct user_regs *to)
{
	to->ip = BPF_CORE_READ(from, user_regs.pc);
	to->sp = BPF_CORE_READ(from, user_regs.sp);
	to->fp = BPF_CORE_READ(from, user_regs.regs[29]);
	to->is_32bit = BPF_CORE_READ(from, user_regs.pstate) & PSR_MODE32_BIT;
}

#endif

#endif
