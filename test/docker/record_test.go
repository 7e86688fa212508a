// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docker

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/test/engines"
)

// told is what two accounts of one death must have in common. Memory is what
// each recorder has of its own, and of the briefest lives one may have none.
type told struct {
	Cause      death.Cause
	Confidence death.Confidence
	Rule       string
	Code       int
	OOM        bool
}

func tell(ds []death.Death) map[string][]told {
	out := map[string][]told{}
	for _, d := range ds {
		if d.Container == nil || d.Container.Name == "" || d.Container.Name == "fence" {
			continue // somebody else's, or of which only the end of all before is looked at
		}
		x := told{Cause: d.Cause, Confidence: d.Confidence, Rule: d.Rule, OOM: d.OOM != nil}
		if d.Exit != nil && d.Exit.Code != nil {
			x.Code = *d.Exit.Code
		}
		out[d.Container.Name] = append(out[d.Container.Name], x)
	}
	return out
}

// record has the program record beside the agent, and returns what ends that
// and compares the deaths of its replay with the agent's.
func (m *morgue) record(t *testing.T, program string) (compare func()) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "signals")
	log, err := os.Create(file + ".log")
	engines.Must(t, err)
	defer log.Close()
	c := exec.Command(program, "record", "--source.docker.host", "unix://"+m.socket(), file)
	c.Stderr = log
	engines.Must(t, c.Start())
	ended := false
	end := func() {
		if !ended {
			ended = true
			_ = c.Process.Signal(syscall.SIGTERM)
			if err := c.Wait(); err != nil {
				t.Errorf("record: %v", err)
			}
		}
	}
	t.Cleanup(end)
	up := regexp.MustCompile(`source is up.*component=docker`)
	engines.Poll(t, "the recording", func() bool {
		text, err := os.ReadFile(log.Name())
		return err == nil && up.Match(text)
	})
	return func() {
		end()
		text, err := exec.Command(program, "replay", "-o", "json", file).Output()
		engines.Must(t, err)
		var replayed struct{ Deaths []death.Death }
		engines.Must(t, json.Unmarshal(text, &replayed))
		var live []death.Death
		for d, err := range m.agent.Client.All(t.Context(), api.Query{Since: m.agent.Began}) {
			engines.Must(t, err)
			live = append(live, d)
		}
		slices.Reverse(live)
		if diff := cmp.Diff(tell(live), tell(replayed.Deaths)); diff != "" {
			t.Errorf("the replay of the recording (-agent +replay):\n%s", diff)
		}
		if !slices.ContainsFunc(replayed.Deaths, func(d death.Death) bool { return d.Memory != nil && len(d.Memory.Samples) > 0 }) {
			t.Error("no death of the replay has its memory")
		}
	}
}
