// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines/enginetest"
)

// fake is a runtime that plays what a test tells it.
type fake struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	*enginetest.Socket
	t  *testing.T
	mu sync.Mutex

	name, version string
	boxes         map[string]*runtimeapi.ContainerStatus
	places        map[string]string // sandboxes of containers
	infos         map[string]string
	pods          map[string]*runtimeapi.PodSandbox
	tells         bool // has events
	streams       map[chan *runtimeapi.ContainerEventResponse]bool

	asked      map[string]int // calls, by method and id
	busy, most int            // statuses at once
	before     func(ctx context.Context, method, id string) error
}

func newFake(t *testing.T) *fake {
	f := &fake{
		Socket: enginetest.NewSocket(), t: t, name: "containerd", version: "1.6.20~ds1", boxes: map[string]*runtimeapi.ContainerStatus{}, places: map[string]string{},
		infos: map[string]string{}, pods: map[string]*runtimeapi.PodSandbox{}, streams: map[chan *runtimeapi.ContainerEventResponse]bool{},
		asked: map[string]int{},
	}
	f.serve(f)
	return f
}

// serve answers at a socket until the test or stop ends it.
func (f *fake) serve(l net.Listener) (stop func()) {
	s := grpc.NewServer(grpc.ForceServerCodecV2(enginetest.NewRawCodec()))
	runtimeapi.RegisterRuntimeServiceServer(s, f)
	return enginetest.Serve(f.t, l, s, func() { f.CutOff(); s.Stop() })
}

func (f *fake) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// beforeEach has something done before each answer.
func (f *fake) beforeEach(do func(ctx context.Context, method, id string) error) {
	f.change(func() { f.before = do })
}

// call notes a call, and does what a test wants done before its answer.
func (f *fake) call(ctx context.Context, method, id string) error {
	f.mu.Lock()
	f.asked[method+id]++
	before := f.before
	f.mu.Unlock()
	if before != nil {
		return before(ctx, method, id)
	}
	return nil
}

func (f *fake) count(method, id string) (n int) {
	f.change(func() { n = f.asked[method+id] })
	return n
}

// hang never answers.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (f *fake) Version(ctx context.Context, _ *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	if err := f.call(ctx, "Version", ""); err != nil {
		return nil, err
	}
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: f.name, RuntimeVersion: f.version, RuntimeApiVersion: "v1"}, nil
}

func (f *fake) ListContainers(ctx context.Context, _ *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	f.mu.Lock()
	var a runtimeapi.ListContainersResponse
	for id, c := range f.boxes {
		a.Containers = append(a.Containers, &runtimeapi.Container{
			Id: id, PodSandboxId: f.places[id], Metadata: c.GetMetadata(), Image: c.GetImage(), State: c.GetState(), Labels: c.GetLabels(), Annotations: c.GetAnnotations(),
		})
	}
	f.mu.Unlock()
	if err := f.call(ctx, "ListContainers", ""); err != nil {
		return nil, err
	}
	return &a, nil
}

func (f *fake) ListPodSandbox(ctx context.Context, _ *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	if err := f.call(ctx, "ListPodSandbox", ""); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var a runtimeapi.ListPodSandboxResponse
	for _, p := range f.pods {
		a.Items = append(a.Items, proto.CloneOf(p))
	}
	return &a, nil
}

func (f *fake) ContainerStatus(ctx context.Context, r *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	f.change(func() { f.busy++; f.most = max(f.most, f.busy) })
	defer f.change(func() { f.busy-- })
	if err := f.call(ctx, "ContainerStatus", r.GetContainerId()); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.boxes[r.GetContainerId()]
	if c == nil {
		return nil, status.Error(codes.NotFound, "an error occurred when try to find container")
	}
	a := &runtimeapi.ContainerStatusResponse{Status: proto.CloneOf(c)}
	if r.GetVerbose() {
		a.Info = map[string]string{infoKey: f.infos[r.GetContainerId()]}
	}
	return a, nil
}

func (f *fake) PodSandboxStatus(ctx context.Context, r *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	if err := f.call(ctx, "PodSandboxStatus", r.GetPodSandboxId()); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pods[r.GetPodSandboxId()]
	if p == nil {
		return nil, status.Error(codes.NotFound, "not found")
	}
	return &runtimeapi.PodSandboxStatusResponse{Status: sandboxOf(p), Info: map[string]string{infoKey: f.infos[p.GetId()]}}, nil
}

