// SPDX-License-Identifier: Apache-2.0

/*
 * Programs that tell of OOM kills, and of signals that end processes. Linux 5.10
 * and later.
 *
 * All programs write to one ring, so that the order of the records is that of
 * the events: the SIGKILL of an OOM victim stands before its mark. What names
 * a cgroup by id is preceded by a record with the path of that cgroup, unless
 * it was sent lately: a cgroup that is removed right after the kill still has
 * a name. The form of the records is known to records.go as well.
 *
 * Anybody may send signals, as many as he likes. What says nothing makes no
 * record: a SIGKILL of a process for one that is dying already or does not mind,
 * and any other signal but those that can end the first process of a container
 * and reach it, or the SIGTERM of a program that frees memory before the kernel
 * must. Of the others' SIGKILLs each process that dies makes one; of the
 * other signals so many a second are told (struct beat). Both have the first half
 * of the ring: the OOM killer's records find room however many they are.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define SIGKILL 9
#define SIGTERM 15
/*
 * By the numbers of include/uapi/asm-generic/signal.h, which all machines have
 * that these programs are for. ENDING are the signals whose default action ends
 * a process, but SIGKILL: HUP to FPE, USR1 to STKFLT, XCPU to PROF, IO to SYS.
 * FAULTS are those that the kernel forces on a task for what it did.
 */
#define SIGNALS(from, to) ((2U << (to)) - (1U << (from)))
#define ENDING (SIGNALS(1, 8) | SIGNALS(10, 16) | SIGNALS(24, 27) | SIGNALS(29, 31))
#define FAULTS (SIGNALS(4, 5) | SIGNALS(7, 8) | SIGNALS(11, 11) | SIGNALS(31, 31))
#define SI_KERNEL 0x80 /* include/uapi/asm-generic/siginfo.h */
#define SEND_SIG_PRIV 1 /* a siginfo pointer with a meaning: from the kernel */
#define SIGNAL_GROUP_EXIT 4 /* include/linux/sched/signal.h */
#define SIGNAL_UNKILLABLE 0x40 /* the first process of a pid namespace */
#define PIDTYPE_TGID 1
#define PF_EXITING 0x4 /* include/linux/sched.h */
#define DELIVERED 0 /* TRACE_SIGNAL_DELIVERED, include/trace/events/signal.h */
#define IGNORED 1 /* TRACE_SIGNAL_IGNORED */
#define LOSE_INFO 4 /* TRACE_SIGNAL_LOSE_INFO: delivered as well */
#define RING_SIZE (1 << 20)
#define MAX_LEVELS 16
#define NAME_SIZE 256 /* NAME_MAX and the zero */
#define PATH_SIZE (MAX_LEVELS * NAME_SIZE)
#define RESEND_NS 60000000000ULL /* a v1 cgroup can be renamed: send its path again */
#define ABSENT_ADJ (-32768)
#define ABSENT ((__s64)(1ULL << 63))

enum kind { KIND_KILL = 1, KIND_MARK, KIND_EXIT, KIND_INVOCATION, KIND_PATH, KINDS };

/* What is counted apart when it is lost: it is no evidence of an OOM kill. */
enum loss { LOSS_OTHER_KILL = KINDS, LOSS_OTHER_EXIT, LOSS_REPEAT, LOSS_OWN_REPEAT, LOSSES };

struct header {
	__u64 boot_ns;
	__u32 kind;
	__u32 pad;
};

struct task {
	__u64 cgroup;
	__u64 mm;
	__u32 tgid, tid; /* tgid 0: only the thread's id is known */
	__u32 uid;
	__u32 pidns;
	__u16 level; /* of the process's own pid namespace, under the initial one */
	__u16 parent; /* enum place */
	__u32 nr; /* of the process in its own pid namespace; 0: not known */
	char comm[16];
};

/* Where the process's parent lives. */
enum place { PLACE_UNKNOWN, PLACE_SAME_CGROUP, PLACE_OTHER_CGROUP };

struct kill {
	struct header h;
	struct task target, sender;
	__s32 code;
	__u16 result, sig;
};

struct level {
	__u64 id, usage, max; /* pages */
	__u64 flags;
};
enum { LEVEL_OOM_GROUP = 1, LEVEL_ROOT = 2 };

