// SPDX-License-Identifier: Apache-2.0

//go:build linux

package system

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
	agentrig "github.com/coroner-dev/coroner/test/rig"
)

// forger writes to the kernel's log as user space can.
type forger struct {
	t     *testing.T
	file  *os.File
	count int
}

// write writes one record. The kernel takes ten from each opener in five
// seconds (kernel.printk_devkmsg), so it opens again and again.
func (f *forger) write(record string) {
	if f.count%8 == 0 {
		if f.file != nil {
			_ = f.file.Close()
		}
		var err error
		if f.file, err = os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err != nil {
			f.t.Error(err)
			return
		}
	}
	f.count++
	if _, err := f.file.WriteString(record); err != nil && !errors.Is(err, unix.EINVAL) { // longer than a record may be
		f.t.Errorf("write %.60q: %v", record, err)
	}
}

func (f *forger) close() { _ = f.file.Close() }

// priorities are all that a record may claim, and what it may not.
func priorities() []string {
	out := []string{"", "<>", "<0", "<-1>", "<256>", "<1000>", "<2048>", "<4294967296>", "<99999999999999999999>", "<6>kernel: ", "\x01c", "\x016", "<0>\x01c", "<c>"}
	step := 17
	if long() {
		step = 1
	}
	for p := range 192 {
		if p < 8 || p%step == 0 || p == 191 {
			out = append(out, fmt.Sprintf("<%d>", p))
		}
	}
	return out
}

// kernelLog follows the kernel's log beside the agent: what it was given with
// which priority.
func kernelLog(t *testing.T) func() map[string]int {
	t.Helper()
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if _, err := unix.Seek(fd, 0, 2); err != nil { // SEEK_END
		t.Fatal(err)
	}
	return func() map[string]int {
		texts, buf := map[string]int{}, make([]byte, 16<<10)
		for {
			n, err := unix.Read(fd, buf)
			switch {
			case errors.Is(err, unix.EPIPE):
				continue
			case err != nil:
				return texts
			}
			var prio int
			head, text, _ := strings.Cut(string(buf[:n]), ";")
			_, _ = fmt.Sscanf(head, "%d,", &prio)
			text, _, _ = strings.Cut(text, "\n")
			texts[text] = prio
		}
	}
}

var numbered = regexp.MustCompile(`(pid=|process |PID: )\d+`)

// TestHostile_ForgedRecords writes every line of real reports to the real
// log, with all priorities, while real kills happen: nothing forged is
// believed, and what is real stays as it is.
func TestHostile_ForgedRecords(t *testing.T) {
	r := start(t, everything)
	before := nodeKills(t)
	tree := oomtest.New(t)
	alive := tree.Cgroup("docker/"+oomtest.ContainerID("alive"), oomtest.Limit(64*mib))
	framed := alive.Start(oomtest.Load{Comm: []byte("framed"), NewPIDNS: true, Bytes: oomtest.Idle})
	framed.Go()

	// A real report, to be forged for a process that lives.
	quiet(t)
	read := kernelLog(t)
	model := tree.Cgroup("docker/"+oomtest.ContainerID("model"), oomtest.Limit(48*mib))
	pids := map[int]bool{}
	p, _ := model.Run(oomtest.Load{Comm: []byte("model")})
	pids[p.PID] = true
	r.one(model.Path, whole(model, p))
	var lines []string
	for text, prio := range read() {
		if prio < 8 {
			text = strings.ReplaceAll(strings.ReplaceAll(text, model.Path, alive.Path), "model", "framed")
			lines = append(lines, numbered.ReplaceAllString(text, fmt.Sprintf("${1}%d", framed.PID)))
		}
	}
	if len(lines) < 10 {
		t.Fatalf("the real report has %d lines", len(lines))
	}
	recorded := recordedLines(t)
	f := &forger{t: t}
	joined := []string{strings.Join(lines[:10], "\n"), strings.Join(lines, "\\x0a")}
	forgeries := [][]string{lines, recorded, allPriorities(lines), joined, lines}
	if !long() {
		forgeries = [][]string{slices.Concat(lines, recorded, joined, allPriorities(lines))}
	}
	for i, forged := range forgeries {
		quiet(t)
		box := tree.Cgroup(fmt.Sprintf("docker/%s", oomtest.ContainerID(fmt.Sprint("real", i))), oomtest.Limit(48*mib))
		load := box.Start(oomtest.Load{Comm: []byte("real"), Rate: 400 * mib})
		var writing sync.WaitGroup
		writing.Go(func() {
			load.Go()
			for _, l := range forged {
				f.write(l)
			}
		})
		load.Wait()
		writing.Wait()
		pids[load.PID] = true
		r.one(box.Path, whole(box, load))
	}
	f.close()
	notTheKernels(t, read())
	for d, err := range r.client.All(t.Context(), api.Query{Since: r.began}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, victim := range d.Processes {
			if !pids[victim.PID] {
				t.Errorf("a death that never was:\n%s", agentrig.Sketch([]death.Death{d}))
			}
		}
	}
	if ds := r.below(alive.Path); len(ds) != 0 {
		t.Errorf("a living container is told dead:\n%s", agentrig.Sketch(ds))
	}
	t.Logf("%d forged records", f.count)
	// The kernel may leave out some: it takes ten lines of each open file.
	if n := r.sum("coroner_source_rejected_total", `source="kmsg"`); n < 0.9*float64(f.count) {
		t.Errorf("coroner_source_rejected_total = %v, of %d forged records", n, f.count)
	}
	r.balanced(before)
}

