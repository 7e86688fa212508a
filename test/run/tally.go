// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// event is one line of go test -json (go doc test2json).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

// tally counts results and keeps the reasons of what was left out.
type tally struct {
	out     io.Writer
	passed  int
	failed  []string
	outputs map[string][]string // by package and test, until its end
	left    map[string]string   // what was left out, and why
	ran     map[string]bool     // tests that ran somewhere
}

func newTally(out io.Writer) *tally {
	return &tally{out: out, outputs: make(map[string][]string), left: make(map[string]string), ran: make(map[string]bool)}
}

func (t *tally) title(s string) { fmt.Fprintf(t.out, "\n== %s\n", s) }

func (t *tally) leave(what, why string) { t.left[what] = why }

func (t *tally) broken(what string, err error) {
	fmt.Fprintf(t.out, "FAIL %s: %v\n", what, err)
	t.failed = append(t.failed, what)
}

// add takes in what the tally of a part counted.
func (t *tally) add(part *tally) {
	t.passed += part.passed
	t.failed = append(t.failed, part.failed...)
	maps.Copy(t.left, part.left)
	maps.Copy(t.ran, part.ran)
}

// follow runs a command that writes events. pkg names the package where the
// events do not, where says on which machine it ran.
func (t *tally) follow(c *exec.Cmd, pkg, where string) error {
	pipe, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	failed := len(t.failed)
	dec := json.NewDecoder(pipe)
	for {
		var e event
		if err := dec.Decode(&e); err != nil {
			if !errors.Is(err, io.EOF) {
				_, _ = io.Copy(t.out, io.MultiReader(dec.Buffered(), pipe))
			}
			break
		}
		if e.Package == "" {
			e.Package = pkg
		}
		t.take(e, where)
	}
	if err := c.Wait(); err != nil && len(t.failed) == failed {
		return err // nothing told why
	}
	return nil
}

func (t *tally) take(e event, where string) {
	key := e.Package + " " + e.Test
	name := strings.TrimSpace(short(e.Package) + " " + e.Test)
	switch e.Action {
	case "output", "build-output":
		t.outputs[key] = append(t.outputs[key], e.Output)
		return
	case "pass":
		if e.Test != "" {
			t.passed++
			t.ran[name] = true
		} else {
			fmt.Fprintln(t.out, strings.TrimSpace(fmt.Sprintf("ok   %-40s %6.1f s  %s", name, e.Elapsed, where)))
		}
	case "fail":
		t.fail(e, strings.TrimSpace(name+" "+where), t.outputs[key])
	case "build-fail":
		fmt.Fprint(t.out, strings.Join(t.outputs[key], ""))
	case "skip":
		if e.Test != "" {
			t.left[name] = reason(t.outputs[key])
		}
	default:
		return
	}
	delete(t.outputs, key)
}

// unfinished tells what tests said that never ended.
func (t *tally) unfinished() {
	for _, key := range slices.Sorted(maps.Keys(t.outputs)) {
		fmt.Fprint(t.out, strings.Join(t.outputs[key], ""))
	}
}

// fail notes a failed test, or a package that failed without one.
func (t *tally) fail(e event, what string, output []string) {
	told := slices.ContainsFunc(t.failed, func(f string) bool { return strings.HasPrefix(f, short(e.Package)+" Test") })
	if e.Test == "" && told {
		return
	}
	fmt.Fprintf(t.out, "FAIL %s\n%s", what, strings.Join(output, ""))
	t.failed = append(t.failed, what)
}

// reason finds what a skipped test said.
func reason(lines []string) string {
	for _, l := range lines {
		if _, why, ok := strings.Cut(l, ".go:"); ok {
			if _, why, ok := strings.Cut(why, ": "); ok {
				return strings.TrimSpace(why)
			}
		}
	}
	return "no reason given"
}

const module = "github.com/coroner-dev/coroner/"

func short(pkg string) string { return strings.TrimPrefix(pkg, module) }

// end tells everything once more, in few lines, and gives the exit status.
func (t *tally) end(took time.Duration, ci bool) int {
	t.title("summary")
	var left []string
	for what, why := range t.left {
		if !t.ran[what] {
			left = append(left, fmt.Sprintf("  %s: %s", what, why))
		}
	}
	slices.Sort(left)
	if len(left) > 0 {
		fmt.Fprintf(t.out, "left out:\n%s\n", strings.Join(left, "\n"))
	}
	if len(t.failed) > 0 {
		fmt.Fprintf(t.out, "failed:\n  %s\n", strings.Join(t.failed, "\n  "))
	}
	parts := 0
	for _, l := range left {
		if strings.HasPrefix(l, "  "+wholePart) {
			parts++
		}
	}
	verdict, code := "PASS", 0
	if len(t.failed) > 0 || ci && parts > 0 {
		verdict, code = "FAIL", 1
	}
	fmt.Fprintf(t.out, "%s: %d passed, %d failed, %d left out, in %s\n", verdict, t.passed, len(t.failed), len(left), took.Round(time.Second))
	return code
}

// wholePart opens the name of a part that was left out as a whole.
const wholePart = "all tests in "