struct mark {
	struct header h;
	struct task victim, trigger;
	__s64 total_vm, file, anon, shmem; /* pages, or ABSENT */
	__s64 pgtables; /* bytes, or ABSENT */
	__s32 oom_score_adj;
	__u32 levels;
	struct level chain[MAX_LEVELS]; /* only the first levels of them are sent */
};

struct exit {
	struct header h;
	struct task task;
	__u32 status; /* as wait(2) gives it */
	__u32 pad;
};

struct invocation {
	struct header h;
	struct task chosen, trigger;
	__u64 memcg; /* 0: none */
	__u32 constraint;
	__u32 pad;
};

struct path {
	struct header h;
	__u64 id;
	__u32 names, size; /* size: bytes of text used */
	__u32 cut, pad; /* cut: deeper than MAX_LEVELS */
	char text[PATH_SIZE + NAME_SIZE]; /* zero-ended names, innermost first */
};

struct process {
	__u64 start;
	__u32 tgid, pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_SIZE);
} ring SEC(".maps");

/* Records that the ring had no room for, by kind and enum loss. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LOSSES);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

/* Cgroups whose path was sent, and when. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u64);
} sent SEC(".maps");

/* Processes (tgid) whose end is worth a record. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u8);
} doomed SEC(".maps");

/* Processes whose end was told: two last threads can both see no one left. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct process);
	__type(value, __u8);
} ended SEC(".maps");

/*
 * What a first process got of one signal, by who sent it: an outsider's signal is
 * told however many the process and its children send, who may be hiding it.
 */
enum who { WHO_OUTSIDE, WHO_INSIDE, WHO_ITSELF, WHO_KERNEL, WHO_FAULT, WHO_OOM_DAEMON };

struct beat {
	struct process target;
	__u32 sig, who;
};

struct told {
	__u64 since;
	__u32 times;
	__u32 parent; /* enum place, as of since */
};

#define BEAT_NS 1000000000ULL
#define BEAT_MOST 4 /* told of one beat in BEAT_NS */

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 2048);
	__type(key, struct beat);
	__type(value, struct told);
} beats SEC(".maps");

/* The task that this thread is killing: old kernels mark a mere id. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u64);
} killing SEC(".maps");

/*
 * Room to build records whose size varies: one for each program, because one
 * program can interrupt another on the same CPU, but not itself.
 */
union room {
	struct path path;
	struct mark mark;
};
enum { ROOM_SIGNAL, ROOM_MARK, ROOM_EXIT, ROOM_INVOCATION, ROOMS };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ROOMS);
	__type(key, __u32);
	__type(value, union room);
} rooms SEC(".maps");

static __always_inline void count_lost(__u32 kind)
{
	__u64 *n = bpf_map_lookup_elem(&lost, &kind);

	if (n)
		__sync_fetch_and_add(n, 1);
}

/* crowded tells that the ring has no room for what is not the OOM killer's. */
static __always_inline bool crowded(void)
{
	return bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > RING_SIZE / 2;
}

static __always_inline void fill_header(struct header *h, __u32 kind)
{
	h->boot_ns = bpf_ktime_get_boot_ns();
	h->kind = kind;
	h->pad = 0;
}

static __always_inline struct cgroup_subsys_state *memory_css(struct task_struct *t)
{
	struct cgroup_subsys_state *css = 0;
	struct css_set *set;

	if (!bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		return 0;
	set = BPF_CORE_READ(t, cgroups);
	if (!set)
		return 0;
	bpf_probe_read_kernel(&css, sizeof(css),
			      (void *)set + bpf_core_field_offset(struct css_set, subsys) +
				      sizeof(css) * bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id));
	return css;
}

static __always_inline __u64 css_id(struct cgroup_subsys_state *css)
{
	return css ? BPF_CORE_READ(css, cgroup, kn, id) : 0;
}

static __always_inline struct kernfs_node *parent_of(struct kernfs_node *kn)
{
	if (bpf_core_field_exists(struct kernfs_node___rcu, __parent))
		return BPF_CORE_READ((struct kernfs_node___rcu *)kn, __parent);
	return BPF_CORE_READ((struct kernfs_node___parent *)kn, parent);
}

