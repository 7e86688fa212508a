// SPDX-License-Identifier: Apache-2.0

// Package chart holds deploy/helm/coroner, and the manifests that are made of
// it, against what the API of several Kubernetes versions takes and against
// how few rights they are to have. It is a module of its own, so that coroner
// does not depend on helm.
package chart

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"helm.sh/helm/v3/pkg/releaseutil"
	"sigs.k8s.io/yaml"
)

const folder = "../../deploy/helm/coroner"

// rendered is what helm would install.
type rendered struct {
	objects map[string]object // by kind
	text    string            // of all, in the order of their making
	notes   string
}

type object = map[string]any

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// render makes the objects of a release "coroner" in the namespace "coroner".
func render(c *chart.Chart, values object, version string) (*rendered, error) {
	caps := chartutil.DefaultCapabilities.Copy()
	kube, err := chartutil.ParseKubeVersion(version)
	if err != nil {
		return nil, err
	}
	caps.KubeVersion = *kube
	if !chartutil.IsCompatibleRange(c.Metadata.KubeVersion, version) {
		return nil, fmt.Errorf("the chart takes %s", c.Metadata.KubeVersion)
	}
	all, err := chartutil.ToRenderValues(c, values, chartutil.ReleaseOptions{Name: "coroner", Namespace: "coroner", Revision: 1, IsInstall: true}, caps)
	if err != nil {
		return nil, err
	}
	files, err := engine.Engine{Strict: true}.Render(c, all)
	if err != nil {
		return nil, err
	}
	notes := path.Join(c.Name(), "templates/NOTES.txt")
	r := &rendered{objects: map[string]object{}, notes: files[notes]}
	delete(files, notes)
	_, manifests, err := releaseutil.SortManifests(files, caps.APIVersions, releaseutil.InstallOrder)
	if err != nil {
		return nil, err
	}
	for _, m := range manifests {
		var o object
		if err := yaml.UnmarshalStrict([]byte(m.Content), &o); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		kind, _ := o["kind"].(string)
		if r.objects[kind] != nil {
			return nil, fmt.Errorf("%s: a second %s", m.Name, kind)
		}
		r.objects[kind] = o
		r.text += "---\n" + strings.TrimSpace(m.Content) + "\n"
	}
	return r, nil
}

// example is a file of testdata/values; "" are the chart's own.
func example(t *testing.T, name string) object {
	t.Helper()
	if name == "" {
		return object{}
	}
	text, err := os.ReadFile(filepath.Join("testdata/values", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var v object
	if err := yaml.UnmarshalStrict(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func examples(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/values/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no values: %v", err)
	}
	names := []string{""}
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".yaml"))
	}
	return names
}

func TestChart_Lint(t *testing.T) {
	for _, name := range examples(t) {
		for _, m := range lint.All(folder, example(t, name), "coroner", true).Messages {
			if m.Severity > support.InfoSev {
				t.Errorf("values %q: %s", name, m)
			}
		}
	}
}

// TestChart_IsWhatTheAPITakes: with each file of values, each object is one
// that each of the Kubernetes versions takes, and no field is unknown to it.
func TestChart_IsWhatTheAPITakes(t *testing.T) {
	c := load(t)
	seen := map[string]bool{}
	for version, schemas := range versions(t) {
		for _, name := range examples(t) {
			r, err := render(c, example(t, name), version)
			if err != nil {
				t.Errorf("%s, values %q: %v", version, name, err)
				continue
			}
			for kind, o := range r.objects {
				seen[kind] = true
				if err := schemas.validate(o); err != nil {
					t.Errorf("%s, values %q, %s: %v", version, name, kind, err)
				}
			}
		}
	}
	want := []string{"ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet", "NetworkPolicy", "PodMonitor", "PrometheusRule", "Service", "ServiceAccount"}
	if got := slices.Sorted(maps.Keys(seen)); !slices.Equal(got, want) {
		t.Errorf("kinds %v, want %v", got, want)
	}
	if _, err := render(c, object{}, "v1.24.17"); err == nil {
		t.Error("Kubernetes 1.24 is taken, which nobody has looked at")
	}
}

// TestSchemas_Refuse: what holds the others to account does.
func TestSchemas_Refuse(t *testing.T) {
	c := load(t)
	for version, schemas := range versions(t) {
		for what, spoil := range map[string]func(o object){
			"an unknown field":  func(o object) { at(t, o, "spec", "template", "spec").(object)["hostPid"] = true },
			"another type":      func(o object) { at(t, o, "spec", "template", "spec").(object)["hostPID"] = "yes" },
			"no selector":       func(o object) { delete(o["spec"].(object), "selector") },
			"an unknown object": func(o object) { o["apiVersion"] = "extensions/v1beta1" },
		} {
			r, err := render(c, object{}, version)
			if err != nil {
				t.Fatal(err)
			}
			o := r.objects["DaemonSet"]
			spoil(o)
			if schemas.validate(o) == nil {
				t.Errorf("%s takes a DaemonSet with %s", version, what)
			}
		}
	}
}

