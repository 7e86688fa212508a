// SPDX-License-Identifier: Apache-2.0

/*
 * The few types of the kernel that the programs read, with only the members
 * that they use. Offsets are not those of any kernel: preserve_access_index
 * makes the loader put in those of the running one (CO-RE). A name after ___
 * is another form of the same type.
 */
#ifndef CORONER_KERNEL_H
#define CORONER_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
/* Named, but not used, by the declarations of the helpers. */
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;

#define true 1
#define false 0

/* include/uapi/linux/bpf.h */
enum {
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};
enum { BPF_ANY = 0, BPF_NOEXIST = 1 };
enum { BPF_RB_AVAIL_DATA = 0 }; /* bpf_ringbuf_query: what was not read yet */

struct bpf_raw_tracepoint_args {
	__u64 args[0];
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	long counter;
} atomic_long_t;

struct kernfs_node {
	const char *name;
	__u64 id;
};

/* to 6.14 */
struct kernfs_node___parent {
	struct kernfs_node *parent;
};

/* since 6.15 */
struct kernfs_node___rcu {
	struct kernfs_node *__parent;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct css_set {
	struct cgroup_subsys_state *subsys[1];
};

struct page_counter {
	atomic_long_t usage;
	unsigned long max;
};

struct mem_cgroup {
	struct cgroup_subsys_state css;
	struct page_counter memory;
	bool oom_group;
};

/* Only its being there is asked: it went in 6.2. */
struct mm_rss_stat {
	atomic_long_t count[4];
};

struct percpu_counter {
	__s64 count;
};

struct mm_struct {
	unsigned long total_vm;
	atomic_long_t pgtables_bytes;
};

/* to 6.1 */
struct mm_struct___atomic {
	struct mm_rss_stat rss_stat;
};

/* since 6.2 */
struct mm_struct___percpu {
	struct percpu_counter rss_stat[4];
};

struct ns_common {
	unsigned int inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct signal_struct {
	atomic_t live;
	int group_exit_code;
	unsigned int flags;
	struct pid *pids[4];
	short oom_score_adj;
	struct mm_struct *oom_mm;
};

typedef struct {
	unsigned int val;
} kuid_t;

struct cred {
	kuid_t uid;
};

struct task_struct {
	unsigned int flags;
	struct mm_struct *mm;
	int exit_code;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	__u64 start_time;
	const struct cred *real_cred;
	char comm[16];
	struct signal_struct *signal;
	struct css_set *cgroups;
};

struct kernel_siginfo {
	int si_code;
};

/* The loader wants the kind of a member to be the kernel's. */
enum oom_constraint {
	CONSTRAINT_NONE,
};

struct oom_control {
	struct mem_cgroup *memcg;
	struct task_struct *chosen;
	enum oom_constraint constraint;
};

/* The value is the running kernel's, too. */
enum cgroup_subsys_id {
	memory_cgrp_id,
};

#pragma clang attribute pop

#endif
