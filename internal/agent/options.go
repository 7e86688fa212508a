// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"log/slog"
	"time"

	"github.com/coroner-dev/coroner/internal/host"
)

// Options are the agent's flags; a field has its flag's name.
type Options struct {
	// Version and Revision of the program.
	Version, Revision string
	// NodeName is told with each death; empty: the host's name.
	NodeName string
	// Path says where the host's files are (--path.*).
	Path host.Roots

	Source  SourceOptions
	Sink    SinkOptions
	Inquest InquestOptions
	History HistoryOptions
	Web     WebOptions
	Service ServiceOptions

	// Settled is called once, when the start is over and what it took is given
	// back; nil: nobody is.
	Settled func()

	// growthAfter is how long the node's memory is looked at before growth is
	// concluded from; 0: nodemap's default.
	growthAfter time.Duration

	// Logger takes what is worth knowing; nil discards.
	Logger *slog.Logger
}

// SourceOptions switch the sources on and off.
type SourceOptions struct {
	Tracepoint, Kmsg, Cgroup, Docker, Containerd, CRI, Kube bool
	// TracepointMode is auto, bpf or tracefs.
	TracepointMode string
	// KmsgDevice is the kernel's log; empty: /dev/kmsg.
	KmsgDevice string
	// DockerHosts are the sockets of engines with Docker's API; empty: the
	// usual places.
	DockerHosts []string
	// ContainerdHosts are sockets of containerd; empty: the usual places.
	ContainerdHosts []string
	// CRIEndpoints are sockets of runtimes with the CRI; empty: the usual places.
	CRIEndpoints []string
	// Kubeconfig says where the Kubernetes API is, and as whom to ask it; empty:
	// as the service account of the pod that the agent runs in.
	Kubeconfig string
	// Kubelet is the URL of the node's kubelet, asked for its pods while the API is
	// away; empty: port 10250 of the node. KubeletCA is a file with the authority
	// that its certificate is of; empty: the cluster's. NodeAddress is where the node
	// is asked; empty: by its name.
	Kubelet, KubeletCA, NodeAddress string
	// Labels are those of containers to carry: names, or prefixes that end in
	// an asterisk; nil: those that name a workload.
	Labels []string
}

// SinkOptions switch the sinks on and off that tell others of deaths.
type SinkOptions struct {
	// KubeEvents makes events of deaths, where Source.Kubeconfig or the pod that
	// the agent runs in says where the API is.
	KubeEvents bool
}

// InquestOptions set the inquest's patience; zero values take its defaults.
type InquestOptions struct {
	Settle       time.Duration
	TombstoneTTL time.Duration
}

// HistoryOptions say where deaths are kept, and for how long.
type HistoryOptions struct {
	// Path is a file, or ":memory:".
	Path      string
	Retention time.Duration
	MaxBytes  int64
}

// WebOptions say where and how the agent serves.
type WebOptions struct {
	ListenAddress []string
	SystemdSocket bool
	// ConfigFile is exporter-toolkit's: TLS and basic authentication.
	ConfigFile    string
	ExternalURL   string
	RoutePrefix   string
	TelemetryPath string
	// EnablePprof serves /debug/pprof.
	EnablePprof bool
}

// ServiceOptions come from the service manager that started the agent.
type ServiceOptions struct {
	// NotifySocket is told when the agent watches ($NOTIFY_SOCKET); empty:
	// nobody is.
	NotifySocket string
	// Watchdog is the manager's patience ($WATCHDOG_USEC); 0: without end.
	Watchdog time.Duration
}

// Defaults are the options that the flags start from.
func Defaults() Options {
	return Options{
		Source:  SourceOptions{Tracepoint: true, Kmsg: true, Cgroup: true, Docker: true, Containerd: true, CRI: true, Kube: true, TracepointMode: "auto"},
		Sink:    SinkOptions{KubeEvents: true},
		History: HistoryOptions{Path: DefaultHistoryPath, Retention: 90 * 24 * time.Hour, MaxBytes: 128 << 20},
		Web:     WebOptions{ListenAddress: []string{":3001"}, TelemetryPath: "/metrics"},
	}
}

// DefaultHistoryPath is below the directory that a systemd unit or a manifest
// gives the agent for its state.
const DefaultHistoryPath = "/var/lib/coroner/deaths.db"