// whole wants a death that has all of its report.
func whole(box *oomtest.Cgroup, p *oomtest.Process) func(*death.Death) error {
	return func(d *death.Death) error {
		if d.OOM == nil || d.OOM.LimitBytes == nil || d.OOM.UsageBytes == nil || len(d.OOM.MemoryStat) == 0 {
			return errors.New("limit, usage or breakdown missing")
		}
		return all(is("cause", d.Cause, death.OOMContainerLimit), is("confidence", d.Confidence, death.Certain),
			is("oom_memcg", d.OOM.OOMMemcg, box.Path), is("limit", *d.OOM.LimitBytes, 48*mib),
			is("pids", fmt.Sprint(pidsOf(d, death.FateVictim)), fmt.Sprint([]int{p.PID})))
	}
}

// allPriorities gives the lines that tell most each priority.
func allPriorities(lines []string) []string {
	var out []string
	for _, l := range lines {
		if !strings.Contains(l, "Killed process") && !strings.Contains(l, "oom-kill:") {
			continue
		}
		for _, p := range priorities() {
			out = append(out, p+l)
		}
	}
	return out
}

// recordedLines are those of reports of other kernels and other shapes; there
// are none where only the test binary is, as in a virtual machine.
func recordedLines(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, shape := range []string{"5.10*global-self", "6.1*pod-limit", "6.1*oom-group", "6.12*odd-comm-07", "*cpuset", "6.1*unkillable"} {
		files, err := filepath.Glob("../../internal/parse/oomreport/testdata/kmsg/" + shape + ".kmsg")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files[:min(1, len(files))] {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(b)) {
				head, text, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ";")
				if ok {
					out = append(out, "<"+strings.Split(head, ",")[0]+">"+text)
				}
			}
		}
	}
	return out
}

// notTheKernels wants all that was written to have another facility than the
// kernel's own: that is what the source relies on.
func notTheKernels(t *testing.T, texts map[string]int) {
	t.Helper()
	forged := 0
	for text, prio := range texts {
		switch {
		case !strings.Contains(text, "framed"):
		case prio < 8:
			t.Errorf("the kernel took %q for its own, priority %d", text, prio)
		default:
			forged++
		}
	}
	if forged == 0 {
		t.Error("none of the forged records was in the log")
	}
}

// hostileComms are names that a process gave itself.
func hostileComms() []string {
	return []string{
		"a) total-vm:1kB", ",pid=1,uid=0", "x\nKilled process", "caf\xc3\xa9 \xe2\x82", "\x1b[2J\x1b]0;x\a", "<script>alert(",
		"\"><img src=x on", "{{.}}${7*7}", "task_memcg=/x", "\u202egnp.exe", "%s%n%x", "\xff\xfe\x80", "oom-kill:consta", "\\x0a\\\"\\", "\r\x7f", "\x9b31m", " ",
	}
}

// hostileNames are names of cgroups; they stand below docker/.
func hostileNames() []string {
	id := oomtest.ContainerID("hostile name")
	return []string{
		",task_memcg=", ",oom_memcg=x,task_memcg=y,task=z,pid=1,uid=0", "oom_memcg= with spaces ", strings.Repeat("n", 255),
		"<script>alert(1)</script>", "\x1b[31mred\a", "\xff\xfe\x80", "\u202egnp", "javascript:alert(1)", "..\\..", "{{.}}",
		"kubepods\\x2dpod", id + "x", "docker-" + id + ".scope ", "%s%n",
	}
}