// TestValues_Refused: what cannot be meant is refused, by its name.
func TestValues_Refused(t *testing.T) {
	c := load(t)
	for text, want := range map[string]string{
		"source: {kmsg: true}":                            "source",
		"sources: {docker: true}":                         "docker",
		"sources: {kmsg: \"yes\"}":                        "sources/kmsg",
		"sources: {criSocket: containerd.sock}":           "sources/criSocket",
		"sources: {criSocket: /var/run/cri-dockerd.sock}": "sources/criSocket",
		"resources: {memory: 32Mi}":                       "resources/memory",
		"resources: {memory: 1G}":                         "resources/memory",
		"resources: {limits: {memory: 1Gi}}":              "limits",
		"extraCapabilities: [CAP_SYS_ADMIN]":              "extraCapabilities/0",
		"extraArgs: [\"-v\"]":                             "extraArgs/0",
		"podLabels: {app.kubernetes.io/name: other}":      "podLabels",
		"image: {repository: \"coroner:latest\"}":         "image/repository",
		"image: {digest: abc}":                            "image/digest",
		"history: {retention: 90d}":                       "history/retention",
		"seccompProfile: {}":                              "",
		"seccompProfile: {type: None}":                    "seccompProfile/type",
		"web: {port: 70000}":                              "web/port",
		"networkPolicy: {apiPorts: []}":                   "networkPolicy/apiPorts",
	} {
		var v object
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		_, err := render(c, v, "v1.34.4")
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, which does not name %s", text, err, want)
		}
	}
}

// TestArgs_AreFlags: what the container is started with are flags of the agent's.
func TestArgs_AreFlags(t *testing.T) {
	var source strings.Builder
	files, _ := filepath.Glob("../../cmd/coroner/*.go")
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(text)
	}
	for _, name := range examples(t) {
		r, err := render(load(t), example(t, name), "v1.34.4")
		if err != nil {
			t.Fatal(err)
		}
		args := at(t, r.objects["DaemonSet"], "spec", "template", "spec", "containers", 0, "args").([]any)
		for _, a := range args[1:] {
			flag, _, _ := strings.Cut(strings.TrimPrefix(a.(string), "--"), "=")
			if flag = strings.TrimPrefix(flag, "no-"); !strings.Contains(source.String(), `"`+flag+`"`) {
				t.Errorf("values %q: the agent has no flag of %s", name, a)
			}
		}
	}
}

// at is a part of an object.
func at(t *testing.T, o object, keys ...any) any {
	t.Helper()
	var v any = o
	for _, k := range keys {
		switch k := k.(type) {
		case string:
			m, ok := v.(object)
			if !ok {
				t.Fatalf("%v: no object before %q", keys, k)
			}
			v = m[k]
		case int:
			l, ok := v.([]any)
			if !ok || k >= len(l) {
				t.Fatalf("%v: no list before %d", keys, k)
			}
			v = l[k]
		}
	}
	return v
}

// TestKubelet: the kubelet is asked at its node's address, and where it is asked
// the NetworkPolicy lets the agent out to its port.
func TestKubelet(t *testing.T) {
	const list, own = "rbac: {kubeletPods: true}", "--source.kube.node-address=$(NODE_IP)"
	for values, want := range map[string]struct {
		ports string
		args  []string
	}{
		"web: {port: 3001}": {"[443 6443]", []string{own}},
		list:                {"[443 6443 10250]", []string{own}},
		list + "\nkubelet: {url: \"http://$(NODE_IP):10255\"}": {"[443 6443 10255]", []string{own, "--source.kube.kubelet=http://$(NODE_IP):10255"}},
		"kubelet: {url: \"https://kubelet.example:8443/\"}":    {"[443 6443 8443]", []string{own, "--source.kube.kubelet=https://kubelet.example:8443/"}},
		"kubelet: {url: \"https://[fd00::7]\"}":                {"[443 6443 443]", []string{own, "--source.kube.kubelet=https://[fd00::7]"}},
		"kubelet: {url: \"http://10.0.0.7\"}":                  {"[443 6443 80]", []string{own, "--source.kube.kubelet=http://10.0.0.7"}},
		list + "\nsources: {kube: false}":                      {"[]", nil},
	} {
		var v object
		if err := yaml.UnmarshalStrict([]byte(values+"\nnetworkPolicy: {create: true}"), &v); err != nil {
			t.Fatal(err)
		}
		r, err := render(load(t), v, "v1.34.4")
		if err != nil {
			t.Errorf("%s: %v", values, err)
			continue
		}
		ports := []any{}
		for _, to := range at(t, r.objects["NetworkPolicy"], "spec", "egress").([]any) {
			for _, p := range to.(object)["ports"].([]any) {
				ports = append(ports, p.(object)["port"])
			}
		}
		if got := fmt.Sprint(ports); got != want.ports {
			t.Errorf("%s: out to %s, want %s", values, got, want.ports)
		}
		c := at(t, r.objects["DaemonSet"], "spec", "template", "spec", "containers", 0).(object)
		var args []string
		for _, a := range c["args"].([]any) {
			if s := a.(string); strings.HasPrefix(s, "--source.kube") {
				args = append(args, s)
			}
		}
		if !slices.Equal(args, want.args) {
			t.Errorf("%s: started with %q, want %q", values, args, want.args)
		}
		if env := fmt.Sprint(c["env"]); strings.Contains(env, "status.hostIP") != (want.args != nil) {
			t.Errorf("%s: environment %s", values, env)
		}
	}
}

// TestEvents_NeedTheAPI: without a token no event is tried, which would be told as
// a sink that is down.
func TestEvents_NeedTheAPI(t *testing.T) {
	for values, want := range map[string]bool{"events: true": true, "events: false": false, "sources: {kube: false}": false} {
		var v object
		if err := yaml.UnmarshalStrict([]byte(values), &v); err != nil {
			t.Fatal(err)
		}
		r, err := render(load(t), v, "v1.34.4")
		if err != nil {
			t.Fatal(err)
		}
		args := at(t, r.objects["DaemonSet"], "spec", "template", "spec", "containers", 0, "args").([]any)
		if got := !slices.Contains(args, any("--no-sink.kubeevents")); got != want {
			t.Errorf("%s: events are tried: %v, want %v", values, got, want)
		}
	}
}
