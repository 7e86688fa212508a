// SPDX-License-Identifier: Apache-2.0

//go:build linux

package privileges

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/host"
)

// advice is what the test reads of doctor's report.
type advice struct {
	Identity string
	Findings []struct {
		Name, Status   string
		Detail, Remedy string
		Needs, Missing *struct{ Capabilities, Files []string }
	}
	Least struct{ Capabilities []string }
}

// ask runs doctor confined.
func ask(t *testing.T, bin string, c confinement, more ...string) advice {
	t.Helper()
	history := filepath.Join(ownFolder(t, c.UID), "deaths.db")
	c.Args = append([]string{bin, "doctor", "-o", "json", "--history.path=" + history}, more...)
	spec, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{confineVariable + "=" + string(spec)}
	cmd.Dir = "/"
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("doctor: %v\n%s", err, &complaints)
	}
	var a advice
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	return a
}

// TestDoctor_SaysWhatWasMeasured: doctor finds the smallest sets of the table
// by itself, and names what is missing where there is nothing.
func TestDoctor_SaysWhatWasMeasured(t *testing.T) {
	bin := build(t)
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	_, told, _ := strings.Cut(string(text), tableFrom)
	if theirs, here := settings(strings.TrimLeft(told, "\n")), settings(machine(t)); theirs != here {
		t.Skipf("needs a machine that this one is not: the table is of one with %s, this one has %s", theirs, here)
	}
	table := smallestOf(told)
	for _, tt := range []struct {
		name    string
		uid     int
		tracefs bool
	}{{"0", 0, true}, {"0", 0, false}, {"65534", nobody, true}, {"65534", nobody, false}} {
		tracefs := map[bool]string{true: "tracepoint, tracefs mounted", false: "tracepoint, tracefs not mounted"}[tt.tracefs]
		want := map[string]string{
			host.ProbeBPF: table["tracepoint, bpf | "+tt.name], host.ProbeTracefs: table[tracefs+" | "+tt.name],
			host.ProbeKmsg: table["kmsg | "+tt.name], host.ProbeCgroup: table["cgroup | "+tt.name],
			host.ProbeVMStat: "none", "history": "none", "escapes": "SYS_PTRACE",
			"together": table[wholeAgent+" | "+tt.name],
		}
		t.Run("all rights, user "+tt.name+", "+tracefs, func(t *testing.T) {
			a := ask(t, bin, confinement{UID: tt.uid, Caps: everything(t), Tracefs: tt.tracefs})
			got := map[string]string{"together": bare(a.Least.Capabilities)}
			for _, f := range a.Findings {
				if f.Needs != nil {
					got[f.Name] = bare(f.Needs.Capabilities)
				}
			}
			delete(got, "logs") // where an engine was once, its folder is still there: not of this table
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("doctor and table differ (-table +doctor):\n%s", diff)
			}
		})
		t.Run("no rights, user "+tt.name+", "+tracefs, func(t *testing.T) {
			a := ask(t, bin, confinement{UID: tt.uid, Tracefs: tt.tracefs})
			for _, f := range a.Findings {
				set, measured := want[f.Name]
				switch {
				case !measured:
				case set == "none":
					if f.Status != "yes" || f.Needs == nil || f.Missing != nil {
						t.Errorf("%s: %+v, want yes", f.Name, f)
					}
				case f.Status == "yes" || f.Missing == nil:
					t.Errorf("%s: %+v, want no", f.Name, f)
				case f.Name != host.ProbeTracefs && bare(f.Missing.Capabilities) != set:
					t.Errorf("%s lacks %s, want %s", f.Name, bare(f.Missing.Capabilities), set)
				}
			}
		})
	}
}

// TestDoctor_Socket: an engine's socket that this user may not open is named
// with what helps.
func TestDoctor_Socket(t *testing.T) {
	bin := build(t)
	dir, err := os.MkdirTemp("", "socket")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "docker.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	for _, p := range []string{dir, path} {
		if err := os.Chmod(p, map[bool]os.FileMode{true: 0o755, false: 0o660}[p == dir]); err != nil {
			t.Fatal(err)
		}
	}
	a := ask(t, bin, confinement{UID: nobody, Caps: enough}, "--source.docker.host="+path)
	for _, f := range a.Findings {
		if f.Name != "docker" {
			continue
		}
		if f.Status != "no" || !strings.Contains(f.Detail, "permission denied") || !strings.Contains(f.Remedy, "SupplementaryGroups=docker") ||
			f.Missing == nil || len(f.Missing.Capabilities) != 0 || len(f.Missing.Files) != 1 {
			t.Errorf("%+v", f)
		}
		return
	}
	t.Error("doctor says nothing of Docker")
}

// bare names a set as the table does.
func bare(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.ReplaceAll(strings.Join(names, " "), "CAP_", "")
}
