/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Walks user stacks by the tables that user space makes of each file's call frames, and by frame pointer
 * where code has none.
 */
#ifndef SBERF_UNWIND_BPF_H
#define SBERF_UNWIND_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "event.h"
#include "emit.bpf.h"
#include "copy.bpf.h"
#include "mapping.bpf.h"
#include "stack.bpf.h"
#include "table.bpf.h"
#include "walk.bpf.h"

const volatile u32 max_user_frames = 127;
/* Off: by frame pointer alone. */
const volatile bool use_tables = false;

/* Frames that kernels without bpf_loop (before 5.17) can walk: their verifier unrolls the loop. */
#define MAX_UNROLLED_FRAMES 127
#define PF_KTHREAD 0x00200000

struct user_regs {
	u64 ip, sp, fp;
#if defined(__TARGET_ARCH_arm64)
	u64 lr;
#endif
	bool is_32bit;
};

/* As struct sberf_sample has it. */
struct user_stack {
	u64 ip;
	u64 callers;
};

#define KNOWN_RULES_SHIFT 10

/* 32 bytes */
struct known_rule {
	u64 address;
	u64 key;
	struct sberf_rule rule;
};

/* The rules of callers that were looked up before. */
struct rule_cache {
	struct known_rule rules[1 << KNOWN_RULES_SHIFT];
};

#define REGS_BX 5 /* the place of rbx in struct pt_regs, in words */

/* A walk and all that it needs. */
struct walker {
	struct walk walk;
	struct stack_scratch *scratch;
	struct rule_cache *known;
	struct code_space *space;
	u64 known_key;
};

static __always_inline long stop(struct walk *w, u8 end)
{
	w->end = end;
	return 1;
}

/* The registers that a signal interrupted, from the kernel's frame on the stack. */
static __always_inline long leave_signal(struct walk *w, struct window *window, u64 sp_at)
{
	/* Where fp and ip lie in struct sigcontext, from sp on. */
#if defined(__TARGET_ARCH_arm64)
	u64 fp_at = sp_at - 16, ip_at = sp_at + 8;

	if (!read_word(w, window, sp_at - 8, &w->lr))
		return stop(w, SBERF_END_UNREADABLE);
#else
	u64 fp_at = sp_at + (w->is_32bit ? -4 : -40), ip_at = sp_at + (w->is_32bit ? 28 : 8);
#endif

	if (!read_word(w, window, ip_at, &w->ip) || !read_word(w, window, fp_at, &w->fp) ||
	    !read_word(w, window, sp_at, &w->sp))
		return stop(w, SBERF_END_UNREADABLE);
	w->is_return = false;
	return 0;
}

/* A register as it was when the thread entered the kernel, for whatever reason. */
static __always_inline bool task_register(u8 cfa, u64 *value)
{
	u64 regs = (u64)bpf_task_pt_regs(bpf_get_current_task_btf());

	return !bpf_probe_read_kernel(value, sizeof(*value), (void *)(regs + 8 * (u64)(cfa - SBERF_CFA_REGISTER)));
}

/* A register that is neither sp nor fp. */
static __always_inline bool other_register(struct walk *w, struct window *window, u8 cfa, u64 *value)
{
#if defined(__TARGET_ARCH_x86)
	if (cfa == SBERF_CFA_REGISTER + REGS_BX)
		return w->bx_at ? read_word(w, window, w->bx_at, value) : task_register(cfa, value);
#endif
	(void)window;
	/* What a call may change is known in the innermost frame alone. */
	return !w->is_return && !w->nr && task_register(cfa, value);
}

static __always_inline long frame_address(struct walk *w, struct window *window,
					  const struct sberf_rule *rule, u64 *cfa)
{
	s32 offset = rule->cfa_offset;

	switch (rule->cfa) {
	case SBERF_CFA_SP:
	case SBERF_CFA_RETURN_IN:
		*cfa = w->sp + offset;
		return 0;
	case SBERF_CFA_FP:
		*cfa = w->fp + offset;
		return 0;
	case SBERF_CFA_PLT:
		*cfa = w->sp + ((w->ip & 15) >= (u32)offset ? 2 : 1) * word_len(w);
		return 0;
	case SBERF_CFA_SP_DEREF:
	case SBERF_CFA_FP_DEREF:
		if (!read_word(w, window, (rule->cfa == SBERF_CFA_SP_DEREF ? w->sp : w->fp) + (offset >> 8), cfa))
			return stop(w, SBERF_END_UNREADABLE);
		*cfa += (signed char)offset;
		return 0;
	case SBERF_CFA_FP_CHAIN:
	case SBERF_CFA_FP_GUESS:
		if (!w->fp)
			return stop(w, rule->cfa == SBERF_CFA_FP_CHAIN ? SBERF_END_ENTRY : SBERF_END_NO_TABLE);
		*cfa = w->fp + offset;
		return 0;
	case SBERF_CFA_END:
		return stop(w, SBERF_END_ENTRY);
	}
	if (rule->cfa < SBERF_CFA_REGISTER || !other_register(w, window, rule->cfa, cfa))
		return stop(w, SBERF_END_UNSUPPORTED_RULE);
	*cfa += offset;
	return 0;
}

