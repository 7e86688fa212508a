// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"errors"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

// reader turns an engine's answers into values of ours. It does no I/O.
type reader struct {
	runtime string
	labels  engines.Selection
}

// happening is one event of a container.
type happening struct {
	id     string
	action events.Action
	at     time.Time // zero: not told
	seen   signal.ContainerSeen
	code   *int // of a die
	signal int  // of a kill
	// forged is true where a label has the name of an attribute that the
	// engine sets: labels and attributes share one map, and labels win.
	forged bool
	lost   int // labels cut or left out
}

var (
	errNoID   = errors.New("no container id")
	errIgnore = errors.New("of no interest")
)

// The attributes that an engine adds to a container's labels.
const (
	attrName     = "name"
	attrImage    = "image"
	attrExitCode = "exitCode"
	attrPodman   = "containerExitCode"
	attrSignal   = "signal"
	attrDuration = "execDuration"
)

// What a sandbox is marked with (Kubernetes' dockershim, cri-dockerd).
const (
	sandboxLabel = "io.kubernetes.docker.type"
	sandboxValue = "podsandbox"
)

// actions are the events that are taken, by the names that engines give them.
// Those of an exec end no container, whatever they are called.
var actions = map[events.Action]events.Action{
	events.ActionCreate:  events.ActionCreate,
	events.ActionStart:   events.ActionStart,
	events.ActionRestart: events.ActionRestart,
	events.ActionStop:    events.ActionStop,
	events.ActionPause:   events.ActionPause,
	events.ActionUnPause: events.ActionUnPause,
	events.ActionUpdate:  events.ActionUpdate,
	events.ActionRename:  events.ActionRename,
	events.ActionKill:    events.ActionKill,
	events.ActionDie:     events.ActionDie,
	events.ActionOOM:     events.ActionOOM,
	events.ActionDestroy: events.ActionDestroy,
	"died":               events.ActionDie,     // podman
	events.ActionRemove:  events.ActionDestroy, // podman
}

// event reads one event. errIgnore is no fault of the engine.
func (r reader) event(m events.Message) (happening, error) {
	action, known := actions[m.Action]
	if !known || (m.Type != events.ContainerEventType && m.Type != "") {
		return happening{}, errIgnore
	}
	if !engines.ValidID(m.Actor.ID) {
		return happening{}, errNoID
	}
	attrs := m.Actor.Attributes
	h := happening{id: strings.Clone(m.Actor.ID), action: action, at: eventTime(m)}
	h.seen, h.lost = r.named(h.id, attrs)
	for _, own := range []string{attrName, attrImage, attrExitCode, attrPodman, attrSignal, attrDuration} {
		delete(h.seen.Container.Labels, own) // the engine's; a label of that name comes with the answer
	}
	h.seen.Container.Name = engines.Cut(strings.TrimPrefix(attrs[attrName], "/"), engines.MaxName)
	h.seen.Container.Image = engines.Cut(attrs[attrImage], engines.MaxImage)
	h.seen.Container.Workload = engines.Workload(h.seen.Container.Name, attrs)
	switch action {
	case events.ActionDie:
		h.code = r.exitCode(attrs)
	case events.ActionKill:
		h.signal = engines.SignalNumber(attrs[attrSignal])
	case events.ActionCreate, events.ActionStart:
		h.forged = r.forged(attrs)
	}
	h.seen.State = stateAfter(action)
	return h, nil
}

// stateCreated is of one that has never run.
const stateCreated = string(container.StateCreated)

// stateAfter is the state that an event leaves a container in, where it says.
func stateAfter(a events.Action) string {
	switch a {
	case events.ActionCreate:
		return stateCreated
	case events.ActionStart, events.ActionUnPause:
		return string(container.StateRunning)
	case events.ActionPause:
		return string(container.StatePaused)
	}
	return ""
}

func eventTime(m events.Message) time.Time {
	var t time.Time
	switch {
	case m.TimeNano > 0:
		t = time.Unix(0, m.TimeNano)
	case m.Time > 0:
		t = time.Unix(m.Time, 0)
	}
	if t.Year() > 9999 {
		return time.Time{}
	}
	if !t.IsZero() {
		t = t.UTC()
	}
	return t
}

