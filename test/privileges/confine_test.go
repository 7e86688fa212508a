// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package privileges measures what coroner needs: the real binary is run as
// user 0 and as another one, with sets of capabilities that are really taken
// away, and has to report a real OOM kill.
package privileges

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/oomtest"
)

const (
	confineVariable = "CORONER_CONFINE"
	nobody          = 65534
	tracefsPoint    = "/sys/kernel/tracing"
)

// confinement is what a child gives up before it becomes another program.
type confinement struct {
	UID     int         `json:"uid"`
	Caps    host.CapSet `json:"caps"`
	Tracefs bool        `json:"tracefs"` // mounted where it sees it
	Args    []string    `json:"args"`
}

func TestMain(m *testing.M) {
	if spec, ok := os.LookupEnv(confineVariable); ok {
		fmt.Fprintln(os.Stderr, "confine:", confine(spec)) // does not return when all went well
		os.Exit(3)
	}
	oomtest.Main(m)
}

// confine gives up all but what spec says, on this thread, and then replaces
// the process. A program cannot get back what is not in the bounding set, and
// with no_new_privs not by setuid files either.
func confine(spec string) error {
	var c confinement
	if err := json.Unmarshal([]byte(spec), &c); err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := mountTracefs(c.Tracefs); err != nil {
		return fmt.Errorf("tracefs: %w", err)
	}
	for bit := range uintptr(64) {
		if c.Caps&(1<<bit) == 0 && unix.Prctl(unix.PR_CAPBSET_READ, bit, 0, 0, 0) == nil {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, bit, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("bounding set without %d: %w", bit, err)
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := become(c.UID); err != nil {
		return fmt.Errorf("user %d: %w", c.UID, err)
	}
	if err := reduce(c.Caps); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := os.Unsetenv(confineVariable); err != nil {
		return err
	}
	return unix.Exec(c.Args[0], c.Args, os.Environ())
}

// mountTracefs makes a mount namespace that has, or has not, tracefs where it
// is looked for. The machine's own mounts stay as they are.
func mountTracefs(wanted bool) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, p := range []string{"/sys/kernel/debug/tracing", "/sys/kernel/debug", tracefsPoint} {
		for unix.Unmount(p, unix.MNT_DETACH) == nil {
		}
	}
	if !wanted {
		return nil
	}
	return unix.Mount("tracefs", tracefsPoint, "tracefs", 0, "")
}

// become changes user and group of this thread alone: it is the one that goes on.
func become(uid int) error {
	id := uintptr(uid)
	for _, call := range [][4]uintptr{
		{unix.SYS_SETGROUPS, 0, 0, 0},
		{unix.SYS_SETRESGID, id, id, id},
		{unix.SYS_SETRESUID, id, id, id},
	} {
		if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return errno
		}
	}
	return nil
}

func reduce(caps host.CapSet) error {
	half := func(c host.CapSet) unix.CapUserData {
		return unix.CapUserData{Effective: uint32(c), Permitted: uint32(c), Inheritable: uint32(c)}
	}
	data := [2]unix.CapUserData{half(caps), half(caps >> 32)}
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return fmt.Errorf("capset %s: %w", caps, err)
	}
	for bit := range uintptr(64) {
		if caps&(1<<bit) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, bit, 0, 0); err != nil {
			return fmt.Errorf("ambient %d: %w", bit, err)
		}
	}
	return nil
}

// verify reads from the kernel that a process is what it should be.
func (c confinement) verify(pid int) error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	want := map[string]string{
		"Uid":    strings.Join(strings.Fields(strings.Repeat(fmt.Sprintf("%d ", c.UID), 4)), "\t"),
		"CapPrm": fmt.Sprintf("%016x", uint64(c.Caps)), "CapEff": fmt.Sprintf("%016x", uint64(c.Caps)),
		"CapBnd": fmt.Sprintf("%016x", uint64(c.Caps)), "NoNewPrivs": "1",
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if w, ok := want[key]; ok && strings.TrimSpace(value) != w {
			return fmt.Errorf("%s of the confined process: %q, want %q", key, strings.TrimSpace(value), w)
		}
	}
	return nil
}

// everything are the capabilities that this machine gives to root.
func everything(t *testing.T) host.CapSet {
	t.Helper()
	all, err := host.Roots{}.Capabilities()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// ownFolder makes a folder for the user, below one that it can pass.
func ownFolder(t *testing.T, uid int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
	for p := filepath.Dir(dir); p != "/" && p != os.TempDir(); p = filepath.Dir(p) {
		fi, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); !ok || fi.Mode().Perm()&0o001 == 0 && st.Uid != uint32(uid) {
			if err := os.Chmod(p, fi.Mode().Perm()|0o011); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}