#if defined(__TARGET_ARCH_arm64)

/*
 * How many bits a user address has: 36 to 52, as the kernel was configured.  A signature lies in the bits above
 * (the kernel's ptrauth_user_pac_mask).
 */
static __always_inline u8 address_bits_of(struct task_struct *task)
{
	u64 size = task->mm->task_size;

	return size > 1 ? 64 - __builtin_clzll(size - 1) : 0;
}

static __always_inline u64 strip_signature(const struct walk *w, u64 address)
{
	u32 bits = w->address_bits & 63;

	return bits ? address & ((1ULL << bits) - 1) : address;
}

/* The caller's frame pointer and the return address, each still in its register or saved by itself. */
static __always_inline bool callers_registers(struct walk *w, struct window *window,
					      const struct sberf_rule *rule, u64 cfa, u64 *pair)
{
	u64 fp_at = (rule->fp == SBERF_FP_AT_CFA ? cfa : w->fp) + rule->fp_offset, lr_at = cfa + rule->lr_offset;

	pair[0] = w->fp;
	pair[1] = w->lr;
	if (rule->fp != SBERF_FP_SAME && !read_word(w, window, fp_at, &pair[0]))
		return false;
	if (rule->lr_offset && !read_word(w, window, lr_at, &pair[1]))
		return false;
	pair[1] = strip_signature(w, pair[1]);
	return true;
}

/* Is the return address in a register that a call has overwritten since? */
static __always_inline bool is_overwritten(const struct walk *w, const struct sberf_rule *rule)
{
	return !rule->lr_offset && w->is_return;
}

static __always_inline bool follows_call(u64 address)
{
	(void)address;
	return false; /* return addresses are in a register */
}

#else

/* Is there a call before the address?  e8 and 4 bytes, or ff and 1 to 6. */
static __always_inline bool follows_call(u64 address)
{
	u8 code[8];

	if (address < 4096 || bpf_probe_read_user(code, sizeof(code), (void *)(address - sizeof(code))))
		return false;
	return code[3] == 0xe8 || (code[6] == 0xff && (code[7] & 0x38) == 0x10) ||
	       (code[5] == 0xff && (code[6] & 0x38) == 0x10) || (code[2] == 0xff && (code[3] & 0x38) == 0x10);
}

/* The caller's frame pointer and the return address, which is the last word before `cfa`. */
static __always_inline bool callers_registers(struct walk *w, struct window *window,
					      const struct sberf_rule *rule, u64 cfa, u64 *pair)
{
	u64 word = word_len(w), fp_at = (rule->fp == SBERF_FP_AT_CFA ? cfa : w->fp) + rule->fp_offset;

	/* Compilers do not say that an epilogue has restored a register: what lies below sp was popped. */
	if (rule->bx_offset && cfa + rule->bx_offset >= w->sp)
		w->bx_at = cfa + rule->bx_offset;
	if (rule->cfa == SBERF_CFA_RETURN_IN) {
		pair[0] = w->fp;
		return !w->is_return && task_register(SBERF_CFA_REGISTER + rule->fp_offset, &pair[1]);
	}
	if (rule->fp != SBERF_FP_SAME && fp_at >= w->sp) {
		if (fp_at == cfa - 2 * word)
			return read_pair(w, window, fp_at, pair);
		if (!read_word(w, window, fp_at, &pair[0]))
			return false;
	} else {
		pair[0] = w->fp;
	}
	return read_word(w, window, cfa - word, &pair[1]);
}

static __always_inline bool is_overwritten(const struct walk *w, const struct sberf_rule *rule)
{
	(void)w, (void)rule;
	return false;
}

#endif

