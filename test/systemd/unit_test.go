// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package systemd tests the unit of deploy/systemd: that systemd understands
// it and finds it strict, and, in a machine of its own, that the agent lives
// under it through a machine that runs out of memory.
package systemd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/oomtest"
)

const unit = "../../deploy/systemd/coroner.service"

func TestMain(m *testing.M) { oomtest.Main(m) }

// analyze runs systemd-analyze on a copy of the units whose program exists.
func analyze(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := os.Stat(unit); err != nil {
		t.Skipf("needs the repository: %v", err)
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skipf("needs a machine that this one is not: %v (hint: apt-get install systemd)", err)
	}
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "coroner.service")
	text = bytes.ReplaceAll(text, []byte("/usr/local/bin/coroner"), []byte("/bin/true"))
	if err := os.WriteFile(copied, text, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", append(args, copied)...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestUnit_IsUnderstood(t *testing.T) {
	for line := range strings.Lines(analyze(t, "verify", "--man=no")) {
		if strings.Contains(line, "coroner.service") {
			t.Error(strings.TrimSpace(line))
		}
	}
}

// TestUnit_IsStrict holds the figure of docs/privileges.md.
func TestUnit_IsStrict(t *testing.T) {
	exposure := regexp.MustCompile(`Overall exposure level for \S+: (\d+\.\d+)`)
	m := exposure.FindStringSubmatch(analyze(t, "security", "--offline=true", "--no-pager"))
	if m == nil {
		t.Fatal("systemd-analyze names no exposure")
	}
	got, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/privileges.md")
	if err != nil {
		t.Fatal(err)
	}
	told := regexp.MustCompile(`exposure of (\d+\.\d+)`).FindSubmatch(doc)
	if told == nil {
		t.Fatal("docs/privileges.md names no exposure")
	}
	if string(told[1]) != m[1] {
		t.Errorf("docs/privileges.md says %s, systemd-analyze %s", told[1], m[1])
	}
	if got > 2.5 {
		t.Errorf("exposure %v: the unit was stricter once", got)
	}
}

// setting reads one setting of the unit.
func setting(t *testing.T, path, key string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, key+"="); ok {
			return strings.TrimSpace(v)
		}
	}
	t.Fatalf("%s sets no %s", path, key)
	return ""
}

// mebibytes reads a size such as 160M.
func mebibytes(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(strings.TrimSuffix(s, "M"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 20
}
