// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	eventsvc "github.com/containerd/containerd/api/services/events/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/engines/enginetest"
)

// fake is an engine that plays what a test tells it, with containerd's own
// services.
type fake struct {
	*enginetest.Socket
	t  *testing.T
	mu sync.Mutex

	boxes   map[string]*containersapi.Container
	tasks   map[string]*task.Process
	streams map[chan *types.Envelope]bool
	busy    int // gets at once
	most    int

	// hang is called before each answer, with the method's name, where it is not nil.
	hang func(ctx context.Context, method string) error

	server *grpc.Server
}

func newFake(t *testing.T) *fake {
	f := &fake{
		Socket: enginetest.NewSocket(), t: t, boxes: map[string]*containersapi.Container{}, tasks: map[string]*task.Process{},
		streams: map[chan *types.Envelope]bool{},
	}
	before := func(ctx context.Context, method string) error {
		f.mu.Lock()
		hang := f.hang
		f.mu.Unlock()
		if hang == nil {
			return nil
		}
		return hang(ctx, method[slices.Index([]byte(method[1:]), '/')+2:])
	}
	f.server = grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := before(ctx, info.FullMethod); err != nil {
				return nil, err
			}
			return next(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := before(ss.Context(), info.FullMethod); err != nil {
				return err
			}
			return next(srv, ss)
		}),
		grpc.ForceServerCodecV2(enginetest.NewRawCodec()),
	)
	versionapi.RegisterVersionServer(f.server, version{f: f})
	namespacesapi.RegisterNamespacesServer(f.server, namespaces{f: f})
	containersapi.RegisterContainersServer(f.server, containers{f: f})
	tasksapi.RegisterTasksServer(f.server, tasks{f: f})
	eventsvc.RegisterEventsServer(f.server, events{f: f})
	enginetest.Serve(t, f, f.server, func() { f.CutOff(); f.server.Stop() })
	return f
}

type (
	version struct {
		versionapi.UnimplementedVersionServer
		f *fake
	}
	namespaces struct {
		namespacesapi.UnimplementedNamespacesServer
		f *fake
	}
	containers struct {
		containersapi.UnimplementedContainersServer
		f *fake
	}
	tasks struct {
		tasksapi.UnimplementedTasksServer
		f *fake
	}
	events struct {
		eventsvc.UnimplementedEventsServer
		f *fake
	}
)

func (f *fake) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (v version) Version(context.Context, *emptypb.Empty) (*versionapi.VersionResponse, error) {
	return &versionapi.VersionResponse{Version: "v1.6.20"}, nil
}

func (n namespaces) List(context.Context, *namespacesapi.ListNamespacesRequest) (*namespacesapi.ListNamespacesResponse, error) {
	n.f.mu.Lock()
	defer n.f.mu.Unlock()
	known := map[string]bool{"empty": true}
	for key := range n.f.boxes {
		known[spaceOf(key)] = true
	}
	res := &namespacesapi.ListNamespacesResponse{}
	for name := range known {
		res.Namespaces = append(res.Namespaces, &namespacesapi.Namespace{Name: name})
	}
	return res, nil
}

func spaceOf(key string) string { return key[:slices.Index([]byte(key), '/')] }

func asked(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get("containerd-namespace"); len(v) == 1 {
		return v[0]
	}
	return ""
}

func (c containers) ListStream(_ *containersapi.ListContainersRequest, stream containersapi.Containers_ListStreamServer) error {
	c.f.mu.Lock()
	var all []*containersapi.Container
	for key, b := range c.f.boxes {
		if spaceOf(key) == asked(stream.Context()) {
			all = append(all, proto.CloneOf(b))
		}
	}
	c.f.mu.Unlock()
	for _, b := range all {
		if err := stream.Send(&containersapi.ListContainerMessage{Container: b}); err != nil {
			return err
		}
	}
	return nil
}

func (c containers) Get(ctx context.Context, req *containersapi.GetContainerRequest) (*containersapi.GetContainerResponse, error) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	b := c.f.boxes[engines.Key(asked(ctx), req.ID)]
	if b == nil {
		return nil, status.Errorf(codes.NotFound, "container %q: not found", req.ID)
	}
	return &containersapi.GetContainerResponse{Container: proto.CloneOf(b)}, nil
}

