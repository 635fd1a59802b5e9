/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which file an address of the current process belongs to, read from the kernel's own mappings: right from a
 * process's first instruction on, and without anything to keep up to date for each process.
 *
 * The mappings lie in a maple tree (kernel 6.1 and later), whose nodes are freed by RCU and that is read here
 * without its lock.  A reader that races with a change may find nothing or a mapping that has just gone; what
 * was found is checked to hold the address.
 */
#ifndef SBERF_MAPPING_BPF_H
#define SBERF_MAPPING_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "event.h"
#include "emit.bpf.h"
#include "tables.h"

#define VM_EXEC 0x4
#define E2BIG 7

/* arm64 has pages of 4, 16 or 64 KiB. */
const volatile u32 page_shift = 12;

#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))

/* include/linux/maple_tree.h: a node's address has its type in bits 3 to 6. */
#define MAPLE_NODE_MASK 0xffULL
#define MAPLE_TYPE_SHIFT 3
#define MAPLE_TYPE_MASK 0xf
#define MAPLE_LEAF_64 1
#define MAPLE_ARANGE_64 3
#define MAPLE_RANGE64_PIVOTS 15
#define MAPLE_ARANGE64_PIVOTS 9
/* 16 mappings in a leaf, 10 nodes in each node above: a process has at most 65530 mappings by default. */
#define MAPLE_MAX_LEVELS 8

#define CODE_MAPPINGS 256
#define CODE_MAPPINGS_SHIFT 8
/* Mappings are remembered by the 64 KiB in which an address lies. */
#define CODE_GRANULE_SHIFT 16

/* Counts the changes of `files`: what was remembered before the last one is looked up again. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} files_generation SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SBERF_MAX_FILES);
	__type(key, struct sberf_file_key);
	__type(value, struct sberf_file);
} files SEC(".maps");

/* A mapping of code that was looked up before.  64 bytes. */
struct code_mapping {
	u64 mm;
	u64 salt; /* tells a reused mm from the one before */
	u64 start;
	u64 end;
	u64 bias; /* file offset = address + bias */
	u32 generation;
	u32 state; /* enum sberf_file_state */
	u32 index;
	u32 first_page;
	u32 pages;
	u32 unused;
};

/* The first part of a node. */
struct maple_pivots {
	u64 pivot[MAPLE_RANGE64_PIVOTS];
};

struct mapping_scratch {
	u64 mm;
	struct maple_pivots pivots;
	struct code_mapping mappings[CODE_MAPPINGS];
};

/* Whose addresses are looked up.  Numbers alone: functions that are verified by themselves take it. */
struct code_space {
	u64 mm;
	u64 salt;
	u32 generation;
	u32 tgid;
	u32 is_32bit;
	u32 unused;
};

static __always_inline void code_space_init(struct code_space *space, struct mapping_scratch *scratch,
					    struct task_struct *task, u32 tgid, bool is_32bit)
{
	u32 zero = 0, *generation = bpf_map_lookup_elem(&files_generation, &zero);
	struct mm_struct *mm = task->mm;

	/* Read back from memory it is a number, with which one may count; the verifier's pointers are not. */
	WRITE_ONCE(scratch->mm, (u64)mm);
	space->mm = READ_ONCE(scratch->mm);
	/* The stack's begin is random for each program that is run; more code means a new mapping. */
	space->salt = mm ? mm->start_stack ^ mm->exec_vm << 48 : 0;
	space->generation = generation ? *generation : 0;
	space->tgid = tgid;
	space->is_32bit = is_32bit;
	space->unused = 0;
}

/* 1 when a < b, for numbers below 1 << 63. */
static __always_inline u64 is_less(u64 a, u64 b)
{
	u64 difference = a - b;

	barrier_var(difference); /* keeps the compiler from making a branch of it */
	return difference >> 63;
}

/*
 * How many pivots lie below `address`: the number of its slot.  Without branches, whose combinations the
 * verifier would all follow.  A pivot of 0 is one that is not used: the slot before it reaches to the end.
 */
static __always_inline u64 slot_of(const struct maple_pivots *pivots, u32 count, u64 address)
{
	u64 slot = 0, below = 1, pivot;

	for (u32 i = 0; i < MAPLE_RANGE64_PIVOTS; i++) {
		pivot = pivots->pivot[i] & ~(1ULL << 63); /* the last one is all ones */
		below &= is_less(pivot, address) & is_less(i, count) & (i ? is_less(0, pivot) : 1);
		slot += below;
	}
	return slot;
}

/* Kernels before 6.1 keep mappings in a red-black tree. */
static __always_inline bool has_maple_tree(void)
{
	return bpf_core_field_exists(struct mm_struct, mm_mt);
}

