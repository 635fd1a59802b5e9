/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Is the current task in one of the chosen cgroups, or below it?  Works for v1 and v2 hierarchies. */
#ifndef SBERF_CGROUP_BPF_H
#define SBERF_CGROUP_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/* Deeper than the kernel's own limit is rare: cgroup.max.depth of containers is far below. */
#define MAX_CGROUP_DEPTH 32
#define MAX_HIERARCHIES 4
#define MAX_CHOSEN_CGROUPS 256

struct cgroup_key {
	u64 id;     /* inode of its directory; each hierarchy counts for itself */
	s32 subsys; /* index of the v1 controller; -1: v2 */
	u32 unused;
};

const volatile u32 chosen_hierarchies = 0; /* 0: every task is wanted */
const volatile s32 hierarchies[MAX_HIERARCHIES] = {}; /* their subsys */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CHOSEN_CGROUPS);
	__type(key, struct cgroup_key);
	__type(value, u8);
} chosen_cgroups SEC(".maps");

static __always_inline struct cgroup_subsys_state *cgroup_state(struct css_set *set, s32 subsys)
{
	struct cgroup_subsys_state *css;
	struct cgroup *cgroup;

	if (subsys >= 0) {
		bpf_core_read(&css, sizeof(css), &set->subsys[subsys]);
		return css;
	}
	cgroup = BPF_CORE_READ(set, dfl_cgrp);
	return __builtin_preserve_access_index(&cgroup->self);
}

static __always_inline bool in_chosen_cgroup(void)
{
	struct task_struct *task;
	struct css_set *set;

	if (!chosen_hierarchies)
		return true;
	task = (struct task_struct *)bpf_get_current_task();
	set = BPF_CORE_READ(task, cgroups);
	for (u32 i = 0; i < MAX_HIERARCHIES && i < chosen_hierarchies; i++) {
		struct cgroup_key key = { .subsys = hierarchies[i] };
		struct cgroup_subsys_state *css = cgroup_state(set, key.subsys);

		for (int depth = 0; depth < MAX_CGROUP_DEPTH && css; depth++) {
			key.id = BPF_CORE_READ(css, cgroup, kn, id);
			if (bpf_map_lookup_elem(&chosen_cgroups, &key))
				return true;
			css = BPF_CORE_READ(css, parent);
		}
	}
	return false;
}

#endif
