/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ring buffers, sequence numbers and loss counters. */
#ifndef SBERF_EMIT_BPF_H
#define SBERF_EMIT_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "event.h"

const volatile u32 cpus_per_ring = 1;
const volatile u64 wake_at_bytes = 1 << 20;

/* The fill level is looked at once in so many records: reading it touches a shared cache line. */
#define RECORDS_PER_FILL_CHECK 64

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* a template: the loader makes the real ones */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1); /* resized by the loader */
	__type(key, u32);
	__array(values, struct ring);
} rings SEC(".maps");

struct cpu_state {
	u64 dropped; /* records that found no room */
	u32 seq;
	u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cpu_state);
} cpu_states SEC(".maps");

struct emitter {
	void *ring;
	struct cpu_state *state;
	u32 cpu;
};

static __always_inline bool emitter_init(struct emitter *e)
{
	u32 zero = 0, index;

	e->cpu = bpf_get_smp_processor_id();
	index = e->cpu / cpus_per_ring;
	e->ring = bpf_map_lookup_elem(&rings, &index);
	e->state = bpf_map_lookup_elem(&cpu_states, &zero);
	return e->ring && e->state;
}

static __always_inline void record_init(struct emitter *e, struct sberf_record *rec, u8 type, u8 source)
{
	rec->type = type;
	rec->source = source;
	rec->cpu = e->cpu;
	/* Atomic: an interrupt's program may run between the load and the store. */
	rec->seq = __sync_fetch_and_add(&e->state->seq, 1);
}

static __always_inline u64 wake_flags(struct emitter *e, u32 seq)
{
	if (seq % RECORDS_PER_FILL_CHECK)
		return BPF_RB_NO_WAKEUP;
	if (bpf_ringbuf_query(e->ring, BPF_RB_AVAIL_DATA) < wake_at_bytes)
		return BPF_RB_NO_WAKEUP;
	return BPF_RB_FORCE_WAKEUP;
}

static __always_inline void count_drop(struct emitter *e)
{
	__sync_fetch_and_add(&e->state->seq, 1);
	__sync_fetch_and_add(&e->state->dropped, 1);
}

/* For records of a size known only at run time; false when there was no room. */
static __always_inline bool emit_copy(struct emitter *e, struct sberf_record *rec, u64 size, u64 flags)
{
	if (!bpf_ringbuf_output(e->ring, rec, size, flags))
		return true;
	__sync_fetch_and_add(&e->state->dropped, 1);
	return false;
}

#endif