/* send_path tells the path of a cgroup, unless it did so lately. */
static __always_inline void send_path(struct cgroup_subsys_state *css, __u32 room)
{
	struct kernfs_node *kn, *up;
	__u64 id, now, *last;
	union room *r;
	struct path *p;
	__u32 size = 0, names = 0;

	if (!css)
		return;
	kn = BPF_CORE_READ(css, cgroup, kn);
	if (!kn)
		return;
	id = BPF_CORE_READ(kn, id);
	now = bpf_ktime_get_boot_ns();
	last = bpf_map_lookup_elem(&sent, &id);
	if (last && now - *last < RESEND_NS)
		return;
	r = bpf_map_lookup_elem(&rooms, &room);
	if (!r)
		return;
	p = &r->path;
	up = parent_of(kn);
	for (int i = 0; i < MAX_LEVELS && up; i++) {
		long n = bpf_probe_read_kernel_str(&p->text[size & (PATH_SIZE - 1)], NAME_SIZE, BPF_CORE_READ(kn, name));

		if (n <= 0)
			return;
		size += n;
		names++;
		kn = up;
		up = parent_of(kn);
	}
	fill_header(&p->h, KIND_PATH);
	p->id = id;
	p->names = names;
	p->size = size;
	p->cut = up != 0;
	p->pad = 0;
	if (size > PATH_SIZE)
		return;
	if (bpf_ringbuf_output(&ring, p, __builtin_offsetof(struct path, text) + size, 0)) {
		count_lost(KIND_PATH);
		return;
	}
	bpf_map_update_elem(&sent, &id, &now, BPF_ANY);
}

/*
 * parent_place tells a container's first process, whose parent is the runtime's
 * outside of its cgroup, from that of a pid namespace made inside.
 */
static __always_inline __u16 parent_place(struct task_struct *t, struct cgroup_subsys_state *css)
{
	struct task_struct *parent = BPF_CORE_READ(t, group_leader, real_parent, group_leader);
	struct cgroup_subsys_state *parent_css = parent ? memory_css(parent) : 0;

	if (!css || !parent_css)
		return PLACE_UNKNOWN;
	return css == parent_css ? PLACE_SAME_CGROUP : PLACE_OTHER_CGROUP;
}

/* own_id is the id of a process in its own pid namespace. */
static __always_inline struct upid *own_id(struct pid *pid, __u32 level)
{
	return (void *)pid + bpf_core_field_offset(struct pid, numbers) + level * bpf_core_type_size(struct upid);
}

static __always_inline void fill_task(struct task *r, struct task_struct *t, struct cgroup_subsys_state *css)
{
	struct signal_struct *sig = BPF_CORE_READ(t, signal);
	struct pid *pid = BPF_CORE_READ(sig, pids[PIDTYPE_TGID]);
	struct mm_struct *mm = BPF_CORE_READ(t, mm);
	struct pid_namespace *ns;
	struct upid *own;
	__u32 level;

	if (!mm)
		mm = BPF_CORE_READ(sig, oom_mm);
	r->cgroup = css_id(css);
	r->mm = (__u64)mm;
	r->tgid = BPF_CORE_READ(t, tgid);
	r->tid = BPF_CORE_READ(t, pid);
	r->uid = BPF_CORE_READ(t, real_cred, uid.val);
	bpf_core_read(r->comm, sizeof(r->comm), &t->comm);
	r->parent = parent_place(t, css);
	r->level = 0;
	r->nr = 0;
	r->pidns = 0;
	if (!pid)
		return;
	level = BPF_CORE_READ(pid, level);
	own = own_id(pid, level);
	r->level = level;
	r->nr = BPF_CORE_READ(own, nr);
	ns = BPF_CORE_READ(own, ns);
	if (ns)
		r->pidns = BPF_CORE_READ(ns, ns.inum);
}

/*
 * past_memory tells that a task is so far gone that it has no memory left: it
 * kills those of its pid namespace (zap_pid_ns_processes) or those that it
 * traced (PTRACE_O_EXITKILL) in the kernel's name, as many as it had.
 */
static __always_inline bool past_memory(struct task_struct *t)
{
	return (BPF_CORE_READ(t, flags) & PF_EXITING) && !BPF_CORE_READ(t, mm);
}

