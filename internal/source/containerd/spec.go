// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"encoding/json"
	"path"
	"strings"
	"unicode/utf8"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

// The namespaces whose containers somebody else names.
const (
	nsKubernetes = "k8s.io" // of containerd's own CRI
	nsDocker     = "moby"
)

// Labels that say who a container is.
const (
	labelKind         = "io.cri-containerd.kind" // container, sandbox
	labelPodName      = "io.kubernetes.pod.name"
	labelPodNamespace = "io.kubernetes.pod.namespace"
	labelPodUID       = "io.kubernetes.pod.uid"
	labelInPod        = "io.kubernetes.container.name"
	labelNerdctl      = "nerdctl/name"
	labelNerdctlDir   = "nerdctl/state-dir"
	labelNerdctlLog   = "nerdctl/log-config"
	labelStopSignal   = "io.containerd.image.config.stop-signal"
)

// What the CRI keeps of a container: the name before containerd 2, and since.
var criMetadata = []string{"io.cri-containerd.container.metadata", "io.containerd.cri.container.metadata"}

// spec is what is read of an OCI runtime's configuration.
type spec struct {
	Annotations map[string]string `json:"annotations"`
	Process     struct {
		Args []string `json:"args"`
	} `json:"process"`
	Linux *struct {
		CgroupsPath string `json:"cgroupsPath"`
		Resources   *struct {
			Memory *struct {
				Limit *int64 `json:"limit"`
			} `json:"memory"`
		} `json:"resources"`
	} `json:"linux"`
}

// criContainer is what is read of what the CRI keeps.
type criContainer struct {
	Metadata struct {
		LogPath    string
		StopSignal string
		Config     *struct {
			Metadata *struct {
				Attempt int `json:"attempt"`
			} `json:"metadata"`
		}
	}
}

// reader turns an engine's answers into values of ours. It does no I/O.
type reader struct {
	labels engines.Selection
}

// described is what an engine says of one container.
type described struct {
	seen signal.ContainerSeen
	// cgroup is its own one, as far as its configuration says; literal is what
	// the configuration says where that is no path.
	cgroup, literal string
	lost            int  // labels cut or left out
	unread          bool // its configuration could not be read
}

// describe reads the answer about one container.
func (r reader) describe(namespace string, c *containersapi.Container) (described, error) {
	id := c.GetID()
	if !engines.ValidID(id) {
		return described{}, errNoID
	}
	id = strings.Clone(id)
	var d described
	d.seen = signal.ContainerSeen{Namespace: namespace, Container: death.Container{ID: id, Runtime: runtimeOf(namespace)}}
	seen := &d.seen
	seen.Container.Labels, d.lost = r.labels.Pick(c.GetLabels())
	seen.Container.Image = engines.Cut(c.GetImage(), engines.MaxImage)
	seen.StopSignal = engines.SignalNumber(c.GetLabels()[labelStopSignal])
	d.configure(c)
	d.name(c)
	return d, nil
}

// runtimeOf is whose a container is.
func runtimeOf(namespace string) string {
	if namespace == nsDocker {
		return "docker"
	}
	return runtime
}

// runtime is what containerd's own containers are told by.
const runtime = "containerd"

// name says who a container is. That it is of a pod, or only holds one, is
// believed in the namespace where the CRI sets these labels over all others.
func (d *described) name(c *containersapi.Container) {
	seen, labels := &d.seen, c.GetLabels()
	kind := labels[labelKind]
	switch {
	case seen.Namespace == nsDocker:
		return
	case seen.Namespace == nsKubernetes && kind != "":
		seen.Sandbox = kind == "sandbox"
		seen.Container.Name = engines.Cut(labels[labelInPod], engines.MaxName)
		pod := death.Pod{
			Namespace: engines.Cut(labels[labelPodNamespace], engines.MaxName),
			Name:      engines.Cut(labels[labelPodName], engines.MaxName),
			UID:       engines.Cut(labels[labelPodUID], engines.MaxName),
		}
		if pod != (death.Pod{}) {
			seen.Container.Pod = &pod
		}
		if !seen.Sandbox {
			d.cri(c.GetExtensions())
		}
	default:
		seen.Container.Name = engines.Cut(labels[labelNerdctl], engines.MaxName)
		seen.Container.Workload = engines.Workload(seen.Container.Name, labels)
		seen.LogPath = nerdctlLog(seen.Namespace, seen.Container.ID, labels)
	}
	if seen.Container.Name == "" {
		seen.Container.Name = seen.Container.ID
	}
}