/* The mapping that may hold `address`, 0 when there is none.  A function of its own for the verifier's sake. */
__noinline u64 find_vma(u64 mm, u64 address, struct maple_pivots *pivots)
{
	u64 entry, node, pivot_at, slot_at;
	u32 type, count;

	if (!has_maple_tree())
		return 0;
	entry = (u64)BPF_CORE_READ((struct mm_struct *)mm, mm_mt.ma_root);
	/* The root alone is marked as a node; it may also be the only entry. */
	if (!pivots || (entry & 3) != 2)
		return 0;
	for (int level = 0; level < MAPLE_MAX_LEVELS; level++) {
		if (entry <= 4096)
			return 0; /* nothing is mapped */
		type = entry >> MAPLE_TYPE_SHIFT & MAPLE_TYPE_MASK;
		node = entry & ~MAPLE_NODE_MASK;
		if (type == MAPLE_ARANGE_64) {
			count = MAPLE_ARANGE64_PIVOTS;
			pivot_at = node + bpf_core_field_offset(struct maple_arange_64, pivot);
			slot_at = node + bpf_core_field_offset(struct maple_arange_64, slot);
		} else {
			count = MAPLE_RANGE64_PIVOTS;
			pivot_at = node + bpf_core_field_offset(struct maple_range_64, pivot);
			slot_at = node + bpf_core_field_offset(struct maple_range_64, slot);
		}
		if (bpf_probe_read_kernel(pivots, sizeof(*pivots), (void *)pivot_at))
			return 0;
		slot_at += 8 * slot_of(pivots, count, address);
		if (bpf_probe_read_kernel(&entry, sizeof(entry), (void *)slot_at))
			return 0;
		if (type <= MAPLE_LEAF_64)
			return entry;
	}
	return 0;
}

/* Asks user space for a table, once; the file is mapped in the current process.  Returns the file's state. */
static __always_inline u32 want_file(struct code_space *space, const struct sberf_file_key *key,
				     const struct code_mapping *m)
{
	struct sberf_file pending = { .state = SBERF_TABLE_PENDING };
	struct sberf_wanted *wanted;
	struct emitter e;
	long error;

	if (!emitter_init(&e))
		return SBERF_TABLE_PENDING;
	error = bpf_map_update_elem(&files, key, &pending, BPF_NOEXIST);
	if (error) /* there are too many files, or somebody else was faster, or just now has the map's lock */
		return error == -E2BIG ? SBERF_TABLE_REFUSED : SBERF_TABLE_PENDING;
	wanted = bpf_ringbuf_reserve(e.ring, sizeof(*wanted), 0);
	if (!wanted) {
		bpf_map_delete_elem(&files, key);
		count_drop(&e);
		return SBERF_TABLE_PENDING;
	}
	record_init(&e, &wanted->rec, SBERF_WANTED, 0);
	wanted->inode = key->inode;
	wanted->device = key->device;
	wanted->kind = key->kind;
	wanted->start = m->start;
	wanted->end = m->end;
	wanted->tgid = space->tgid;
	wanted->unused = 0;
	bpf_ringbuf_submit(wanted, BPF_RB_FORCE_WAKEUP);
	return SBERF_TABLE_PENDING;
}

static __always_inline bool file_key_of(struct mm_struct *mm, struct vm_area_struct *vma, u64 start,
					bool is_32bit, struct sberf_file_key *key)
{
	struct file *file = BPF_CORE_READ(vma, vm_file);
	struct inode *inode;

	if (file) {
		inode = BPF_CORE_READ(file, f_inode);
		key->inode = BPF_CORE_READ(inode, i_ino);
		key->device = BPF_CORE_READ(inode, i_sb, s_dev);
		key->kind = SBERF_FILE_ON_DISK;
		return true;
	}
	if ((u64)BPF_CORE_READ(mm, context.vdso) == start) {
		key->inode = is_32bit;
		key->device = 0;
		key->kind = SBERF_FILE_VDSO;
		return true;
	}
	return false;
}

/* Fills `m` with the mapping of code at `address`; 0 when there is none.  By itself for the verifier's sake. */
__noinline int look_up_mapping(struct code_space *space, struct code_mapping *m, struct maple_pivots *pivots,
			       u64 address)
{
	struct sberf_file_key key = {};
	struct vm_area_struct *vma;
	struct sberf_file *file;
	struct mm_struct *mm;

	if (!space || !m || !pivots)
		return 0;
	m->mm = 0;
	mm = (struct mm_struct *)space->mm;
	vma = (struct vm_area_struct *)find_vma(space->mm, address, pivots);
	if (!vma)
		return 0;
	m->start = BPF_CORE_READ(vma, vm_start);
	m->end = BPF_CORE_READ(vma, vm_end);
	if (address < m->start || address >= m->end || !(BPF_CORE_READ(vma, vm_flags) & VM_EXEC))
		return 0;
	m->generation = space->generation;
	m->bias = (BPF_CORE_READ(vma, vm_pgoff) << page_shift) - m->start;
	m->state = SBERF_TABLE_NONE; /* what was generated has no table */
	if (file_key_of(mm, vma, m->start, space->is_32bit, &key)) {
		if (key.kind == SBERF_FILE_VDSO)
			m->bias = -m->start;
		file = bpf_map_lookup_elem(&files, &key);
		if (file) {
			file->used_ns = bpf_ktime_get_ns();
			m->state = file->state;
			m->index = file->index;
			m->first_page = file->first_page;
			m->pages = file->pages;
		} else {
			m->state = want_file(space, &key, m);
		}
	}
	m->salt = space->salt;
	m->mm = space->mm;
	return 1;
}

/* The mapping of code at `address`; NULL when no code is there. */
static __always_inline struct code_mapping *code_mapping_of(struct code_space *space,
							    struct mapping_scratch *scratch, u64 address)
{
	u64 hash = ((address >> CODE_GRANULE_SHIFT) ^ (space->mm >> 6)) * 0x9e3779b97f4a7c15ULL;
	struct code_mapping *m = &scratch->mappings[hash >> (64 - CODE_MAPPINGS_SHIFT)];

	if (m->mm == space->mm && m->salt == space->salt && m->generation == space->generation &&
	    m->start <= address && address < m->end)
		return m;
	return look_up_mapping(space, m, &scratch->pivots, address) ? m : NULL;
}

#endif