static __always_inline void tell_kill(struct bpf_raw_tracepoint_args *ctx, __s32 code, __u32 loss)
{
	struct task_struct *current = (void *)bpf_get_current_task(), *t = (void *)ctx->args[2];
	struct cgroup_subsys_state *target_css = memory_css(t), *sender_css = memory_css(current);
	struct kill *k;

	send_path(target_css, ROOM_SIGNAL);
	send_path(sender_css, ROOM_SIGNAL);
	k = bpf_ringbuf_reserve(&ring, sizeof(*k), 0);
	if (!k) {
		count_lost(loss);
		return;
	}
	fill_header(&k->h, KIND_KILL);
	fill_task(&k->target, t, target_css);
	fill_task(&k->sender, current, sender_css);
	k->code = code;
	k->result = ctx->args[4];
	k->sig = ctx->args[0];
	bpf_ringbuf_submit(k, 0);
}

/*
 * killing_signal gives the kind of loss that a SIGKILL would be, 0 for one that
 * says nothing.
 */
static __always_inline __u32 killing_signal(struct bpf_raw_tracepoint_args *ctx, __s32 *code)
{
	struct kernel_siginfo *info = (void *)ctx->args[1];
	struct task_struct *t = (void *)ctx->args[2];
	__u64 self = bpf_get_current_pid_tgid(), who = (__u64)t;
	__u32 tgid;
	__u8 yes = 1;

	if ((__u64)info != SEND_SIG_PRIV) {
		if ((int)ctx->args[4] != DELIVERED)
			return 0;
		if (info)
			*code = BPF_CORE_READ(info, si_code);
		/* A process may give any code to a signal for itself; the OOM killer has no info. */
		if (*code == SI_KERNEL)
			*code = 0;
		return LOSS_OTHER_KILL;
	}
	*code = SI_KERNEL;
	if (past_memory((void *)bpf_get_current_task()))
		return LOSS_OTHER_KILL;
	tgid = BPF_CORE_READ(t, tgid);
	bpf_map_update_elem(&doomed, &tgid, &yes, BPF_ANY);
	bpf_map_update_elem(&killing, &self, &who, BPF_ANY);
	return KIND_KILL;
}

/* within tells whether a signal is one more that may be told. */
static __always_inline bool within(struct task_struct *t, __u32 sig, __u32 who)
{
	struct task_struct *leader = BPF_CORE_READ(t, group_leader);
	struct beat key = {};
	struct told first = {}, *told;
	__u64 now = bpf_ktime_get_boot_ns();

	key.target.tgid = BPF_CORE_READ(leader, tgid);
	key.target.start = BPF_CORE_READ(leader, start_time);
	key.sig = sig;
	key.who = who;
	told = bpf_map_lookup_elem(&beats, &key);
	if (!told || now - told->since >= BEAT_NS) {
		first.since = now;
		first.times = 1;
		first.parent = who == WHO_OOM_DAEMON ? PLACE_UNKNOWN : parent_place(leader, memory_css(leader));
		bpf_map_update_elem(&beats, &key, &first, BPF_ANY);
		return first.parent != PLACE_SAME_CGROUP;
	}
	if (told->parent == PLACE_SAME_CGROUP)
		return false;
	if (told->times >= BEAT_MOST) {
		count_lost(who <= WHO_INSIDE ? LOSS_REPEAT : LOSS_OWN_REPEAT);
		return false;
	}
	__sync_fetch_and_add(&told->times, 1);
	return true;
}

/*
 * sender_of tells who sends a signal to a first process of a pid namespace of
 * this level. A process can be signalled from its own namespace and those above.
 */
static __always_inline __u32 sender_of(struct task_struct *t, __u32 level)
{
	struct task_struct *current = (void *)bpf_get_current_task();

	if (bpf_get_current_pid_tgid() >> 32 == BPF_CORE_READ(t, tgid))
		return WHO_ITSELF;
	return BPF_CORE_READ(current, signal, pids[PIDTYPE_TGID], level) < level ? WHO_OUTSIDE : WHO_INSIDE;
}

/*
 * ending_signal tells whether a signal other than SIGKILL reaches the first
 * process of a container. Such a process is SIGNAL_UNKILLABLE: what it has no
 * handler for does not reach it, and only a fault can end it at once. The kernel
 * then takes the flag away (force_sig_info_to_task), before it sends the signal.
 * One from outside that does not reach it is told too: a stop begins with it.
 */
