// SPDX-License-Identifier: Apache-2.0

//go:build linux

package image

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/oomtest"
)

var update = flag.Bool("update", false, "measure the table of docs/privileges.md anew")

const (
	document  = "../../docs/privileges.md"
	tableFrom = "<!-- measured by test/image: make privileges -->\n"
	tableTo   = "<!-- end of what was measured in containers -->\n"
)

// row is the line without an option, or with another in its place.
type row struct {
	without, with option
	buys          string
}

func rows() []row {
	none := option{}
	return []row{
		{option{"--pid", "host"}, none, "which cgroup is a container's is read from its process, not known by its name alone; the kernel's process ids looked up on Linux 5.10 and where BPF does not work"},
		{option{"--cgroupns", "host"}, option{"--cgroupns", "private"}, "its own cgroup, and those of others by the paths of the kernel's reports (with `private`, which Docker takes on cgroup v2)"},
		{option{"--uts", "host"}, none, "the host's name"},
		{option{"-p", "3001:3001"}, none, "pages, API and metrics for others"},
		{option{"--cap-add", "BPF"}, none, "tracepoints"},
		{option{"--cap-add", "PERFMON"}, none, "tracepoints"},
		{option{"--cap-add", "SYSLOG"}, none, "the kernel's log where `kernel.dmesg_restrict=1`"},
		{option{"--device", "/dev/kmsg:/dev/kmsg:r"}, none, "the kernel's log at once, and by number what of it was lost; without it `syslog(2)` is asked once a second"},
		{option{"-v", "/sys/fs/cgroup:/sys/fs/cgroup:ro"}, none, "the cgroups of all: counters, which are the audit, and memory"},
		{option{"-v", "/var/run/docker.sock:/var/run/docker.sock"}, none, "names, labels, exit codes, who was asked to stop. **It is as good as root on the host**, read-only or not"},
		{option{"-v", "/var/lib/docker/containers:/var/lib/docker/containers:ro"}, none, "the last lines of containers that failed"},
		{option{"-v", "coroner:/var/lib/coroner"}, none, "deaths that outlive the container"},
	}
}

// table measures each row; docs/privileges.md has to say the same.
func (e *engine) table(t *testing.T, options []option, image string) {
	text, err := os.ReadFile(document)
	must(t, err)
	before, rest, ok1 := strings.Cut(string(text), tableFrom)
	stands, after, ok2 := strings.Cut(rest, tableTo)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table", document)
	}
	h, err := host.Roots{}.MemoryHierarchy()
	must(t, err)
	head := fmt.Sprintf("Measured with Docker %s, with memory on cgroup %s.\n\n", e.docker("version", "--format", "{{.Server.Version}}"), h)
	if theirs, _, _ := strings.Cut(stands, "\n"); !*update && kind(theirs) != kind(head) {
		t.Skipf("needs a machine that this one is not: the table is of one with %q, this one has %q", theirs, head)
	}
	got := head + "| without | which is for | then, as measured |\n|---|---|---|\n"
	for _, r := range rows() {
		if !slices.Contains(options, r.without) {
			t.Errorf("the README's line has no %s", r.without)
			continue
		}
		t.Run(r.without.String(), func(t *testing.T) {
			start := fmt.Sprintf("| `%s` | %s | ", r.without, r.buys)
			hope := ""
			if i := strings.Index(stands, start); i >= 0 && !*update {
				hope, _, _ = strings.Cut(stands[i+len(start):], " |\n")
			}
			got += start + e.lacking(t, r, options, image, hope) + " |\n"
		})
	}
	got += e.more(t, options, image)
	if *update {
		if !t.Failed() {
			must(t, os.WriteFile(document, []byte(before+tableFrom+got+tableTo+after), 0o644))
		}
		return
	}
	_, stands, _ = strings.Cut(stands, "\n")
	_, got, _ = strings.Cut(got, "\n")
	if diff := cmp.Diff(stands, got); diff != "" {
		t.Errorf("%s is not what this machine measures (make privileges):\n%s", document, diff)
	}
}

// kind is the part of the head that decides what is measured.
func kind(head string) string {
	_, k, _ := strings.Cut(strings.TrimSpace(head), "with memory on ")
	return k
}

// lacking runs an agent without an option, and says what is different then.
func (e *engine) lacking(t *testing.T, r row, options []option, image, hope string) string {
	t.Helper()
	less := slices.DeleteFunc(slices.Clone(options), func(o option) bool { return o == r.without })
	if r.with.name != "" {
		less = append(less, r.with)
	}
	e.run(less, image)
	tr := e.begin(t)
	defer tr.end()
	var diff string
	settles := patience
	if hope == "" { // nothing tells when it is all
		settles = 6 * time.Second
	}
	_ = oomtest.Poll(settles, func() error {
		got, err := tr.facts(t)
		if err != nil {
			return err
		}
		if diff = told(got, all("bpf")); diff == "" {
			diff = "nothing is missing"
		}
		if diff != hope {
			return fmt.Errorf("not so yet")
		}
		return nil
	})
	t.Logf("%s\n%s", diff, tr.comment)
	return diff
}

// more measures what one right beyond the line's buys.
func (e *engine) more(t *testing.T, options []option, image string) string {
	t.Helper()
	counted := map[bool]bool{}
	for _, ptrace := range []bool{false, true} {
		with := slices.Clone(options)
		if ptrace {
			with = append(with, option{"--cap-add", "SYS_PTRACE"})
		}
		e.run(with, image)
		tr := e.begin(t)
		// They are looked for five seconds after the start.
		_ = oomtest.Poll(map[bool]time.Duration{false: 8 * time.Second, true: patience}[ptrace], func() error {
			lives := tr.living(t)
			if counted[ptrace] = lives != nil && lives.EscapedProcesses != nil; counted[ptrace] {
				return nil
			}
			return fmt.Errorf("not counted yet")
		})
		tr.end()
	}
	said := map[bool]string{true: "counted", false: "not known"}
	return fmt.Sprintf("\nWith `--cap-add SYS_PTRACE` processes outside of their containers' cgroups (`coroner_escaped_processes`) are %s; with the line as it is they are %s.\n",
		said[counted[true]], said[counted[false]])
}
