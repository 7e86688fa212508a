// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/kubeclient"
)

func newAgent() *cobra.Command {
	o := agent.Defaults()
	o.Version, o.Revision = build()
	c := &cobra.Command{
		Use:   "agent",
		Short: "Watch this node; serve metrics, API and pages",
		Long: `agent watches this node until it is told to end. It works with whatever sources the
machine and its rights allow, and says on /-/ready and in coroner doctor what is missing.`,
		Example: `  coroner agent
  coroner agent --web.listen-address 127.0.0.1:3001 --history.path :memory:
  coroner agent --no-source.tracepoint`,
		Args: cobra.NoArgs,
	}
	logger := logFlags(c)
	f := c.Flags()
	sourceFlags(f, &o)
	switchFlag(f, &o.Sink.KubeEvents, "sink.kubeevents", "write events on pods that die, where the agent runs in a pod or has --source.kube.kubeconfig")
	pathFlags(f, &o.Path)
	f.StringVar(&o.NodeName, "node.name", o.NodeName, "name of this node (default: the host's name)")
	f.DurationVar(&o.Inquest.Settle, "inquest.settle", o.Inquest.Settle, "how long a death stays open for late evidence (default 5s)")
	f.DurationVar(&o.Inquest.TombstoneTTL, "roster.tombstone-ttl", o.Inquest.TombstoneTTL, "how long what is gone keeps its name (default 10m)")
	f.StringVar(&o.History.Path, "history.path", o.History.Path, `file of the deaths; ":memory:" keeps them in memory; a file that is no history is set aside`)
	f.DurationVar(&o.History.Retention, "history.retention", o.History.Retention, "how long deaths are kept; 0: for ever")
	size := bytesValue(o.History.MaxBytes)
	f.Var(&size, "history.max-size", "size beyond which the oldest deaths go; 0: no bound")
	f.StringArrayVar(&o.Web.ListenAddress, "web.listen-address", o.Web.ListenAddress, "address to serve on; may be repeated")
	f.BoolVar(&o.Web.SystemdSocket, "web.systemd-socket", false, "serve on the sockets that systemd passes instead")
	f.StringVar(&o.Web.ConfigFile, "web.config.file", "", "file with TLS and authentication settings, in the form of Prometheus' exporters")
	f.StringVar(&o.Web.ExternalURL, "web.external-url", "", "URL under which others reach this agent")
	f.StringVar(&o.Web.RoutePrefix, "web.route-prefix", "", "prefix of all paths (default: the path of --web.external-url)")
	f.StringVar(&o.Web.TelemetryPath, "web.telemetry-path", o.Web.TelemetryPath, "path of the metrics")
	f.BoolVar(&o.Web.EnablePprof, "web.enable-pprof", false, "serve /debug/pprof")
	c.RunE = func(c *cobra.Command, _ []string) error {
		o.Logger = logger()
		o.History.MaxBytes = int64(size)
		if err := checkAgent(o); err != nil {
			return usageError{withHint(err, "coroner agent --help")}
		}
		kubeclient.LogTo(o.Logger)
		limitMemory(o.Logger)
		frugal(o.Web.EnablePprof)
		lockText(o.Logger)
		o.Settled = func() { lockText(o.Logger) }
		o.Service = serviceOptions(os.LookupEnv)
		a, err := agent.New(c.Context(), o)
		if err != nil {
			return err
		}
		return a.Run(c.Context())
	}
	return c
}

// serviceOptions reads what a service manager passes (sd_notify(3),
// sd_watchdog_enabled(3)).
func serviceOptions(lookup func(string) (string, bool)) agent.ServiceOptions {
	var o agent.ServiceOptions
	o.NotifySocket, _ = lookup("NOTIFY_SOCKET")
	usec, _ := lookup("WATCHDOG_USEC")
	if n, err := strconv.ParseInt(usec, 10, 64); err == nil && n > 0 && n < math.MaxInt64/1000 {
		o.Watchdog = time.Duration(n) * time.Microsecond
	}
	return o
}