static __always_inline bool ending_signal(struct bpf_raw_tracepoint_args *ctx, __s32 *code)
{
	struct kernel_siginfo *info = (void *)ctx->args[1];
	struct task_struct *t = (void *)ctx->args[2];
	__u32 sig = ctx->args[0], result = ctx->args[4], level, who;
	struct signal_struct *shared;
	struct pid *pid;

	if (sig > 31 || !(ENDING >> sig & 1) || (result != DELIVERED && result != LOSE_INFO && result != IGNORED))
		return false;
	shared = BPF_CORE_READ(t, signal);
	pid = BPF_CORE_READ(shared, pids[PIDTYPE_TGID]);
	level = BPF_CORE_READ(pid, level);
	if (level == 0 || BPF_CORE_READ(own_id(pid, level), nr) != 1)
		return false;
	if ((__u64)info == SEND_SIG_PRIV) {
		*code = SI_KERNEL;
		return result != IGNORED && within(t, sig, WHO_KERNEL);
	}
	who = sender_of(t, level);
	if (result == IGNORED && who != WHO_OUTSIDE)
		return false;
	if (info)
		*code = BPF_CORE_READ(info, si_code);
	/*
	 * Codes above 0 are the kernel's, but for those that a thread gives to a
	 * signal for itself. While the process cannot be killed this is such a one,
	 * or a fault that it handles; else it dies of a fault.
	 */
	if (*code > 0 && (__u32)bpf_get_current_pid_tgid() == BPF_CORE_READ(t, pid)) {
		if (FAULTS >> sig & 1) {
			if (BPF_CORE_READ(shared, flags) & SIGNAL_UNKILLABLE)
				return false;
			who = WHO_FAULT;
		} else if (*code == SI_KERNEL) {
			*code = 0;
		}
	}
	return within(t, sig, who);
}

/*
 * Units that send SIGTERM before SIGKILL: Debian's earlyoom and nohang. Their names
 * only choose what is told; who the sender is is judged by its whole path.
 */
union unit {
	char name[24];
	__u64 words[3];
};

static const union unit term_units[] = {
	{ .name = "earlyoom.service" },
	{ .name = "nohang.service" },
	{ .name = "nohang-desktop.service" },
};

/*
 * oom_daemon_term tells whether a SIGTERM is one by which such a program frees
 * memory: any process may be its target. The end of that one is told as well.
 */
static __always_inline bool oom_daemon_term(struct bpf_raw_tracepoint_args *ctx, __s32 *code)
{
	struct task_struct *current = (void *)bpf_get_current_task(), *t = (void *)ctx->args[2];
	struct kernel_siginfo *info = (void *)ctx->args[1];
	struct cgroup_subsys_state *css;
	union unit u = {};
	bool known = false;
	__u8 yes = 1;
	__u32 tgid;

	if (ctx->args[0] != SIGTERM || (__u64)info == SEND_SIG_PRIV || (int)ctx->args[4] != DELIVERED)
		return false;
	/* No container's process, which could give its cgroup such a name. */
	if (BPF_CORE_READ(current, signal, pids[PIDTYPE_TGID], level) != 0)
		return false;
	css = memory_css(current);
	if (!css || bpf_probe_read_kernel_str(u.name, sizeof(u.name), BPF_CORE_READ(css, cgroup, kn, name)) <= 0)
		return false;
	for (int i = 0; i < 3; i++)
		known |= u.words[0] == term_units[i].words[0] && u.words[1] == term_units[i].words[1] && u.words[2] == term_units[i].words[2];
	if (!known || !within(t, SIGTERM, WHO_OOM_DAEMON))
		return false;
	if (info)
		*code = BPF_CORE_READ(info, si_code);
	tgid = BPF_CORE_READ(t, tgid);
	bpf_map_update_elem(&doomed, &tgid, &yes, BPF_ANY);
	return true;
}

SEC("raw_tracepoint/signal_generate")
int signal_generate(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 loss = LOSS_OTHER_KILL;
	__s32 code = 0;

	if ((int)ctx->args[0] == SIGKILL) {
		loss = killing_signal(ctx, &code);
		if (!loss)
			return 0;
	} else if (!ending_signal(ctx, &code) && !oom_daemon_term(ctx, &code)) {
		return 0;
	}
	if (loss == LOSS_OTHER_KILL && crowded()) {
		count_lost(loss);
		return 0;
	}
	tell_kill(ctx, code, loss);
	return 0;
}