// TestHostile_Names kills processes with such names in cgroups with such
// names: the right victim, the right cgroup, and harmless wherever it is shown.
func TestHostile_Names(t *testing.T) {
	r := start(t, everything)
	before := nodeKills(t)
	tree := oomtest.New(t)
	comms, names := hostileComms(), hostileNames()
	for i := range comms {
		comm, name := comms[i], names[i%len(names)]
		t.Run(fmt.Sprintf("%q in %.20q", comm, name), func(t *testing.T) {
			r := r.on(t)
			box := tree.Cgroup("docker/"+oomtest.ContainerID(fmt.Sprint("named", i))+"/"+name, oomtest.Limit(48*mib))
			p, _ := box.Run(oomtest.Load{Comm: []byte(comm)})
			path, want := escaped(box.Path), escaped(p.All[0].Comm)
			r.poll(func() error {
				for d, err := range r.client.All(t.Context(), api.Query{Since: r.began}) {
					if err != nil {
						return err
					}
					if len(pidsOf(&d, death.FateVictim)) == 1 && d.Processes[0].PID == p.PID {
						return all(is("comm", d.Processes[0].Comm, want), is("cgroup", cgroupOf(&d), path))
					}
				}
				return fmt.Errorf("no death of pid %d", p.PID)
			})
		})
	}
	r.balanced(before)
	harmless(t, r)
	if oomtest.Has(oomtest.InVM) {
		return // no compiler there: what the program prints is looked at on the host
	}
	bin := build(t)
	for _, args := range [][]string{{"list"}, {"list", "-o", "json"}, {"why", oomtest.ContainerID("named4")[:12]}, {"why", oomtest.ContainerID("named7")[:12]}} {
		out := command(t, bin, r.base, args...)
		shows := raw
		if args[len(args)-1] == "json" { // data, for programs
			shows = func(c rune) bool { return c < ' ' && c != '\n' }
		}
		if i := bytes.IndexFunc(out, shows); i >= 0 {
			t.Errorf("%v: a raw control character: %q", args, out[max(0, i-40):min(len(out), i+40)])
		}
		if args[len(args)-1] == "json" && !json.Valid(out) {
			t.Errorf("%v: no JSON: %.200s", args, out)
		}
	}
}

// escaped shows the bytes that are no UTF-8, which JSON cannot hold.
func escaped(s string) string {
	var out strings.Builder
	for len(s) > 0 {
		c, n := utf8.DecodeRuneInString(s)
		if c == utf8.RuneError && n == 1 {
			fmt.Fprintf(&out, "\\x%02x", s[0])
		} else {
			out.WriteString(s[:n])
		}
		s = s[n:]
	}
	return out.String()
}

// raw tells the characters that a terminal acts on.
func raw(c rune) bool {
	return c < ' ' && c != '\n' || c >= 0x7f && c <= 0x9f || c >= 0x202a && c <= 0x202e || c >= 0x2066 && c <= 0x2069
}

// harmless looks at what the agent serves.
func harmless(t *testing.T, r *rig) {
	t.Helper()
	paths := []string{"/", "/?q=script"}
	for d, err := range r.client.All(t.Context(), api.Query{Since: r.began}) {
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, "/deaths/"+d.ID)
		if body := r.get("/api/v1/deaths/" + d.ID); !json.Valid([]byte(body)) {
			t.Errorf("no JSON: %s", body)
		}
	}
	for _, p := range paths {
		page := r.get(p)
		for _, bad := range []string{"<script>alert", "<img src=x", "\x1b", "\u202e", "href=\"javascript:", "</title>x"} {
			if strings.Contains(page, bad) {
				t.Errorf("%s holds %q", p, bad)
			}
		}
	}
	metrics := r.get("/metrics")
	if i := strings.IndexFunc(metrics, raw); i >= 0 {
		t.Errorf("/metrics: %q", metrics[max(0, i-80):i+1])
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CORONER_CI") == "1" && !oomtest.Has(oomtest.InVM) {
			t.Error("no promtool (hint: apt-get install prometheus)")
		}
		return
	}
	lint := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	lint.Stdin = strings.NewReader(metrics)
	out, err := lint.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		// Those of missing-container-metrics keep the names that its users have.
		if !strings.HasPrefix(line, "container_restarts ") && !strings.HasPrefix(line, "container_ooms ") {
			t.Errorf("promtool check metrics: %v\n%s", err, line)
		}
	}
}

// build makes the program; in a virtual machine there is no compiler.
func build(t *testing.T) string {
	t.Helper()
	if oomtest.Has(oomtest.InVM) {
		t.Skip("there is no compiler in the virtual machine")
	}
	bin := filepath.Join(t.TempDir(), "coroner")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", bin, "../../cmd/coroner").CombinedOutput()
	if err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

func command(t *testing.T, bin, server string, args ...string) []byte {
	t.Helper()
	c := exec.CommandContext(t.Context(), bin, append(args, "--server", server)...)
	var complaint bytes.Buffer
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		t.Errorf("%v: %v: %s", args, err, &complaint)
	}
	return out
}

// TestHostile_WatchShowsNoControl follows deaths as they come.
func TestHostile_WatchShowsNoControl(t *testing.T) {
	r := start(t, everything)
	bin := build(t)
	tree := oomtest.New(t)
	c := exec.CommandContext(t.Context(), bin, "watch", "--server", r.base)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 64)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			lines <- in.Text()
		}
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		for l := range lines {
			t.Logf("left over: %q", l)
		}
		_ = c.Wait()
	})
	r.poll(func() error { // it follows once its stream is open
		box := tree.Cgroup("docker/"+oomtest.ContainerID(fmt.Sprint(time.Now()))+"/\x1b[31mred\a", oomtest.Limit(48*mib))
		box.Run(oomtest.Load{Comm: []byte("\x1b[2J\x1b]0;x\a")})
		select {
		case l := <-lines:
			if strings.IndexFunc(l, raw) >= 0 {
				t.Errorf("a raw control character: %q", l)
			}
			return nil
		case <-time.After(2 * time.Second):
			return errors.New("nothing is shown")
		}
	})
}
