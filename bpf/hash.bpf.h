/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The hash of a sequence of words, one at a time. */
#ifndef SBERF_HASH_BPF_H
#define SBERF_HASH_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

static __always_inline u64 hash_step(u64 hash, u64 word)
{
	/* Each step is a bijection of the hash: sequences that differ in one word never collide. */
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ (hash >> 29);
}

#endif
