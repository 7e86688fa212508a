// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// rights are what a release has on the node and in the cluster, in the words
// of the test.
func rights(t *testing.T, values string) (node, cluster []string) {
	t.Helper()
	var v object
	if err := yaml.Unmarshal([]byte(values), &v); err != nil {
		t.Fatal(err)
	}
	r, err := render(load(t), v, "v1.34.4")
	if err != nil {
		t.Fatalf("%s: %v", values, err)
	}
	spec := at(t, r.objects["DaemonSet"], "spec", "template", "spec").(object)
	for _, key := range []string{"hostPID", "hostNetwork", "hostIPC", "shareProcessNamespace"} {
		if spec[key] == true {
			node = append(node, key)
		}
	}
	for _, key := range []string{"initContainers", "ephemeralContainers", "securityContext"} {
		if spec[key] != nil {
			node = append(node, key)
		}
	}
	if n := len(spec["containers"].([]any)); n != 1 {
		t.Errorf("%d containers", n)
	}
	node = append(node, confinement(t, at(t, spec, "containers", 0, "securityContext").(object))...)
	writes := map[string]bool{}
	mounts, _ := at(t, spec, "containers", 0).(object)["volumeMounts"].([]any)
	for _, m := range mounts {
		writes[m.(object)["name"].(string)] = m.(object)["readOnly"] != true
	}
	volumes, _ := spec["volumes"].([]any)
	for _, v := range volumes {
		name := v.(object)["name"].(string)
		if path, ok := v.(object)["hostPath"].(object); ok {
			how := "read"
			if writes[name] {
				how = "write"
			}
			node = append(node, how+" "+path["path"].(string))
		}
	}
	if spec["automountServiceAccountToken"] == true {
		cluster = append(cluster, "token")
	}
	if role, ok := r.objects["ClusterRole"]; ok {
		cluster = append(cluster, may(role)...)
	}
	slices.Sort(node)
	slices.Sort(cluster)
	return node, cluster
}

// confinement is what a container's security context leaves it, and what it
// does not take from it that can be taken from each.
func confinement(t *testing.T, c object) (out []string) {
	t.Helper()
	if c["readOnlyRootFilesystem"] != true {
		out = append(out, "writable root")
	}
	if c["privileged"] == true {
		return append(out, "privileged")
	}
	if c["allowPrivilegeEscalation"] != false {
		out = append(out, "escalation")
	}
	if s := at(t, c, "seccompProfile", "type"); s != "RuntimeDefault" {
		out = append(out, fmt.Sprint("seccomp ", s))
	}
	if drop := at(t, c, "capabilities", "drop"); fmt.Sprint(drop) != "[ALL]" {
		out = append(out, "capabilities by default")
	}
	add, _ := at(t, c, "capabilities").(object)["add"].([]any)
	for _, a := range add {
		out = append(out, "CAP_"+a.(string))
	}
	return out
}

func may(role object) (out []string) {
	for _, r := range role["rules"].([]any) {
		for _, what := range r.(object)["resources"].([]any) {
			for _, verb := range r.(object)["verbs"].([]any) {
				out = append(out, fmt.Sprint(verb, " ", what))
			}
		}
	}
	return out
}