// exitCode reads the code of a die. podman sets its own attribute over any
// label; the other is for those that do as Docker does.
func (r reader) exitCode(attrs map[string]string) *int {
	names := []string{attrExitCode}
	if r.runtime == podman {
		names = []string{attrPodman, attrExitCode}
	}
	for _, name := range names {
		if n, err := strconv.Atoi(attrs[name]); err == nil && n >= 0 && n <= 1<<16 {
			return &n
		}
	}
	return nil
}

// forged tells whether labels have names of the engine's attributes. podman
// writes its own over them.
func (r reader) forged(labels map[string]string) bool {
	if r.runtime == podman {
		return false
	}
	for _, name := range []string{attrExitCode, attrPodman, attrSignal} {
		if _, ok := labels[name]; ok {
			return true
		}
	}
	return false
}

// named begins a ContainerSeen with what labels say.
func (r reader) named(id string, labels map[string]string) (signal.ContainerSeen, int) {
	carried, lost := r.labels.Pick(labels)
	return signal.ContainerSeen{
		Container: death.Container{ID: id, Runtime: r.runtime, Labels: carried},
		Sandbox:   labels[sandboxLabel] == sandboxValue,
	}, lost
}

// listed is one row of a list.
type listed struct {
	seen   signal.ContainerSeen
	forged bool
	lost   int
}

// summary reads one row of a list.
func (r reader) summary(s container.Summary) (listed, error) {
	if !engines.ValidID(s.ID) {
		return listed{}, errNoID
	}
	l := listed{forged: r.forged(s.Labels)}
	l.seen, l.lost = r.named(strings.Clone(s.ID), s.Labels)
	l.seen.Container.Name = engines.Cut(ownName(s.Names), engines.MaxName)
	l.seen.Container.Workload = engines.Workload(l.seen.Container.Name, s.Labels)
	l.seen.Container.Image = engines.Cut(s.Image, engines.MaxImage)
	l.seen.Container.ImageID = engines.Cut(s.ImageID, engines.MaxID)
	l.seen.State = stateOf(string(s.State))
	if l.seen.State == string(container.StateExited) {
		l.seen.ExitCode = exitOf(s.Status)
	}
	return l, nil
}

// exitOf reads the code in a row's "Exited (137) 2 hours ago".
func exitOf(status string) *int {
	text, ok := strings.CutPrefix(status, "Exited (")
	if !ok {
		return nil
	}
	text, _, _ = strings.Cut(text, ")")
	if n, err := strconv.Atoi(text); err == nil && n >= 0 && n <= 1<<16 {
		return &n
	}
	return nil
}

// ownName picks from a container's names the one that no other container gave
// it by a link ("/other/alias").
func ownName(names []string) string {
	for _, n := range names {
		if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
			return n
		}
	}
	return ""
}

// stateOf takes a state that the API knows; podman has more.
func stateOf(s string) string {
	switch container.ContainerState(s) {
	case container.StateCreated, container.StateRunning, container.StatePaused, container.StateRestarting,
		container.StateRemoving, container.StateExited, container.StateDead:
		return s
	case "configured", "initialized":
		return stateCreated
	case "stopped":
		return string(container.StateExited)
	}
	return ""
}

// inspected is what an engine says of one container.
type inspected struct {
	seen signal.ContainerSeen
	// running is true while its first process lives.
	running bool
	// exit is how the last run ended. Of a container that runs again only the
	// time is known.
	exit *signal.ContainerExit
	// neverRan is true where its start failed; exit says why.
	neverRan bool
	made     time.Time
	forged   bool
	lost     int
}

