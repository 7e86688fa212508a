// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

const (
	realID    = "87b0753e33cbe04b208b654d5e0edc092c80acf4e2dfc104922849a4b63ac7da"
	realImage = "sha256:c1a67146e644391451b4bbba49ccf34c8291f995310633a3ee8d51f900fe4612"
	shortID   = "c3282e277961fe3454b671ff37ff4b6530c0ffccfa43a37ae4374554c727ef39"
)

func dockerReader() reader {
	return reader{runtime: "docker", labels: engines.SelectionOf(DefaultLabels())}
}

// sample reads a real answer. The container "web" of Docker 20.10.24 has
// labels named exitCode and signal.
func sample(t testing.TB, name string, into any) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if into != nil {
		if err := json.Unmarshal(b, into); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func sampleEvents(t testing.TB, engine string) []events.Message {
	t.Helper()
	var out []events.Message
	for line := range strings.Lines(string(sample(t, engine+"/events.jsonl", nil))) {
		var m events.Message
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

func TestEvent_Real(t *testing.T) {
	var got []string
	for _, m := range sampleEvents(t, "docker-20.10.24") {
		h, err := dockerReader().event(m)
		if errors.Is(err, errIgnore) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		line := string(h.action) + " " + h.seen.Container.Name + " " + h.seen.Container.Image + " " + h.seen.State
		if h.forged {
			line += " forged"
		}
		if h.code != nil {
			line += " " + string(rune('0'+*h.code))
		}
		if h.at.Year() != 2026 {
			t.Errorf("%s: time %v", line, h.at)
		}
		got = append(got, line)
	}
	want := []string{
		"create web base:1 created forged", "start web base:1 running forged", "kill web base:1 ", "kill web base:1 ",
		"die web base:1  0", "stop web base:1 ", "create short base:1 created", "start short base:1 running",
		"die short base:1  3", "destroy short base:1 ", "rename web2 base:1 ", "destroy web2 base:1 ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// TestPodman_Real: podman 4.3.1 speaks Docker's API in its own way, and its
// container "pweb" has a label named exitCode.
func TestPodman_Real(t *testing.T) {
	r := reader{runtime: podman, labels: engines.SelectionOf(DefaultLabels())}
	var got []string
	for _, m := range sampleEvents(t, "podman-4.3.1") {
		h, err := r.event(m)
		if errors.Is(err, errIgnore) {
			continue
		}
		if err != nil || h.forged {
			t.Fatal(err, h.forged)
		}
		line := string(h.action) + " " + h.seen.Container.Name
		if h.code != nil {
			line += " " + strconv.Itoa(*h.code)
		}
		got = append(got, line)
	}
	want := []string{
		"create pweb", "start pweb", "die pweb 137",
		"create pshort", "start pshort", "die pshort 3", "destroy pshort", "destroy pweb",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	var list []container.Summary
	sample(t, "podman-4.3.1/list.json", &list)
	if l, err := r.summary(list[0]); err != nil || l.seen.Container.Name != "pweb" || l.seen.State != "running" || l.forged {
		t.Errorf("%+v, %v", l, err)
	}
	var run, end container.InspectResponse
	sample(t, "podman-4.3.1/inspect-run.json", &run)
	sample(t, "podman-4.3.1/inspect-exit.json", &end)
	if in, err := r.inspect(run); err != nil || !in.running || in.seen.PID == 0 || *in.seen.LimitBytes != 32<<20 || in.seen.StopSignal != 15 || in.exit != nil {
		t.Errorf("%+v, %v", in, err)
	}
	if in, err := r.inspect(end); err != nil || in.running || *in.exit.Code != 137 || in.exit.Finished.IsZero() {
		t.Errorf("%+v, %v", in, err)
	}
}

func TestEvent_Table(t *testing.T) {
	at := time.Date(2026, 11, 22, 9, 46, 52, 55858848, time.UTC)
	event := func(action, id string, attrs map[string]string) events.Message {
		return events.Message{Type: "container", Action: events.Action(action), Actor: events.Actor{ID: id, Attributes: attrs}, TimeNano: at.UnixNano()}
	}
	for _, tc := range []struct {
		name    string
		runtime string
		m       events.Message
		want    happening
		err     error
	}{
		{name: "die", m: event("die", "a1", map[string]string{"exitCode": "137", "name": "web", "image": "i"}),
			want: happening{action: "die", code: new(137), seen: named("web", "i")}},
		{name: "podman's die, its code over a label", runtime: podman,
			m:    event("died", "a1", map[string]string{"exitCode": "0", "containerExitCode": "137", "name": "web", "image": "i"}),
			want: happening{action: "die", code: new(137), seen: named("web", "i")}},
		{name: "podman's remove", runtime: podman, m: event("remove", "a1", map[string]string{"name": "web"}),
			want: happening{action: "destroy", seen: named("web", "")}},
		{name: "kill by name", m: event("kill", "a1", map[string]string{"signal": "SIGTERM"}), want: happening{action: "kill", signal: 15}},
		{name: "kill by number", m: event("kill", "a1", map[string]string{"signal": "9"}), want: happening{action: "kill", signal: 9}},
		{name: "kill by nonsense", m: event("kill", "a1", map[string]string{"signal": "900"}), want: happening{action: "kill"}},
		{name: "code that is none", m: event("die", "a1", map[string]string{"exitCode": "-1"}), want: happening{action: "die"}},
		{name: "exec", m: event("exec_die", "a1", map[string]string{"exitCode": "137"}), err: errIgnore},
		{name: "exec with a command that reads as another event", m: event("exec_start: die", "a1", nil), err: errIgnore},
		{name: "podman's exec", runtime: podman, m: event("exec_died", "a1", nil), err: errIgnore},
		{name: "health", m: event("health_status: die", "a1", nil), err: errIgnore},
		{name: "no id", m: event("die", "", nil), err: errNoID},
		{name: "id that climbs", m: event("die", "../../images/json", nil), err: errNoID},
		{name: "id of dots", m: event("die", "..", nil), err: errNoID},
		{name: "long id", m: event("die", strings.Repeat("a", 129), nil), err: errNoID},
		{name: "image's event", m: events.Message{Type: "image", Action: "remove", Actor: events.Actor{ID: "a1"}}, err: errIgnore},
		{name: "sandbox", m: event("oom", "a1", map[string]string{"io.kubernetes.docker.type": "podsandbox"}),
			want: happening{action: "oom", seen: signal.ContainerSeen{Sandbox: true,
				Container: death.Container{Labels: map[string]string{"io.kubernetes.docker.type": "podsandbox"}}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := dockerReader()
			if tc.runtime != "" {
				r.runtime = tc.runtime
			}
			got, err := r.event(tc.m)
			if !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			if tc.err != nil {
				return
			}
			tc.want.id, tc.want.at = "a1", at
			tc.want.seen.Container.ID, tc.want.seen.Container.Runtime = "a1", r.runtime
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(happening{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func named(name, image string) signal.ContainerSeen {
	return signal.ContainerSeen{Container: death.Container{Name: name, Image: image}}
}

func TestSummary_Real(t *testing.T) {
	var list []container.Summary
	sample(t, "docker-20.10.24/list.json", &list)
	got, err := dockerReader().summary(list[0])
	if err != nil {
		t.Fatal(err)
	}
	want := listed{forged: true, seen: signal.ContainerSeen{State: "running", Container: death.Container{
		ID: realID, Name: "web", Runtime: "docker", Image: "base:1", ImageID: realImage, Labels: map[string]string{"com.docker.compose.service": "web"},
		Workload: &death.Workload{Kind: death.WorkloadCompose, Name: "web"},
	}}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(listed{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSummary_ExitCode(t *testing.T) {
	for status, want := range map[string]*int{
		"Exited (137) 2 hours ago": new(137), "Exited (0) Less than a second ago": new(0), "Exited (255) 3 weeks ago": new(255),
		"Up 2 hours": nil, "Exited": nil, "Exited (": nil, "Exited (-1) now": nil, "Exited (99999999999999999999)": nil, "exited (1)": nil,
		"Exited (1\n) 2 hours ago": nil, "": nil,
	} {
		s := container.Summary{ID: "a1", State: container.StateExited, Status: status}
		if got, err := dockerReader().summary(s); err != nil || !cmp.Equal(got.seen.ExitCode, want) {
			t.Errorf("%q: %v, %v", status, got.seen.ExitCode, err)
		}
		s.State = container.StateRunning
		if got, err := dockerReader().summary(s); err != nil || got.seen.ExitCode != nil {
			t.Errorf("%q of one that runs: %v, %v", status, got.seen.ExitCode, err)
		}
	}
}

func TestSummary_NameIsNotALink(t *testing.T) {
	got, err := dockerReader().summary(container.Summary{ID: "a1", Names: []string{"/front/db", "/postgres"}})
	if err != nil || got.seen.Container.Name != "postgres" {
		t.Errorf("%q, %v", got.seen.Container.Name, err)
	}
}

func TestInspect_Real(t *testing.T) {
	log := "/var/lib/docker/containers/" + realID + "/" + realID + "-json.log"
	seen := signal.ContainerSeen{
		Container: death.Container{
			ID: realID, Name: "web", Runtime: "docker", Image: "base:1", RestartCount: new(0),
			ImageID: realImage,
			Labels:  map[string]string{"com.docker.compose.service": "web"},

			Workload: &death.Workload{Kind: death.WorkloadCompose, Name: "web"},
		},
		Program: "sleep",
		Started: time.Date(2026, 11, 22, 9, 46, 52, 241701485, time.UTC), LimitBytes: new(int64(32 << 20)), MemorySwapBytes: new(int64(64 << 20)), LogPath: log, StopTimeout: new(int64(1)), ShmSizeBytes: new(int64(64 << 20)),
	}
	var c container.InspectResponse
	sample(t, "docker-20.10.24/inspect-exit.json", &c)
	got, err := dockerReader().inspect(c)
	if err != nil {
		t.Fatal(err)
	}
	made := time.Date(2026, 11, 22, 9, 46, 52, 0, time.UTC)
	want := inspected{seen: seen, forged: true, made: got.made, exit: &signal.ContainerExit{
		ID: realID, Runtime: "docker", Code: new(137), OOMKilled: new(false), Started: seen.Started,
		Finished: time.Date(2026, 11, 22, 9, 46, 53, 383327572, time.UTC),
	}}
	want.seen.State, want.seen.ExitCode = "exited", new(137)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(inspected{})); diff != "" {
		t.Errorf("exited (-want +got):\n%s", diff)
	}

	c = container.InspectResponse{}
	sample(t, "docker-20.10.24/inspect-run.json", &c)
	if got, err = dockerReader().inspect(c); err != nil {
		t.Fatal(err)
	}
	want = inspected{seen: seen, running: true, forged: true, made: got.made}
	if got.made.Sub(made).Abs() > time.Second {
		t.Errorf("made %v", got.made)
	}
	want.seen.State, want.seen.PID = "running", c.State.Pid
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(inspected{})); diff != "" || c.State.Pid == 0 {
		t.Errorf("running (-want +got):\n%s", diff)
	}
}

// TestInspect_LocalLog: Docker does not tell where its local driver writes.
func TestInspect_LocalLog(t *testing.T) {
	dir := "/var/lib/docker/containers/" + realID
	for _, tc := range []struct {
		name, driver, told, hostname, resolv, want string
	}{
		{"local", "local", "", dir + "/hostname", dir + "/resolv.conf", dir + "/local-logs/container.log"},
		{"without a host name of its own", "local", "", "", dir + "/resolv.conf", dir + "/local-logs/container.log"},
		{"told", "local", "/told.log", dir + "/hostname", "", "/told.log"},
		{"another driver", "journald", "", dir + "/hostname", "", ""},
		{"another's folder", "local", "", "/var/lib/docker/containers/other/hostname", "/etc/resolv.conf", ""},
		{"a path that is none", "local", "", realID + "/hostname", "", ""},
	} {
		got, err := dockerReader().inspect(container.InspectResponse{
			ID: realID, LogPath: tc.told, HostnamePath: tc.hostname, ResolvConfPath: tc.resolv,
			HostConfig: &container.HostConfig{LogConfig: container.LogConfig{Type: tc.driver}},
		})
		if err != nil || got.seen.LogPath != tc.want {
			t.Errorf("%s: %q, %v, want %q", tc.name, got.seen.LogPath, err, tc.want)
		}
	}
}

// TestInspect_ShmSize is the size of a /dev/shm of its own.
func TestInspect_ShmSize(t *testing.T) {
	for _, tc := range []struct {
		name string
		host container.HostConfig
		at   string
		want bool
	}{
		{"private", container.HostConfig{ShmSize: 1 << 20, IpcMode: "private"}, "/data", true},
		{"shareable", container.HostConfig{ShmSize: 1 << 20, IpcMode: "shareable"}, "/data", true},
		{"the host's", container.HostConfig{ShmSize: 1 << 20, IpcMode: "host"}, "/data", false},
		{"another's", container.HostConfig{ShmSize: 1 << 20, IpcMode: "container:a"}, "/data", false},
		{"none", container.HostConfig{ShmSize: 1 << 20, IpcMode: "none"}, "/data", false},
		{"not told", container.HostConfig{}, "/data", false},
		{"negative", container.HostConfig{ShmSize: -1}, "/data", false},
		{"a volume", container.HostConfig{ShmSize: 1 << 20}, "/dev/shm/", false},
		{"a tmpfs", container.HostConfig{ShmSize: 1 << 20, Tmpfs: map[string]string{"/dev/shm": ""}}, "/data", false},
	} {
		got, err := dockerReader().inspect(container.InspectResponse{ID: realID, HostConfig: &tc.host, Mounts: []container.MountPoint{{Destination: tc.at}}})
		if n := got.seen.ShmSizeBytes; err != nil || (n != nil) != tc.want || n != nil && *n != 1<<20 {
			t.Errorf("%s: %v, %v", tc.name, n, err)
		}
	}
}

// FuzzEvent: whatever an engine sends, reading it does not panic, and what
// comes out is bounded and valid text.
func FuzzEvent(f *testing.F) {
	for line := range strings.Lines(string(sample(f, "docker-20.10.24/events.jsonl", nil))) {
		f.Add([]byte(line))
	}
	f.Add([]byte(`{"Type":"container","Action":"die","Actor":{"ID":"a","Attributes":{"exitCode":"99999999999999999999"}},"timeNano":9223372036854775807}`))
	f.Add([]byte(`{"Action":"kill","Actor":{"ID":"a","Attributes":{"signal":"RTMIN+"}},"time":9223372036854775807}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m events.Message
		if json.Unmarshal(b, &m) != nil {
			return
		}
		for _, runtime := range []string{"docker", podman} {
			h, err := reader{runtime: runtime, labels: engines.SelectionOf([]string{"*"})}.event(m)
			if err != nil {
				continue
			}
			if h.signal < 0 || h.signal > 64 || h.code != nil && (*h.code < 0 || *h.code > 1<<16) {
				t.Errorf("signal %d, code %v", h.signal, h.code)
			}
			withinBounds(t, h.seen)
			if _, err := json.Marshal(signal.Signal{Time: h.at, Body: h.seen}); err != nil {
				t.Error(err)
			}
		}
	})
}

// FuzzInspect is the same for the answer about one container.
func FuzzInspect(f *testing.F) {
	f.Add(sample(f, "docker-20.10.24/inspect-run.json", nil))
	f.Add(sample(f, "docker-20.10.24/inspect-exit.json", nil))
	f.Add([]byte(`{"Id":"a","State":{"StartedAt":"99999-01-01T00:00:00Z","Error":"\n"},"RestartCount":-1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c container.InspectResponse
		if json.Unmarshal(b, &c) != nil {
			return
		}
		in, err := reader{runtime: "docker", labels: engines.SelectionOf([]string{"*"})}.inspect(c)
		if err != nil {
			return
		}
		withinBounds(t, in.seen)
		if in.exit != nil && (len(in.exit.Error) > engines.MaxError || !utf8.ValidString(in.exit.Error)) {
			t.Errorf("error %q", in.exit.Error)
		}
	})
}

func withinBounds(t *testing.T, seen signal.ContainerSeen) {
	t.Helper()
	c := seen.Container
	check := func(what, s string, most int) {
		if len(s) > most || !utf8.ValidString(s) {
			t.Errorf("%s: %d bytes: %.50q", what, len(s), s)
		}
	}
	check("id", c.ID, engines.MaxID)
	check("name", c.Name, engines.MaxName)
	check("image", c.Image, engines.MaxImage)
	check("image's id", c.ImageID, engines.MaxID)
	check("log path", seen.LogPath, engines.MaxPath)
	if len(c.Labels) > engines.MaxLabels {
		t.Errorf("%d labels", len(c.Labels))
	}
	for k, v := range c.Labels {
		check("label's name", k, engines.MaxLabelName)
		check("label", v, engines.MaxLabelValue)
	}
}
