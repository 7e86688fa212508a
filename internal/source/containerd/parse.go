// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"errors"
	"fmt"
	"strings"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/coroner-dev/coroner/internal/engines"
)

// topics are the events that are asked for. Those of an exec's start end no
// container, and are left out; its exit has the topic of a container's.
var topics = []string{
	"/containers/create", "/containers/update", "/containers/delete",
	"/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/oom", "/tasks/delete", "/tasks/paused", "/tasks/resumed",
}

// action is what happened.
type action int

const (
	containerCreated action = iota + 1
	containerUpdated
	containerDeleted
	taskCreated
	taskStarted
	taskExited
	taskDeleted
	taskPaused
	taskResumed
	taskOOM
)

// happening is one event.
type happening struct {
	namespace, id string
	action        action
	at            time.Time // zero: not told
	image         string    // of containerCreated
	pid           int
	code          *int      // of taskExited and taskDeleted
	finished      time.Time // of the same; zero: not told
}

var (
	errNoID   = errors.New("no container id or namespace")
	errEvent  = errors.New("a content that is not theirs")
	errIgnore = errors.New("of no interest")
)

// event reads one event. errIgnore is no fault of the engine.
func event(e *types.Envelope) (happening, error) {
	kind := e.GetEvent().GetTypeUrl()
	kind = kind[strings.LastIndexByte(kind, '/')+1:]
	kind, ours := strings.CutPrefix(kind, "containerd.events.")
	read, known := kinds[kind]
	if !ours || !known {
		return happening{}, errIgnore
	}
	h := happening{namespace: strings.Clone(e.GetNamespace()), at: instant(e.GetTimestamp())}
	if err := read(e.GetEvent().GetValue(), &h); err != nil {
		return happening{}, err
	}
	if !engines.ValidID(h.id) || !engines.ValidID(h.namespace) {
		return happening{}, errNoID
	}
	return h, nil
}

// kinds read the events that are taken, by the names of their messages.
var kinds = map[string]func(b []byte, h *happening) error{
	"ContainerCreate": func(b []byte, h *happening) error {
		var m eventsapi.ContainerCreate
		h.action = containerCreated
		return read(b, &m, func() { h.id, h.image = m.ID, engines.Cut(m.Image, engines.MaxImage) })
	},
	"ContainerUpdate": func(b []byte, h *happening) error {
		var m eventsapi.ContainerUpdate
		h.action = containerUpdated
		return read(b, &m, func() { h.id = m.ID })
	},
	"ContainerDelete": func(b []byte, h *happening) error {
		var m eventsapi.ContainerDelete
		h.action = containerDeleted
		return read(b, &m, func() { h.id = m.ID })
	},
	"TaskCreate": func(b []byte, h *happening) error {
		var m eventsapi.TaskCreate
		h.action = taskCreated
		return read(b, &m, func() { h.id, h.pid = m.ContainerID, pidOf(m.Pid) })
	},
	"TaskStart": func(b []byte, h *happening) error {
		var m eventsapi.TaskStart
		h.action = taskStarted
		return read(b, &m, func() { h.id, h.pid = m.ContainerID, pidOf(m.Pid) })
	},
	"TaskExit": func(b []byte, h *happening) error {
		var m eventsapi.TaskExit
		if err := read(b, &m, func() { h.exit(m.ContainerID, m.Pid, m.ExitStatus, m.ExitedAt) }); err != nil {
			return err
		}
		h.action = taskExited
		return ofInit(m.ContainerID, m.ID)
	},
	"TaskDelete": func(b []byte, h *happening) error {
		var m eventsapi.TaskDelete
		if err := read(b, &m, func() { h.exit(m.ContainerID, m.Pid, m.ExitStatus, m.ExitedAt) }); err != nil {
			return err
		}
		h.action = taskDeleted
		return ofInit(m.ContainerID, m.ID)
	},
	"TaskOOM": func(b []byte, h *happening) error {
		var m eventsapi.TaskOOM
		h.action = taskOOM
		return read(b, &m, func() { h.id = m.ContainerID })
	},
	"TaskPaused": func(b []byte, h *happening) error {
		var m eventsapi.TaskPaused
		h.action = taskPaused
		return read(b, &m, func() { h.id = m.ContainerID })
	},
	"TaskResumed": func(b []byte, h *happening) error {
		var m eventsapi.TaskResumed
		h.action = taskResumed
		return read(b, &m, func() { h.id = m.ContainerID })
	},
}

func read(b []byte, m proto.Message, take func()) error {
	if err := engines.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %w", errEvent, err)
	}
	take()
	return nil
}

// ofInit tells a container's first process from the others that were started
// in it: their end is not the container's.
func ofInit(container, process string) error {
	if process != "" && process != container {
		return errIgnore
	}
	return nil
}

func (h *happening) exit(id string, pid, code uint32, at *timestamppb.Timestamp) {
	h.id, h.pid, h.code, h.finished = id, pidOf(pid), exitCode(code), instant(at)
}

func exitCode(status uint32) *int {
	if status > 1<<16 {
		return nil
	}
	return new(int(status))
}

func pidOf(pid uint32) int {
	if pid > 1<<30 {
		return 0
	}
	return int(pid)
}

// instant reads a time; containerd's zero times are far in the past.
func instant(ts *timestamppb.Timestamp) time.Time {
	if ts == nil || !ts.IsValid() {
		return time.Time{}
	}
	t := ts.AsTime()
	if t.Year() < 1971 || t.Year() > 2250 {
		return time.Time{}
	}
	return t
}

// taskState is what a list says of a container's task.
type taskState struct {
	state    string // as signal.ContainerSeen has it; empty: not said
	stopped  bool
	pid      int
	code     *int      // of a stopped one
	finished time.Time // of the same
}

func taskOf(p *task.Process) taskState {
	t := taskState{pid: pidOf(p.GetPid())}
	switch p.GetStatus() {
	case task.Status_CREATED:
		t.state = "created"
	case task.Status_RUNNING, task.Status_PAUSING:
		t.state = "running"
	case task.Status_PAUSED:
		t.state = "paused"
	case task.Status_STOPPED:
		t.state, t.stopped = "exited", true
		t.code, t.finished = exitCode(p.GetExitStatus()), instant(p.GetExitedAt())
	}
	return t
}
