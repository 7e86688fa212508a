// SPDX-License-Identifier: Apache-2.0

//go:build linux

package image

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// release is Debian's whose Docker knows CAP_BPF: 23 and newer do. Its programs
// run on the release before as they are.
const release = "trixie"

// newer gives a folder with the programs of Debian packages of that release,
// from the cache or the mirror. They are not installed.
func newer(t *testing.T, packages ...string) string {
	t.Helper()
	cache := os.Getenv("CORONER_CACHE")
	if cache == "" {
		cache = filepath.Join("..", "..", ".cache")
	}
	cache, err := filepath.Abs(cache)
	must(t, err)
	dir := filepath.Join(cache, "debian-"+release+"-"+strings.Join(packages, "-"))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		lack(t, "the newer Docker comes from Debian", err)
	}
	must(t, os.MkdirAll(cache, 0o755))
	tmp, err := os.MkdirTemp(cache, "fetch-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	fetch(t, tmp, packages)
	must(t, os.RemoveAll(filepath.Join(tmp, "apt")))
	if err := os.Rename(tmp, dir); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	return dir
}

// fetch unpacks packages, with a state of apt's of its own: the machine's apt
// is to know nothing of another release.
func fetch(t *testing.T, dir string, packages []string) {
	t.Helper()
	apt := filepath.Join(dir, "apt")
	for _, d := range []string{"lists/partial", "cache/archives/partial", "debs"} {
		must(t, os.MkdirAll(filepath.Join(apt, d), 0o755))
	}
	list := "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] " + mirror(t) + " " + release + " main\n"
	must(t, os.WriteFile(filepath.Join(apt, "sources.list"), []byte(list), 0o600))
	must(t, os.WriteFile(filepath.Join(apt, "status"), nil, 0o600))
	own := []string{
		"-qq", "-o", "APT::Sandbox::User=root", "-o", "Dir::Etc::sourcelist=" + apt + "/sources.list", "-o", "Dir::Etc::sourceparts=-",
		"-o", "Dir::State::lists=" + apt + "/lists", "-o", "Dir::Cache=" + apt + "/cache", "-o", "Dir::State::status=" + apt + "/status",
	}
	command(t, apt, "apt-get", append(own, "update")...)
	command(t, filepath.Join(apt, "debs"), "apt-get", append(append(own, "download"), packages...)...)
	debs, err := filepath.Glob(filepath.Join(apt, "debs", "*.deb"))
	must(t, err)
	for _, deb := range debs {
		command(t, dir, "dpkg", "-x", deb, dir)
	}
}

// mirror is where this machine's packages come from.
func mirror(t *testing.T) string {
	t.Helper()
	for uri := range strings.Lines(command(t, "", "apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", "Origin: Debian", "Label: Debian")) {
		return strings.TrimSpace(uri)
	}
	lack(t, "apt knows no mirror of Debian (hint: apt-get update)", nil)
	return ""
}

// lack leaves the test out, but not where all is to be had.
func lack(t *testing.T, what string, err error) {
	t.Helper()
	if os.Getenv("CORONER_CI") == "1" {
		t.Fatalf("CORONER_CI=1, but %s: %v", what, err)
	}
	t.Skipf("needs a machine that this one is not: %s: %v", what, err)
}

// command runs a program of those that fetch packages, and gives its output.
func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	c := exec.Command(name, args...)
	c.Dir = dir
	var complaints strings.Builder
	c.Stderr = &complaints
	out, err := c.Output()
	if err != nil {
		lack(t, name+" "+args[len(args)-1], fmt.Errorf("%w: %s%s", err, out, complaints.String()))
	}
	return string(out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