static __always_inline void fill_figures(struct mark *m, struct task_struct *t)
{
	struct mm_struct *mm = (void *)m->victim.mm;

	m->oom_score_adj = BPF_CORE_READ(t, signal, oom_score_adj);
	m->total_vm = m->file = m->anon = m->shmem = m->pgtables = ABSENT;
	if (!mm)
		return;
	m->total_vm = BPF_CORE_READ(mm, total_vm);
	if (bpf_core_field_exists(struct mm_struct, pgtables_bytes))
		m->pgtables = BPF_CORE_READ(mm, pgtables_bytes.counter);
	/* MM_FILEPAGES, MM_ANONPAGES, MM_SWAPENTS, MM_SHMEMPAGES since 4.5 */
	if (bpf_core_type_exists(struct mm_rss_stat)) {
		struct mm_struct___atomic *a = (void *)mm;

		m->file = BPF_CORE_READ(a, rss_stat.count[0].counter);
		m->anon = BPF_CORE_READ(a, rss_stat.count[1].counter);
		m->shmem = BPF_CORE_READ(a, rss_stat.count[3].counter);
	} else if (bpf_core_field_exists(struct mm_struct___percpu, rss_stat)) {
		struct mm_struct___percpu *a = (void *)mm;

		/* Without what the CPUs still hold back, as the kernel prints it. */
		m->file = BPF_CORE_READ(a, rss_stat[0].count);
		m->anon = BPF_CORE_READ(a, rss_stat[1].count);
		m->shmem = BPF_CORE_READ(a, rss_stat[3].count);
	}
}

static __always_inline __u32 fill_chain(struct level *chain, struct cgroup_subsys_state *css)
{
	__u32 n = 0;

	for (int i = 0; i < MAX_LEVELS && css; i++) {
		struct mem_cgroup *cg = (void *)css - bpf_core_field_offset(struct mem_cgroup, css);
		struct level *l = &chain[i];

		l->id = css_id(css);
		l->usage = BPF_CORE_READ(cg, memory.usage.counter);
		l->max = BPF_CORE_READ(cg, memory.max);
		l->flags = 0;
		if (bpf_core_field_exists(struct mem_cgroup, oom_group) && BPF_CORE_READ(cg, oom_group))
			l->flags |= LEVEL_OOM_GROUP;
		css = BPF_CORE_READ(css, parent);
		if (!css)
			l->flags |= LEVEL_ROOT;
		n = i + 1;
	}
	return n;
}

/* tell_mark sends the mark of the task t; t is null where only tid is known. */
static __always_inline int tell_mark(struct task_struct *t, __u32 tid)
{
	struct task_struct *current = (void *)bpf_get_current_task();
	struct cgroup_subsys_state *css = 0, *trigger_css = memory_css(current);
	__u32 room = ROOM_MARK, n;
	union room *r;
	struct mark *m;
	__u8 yes = 1;

	if (t)
		css = memory_css(t);
	send_path(css, ROOM_MARK);
	send_path(trigger_css, ROOM_MARK);
	r = bpf_map_lookup_elem(&rooms, &room);
	if (!r)
		return 0;
	m = &r->mark;
	fill_header(&m->h, KIND_MARK);
	fill_task(&m->trigger, current, trigger_css);
	m->levels = 0;
	if (t) {
		fill_task(&m->victim, t, css);
		fill_figures(m, t);
		m->levels = fill_chain(m->chain, css);
		bpf_map_update_elem(&doomed, &m->victim.tgid, &yes, BPF_ANY);
	} else {
		__builtin_memset(&m->victim, 0, sizeof(m->victim));
		m->victim.tid = tid;
		m->total_vm = m->file = m->anon = m->shmem = m->pgtables = ABSENT;
		m->oom_score_adj = ABSENT_ADJ;
	}
	n = m->levels;
	if (n > MAX_LEVELS)
		return 0;
	if (bpf_ringbuf_output(&ring, m, __builtin_offsetof(struct mark, chain) + n * sizeof(struct level), 0))
		count_lost(KIND_MARK);
	return 0;
}

/* mark_victim_task is for kernels that hand over the task: 6.9, and stable ones of 2025. */
SEC("raw_tracepoint/mark_victim")
int mark_victim_task(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *t = (void *)ctx->args[0];

	return tell_mark(t, 0);
}