// inspect reads the answer about one container.
func (r reader) inspect(c container.InspectResponse) (inspected, error) {
	if !engines.ValidID(c.ID) {
		return inspected{}, errNoID
	}
	var labels map[string]string
	if c.Config != nil {
		labels = c.Config.Labels
	}
	in := inspected{forged: r.forged(labels), made: engines.Instant(c.Created)}
	in.seen, in.lost = r.named(strings.Clone(c.ID), labels)
	seen := &in.seen
	seen.Container.Name = engines.Cut(strings.TrimPrefix(c.Name, "/"), engines.MaxName)
	seen.Container.Workload = engines.Workload(seen.Container.Name, labels)
	seen.Container.ImageID = engines.Cut(c.Image, engines.MaxID)
	seen.Program = engines.Program(c.Path)
	if c.RestartCount >= 0 {
		seen.Container.RestartCount = new(c.RestartCount) // a pointer to c's own would keep the whole answer
	}
	if len(c.LogPath) <= engines.MaxPath {
		seen.LogPath = engines.Cut(c.LogPath, engines.MaxPath)
	}
	if c.Config != nil {
		seen.Container.Image = engines.Cut(c.Config.Image, engines.MaxImage)
		seen.StopSignal = engines.SignalNumber(c.Config.StopSignal)
		if t := c.Config.StopTimeout; t != nil {
			seen.StopTimeout = new(int64(*t))
		}
	}
	if c.HostConfig != nil && c.HostConfig.Memory > 0 {
		seen.LimitBytes = new(c.HostConfig.Memory)
		if n := c.HostConfig.MemorySwap; n > 0 || n == -1 {
			seen.MemorySwapBytes = new(n)
		}
	}
	if seen.LogPath == "" {
		seen.LogPath = localLog(c)
	}
	seen.ShmSizeBytes = shmSize(c)
	if c.State != nil {
		in.state(c.State)
	}
	return in, nil
}

// localLog is where Docker's local driver writes, which Docker does not tell:
// beside the files that it makes for each container
// (daemon/logger/loggerutils of Docker, getLogPath; daemon/logger/local).
func localLog(c container.InspectResponse) string {
	if c.HostConfig == nil || c.HostConfig.LogConfig.Type != "local" {
		return ""
	}
	for _, beside := range []string{c.HostnamePath, c.ResolvConfPath} {
		dir := path.Dir(beside)
		if path.IsAbs(dir) && path.Base(dir) == c.ID && len(dir) <= engines.MaxPath/2 {
			return engines.Cut(path.Join(dir, "local-logs", "container.log"), engines.MaxPath)
		}
	}
	return ""
}

const devShm = "/dev/shm"

// shmSize is how large the container's own /dev/shm may grow; nil: it shares
// another's, or has something else mounted there.
func shmSize(c container.InspectResponse) *int64 {
	h := c.HostConfig
	if h == nil || h.ShmSize <= 0 || h.IpcMode.IsHost() || h.IpcMode.IsContainer() || h.IpcMode.IsNone() {
		return nil
	}
	if _, other := h.Tmpfs[devShm]; other {
		return nil
	}
	for _, m := range c.Mounts {
		if path.Clean(m.Destination) == devShm {
			return nil
		}
	}
	return new(h.ShmSize)
}

func (in *inspected) state(s *container.State) {
	seen := &in.seen
	seen.State = stateOf(string(s.Status))
	seen.Started = engines.Instant(s.StartedAt)
	if s.Pid > 0 {
		seen.PID = s.Pid
	}
	// Docker calls a container that waits to be started again running, too.
	in.running = seen.State == string(container.StateRunning) || seen.State == string(container.StatePaused)
	finished := engines.Instant(s.FinishedAt)
	in.neverRan = failedToStart(seen.State) && seen.Started.IsZero() && finished.IsZero() && (s.Error != "" || s.ExitCode != 0)
	if finished.IsZero() && !in.neverRan && (in.running || s.Error == "") {
		return
	}
	in.exit = &signal.ContainerExit{ID: seen.Container.ID, Runtime: seen.Container.Runtime, Finished: finished}
	if in.running {
		return
	}
	in.exit.Started = seen.Started
	in.exit.Error = engines.Cut(s.Error, engines.MaxError)
	in.exit.OOMKilled = new(s.OOMKilled)
	if s.ExitCode >= 0 && s.ExitCode <= 1<<16 {
		in.exit.Code = new(s.ExitCode)
		if seen.State == string(container.StateExited) {
			seen.ExitCode = new(s.ExitCode)
		}
	}
}

// failedToStart tells whether a container in this state, which has not run, may
// have been started: what cannot be, Docker removes if it was made so.
func failedToStart(state string) bool {
	return state == stateCreated || state == string(container.StateRemoving) || state == string(container.StateDead)
}