/* From a frame to its caller; returns 1 when the walk is over.  By itself for the verifier's sake. */
__noinline int leave_frame(struct walk *w, struct sberf_rule *rule, struct window *window)
{
	u64 cfa, pair[2];

	if (!w || !rule || !window)
		return 1;
	if (rule->cfa == SBERF_CFA_SIGNAL)
		return leave_signal(w, window, w->sp + rule->cfa_offset);
	if (frame_address(w, window, rule, &cfa))
		return 1;
	/* A leaf of arm64 has no frame: its caller's stack pointer is its own. */
	if (cfa < w->sp || (cfa == w->sp && w->is_return) || cfa % 4)
		return stop(w, SBERF_END_BAD_FRAME_POINTER);
	if (is_overwritten(w, rule))
		return stop(w, SBERF_END_UNSUPPORTED_RULE);
	if (!callers_registers(w, window, rule, cfa, pair))
		return stop(w, SBERF_END_UNREADABLE);
	/* No return address: the frame that the ABI has the outermost function make. */
	if (!pair[1])
		return stop(w, SBERF_END_ENTRY);
	w->fp = pair[0];
	w->ip = pair[1];
	w->sp = cfa;
	w->is_return = true;
	return 0;
}

/* Layout of a frame: {saved fp, return address}. */
static __always_inline void frame_pointer_rule(const struct walk *w, u8 cfa, struct sberf_rule *rule)
{
	rule->cfa_offset = 2 * word_len(w);
	rule->fp_offset = -2 * (s64)word_len(w);
	rule->cfa = cfa;
	rule->fp = SBERF_FP_AT_CFA;
	rule->bx_offset = 0;
	rule->lr_offset = -(s64)word_len(w);
}

/*
 * Code without a description, mostly assembly.  A leaf of it that has pushed nothing has its return address
 * on top of the stack; else it may still keep frame pointers.
 */
static __always_inline void undescribed_rule(struct walk *w, struct window *window, struct sberf_rule *rule)
{
	u64 top;

	frame_pointer_rule(w, SBERF_CFA_FP_GUESS, rule);
	if (!w->is_return && read_word(w, window, w->sp, &top) && follows_call(top)) {
		rule->cfa_offset = word_len(w);
		rule->cfa = SBERF_CFA_SP;
		rule->fp = SBERF_FP_SAME;
	}
}

/*
 * Generated code that keeps no frame pointer but calls and returns: `add $N,%rsp; ret` follows the call, as in
 * the trampolines of CPython.
 */
static __always_inline void trampoline_rule(const struct walk *w, struct sberf_rule *rule)
{
#if !defined(__TARGET_ARCH_arm64)
	u8 code[5];

	if (!w->is_return || w->is_32bit || bpf_probe_read_user(code, sizeof(code), (void *)w->ip))
		return;
	if (code[0] == 0x48 && code[1] == 0x83 && code[2] == 0xc4 && code[3] < 0x80 && code[4] == 0xc3) {
		rule->cfa_offset = code[3] + 8;
		rule->cfa = SBERF_CFA_SP;
		rule->fp = SBERF_FP_SAME;
	}
#else
	(void)w, (void)rule;
#endif
}

/* The rule at an address, from its file's table; returns 1 when the walk is over. */
static __always_inline long look_up_rule(struct walker *walker, u64 address, struct sberf_rule *rule)
{
	struct code_mapping *m = code_mapping_of(walker->space, &walker->scratch->mapping, address);
	struct window *window = &walker->scratch->window;
	struct walk *w = &walker->walk;
	struct sberf_rule *found;

	if (!m) {
		/* What was taken for a return address is none. */
		if (w->nr) {
			w->nr--;
			w->hash = w->hash_before;
		}
		return stop(w, SBERF_END_NOT_CODE);
	}
	switch (m->state) {
	case SBERF_TABLE_READY:
		found = find_rule(m, address);
		if (found && found->cfa != SBERF_CFA_NONE)
			*rule = *found;
		else
			undescribed_rule(w, window, rule);
		return 0;
	case SBERF_TABLE_NONE:
		frame_pointer_rule(w, SBERF_CFA_FP_CHAIN, rule);
		trampoline_rule(w, rule);
		return 0;
	case SBERF_TABLE_PENDING:
		return stop(w, SBERF_END_TABLE_PENDING);
	}
	return stop(w, SBERF_END_TABLE_REFUSED);
}

