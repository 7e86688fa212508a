// SPDX-License-Identifier: Apache-2.0

package main

import "strings"

// guest is the tests of one package in a virtual machine of their own.
type guest struct {
	name  string   // the machine, for who reads
	flags []string // the machine, for test/vm: kernel, memory, disk
	pkg   string   // the folder of the tests
	args  []string // for their binary
	// What the machine holds beside the tests and their testdata: coroner as
	// /test/coroner, and files as SRC:DST.
	coroner bool
	c       []string // programs in C of the package, which come to /test
	files   []string
	needs   []string // programs that make the machine
}

// guests are all rows in the order in which they start. What takes longest
// comes first, so that at the end no processor waits for one guest: the
// machines with systemd, then -vm-packages in their order.
func guests(packages string) []guest {
	rows := systems()
	for _, pkg := range strings.Fields(packages) {
		for _, k := range kernels() {
			k.pkg = pkg
			k.args = append([]string{"-test.short"}, k.args...)
			rows = append(rows, k)
		}
	}
	return rows
}

// systems are the machines with systemd on a disk, each with the tests that
// are for it alone.
func systems() []guest {
	disk := []string{"mmdebstrap", "mke2fs"}
	return []guest{
		{
			name: "Linux 6.1, systemd, cgroup v2, 320 MiB", flags: []string{"-kernel=6.1", "-mem=320", "-systemd"},
			pkg: "./test/systemd", coroner: true, files: []string{"deploy/systemd:/test/systemd"}, needs: disk,
		},
		{
			name: "Linux 6.1, systemd, Docker, OOM daemons, cgroup v2", flags: []string{"-kernel=6.1", "-mem=1024", "-systemd", "-append=apparmor=0"},
			pkg: "./test/docker", args: []string{"-test.run=^(TestDeaths|TestOOMDaemons)$/^(s1-|s2-|s3-|s10-person|s11-too-late|s14-segv|earlyoom|systemd)"}, coroner: true, c: []string{"testdata/fault.c"},
			needs: append([]string{"cc"}, disk...),
		},
		{
			name: "Linux 6.1, systemd, containerd, cgroup v2", flags: []string{"-kernel=6.1", "-mem=1024", "-systemd", "-append=apparmor=0"},
			pkg: "./test/containerd", args: []string{"-test.run=^TestDeaths$/^(s1-|in_a_scope)"}, needs: disk,
		},
	}
}

// kernels are those that docs/kernels.md names; in each run all of
// -vm-packages. The last is for the tests that need two NUMA nodes.
func kernels() []guest {
	return []guest{
		{name: "Linux 6.1, cgroup v2", flags: []string{"-kernel=6.1", "-mem=2048"}},
		{name: "Linux 6.12, cgroup v2", flags: []string{"-kernel=6.12", "-mem=2048"}},
		{name: "Linux 6.1, cgroup v1", flags: []string{"-kernel=6.1", "-mem=2048", "-cgroup=1"}},
		{name: "Linux 6.12, cgroup v2, two NUMA nodes", flags: []string{"-kernel=6.12", "-mem=512", "-numa"}, args: []string{"-test.run=Cpuset"}},
	}
}

func (g guest) String() string { return clean(g.pkg) + " on " + g.name }