// TestRights: what each value gives and takes, as docs/privileges.md says, and
// nothing beside.
func TestRights(t *testing.T) {
	node := []string{"CAP_BPF", "CAP_PERFMON", "CAP_SYSLOG", "read /sys/fs/cgroup", "read /var/log/pods", "write /var/lib/coroner"}
	cluster := []string{"create events", "get jobs", "list events", "list nodes", "list pods", "patch events", "token", "watch nodes", "watch pods"}
	for values, change := range map[string]string{
		"{}":                                  "",
		"sources: {tracepoint: false}":        "-CAP_BPF -CAP_PERFMON",
		"sources: {cgroup: false}":            "-read /sys/fs/cgroup",
		"sources: {kube: false}":              "-create events -get jobs -list events -list nodes -list pods -patch events -token -watch nodes -watch pods",
		"sources: {kmsg: false}":              "-CAP_SYSLOG",
		"sources: {criSocket: /run/crio/c.s}": "+read /run/crio",
		"podLogs: false":                      "-read /var/log/pods",
		"journal: true":                       "+read /run/log/journal +read /var/log/journal",
		"events: false":                       "-create events -patch events",
		"hostPID: true":                       "+hostPID",
		"history: {hostPath: \"\"}":           "-write /var/lib/coroner",
		"extraCapabilities: [SYS_PTRACE]":     "+CAP_SYS_PTRACE",
		"seccompProfile: {type: Unconfined}":  "+seccomp Unconfined",
		"kubelet: {caFile: /etc/k.crt}":       "+read /etc/k.crt",
		"rbac: {nodes: false}":                "-list nodes -watch nodes",
		"rbac: {writeEvents: false}":          "-create events -patch events",
		"rbac: {readEvents: false}":           "-list events",
		"rbac: {jobs: false}":                 "-get jobs",
		"rbac: {kubeletPods: true}":           "+get nodes/pods",
		"rbac: {kubeletConfig: true}":         "+get nodes/proxy",
		"{podMonitor: {create: true}, prometheusRule: {create: true}, dashboards: {create: true}, networkPolicy: {create: true}}": "",
	} {
		want := map[string]bool{}
		for _, r := range slices.Concat(node, cluster) {
			want[r] = true
		}
		for _, c := range strings.FieldsFunc(strings.NewReplacer(" +", "\n+", " -", "\n-").Replace(change), func(r rune) bool { return r == '\n' }) {
			if (c[0] == '-') != want[c[1:]] {
				t.Errorf("%s: %s is no change", values, c)
			}
			delete(want, c[1:])
			if c[0] == '+' {
				want[c[1:]] = true
			}
		}
		n, c := rights(t, values)
		if got, want := slices.Sorted(slices.Values(slices.Concat(n, c))), slices.Sorted(maps.Keys(want)); !slices.Equal(got, want) {
			t.Errorf("%s:\n got %v\nwant %v", values, got, want)
		}
	}
}

// TestPod_OutlivesAnOOM: Guaranteed, critical, on each node, and found by the
// command line, whatever the values.
func TestPod_OutlivesAnOOM(t *testing.T) {
	for _, name := range examples(t) {
		r, err := render(load(t), example(t, name), "v1.34.4")
		if err != nil {
			t.Fatal(err)
		}
		template := at(t, r.objects["DaemonSet"], "spec", "template").(object)
		if l := at(t, template, "metadata", "labels", "app.kubernetes.io/name"); l != "coroner" {
			t.Errorf("%q: the label is %v", name, l)
		}
		res := at(t, template, "spec", "containers", 0, "resources").(object)
		if fmt.Sprint(res["requests"]) != fmt.Sprint(res["limits"]) || len(res["limits"].(object)) != 2 {
			t.Errorf("%q: not Guaranteed: %v", name, res)
		}
		if p := at(t, template, "spec", "priorityClassName"); p != "system-node-critical" {
			t.Errorf("%q: priority %v", name, p)
		}
		if tol := at(t, template, "spec", "tolerations"); fmt.Sprint(tol) != "[map[operator:Exists]]" {
			t.Errorf("%q: tolerations %v", name, tol)
		}
		if p := at(t, template, "spec", "containers", 0, "ports", 0, "name"); p != "http" && name != "most" { // which has TLS
			t.Errorf("%q: port %v", name, p)
		}
		if env := at(t, template, "spec", "containers", 0, "env", 1); fmt.Sprint(env) != "map[name:GOMEMLIMIT value:128MiB]" {
			t.Errorf("%q: %v is not four fifths of the limit", name, env)
		}
	}
}
