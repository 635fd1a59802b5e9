/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Is the current task in the chosen cgroup, or in one below it?  Works for v1 and v2 hierarchies. */
#ifndef SBERF_CGROUP_BPF_H
#define SBERF_CGROUP_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

const volatile u64 chosen_cgroup_id = 0;    /* inode of its directory; 0: every task */
const volatile s32 chosen_cgroup_subsys = -1; /* index of the v1 controller; -1: v2 */

/* Deeper than the kernel's own limit is rare: cgroup.max.depth of containers is far below. */
#define MAX_CGROUP_DEPTH 32

static __always_inline bool in_chosen_cgroup(void)
{
	struct task_struct *task;
	struct cgroup_subsys_state *css;
	struct css_set *set;

	if (!chosen_cgroup_id)
		return true;
	task = (struct task_struct *)bpf_get_current_task();
	set = BPF_CORE_READ(task, cgroups);
	if (chosen_cgroup_subsys < 0) {
		struct cgroup *cgroup = BPF_CORE_READ(set, dfl_cgrp);

		css = __builtin_preserve_access_index(&cgroup->self);
	} else {
		bpf_core_read(&css, sizeof(css), &set->subsys[chosen_cgroup_subsys]);
	}
	for (int depth = 0; depth < MAX_CGROUP_DEPTH && css; depth++) {
		if (BPF_CORE_READ(css, cgroup, kn, id) == chosen_cgroup_id)
			return true;
		css = BPF_CORE_READ(css, parent);
	}
	return false;
}

#endif