// checkAgent finds what the flags' types alone let through.
func checkAgent(o agent.Options) error {
	switch {
	case !slices.Contains(tracepointModes(), o.Source.TracepointMode):
		return fmt.Errorf("--source.tracepoint.mode: %q is not one of auto, bpf or tracefs", o.Source.TracepointMode)
	case o.History.Retention < 0:
		return errors.New("--history.retention: takes a time of 0 or more")
	case o.History.MaxBytes != 0 && o.History.MaxBytes < 1<<20:
		return errors.New("--history.max-size: takes 1M or more, or 0 for no bound")
	case o.Source.Kubelet != "" && !isURL(o.Source.Kubelet):
		return fmt.Errorf("--source.kube.kubelet: %q is not https://HOST:PORT or http://HOST:PORT", o.Source.Kubelet)
	case o.Source.NodeAddress != "" && !isAddress(o.Source.NodeAddress):
		return fmt.Errorf("--source.kube.node-address: %q is no IP address", o.Source.NodeAddress)
	case o.Inquest.Settle < 0:
		return errors.New("--inquest.settle: takes a time of 0 or more")
	case o.Inquest.TombstoneTTL < 0:
		return errors.New("--roster.tombstone-ttl: takes a time of 0 or more")
	}
	for _, a := range o.Web.ListenAddress {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("--web.listen-address: %q is not HOST:PORT or :PORT", a)
		}
	}
	return nil
}

// isURL tells whether s says where somebody answers HTTP.
func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
}

// isAddress tells whether s is an IP address.
func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func tracepointModes() []string { return []string{"auto", "bpf", "tracefs"} }

func sourceFlags(f *pflag.FlagSet, o *agent.Options) {
	switchFlag(f, &o.Source.Tracepoint, "source.tracepoint", "take kills from the kernel's tracepoints (eBPF, else a private tracefs instance)")
	switchFlag(f, &o.Source.Kmsg, "source.kmsg", "take the kernel's own reports from its log")
	switchFlag(f, &o.Source.Cgroup, "source.cgroup", "take the counters of control groups and of the machine")
	switchFlag(f, &o.Source.Docker, "source.docker", "take names and ends of containers from engines with Docker's API (Docker, podman)")
	f.StringArrayVar(&o.Source.DockerHosts, "source.docker.host", nil, "socket of such an engine, as unix:///run/docker.sock; may be repeated (default: the usual places)")
	switchFlag(f, &o.Source.Containerd, "source.containerd", "take names and ends of containers from containerd, in all its namespaces")
	f.StringArrayVar(&o.Source.ContainerdHosts, "source.containerd.host", nil, "socket of containerd, as unix:///run/containerd/containerd.sock; may be repeated (default: the usual places)")
	switchFlag(f, &o.Source.CRI, "source.cri", "take names and ends of containers from runtimes with the Kubernetes Container Runtime Interface")
	f.StringArrayVar(&o.Source.CRIEndpoints, "source.cri.endpoint", nil, "socket of such a runtime, as unix:///run/crio/crio.sock; may be repeated (default: the usual places)")
	switchFlag(f, &o.Source.Kube, "source.kube", "take pods, their ends and their evictions from the Kubernetes API, where the agent runs in a pod or has a kubeconfig")
	f.StringVar(&o.Source.Kubeconfig, "source.kube.kubeconfig", "", "where the API is, and as whom to ask it (default: the pod's service account)")
	f.StringVar(&o.Source.Kubelet, "source.kube.kubelet", "", "the kubelet's `URL`, asked for its pods while the API is away: https://HOST:10250 or http://HOST:10255 (default: port 10250 of the node)")
	f.StringVar(&o.Source.NodeAddress, "source.kube.node-address", "", "the node's `IP` address, at which its kubelet is asked; the certificate must still be of the node's name (default: where the name leads)")
	f.StringVar(&o.Source.KubeletCA, "source.kube.kubelet-ca", "", "`file` with the authority that the kubelet's certificate is of (default: the cluster's)")
	f.StringArrayVar(&o.Source.Labels, "container.label", nil, "label of containers to carry, or a prefix that ends in *; may be repeated (default: those that name a workload)")
	f.StringVar(&o.Source.TracepointMode, "source.tracepoint.mode", o.Source.TracepointMode, "auto, bpf or tracefs")
	f.StringVar(&o.Source.KmsgDevice, "source.kmsg.device", o.Source.KmsgDevice, "the kernel's log (default: dev/kmsg below --path.rootfs)")
}