func sandboxOf(p *runtimeapi.PodSandbox) *runtimeapi.PodSandboxStatus {
	return &runtimeapi.PodSandboxStatus{Id: p.GetId(), Metadata: p.GetMetadata(), State: p.GetState(), Labels: p.GetLabels()}
}

func (f *fake) GetContainerEvents(_ *runtimeapi.GetEventsRequest, s grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	if err := f.call(s.Context(), "GetContainerEvents", ""); err != nil {
		return err
	}
	c := make(chan *runtimeapi.ContainerEventResponse, 4096)
	f.mu.Lock()
	tells := f.tells
	f.streams[c] = true
	f.mu.Unlock()
	defer f.change(func() { delete(f.streams, c) })
	if !tells {
		return nil // as CRI-O, when it is not told to
	}
	for {
		select {
		case <-s.Context().Done():
			return s.Context().Err()
		case e := <-c:
			if err := s.Send(e); err != nil {
				return err
			}
		}
	}
}

// event sends an event with the status that the runtime then has.
func (f *fake) event(id string, kind runtimeapi.ContainerEventType) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := &runtimeapi.ContainerEventResponse{ContainerId: id, ContainerEventType: kind, CreatedAt: time.Now().UnixNano()}
	if p := f.pods[f.places[id]]; p != nil {
		e.PodSandboxStatus = sandboxOf(proto.CloneOf(p))
	} else if p := f.pods[id]; p != nil {
		e.PodSandboxStatus = sandboxOf(proto.CloneOf(p))
	}
	for at, c := range f.boxes {
		if f.places[at] == f.places[id] {
			e.ContainersStatuses = append(e.ContainersStatuses, proto.CloneOf(c))
		}
	}
	f.send(e)
}

func (f *fake) send(e *runtimeapi.ContainerEventResponse) {
	for c := range f.streams {
		c <- e
	}
}

// podRuns puts a pod into the runtime.
func (f *fake) podRuns(id, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pods[id] = &runtimeapi.PodSandbox{
		Id: id, Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "shop", Uid: "uid-" + name},
		Labels: map[string]string{"app.kubernetes.io/name": name, labelPodName: name}, CreatedAt: time.Now().UnixNano(),
	}
	f.infos[id] = fmt.Sprintf(`{"pid":%d,"runtimeSpec":{"linux":{"cgroupsPath":"/kubepods/pod%s/%s"}}}`, 9000+len(f.pods), name, id)
}

// runs puts a running container into the runtime.
func (f *fake) runs(id, sandbox string, pid int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.places[id] = sandbox
	f.boxes[id] = &runtimeapi.ContainerStatus{
		Id: id, Metadata: &runtimeapi.ContainerMetadata{Name: "name-" + id, Attempt: 2}, State: runtimeapi.ContainerState_CONTAINER_RUNNING,
		Image: &runtimeapi.ImageSpec{Image: "image"}, StartedAt: time.Now().UnixNano(), CreatedAt: time.Now().UnixNano(), LogPath: "/log/" + id,
		Annotations: map[string]string{annotationGrace: "30"},
	}
	f.infos[id] = `{"sandboxID":"s","pid":` + strconv.Itoa(pid) + `,"runtimeSpec":{"linux":{"cgroupsPath":"/kubepods/burstable/pod1/` + id +
		`","resources":{"memory":{"limit":33554432}}}}}`
}

// ended changes the state of a container as an end does.
func (f *fake) ended(id string, code int32, reason string) (at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at = time.Now().UTC()
	c := f.boxes[id]
	c.State, c.ExitCode, c.Reason, c.FinishedAt = runtimeapi.ContainerState_CONTAINER_EXITED, code, reason, at.UnixNano()
	f.infos[id] = `{"pid":0}`
	return at
}

func (f *fake) removed(id string) {
	f.change(func() { delete(f.boxes, id); delete(f.pods, id) })
}

// follow runs a source over a fake until the test ends.
func follow(t *testing.T, f *fake, opt Options) *enginetest.Recorder {
	t.Helper()
	if opt.Endpoints == nil {
		opt.Endpoints = []string{"unix:///fake.sock"}
	}
	if opt.Labels == nil {
		opt.Labels = []string{"app.kubernetes.io/*"}
	}
	if opt.Roots.Proc == "" { // pids of fakes are of nobody
		opt.Roots.Proc, opt.Roots.Sys = t.TempDir(), t.TempDir()
	}
	if f != nil {
		opt.dial = f.Dial
	}
	opt.Logger = enginetest.Logger(t)
	return enginetest.Follow(t, death.SourceCRI, New(opt).Run)
}
