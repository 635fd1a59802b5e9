/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Finds the rule for an address in its file's unwind table.  Layout: tables.h. */
#ifndef SBERF_TABLE_BPF_H
#define SBERF_TABLE_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "mapping.bpf.h"
#include "tables.h"

/* Rows of a KiB of code are at most 255. */
#define SEARCH_STEPS 8

/* The words of all tables.  User space writes them through its own mapping. */
struct chunk {
	u32 words[SBERF_CHUNK_WORDS];
};

struct chunk_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(key_size, sizeof(u32));
	__uint(value_size, sizeof(struct chunk));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SBERF_MAX_CHUNKS);
	__type(key, u32);
	__array(values, struct chunk_map);
} chunks SEC(".maps");

/* All tables share their rules. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SBERF_MAX_RULES);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, struct sberf_rule);
} rules SEC(".maps");

static __always_inline u32 *chunk_words(u32 word)
{
	u32 index = word >> SBERF_CHUNK_SHIFT, zero = 0;
	void *map = bpf_map_lookup_elem(&chunks, &index);
	struct chunk *chunk = map ? bpf_map_lookup_elem(map, &zero) : NULL;

	return chunk ? chunk->words : NULL;
}

/* The number of the rule at `in_page` in the page whose index is `word`.  By itself for the verifier's sake. */
__noinline u32 find_row(u32 word, u32 in_page)
{
	u32 *words = chunk_words(word), entry, at, count, half, middle;

	if (!words)
		return 0;
	entry = words[word & (SBERF_CHUNK_WORDS - 1)];
	at = entry >> 8;
	count = entry & 0xff;
	words = chunk_words(at);
	if (!words)
		return 0;
	for (int i = 0; i < SEARCH_STEPS && count > 1; i++) {
		half = count / 2;
		middle = (at + half) & (SBERF_CHUNK_WORDS - 1);
		if (words[middle] >> 22 <= in_page) {
			at += half;
			count -= half;
		} else {
			count = half;
		}
	}
	return words[at & (SBERF_CHUNK_WORDS - 1)] & 0x3fffff;
}

/* The rule for an address in `m`, which has a table; NULL when there is none. */
static __always_inline struct sberf_rule *find_rule(const struct code_mapping *m, u64 address)
{
	u64 offset = address + m->bias;
	u64 page = (offset >> SBERF_TABLE_PAGE_SHIFT) - m->first_page;
	u32 rule;

	if (page >= m->pages)
		return NULL;
	rule = find_row(m->index + page, offset & ((1 << SBERF_TABLE_PAGE_SHIFT) - 1));
	return bpf_map_lookup_elem(&rules, &rule);
}

#endif