func (s tasks) List(ctx context.Context, _ *tasksapi.ListTasksRequest) (*tasksapi.ListTasksResponse, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	res := &tasksapi.ListTasksResponse{}
	for key, p := range s.f.tasks {
		if spaceOf(key) == asked(ctx) {
			res.Tasks = append(res.Tasks, proto.CloneOf(p))
		}
	}
	return res, nil
}

func (s events) Subscribe(_ *eventsvc.SubscribeRequest, stream eventsvc.Events_SubscribeServer) error {
	c := make(chan *types.Envelope, 4096)
	s.f.change(func() { s.f.streams[c] = true })
	defer s.f.change(func() { delete(s.f.streams, c) })
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case e := <-c:
			if err := stream.Send(e); err != nil {
				return err
			}
		}
	}
}

// send gives all streams an event.
func (f *fake) send(e *types.Envelope) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.streams {
		c <- e
	}
}

// event sends an event as containerd does.
func (f *fake) event(namespace string, m proto.Message) *types.Envelope {
	e := envelope(namespace, m, time.Now())
	f.send(e)
	return e
}

func envelope(namespace string, m proto.Message, at time.Time) *types.Envelope {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return &types.Envelope{
		Timestamp: timestamppb.New(at), Namespace: namespace, Topic: "/any",
		Event: &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: b},
	}
}

// box is a container with a limit of 32 MiB, as ctr makes it.
func (f *fake) create(namespace, id string, labels map[string]string) *containersapi.Container {
	c := &containersapi.Container{
		ID: id, Image: "base:1", Labels: labels,
		Runtime: &containersapi.Container_Runtime{Name: "io.containerd.runc.v2"},
		Spec:    specOf("/"+namespace+"/"+id, 32<<20),
	}
	f.change(func() { f.boxes[engines.Key(namespace, id)] = c })
	return c
}

func specOf(cgroup string, limit int64) *anypb.Any {
	text, err := json.Marshal(map[string]any{"linux": map[string]any{
		"cgroupsPath": cgroup, "resources": map[string]any{"memory": map[string]any{"limit": limit}},
	}})
	if err != nil {
		panic(err)
	}
	return &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: text}
}

// created makes a container and tells its event.
func (f *fake) created(namespace, id string) {
	f.create(namespace, id, nil)
	f.event(namespace, &eventsapi.ContainerCreate{ID: id, Image: "base:1"})
}

// runs gives a container a running task.
func (f *fake) runs(namespace, id string, pid uint32) {
	f.create(namespace, id, nil)
	f.started(namespace, id, pid)
}

func (f *fake) started(namespace, id string, pid uint32) {
	f.change(func() {
		f.tasks[engines.Key(namespace, id)] = &task.Process{ID: id, Pid: pid, Status: task.Status_RUNNING}
	})
}

// ended changes the state of a task as its end does.
func (f *fake) ended(namespace, id string, code uint32) {
	f.change(func() {
		p := f.tasks[engines.Key(namespace, id)]
		p.Status, p.ExitStatus, p.ExitedAt = task.Status_STOPPED, code, timestamppb.Now()
	})
}

func (f *fake) exits(namespace, id string, pid, code uint32) *types.Envelope {
	return f.event(namespace, &eventsapi.TaskExit{ContainerID: id, ID: id, Pid: pid, ExitStatus: code, ExitedAt: timestamppb.Now()})
}

func (f *fake) removed(namespace, id string) {
	f.change(func() {
		delete(f.boxes, engines.Key(namespace, id))
		delete(f.tasks, engines.Key(namespace, id))
	})
}

// follow runs a source over a fake until the test ends.
func follow(t *testing.T, f *fake, opt Options) *enginetest.Recorder {
	t.Helper()
	if opt.Hosts == nil {
		opt.Hosts = []string{"unix:///fake.sock"}
	}
	if f != nil {
		opt.dial = f.Dial
	}
	opt.Logger = enginetest.Logger(t)
	return enginetest.Follow(t, death.SourceContainerd, New(opt).Run)
}
