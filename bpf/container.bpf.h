/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where a task is: its namespaces and its cgroups.  User space makes containers of that, after a
 * container of a few milliseconds has gone with all that /proc said of it.
 */
#ifndef SBERF_CONTAINER_BPF_H
#define SBERF_CONTAINER_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "event.h"
#include "emit.bpf.h"
#include "hash.bpf.h"

/* CGROUP_SUBSYS_COUNT is 14 in Linux 6.18. */
#define MAX_SUBSYSTEMS 16
#define MAX_CGROUP_LEVELS 16
#define MAX_CGROUP_NAME 256

struct container {
	u64 key; /* the same for tasks with the same namespaces and the same cgroups */
	u32 mount_ns;
	u32 pid_ns;
	s32 pid; /* of the task, in its own PID namespace */
};

struct cgroup_scratch {
	struct sberf_cgroup head;
	char path[SBERF_MAX_CGROUP_PATH + MAX_CGROUP_NAME];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cgroup_scratch);
} cgroup_scratch SEC(".maps");

/* Keys whose cgroups were told. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, u8);
} known_containers SEC(".maps");

static __always_inline u32 subsystems(struct css_set *set)
{
	return bpf_core_field_size(set->subsys) / sizeof(void *);
}

/* The numbers of namespaces are given again, those of cgroups are not. */
static __always_inline struct container container_of_task(struct task_struct *task)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	u32 level = BPF_CORE_READ(pid, level);
	struct cgroup_subsys_state *css;
	struct pid_namespace *pid_ns;
	struct container where = {};

	bpf_core_read(&where.pid, sizeof(where.pid), &pid->numbers[level].nr);
	bpf_core_read(&pid_ns, sizeof(pid_ns), &pid->numbers[level].ns);
	where.pid_ns = BPF_CORE_READ(pid_ns, ns.inum);
	where.mount_ns = BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
	where.key = hash_step((u64)where.mount_ns << 32 | where.pid_ns, BPF_CORE_READ(set, dfl_cgrp, kn, id));
	for (u32 i = 0; i < MAX_SUBSYSTEMS && i < subsystems(set); i++) {
		bpf_core_read(&css, sizeof(css), &set->subsys[i]);
		where.key = hash_step(where.key, BPF_CORE_READ(css, cgroup, kn, id));
	}
	return where;
}

static __always_inline bool is_new_container(u64 key)
{
	u8 known = 1;

	if (bpf_map_lookup_elem(&known_containers, &key))
		return false;
	bpf_map_update_elem(&known_containers, &key, &known, BPF_ANY);
	return true;
}

/* Not static: the verifier looks at it once, and not at each call again. */
__noinline u32 read_cgroup_path(u64 innermost)
{
	struct cgroup_subsys_state *css = (void *)innermost, *parent;
	struct cgroup_scratch *s;
	u32 zero = 0, len = 0;

	s = bpf_map_lookup_elem(&cgroup_scratch, &zero);
	if (!s)
		return 0;
	for (int level = 0; level < MAX_CGROUP_LEVELS; level++) {
		long size;

		parent = BPF_CORE_READ(css, parent);
		if (!parent || len >= SBERF_MAX_CGROUP_PATH)
			break;
		size = bpf_probe_read_kernel_str(&s->path[len & (SBERF_MAX_CGROUP_PATH - 1)], MAX_CGROUP_NAME,
						 BPF_CORE_READ(css, cgroup, kn, name));
		if (size <= 0)
			break;
		len += size;
		css = parent;
	}
	return len;
}

static __always_inline void emit_cgroup(struct emitter *e, struct cgroup_scratch *s,
					const struct container *where, struct cgroup_subsys_state *css)
{
	u32 len = read_cgroup_path((u64)css);

	if (len > SBERF_MAX_CGROUP_PATH + MAX_CGROUP_NAME - 8)
		len = SBERF_MAX_CGROUP_PATH + MAX_CGROUP_NAME - 8;
	record_init(e, &s->head.rec, SBERF_CGROUP, 0);
	s->head.container_key = where->key;
	s->head.mount_ns = where->mount_ns;
	s->head.pid_ns = where->pid_ns;
	s->head.len = len;
	emit_copy(e, &s->head.rec, sizeof(s->head) + (len + 7) / 8 * 8, BPF_RB_NO_WAKEUP);
}

static __always_inline void emit_cgroups(struct emitter *e, struct task_struct *task,
					 const struct container *where)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup *v2 = BPF_CORE_READ(set, dfl_cgrp);
	void *v2_root = BPF_CORE_READ(v2, root);
	struct cgroup_subsys_state *css;
	struct cgroup_scratch *s;
	u32 zero = 0;

	s = bpf_map_lookup_elem(&cgroup_scratch, &zero);
	if (!s)
		return;
	s->head.controller[0] = 0;
	emit_cgroup(e, s, where, __builtin_preserve_access_index(&v2->self));
	for (u32 i = 0; i < MAX_SUBSYSTEMS && i < subsystems(set); i++) {
		bpf_core_read(&css, sizeof(css), &set->subsys[i]);
		if (!BPF_CORE_READ(css, parent) || BPF_CORE_READ(css, cgroup, root) == v2_root)
			continue;
		bpf_probe_read_kernel_str(s->head.controller, sizeof(s->head.controller),
					  BPF_CORE_READ(css, ss, legacy_name));
		emit_cgroup(e, s, where, css);
	}
}

#endif
