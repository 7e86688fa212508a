// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/coroner-dev/coroner/internal/engines"
)

// infoKey is where containerd and CRI-O put what they themselves know of a
// container into the answer to a question for everything.
const infoKey = "info"

// info is what is taken of it.
type info struct {
	pid    int
	cgroup string // path of the cgroup that was asked for; empty: not known
	limit  *int64
	// program is what the first process is started as.
	program string
}

// parseInfo reads it. The interface does not say what is in it; empty is
// nothing.
func parseInfo(text string) (info, error) {
	if text == "" {
		return info{}, nil
	}
	var raw struct {
		PID            int             `json:"pid"`
		RuntimeType    string          `json:"runtimeType"` // containerd's
		RuntimeOptions json.RawMessage `json:"runtimeOptions"`
		RuntimeSpec    struct {
			Process struct {
				Args []string `json:"args"`
			} `json:"process"`
			Linux struct {
				CgroupsPath string `json:"cgroupsPath"`
				Resources   struct {
					Memory struct {
						Limit *int64 `json:"limit"`
					} `json:"memory"`
				} `json:"resources"`
			} `json:"linux"`
		} `json:"runtimeSpec"`
	}
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		return info{}, fmt.Errorf("parse info: %w", err)
	}
	i := info{cgroup: cgroupOf(raw.RuntimeSpec.Linux.CgroupsPath), program: engines.Program(raw.RuntimeSpec.Process.Args...)}
	if raw.RuntimeType != "" && !strings.HasPrefix(raw.RuntimeSpec.Linux.CgroupsPath, "/") && !asksSystemd(raw.RuntimeOptions) {
		i.cgroup = ""
	}
	if raw.PID > 0 {
		i.pid = raw.PID
	}
	if n := raw.RuntimeSpec.Linux.Resources.Memory.Limit; n != nil && *n > 0 {
		i.limit = n
	}
	return i, nil
}

// asksSystemd tells whether containerd's runtime was told to make cgroups by
// systemd. Else what looks like a unit is a name below the runtime's own cgroup.
func asksSystemd(options []byte) bool {
	var o struct {
		SystemdCgroup bool `json:"systemd_cgroup"`
	}
	return json.Unmarshal(options, &o) == nil && o.SystemdCgroup
}

// cgroupOf turns a cgroupsPath of the OCI runtime specification into a path
// below the root of the hierarchy: an absolute one is it, and
// slice:prefix:name is a scope of systemd. Of a relative one only the runtime
// knows where it begins.
func cgroupOf(spec string) string {
	if len(spec) > engines.MaxPath {
		return ""
	}
	if strings.HasPrefix(spec, "/") {
		if p := path.Clean(spec); p != "/" {
			return engines.Cut(p, engines.MaxPath)
		}
		return ""
	}
	if p := engines.SystemdCgroup(spec); len(p) <= engines.MaxPath {
		return p
	}
	return ""
}

// ownCgroup finds a container's own cgroup on the path of the one in which its
// first process lives, by the path that was asked for or by its id; empty: that
// process lives elsewhere.
func ownCgroup(lives, id, spec string) string {
	if spec != "" {
		// What is above the path, a runtime in a container does not see.
		if i := strings.Index(lives, spec); i >= 0 {
			end := i + len(spec)
			if end == len(lives) || lives[end] == '/' {
				return engines.Cut(lives[:end], engines.MaxPath)
			}
		}
	}
	return engines.Cut(engines.OwnCgroup(lives, id), engines.MaxPath)
}
