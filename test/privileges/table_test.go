// SPDX-License-Identifier: Apache-2.0

//go:build linux

package privileges

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/host"
)

var update = flag.Bool("update", false, "measure docs/privileges.md anew: take the capabilities away one at a time")

const (
	document  = "../../docs/privileges.md"
	tableFrom = "<!-- measured by test/privileges: make privileges -->\n"
	tableTo   = "<!-- end of what was measured -->\n"
)

// columns are the sets that the table shows, besides the smallest.
func columns(all host.CapSet) []host.CapSet {
	const bpf = host.CapBPF | host.CapPerfmon
	return []host.CapSet{
		0, host.CapSyslog, host.CapBPF, host.CapPerfmon, bpf, enough, host.CapDACReadSearch, host.CapDACOverride, host.CapSysAdmin, all,
	}
}

var ownInstance = regexp.MustCompile(`coroner-\d+`)

// TestTable measures each part of the agent with each set, and that no
// capability of the smallest set can be spared; docs/privileges.md has to say
// the same.
func TestTable(t *testing.T) {
	bin := build(t)
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), tableFrom)
	told, after, ok2 := strings.Cut(rest, tableTo)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table", document)
	}
	m := &measurement{bin: bin, all: everything(t), done: map[string]outcome{}}
	here := machine(t)
	if !*update {
		if theirs := settings(told); theirs != settings(here) {
			t.Skipf("needs a machine that this one is not: the table is of one with %s, this one has %s", theirs, settings(here))
		}
		if testing.Short() {
			t.Skip("takes half a minute")
		}
		m.told = smallestOf(told)
	}
	got := here + m.table(t)
	if *update {
		if t.Failed() {
			return
		}
		if err := os.WriteFile(document, []byte(before+tableFrom+got+tableTo+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	_, told, _ = strings.Cut(told, "\n") // another patch of the same kernel is no other machine
	_, got, _ = strings.Cut(got, "\n")
	if diff := cmp.Diff(told, got); diff != "" {
		t.Errorf("%s is not what this machine measures (make privileges):\n%s", document, diff)
	}
}

// machine is the line that says what was measured on.
func machine(t *testing.T) string {
	t.Helper()
	kernel, err := host.Roots{}.KernelRelease()
	if err != nil {
		t.Fatal(err)
	}
	kernel, _, _ = strings.Cut(kernel, "-")
	h, err := host.Roots{}.MemoryHierarchy()
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("Measured on Linux %s, with memory on cgroup %s", kernel, h)
	for _, name := range []string{"dmesg_restrict", "unprivileged_bpf_disabled", "perf_event_paranoid"} {
		b, err := os.ReadFile("/proc/sys/kernel/" + name)
		if err != nil {
			t.Fatal(err)
		}
		line += fmt.Sprintf(", kernel.%s=%s", name, strings.TrimSpace(string(b)))
	}
	return line + ".\n"
}

// settings are the part of that line that decides what is measured.
func settings(table string) string {
	line, _, _ := strings.Cut(table, "\n")
	_, s, _ := strings.Cut(line, ", ")
	return strings.TrimSuffix(s, ".")
}

// smallestOf reads the smallest sets from a table.
func smallestOf(table string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(table) {
		if f := strings.Split(line, " | "); len(f) > 4 {
			out[strings.TrimPrefix(f[0], "| ")+" | "+f[1]] = f[2]
		}
	}
	return out
}

// measurement remembers what was measured already.
type measurement struct {
	bin  string
	all  host.CapSet
	told map[string]string // the smallest sets, as a table has them; nil: find them
	done map[string]outcome
}

func (m *measurement) try(t *testing.T, r row, uid int, caps host.CapSet) outcome {
	t.Helper()
	key := fmt.Sprintf("%s/user %d/%s", r.name, uid, short(caps, m.all))
	o, ok := m.done[key]
	if !ok {
		t.Run(key, func(t *testing.T) { o = measure(t, m.bin, r, uid, caps) })
		m.done[key] = o
	}
	return o
}

func (m *measurement) table(t *testing.T) string {
	t.Helper()
	var b, words strings.Builder
	b.WriteString("\n| part | user | smallest set |")
	for _, c := range columns(m.all) {
		fmt.Fprintf(&b, " %s |", short(c, m.all))
	}
	b.WriteString("\n|---|---|---|" + strings.Repeat("---|", len(columns(m.all))) + "\n")
	for _, r := range rows() {
		for _, uid := range []int{0, nobody} {
			fmt.Fprintf(&b, "| %s | %d | %s |", r.name, uid, m.smallest(t, r, uid))
			for _, c := range columns(m.all) {
				fmt.Fprintf(&b, " %s |", cell(r, m.try(t, r, uid, c)))
			}
			b.WriteString("\n")
			if o := m.try(t, r, uid, 0); o.why != "" && r.name != wholeAgent {
				why := ownInstance.ReplaceAllString(o.why, "coroner-PID")
				fmt.Fprintf(&words, "- %s, user %d: %s\n", r.name, uid, why)
			}
		}
	}
	b.WriteString("\nWhat the agent's log, `/-/ready` and `/api/v1/status` say where there is none:\n\n")
	return b.String() + words.String()
}

// cell tells in a word what worked.
func cell(r row, o outcome) string {
	switch {
	case o.works:
		return "yes"
	case r.name == wholeAgent && len(o.up) > 0:
		return strings.Join(o.up, ", ")
	}
	return "no"
}

// smallest gives the smallest set: that of the table, proven, or one that is
// found by taking away one capability after the other.
func (m *measurement) smallest(t *testing.T, r row, uid int) string {
	t.Helper()
	if m.told == nil {
		return short(m.search(t, r, uid), m.all)
	}
	told := m.told[fmt.Sprintf("%s | %d", r.name, uid)]
	set, ok := parseShort(told)
	if !ok {
		return "not told"
	}
	if o := m.try(t, r, uid, set); !o.works {
		return fmt.Sprintf("%s does not do (%s)", told, o.why)
	}
	for _, name := range set.Names() {
		one, _ := parseShort(strings.TrimPrefix(name, "CAP_"))
		if m.try(t, r, uid, set&^one).works {
			return fmt.Sprintf("%s without %s", told, name)
		}
	}
	return told
}

// search takes away one capability after the other, first those that stand in
// for many others.
func (m *measurement) search(t *testing.T, r row, uid int) host.CapSet {
	t.Helper()
	set := m.all
	order := append((host.CapSysAdmin).Names(), (host.CapDACOverride | host.CapDACReadSearch).Names()...)
	for _, name := range append(order, m.all.Names()...) {
		one, ok := parseShort(strings.TrimPrefix(name, "CAP_"))
		if !ok || set&one == 0 {
			continue
		}
		if m.try(t, r, uid, set&^one).works {
			set &^= one
		}
	}
	return set
}

// short names a set without the prefix that all have.
func short(c, all host.CapSet) string {
	if c == all {
		return "all"
	}
	return strings.ReplaceAll(c.String(), "CAP_", "")
}

func parseShort(s string) (host.CapSet, bool) {
	var set host.CapSet
	if s == "none" {
		return 0, true
	}
	for _, want := range strings.Fields(s) {
		found := host.CapSet(0)
		for bit := range 64 {
			if one := host.CapSet(1) << bit; one.String() == "CAP_"+want {
				found = one
			}
		}
		if found == 0 {
			return 0, false
		}
		set |= found
	}
	return set, true
}