// cri takes what the CRI keeps of a container.
func (d *described) cri(extensions map[string]*anypb.Any) {
	for _, name := range criMetadata {
		e := extensions[name]
		if e == nil {
			continue
		}
		var m criContainer
		if json.Unmarshal(e.GetValue(), &m) != nil {
			d.unread = true
			continue
		}
		d.seen.LogPath = logPath(m.Metadata.LogPath)
		if n := engines.SignalNumber(m.Metadata.StopSignal); n != 0 {
			d.seen.StopSignal = n
		}
		if f := m.Metadata.Config; f != nil && f.Metadata != nil && f.Metadata.Attempt >= 0 {
			d.seen.Container.RestartCount = new(f.Metadata.Attempt)
		}
	}
}

// nerdctlLog is where nerdctl's json-file logger writes, in a folder that it
// names after the container.
func nerdctlLog(namespace, id string, labels map[string]string) string {
	dir := labels[labelNerdctlDir]
	if !strings.HasSuffix(dir, "/containers/"+namespace+"/"+id) {
		return ""
	}
	if text, ok := labels[labelNerdctlLog]; ok {
		var c struct {
			Driver string            `json:"driver"`
			Opts   map[string]string `json:"opts"`
		}
		if json.Unmarshal([]byte(text), &c) != nil || c.Driver != "json-file" || c.Opts["log-path"] != "" {
			return ""
		}
	}
	return logPath(dir + "/" + id + "-json.log")
}

// logPath takes a path that is one.
func logPath(p string) string {
	if !path.IsAbs(p) || path.Clean(p) != p || len(p) > engines.MaxPath {
		return ""
	}
	return engines.Cut(p, engines.MaxPath)
}

// configure takes the limit and the cgroup of the OCI runtime's configuration.
func (d *described) configure(c *containersapi.Container) {
	if !strings.Contains(c.GetSpec().GetTypeUrl(), "/runtime-spec/") {
		return
	}
	var s spec
	if json.Unmarshal(c.GetSpec().GetValue(), &s) != nil {
		d.unread = true
		return
	}
	// An image that the CRI knows only by its digest has its name here.
	const imageName = "io.kubernetes.cri.image-name"
	if name := s.Annotations[imageName]; name != "" && d.seen.Namespace == nsKubernetes && strings.HasPrefix(d.seen.Container.Image, "sha256:") {
		d.seen.Container.Image = engines.Cut(name, engines.MaxImage)
	}
	if d.seen.Namespace != nsDocker { // Docker says itself what it was asked for, its init put aside
		d.seen.Program = engines.Program(s.Process.Args...)
	}
	if s.Linux == nil {
		return
	}
	if r := s.Linux.Resources; r != nil && r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 {
		d.seen.LimitBytes = r.Memory.Limit
	}
	d.place(s.Linux.CgroupsPath, c.GetRuntime().GetOptions())
}

// place takes the cgroup that the configuration asks for.
func (d *described) place(p string, options *anypb.Any) {
	switch {
	case len(p) > engines.MaxPath || !utf8.ValidString(p):
	case path.IsAbs(p):
		if p = path.Clean(p); p != "/" {
			d.cgroup = p
		}
	case strings.Count(p, ":") == 2:
		d.literal = p
		if !cgroupfs(options) {
			d.cgroup = engines.SystemdCgroup(p)
		}
	}
}

// cgroupfs tells whether the runtime is one that was told not to ask systemd
// for cgroups. Then what looks like a unit is a name below its own cgroup.
func cgroupfs(o *anypb.Any) bool {
	var opt options.Options
	if !strings.HasSuffix(o.GetTypeUrl(), "containerd.runc.v1.Options") {
		return false
	}
	return proto.Unmarshal(o.GetValue(), &opt) == nil && !opt.GetSystemdCgroup()
}

// own is a container's own cgroup: as its configuration says, put right by
// where its first process lives ("" or "/": not known). That can be deeper in
// it, or below another root, for example that of a nested containerd.
func (d *described) own(lives string) string {
	if p := d.found(lives); len(p) <= engines.MaxPath && utf8.ValidString(p) {
		return p
	}
	return ""
}

func (d *described) found(lives string) string {
	if lives == "" || lives == "/" {
		return d.cgroup
	}
	for _, name := range []string{d.cgroup, "/" + d.literal} {
		if name == "" || name == "/" {
			continue
		}
		if i := strings.Index(lives+"/", name+"/"); i >= 0 {
			return lives[:i+len(name)]
		}
	}
	if d.cgroup == "" {
		return engines.OwnCgroup(lives, d.seen.Container.ID)
	}
	return d.cgroup
}