/* mark_victim_pid is for kernels that hand over the thread's id. */
SEC("raw_tracepoint/mark_victim")
int mark_victim_pid(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *t = (void *)bpf_get_current_task();
	__u64 self = bpf_get_current_pid_tgid(), *known;
	__u32 tid = (__u32)ctx->args[0];

	if ((__u32)self == tid)
		return tell_mark(t, tid);
	known = bpf_map_lookup_elem(&killing, &self);
	t = known ? (void *)*known : 0;
	/* The caller holds the victim, so a right id means a live task. */
	if (t && BPF_CORE_READ(t, pid) != tid)
		t = 0;
	return tell_mark(t, tid);
}

SEC("raw_tracepoint/sched_process_exit")
int sched_process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *leader, *t = (void *)ctx->args[0];
	struct signal_struct *sig = BPF_CORE_READ(t, signal);
	struct cgroup_subsys_state *css;
	struct process key = {};
	struct pid *pid;
	__u32 tgid, loss;
	__u8 yes = 1, *doom;
	struct exit *e;

	if (BPF_CORE_READ(sig, live.counter) != 0)
		return 0;
	tgid = BPF_CORE_READ(t, tgid);
	pid = BPF_CORE_READ(sig, pids[PIDTYPE_TGID]);
	doom = bpf_map_lookup_elem(&doomed, &tgid);
	if (!doom) {
		__u32 level = BPF_CORE_READ(pid, level);

		if (level == 0 || BPF_CORE_READ(own_id(pid, level), nr) != 1)
			return 0;
	}
	leader = BPF_CORE_READ(t, group_leader);
	css = memory_css(leader);
	if (!doom && parent_place(leader, css) == PLACE_SAME_CGROUP)
		return 0;
	key.tgid = tgid;
	key.start = BPF_CORE_READ(leader, start_time);
	if (bpf_map_update_elem(&ended, &key, &yes, BPF_NOEXIST))
		return 0;
	loss = doom ? KIND_EXIT : LOSS_OTHER_EXIT;
	bpf_map_delete_elem(&doomed, &tgid);
	if (loss == LOSS_OTHER_EXIT && crowded()) {
		count_lost(loss);
		return 0;
	}
	send_path(css, ROOM_EXIT);
	e = bpf_ringbuf_reserve(&ring, sizeof(*e), 0);
	if (!e) {
		count_lost(loss);
		return 0;
	}
	fill_header(&e->h, KIND_EXIT);
	fill_task(&e->task, leader, css);
	/* As kernel/exit.c, wait_task_zombie. */
	if (BPF_CORE_READ(sig, flags) & SIGNAL_GROUP_EXIT)
		e->status = BPF_CORE_READ(sig, group_exit_code);
	else
		e->status = BPF_CORE_READ(leader, exit_code);
	e->pad = 0;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

SEC("fentry/oom_kill_process")
int oom_kill_process(__u64 *ctx)
{
	struct oom_control *oc = (void *)ctx[0];
	struct task_struct *current = (void *)bpf_get_current_task();
	struct task_struct *chosen = BPF_CORE_READ(oc, chosen);
	struct mem_cgroup *cg = BPF_CORE_READ(oc, memcg);
	struct cgroup_subsys_state *css, *limit_css = 0, *trigger_css = memory_css(current);
	__u64 self = bpf_get_current_pid_tgid(), who = (__u64)chosen;
	struct invocation *v;

	if (!chosen)
		return 0;
	bpf_map_update_elem(&killing, &self, &who, BPF_ANY);
	if (cg)
		limit_css = (void *)cg + bpf_core_field_offset(struct mem_cgroup, css);
	css = memory_css(chosen);
	send_path(css, ROOM_INVOCATION);
	send_path(trigger_css, ROOM_INVOCATION);
	send_path(limit_css, ROOM_INVOCATION);
	v = bpf_ringbuf_reserve(&ring, sizeof(*v), 0);
	if (!v) {
		count_lost(KIND_INVOCATION);
		return 0;
	}
	fill_header(&v->h, KIND_INVOCATION);
	fill_task(&v->chosen, chosen, css);
	fill_task(&v->trigger, current, trigger_css);
	v->memcg = css_id(limit_css);
	v->constraint = BPF_CORE_READ(oc, constraint);
	v->pad = 0;
	bpf_ringbuf_submit(v, 0);
	return 0;
}
