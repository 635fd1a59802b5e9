/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The state of a walk over a user stack, and how it reads that stack. */
#ifndef SBERF_WALK_BPF_H
#define SBERF_WALK_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "stack.bpf.h"

/* Where a walk is.  Numbers alone: functions that are verified by themselves take it. */
struct walk {
	u64 window_at; /* the address of the window */
	u64 ip, sp, fp;
#if defined(__TARGET_ARCH_arm64)
	u64 lr; /* known as long as !is_return */
	u8 address_bits;
#else
	u64 bx_at; /* where rbx was saved last; 0: it is still in its register */
#endif
	u64 hash;
	u64 hash_before; /* without the last address */
	u32 nr;
	u8 end;
	u8 is_32bit;
	u8 is_return; /* ip is where a call returns to: the code that called is before it */
};

static __always_inline u64 word_len(const struct walk *w)
{
	return w->is_32bit ? 4 : 8;
}

/*
 * The number of the word at `address` in the window, which is moved there if need be; WINDOW_WORDS: it cannot
 * be read.
 */
static __always_inline u64 in_window(struct walk *w, struct window *window, u64 address, u32 words)
{
	u64 index = (address - w->window_at) / 8;

	if (address % 8)
		return WINDOW_WORDS;
	if (index <= WINDOW_WORDS - words)
		return index;
	w->window_at = address;
	if (!bpf_probe_read_user(window, sizeof(*window), (void *)address))
		return 0;
	w->window_at = ~0ULL / 2;
	return WINDOW_WORDS;
}

static __always_inline bool read_word(struct walk *w, struct window *window, u64 address, u64 *value)
{
	u32 value32;
	u64 index;

	if (!w->is_32bit) {
		index = in_window(w, window, address, 1);
		if (index >= WINDOW_WORDS)
			return !bpf_probe_read_user(value, sizeof(*value), (void *)address);
		barrier_var(index); /* what the compiler knows of it, the verifier does not */
		*value = window->words[index & (WINDOW_WORDS - 1)];
		return true;
	}
	if (bpf_probe_read_user(&value32, sizeof(value32), (void *)address))
		return false;
	*value = value32;
	return true;
}

/* Two words that follow one another. */
static __always_inline bool read_pair(struct walk *w, struct window *window, u64 address, u64 *pair)
{
	u32 pair32[2];
	u64 index;

	if (!w->is_32bit) {
		index = in_window(w, window, address, 2);
		if (index >= WINDOW_WORDS - 1)
			return !bpf_probe_read_user(pair, 2 * sizeof(*pair), (void *)address);
		barrier_var(index);
		pair[0] = window->words[index & (WINDOW_WORDS - 1)];
		pair[1] = window->words[(index + 1) & (WINDOW_WORDS - 1)];
		return true;
	}
	if (bpf_probe_read_user(pair32, sizeof(pair32), (void *)address))
		return false;
	pair[0] = pair32[0];
	pair[1] = pair32[1];
	return true;
}

#endif
