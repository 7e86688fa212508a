// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/coroner-dev/coroner/internal/engines"
)

var (
	// errNoCRI is the answer of a socket where the interface is not served: a
	// containerd without its CRI plugin, or a runtime that is too old.
	errNoCRI   = errors.New("CRI v1 is not served there (containerd has it since 1.6, unless its plugin is disabled; CRI-O since 1.20)")
	errRemoved = errors.New("no such container")
	errLost    = errors.New("connection lost")
)

// client is one connection to a runtime. When it breaks it is not made anew.
type client struct {
	conn *grpc.ClientConn
	api  runtimeapi.RuntimeServiceClient
}

// connect dials once before, so that what is wrong with a socket is said plainly.
func connect(ctx context.Context, e *engines.Engine) (*client, error) {
	if err := e.Reach(ctx); err != nil {
		return nil, err
	}
	var used atomic.Bool
	conn, err := grpc.NewClient("passthrough:///localhost",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, errLost
			}
			return e.Dial(ctx)
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(engines.NewCodec()), grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithUserAgent("coroner"),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithIdleTimeout(0), grpc.WithNoProxy(),
	)
	if err != nil {
		return nil, fmt.Errorf("runtime at %s: %w", e.Path, err)
	}
	return &client{conn, runtimeapi.NewRuntimeServiceClient(conn)}, nil
}

func (c *client) close() { _ = c.conn.Close() }

// identity is which runtime this is.
type identity struct{ runtime, version string }

func (i identity) String() string { return strings.TrimSpace(i.runtime + " " + i.version) }

// identify asks for the runtime's name and version.
func (c *client) identify(ctx context.Context) (identity, error) {
	ctx, cancel := context.WithTimeout(ctx, versionLimit)
	defer cancel()
	v, err := c.api.Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		return identity{}, fmt.Errorf("ask for its version: %w", plain(ctx, err, versionLimit))
	}
	return identity{engines.Cut(strings.ToLower(v.GetRuntimeName()), engines.MaxVersion), engines.Cut(v.GetRuntimeVersion(), engines.MaxVersion)}, nil
}

// shares are the first versions of runtimes that give all container events to
// each who asks. Those before give each event to one only, and so would take
// it from the kubelet.
var shares = map[string][2]int{"containerd": {2, 0}, "cri-o": {1, 28}}

// sharesEvents tells whether this runtime may be asked for events. What it
// does then is another matter: CRI-O gives none unless it is told to.
func (i identity) sharesEvents() bool {
	first, known := shares[i.runtime]
	major, rest, _ := strings.Cut(strings.TrimPrefix(i.version, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	return known && errA == nil && errB == nil && (a > first[0] || a == first[0] && b >= first[1])
}

// listing is all that a runtime has.
type listing struct {
	containers []*runtimeapi.Container
	pods       []*runtimeapi.PodSandbox
	at         time.Time // when it was asked for
	took       time.Duration
	asked      uint64 // the table's count of events then
}

// list asks for all containers, and then for all pods: a container's pod is
// there as long as the container is.
func (c *client) list(ctx context.Context) (listing, error) {
	ctx, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	began := time.Now()
	containers, err := c.api.ListContainers(ctx, &runtimeapi.ListContainersRequest{}, grpc.MaxCallRecvMsgSize(maxList))
	if err != nil {
		return listing{}, fmt.Errorf("list containers: %w", plain(ctx, err, listLimit))
	}
	pods, err := c.api.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{}, grpc.MaxCallRecvMsgSize(maxList))
	if err != nil {
		return listing{}, fmt.Errorf("list pods: %w", plain(ctx, err, listLimit))
	}
	return listing{containers: containers.GetContainers(), pods: pods.GetItems(), at: began.UTC(), took: time.Since(began)}, nil
}

// container asks for one container, with what the runtime itself knows of it.
func (c *client) container(ctx context.Context, id string, verbose bool) (*runtimeapi.ContainerStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	a, err := c.api.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: verbose})
	if err != nil {
		return nil, fmt.Errorf("status of container %s: %w", id, plain(ctx, err, statusLimit))
	}
	return a, nil
}

// pod asks for one pod's sandbox.
func (c *client) pod(ctx context.Context, id string) (*runtimeapi.PodSandboxStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	a, err := c.api.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		return nil, fmt.Errorf("status of pod %s: %w", id, plain(ctx, err, statusLimit))
	}
	return a, nil
}

// events gives out events until ctx or the stream ends.
func (c *client) events(ctx context.Context, out chan<- *runtimeapi.ContainerEventResponse) error {
	stream, err := c.api.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		return err
	}
	for {
		e, err := stream.Recv()
		if err != nil {
			return err
		}
		select {
		case out <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// plain says in plain words what gRPC makes of an error.
func plain(ctx context.Context, err error, limit time.Duration) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer in %v: %w", limit, context.DeadlineExceeded)
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch s.Code() {
	case codes.Unimplemented:
		return errNoCRI
	case codes.NotFound:
		return errRemoved
	case codes.ResourceExhausted:
		return fmt.Errorf("answer is too large: %s", engines.Cut(s.Message(), engines.MaxError))
	}
	return fmt.Errorf("%s: %s", strings.ToLower(s.Code().String()), engines.Cut(s.Message(), engines.MaxError))
}
