// SPDX-License-Identifier: Apache-2.0

//go:build linux

package systemd

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
)

// TestDropins: systemd understands each drop-in, and finds the unit with it as
// strict as docs/privileges.md says.
func TestDropins(t *testing.T) {
	analyze(t, "verify", "--man=no") // or skip
	doc, err := os.ReadFile("../../docs/privileges.md")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"engines.conf", "tracefs.conf"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			copied := filepath.Join(dir, "coroner.service")
			if err := os.WriteFile(copied, bytes.ReplaceAll(text, []byte("/usr/local/bin/coroner"), []byte("/bin/true")), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(copied+".d", 0o755); err != nil {
				t.Fatal(err)
			}
			copyTo(t, filepath.Join(filepath.Dir(unit), name), filepath.Join(copied+".d", name), 0o644)
			out, err := exec.Command("systemd-analyze", "verify", "--man=no", copied).CombinedOutput()
			if err != nil || strings.Contains(string(out), name) {
				t.Errorf("%v\n%s", err, out)
			}
			out, err = exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", copied).CombinedOutput()
			m := regexp.MustCompile(`Overall exposure level for \S+: (\d+\.\d+)`).FindSubmatch(out)
			if err != nil || m == nil {
				t.Fatalf("%v\n%s", err, out)
			}
			told := regexp.MustCompile(`\| \[` + regexp.QuoteMeta(name) + `\][^|]*\|[^|]*\| (\d+\.\d+) \|`).FindSubmatch(doc)
			if told == nil || !bytes.Equal(told[1], m[1]) {
				t.Errorf("docs/privileges.md has not the %s that systemd-analyze finds", m[1])
			}
		})
	}
}

// TestUnit_WithEngines: the unit's own user may not ask an engine, and says
// so; with the drop-in it may.
func TestUnit_WithEngines(t *testing.T) {
	install(t)
	dropins := filepath.Join(unitFolder, "coroner.service.d")
	if err := os.RemoveAll(dropins); err != nil { // of the test before
		t.Fatal(err)
	}
	run(t, "systemctl", "daemon-reload")
	run(t, "systemctl", "stop", "coroner.service") // it may have a drop-in of the test before, and another user
	l, err := net.Listen("unix", "/run/docker.sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := os.Chmod("/run/docker.sock", 0o660); err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			select {
			case asked <- struct{}{}:
			default:
			}
			_ = c.Close() // a poor engine, but one that was reached
		}
	}()
	says := func(word string) {
		t.Helper()
		err := oomtest.Poll(patience, func() error {
			for _, s := range agentStatus(t).Sources {
				if s.Name == death.SourceDocker && strings.Contains(s.Reason, word) {
					return nil
				}
			}
			return fmt.Errorf("no %q in what the agent says of Docker", word)
		})
		if err != nil {
			t.Error(err)
		}
	}
	run(t, "systemctl", "restart", "coroner.service")
	says("engines.conf")
	if len(asked) != 0 {
		t.Error("the unit's own user reached the engine")
	}
	if err := os.MkdirAll(dropins, 0o755); err != nil {
		t.Fatal(err)
	}
	copyTo(t, filepath.Join(builtUnits, "engines.conf"), filepath.Join(dropins, "engines.conf"), 0o644)
	run(t, "systemctl", "daemon-reload")
	run(t, "systemctl", "restart", "coroner.service")
	says("/run/docker.sock: ")
	if err := oomtest.Poll(patience, func() error {
		if len(asked) == 0 {
			return fmt.Errorf("the agent did not reach the engine")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	for _, s := range agentStatus(t).Sources {
		if s.Name == death.SourceTracepoint && s.Mode != "bpf" || s.Name == death.SourceKmsg && !s.Up {
			t.Errorf("source %s with the drop-in: up %v, mode %q, %s", s.Name, s.Up, s.Mode, s.Reason)
		}
	}
}