/* The same for callers, whose addresses come again and again: one line of memory in the place of six. */
static __always_inline long rule_at(struct walker *walker, struct sberf_rule *rule)
{
	struct walk *w = &walker->walk;
	u64 address = w->ip - w->is_return, hash;
	struct known_rule *known;

	if (!w->is_return)
		return look_up_rule(walker, address, rule);
	hash = address * 0x9e3779b97f4a7c15ULL ^ walker->known_key;
	known = &walker->known->rules[hash >> (64 - KNOWN_RULES_SHIFT)];
	if (known->address != address || known->key != walker->known_key) {
		if (look_up_rule(walker, address, &known->rule)) {
			known->address = 0;
			return 1;
		}
		known->address = address;
		known->key = walker->known_key;
	}
	*rule = known->rule;
	return 0;
}

/* One frame; returns 1 when the walk is over. */
static long walk_frame(u64 index, void *ctx)
{
	struct sberf_rule rule = {};
	struct walker *walker = ctx;
	struct walk *w = &walker->walk;
	u32 nr = w->nr;

	(void)index;
#if defined(__TARGET_ARCH_arm64)
	/* The 32-bit registers have other places, and there are no tables of such files. */
	if (w->is_32bit)
		return stop(w, SBERF_END_UNSUPPORTED_RULE);
#endif
	if (!use_tables || !has_maple_tree())
		frame_pointer_rule(w, SBERF_CFA_FP_CHAIN, &rule);
	else if (rule_at(walker, &rule))
		return 1;
	/* The place for an interpreter's own frames, when the function is its loop: docs/architecture.md. */
	if (leave_frame(w, &rule, &walker->scratch->window))
		return 1;
	/* What is certainly no address of code means that a register held something else. */
	if (w->ip < 4096 || w->ip >> 56)
		return stop(w, SBERF_END_BAD_FRAME_POINTER);
	/* The leaf is a frame too. */
	if (nr + 1 >= max_user_frames || nr >= SBERF_MAX_USER_FRAMES)
		return stop(w, SBERF_END_DEPTH_LIMIT);
	walker->scratch->addresses[nr] = w->ip;
	w->nr = nr + 1;
	w->hash_before = w->hash;
	w->hash = hash_step(w->hash, w->ip);
	return 0;
}

/* Walks the user stack that `regs` belong to; returns the hash of the callers. */
static __always_inline u64 user_callers(struct emitter *e, const struct user_regs *regs,
					struct stack_scratch *s, struct rule_cache *known,
					struct task_struct *task, u32 tgid)
{
	struct code_space space;
	struct walker walker = {
		.walk = {
			.window_at = ~0ULL / 2,
			.ip = regs->ip,
			.sp = regs->sp,
			.fp = regs->fp,
			.hash = 2,
			.end = SBERF_END_DEPTH_LIMIT,
			.is_32bit = regs->is_32bit,
		},
		.scratch = s,
		.known = known,
		.space = &space,
	};
	struct walk *w = &walker.walk;
	u64 hash, copy;

#if defined(__TARGET_ARCH_arm64)
	w->lr = regs->lr;
	w->address_bits = address_bits_of(task);
#endif
	code_space_init(&space, &s->mapping, task, tgid, regs->is_32bit);
	walker.known_key = space.mm ^ space.salt << 16 ^ (u64)space.generation << 40;
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop)) {
		bpf_loop(SBERF_MAX_USER_FRAMES + 1, walk_frame, &walker, 0);
	} else {
		for (int i = 0; i < MAX_UNROLLED_FRAMES; i++) {
			if (walk_frame(i, &walker))
				break;
		}
	}
	hash = send_stack(e, s, w->nr, SBERF_STACK_USER, w->end, tgid, w->hash);
	if (w->end == SBERF_END_TABLE_PENDING) {
		copy = copy_stack(e, w, task, hash);
		return copy ? copy : hash;
	}
	return hash;
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
	to->lr = from->regs[30];
	to->is_32bit = from->pstate & PSR_MODE32_BIT;
}

static __always_inline void regs_of_task(const struct pt_regs *from, struct user_regs *to)
{
	to->ip = BPF_CORE_READ(from, user_regs.pc);
	to->sp = BPF_CORE_READ(from, user_regs.sp);
	to->fp = BPF_CORE_READ(from, user_regs.regs[29]);
	to->lr = BPF_CORE_READ(from, user_regs.regs[30]);
	to->is_32bit = BPF_CORE_READ(from, user_regs.pstate) & PSR_MODE32_BIT;
}

#endif

#endif
