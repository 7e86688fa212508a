// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/containerd/api/types/task"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/coroner-dev/coroner/internal/engines"
)

// engineAPI is one connection to an engine.
type engineAPI struct {
	conn       *grpc.ClientConn
	containers containersapi.ContainersClient
	tasks      tasksapi.TasksClient
}

func newAPI(path string, dial func(ctx context.Context) (net.Conn, error)) (*engineAPI, error) {
	conn, err := grpc.NewClient("passthrough:///containerd",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a unix socket
		grpc.WithAuthority("localhost"), grpc.WithUserAgent("coroner"),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithMaxHeaderListSize(maxHeader), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer), grpc.ForceCodecV2(engines.NewCodec())),
	)
	if err != nil {
		return nil, fmt.Errorf("engine at %s: %w", path, err)
	}
	return &engineAPI{conn: conn, containers: containersapi.NewContainersClient(conn), tasks: tasksapi.NewTasksClient(conn)}, nil
}

func (a *engineAPI) close() { _ = a.conn.Close() }

// identify asks for the engine's version.
func (a *engineAPI) identify(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionLimit)
	defer cancel()
	v, err := versionapi.NewVersionClient(a.conn).Version(ctx, &emptypb.Empty{})
	if err != nil {
		return "", fmt.Errorf("ask for its version: %w", plain(ctx, err, versionLimit))
	}
	version := strings.TrimPrefix(engines.Cut(v.GetVersion(), engines.MaxVersion), "v")
	return strings.TrimSpace("containerd " + version), nil
}

// subscribe opens the stream of events. It ends with ctx.
func (a *engineAPI) subscribe(ctx context.Context) (eventsapi.Events_SubscribeClient, error) {
	req := &eventsapi.SubscribeRequest{}
	for _, topic := range topics {
		req.Filters = append(req.Filters, `topic=="`+topic+`"`)
	}
	stream, err := eventsapi.NewEventsClient(a.conn).Subscribe(ctx, req, grpc.MaxCallRecvMsgSize(maxEvent))
	if err != nil {
		return nil, fmt.Errorf("subscribe to events: %w", err)
	}
	return stream, nil
}

// row is one container of a list, with the task that it had just before.
type row struct {
	namespace string
	container *containersapi.Container
	task      *task.Process // nil: it has none
	silent    bool          // the namespace's tasks were not told
}

// list gives out all containers of all namespaces, one after the other. What
// it could not ask for is said in lesser. whole is true where no namespace was
// left out.
func (a *engineAPI) list(ctx context.Context, yield func(row) error) (lesser string, whole bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	res, err := namespacesapi.NewNamespacesClient(a.conn).List(ctx, &namespacesapi.ListNamespacesRequest{})
	if err != nil {
		return "", false, fmt.Errorf("list namespaces: %w", plain(ctx, err, listLimit))
	}
	whole = true
	for i, n := range res.GetNamespaces() {
		if i >= maxNamespaces || !engines.ValidID(n.GetName()) {
			lesser, whole = fmt.Sprintf("namespace %.50q is left out", n.GetName()), false
			continue
		}
		trouble, err := a.listNamespace(ctx, n.GetName(), yield)
		if err != nil {
			return "", false, err
		}
		if trouble != nil {
			lesser = fmt.Sprintf("tasks of namespace %s: %v", n.GetName(), trouble)
		}
	}
	return lesser, whole, nil
}

// listNamespace gives out one namespace's containers. trouble is why their
// tasks could not be told.
func (a *engineAPI) listNamespace(ctx context.Context, namespace string, yield func(row) error) (trouble, err error) {
	ctx = in(ctx, namespace)
	tasks, trouble := a.listTasks(ctx)
	if status.Code(trouble) == codes.Unavailable {
		return nil, fmt.Errorf("list tasks of namespace %s: %w", namespace, trouble)
	}
	stream, err := a.containers.ListStream(ctx, &containersapi.ListContainersRequest{})
	for err == nil {
		var m *containersapi.ListContainerMessage
		if m, err = stream.Recv(); err != nil {
			break
		}
		c := m.GetContainer()
		if err := yield(row{namespace: namespace, container: c, task: tasks[c.GetID()], silent: trouble != nil}); err != nil {
			return trouble, err
		}
	}
	if errors.Is(err, io.EOF) {
		return trouble, nil
	}
	return trouble, fmt.Errorf("list containers of namespace %s: %w", namespace, plain(ctx, err, listLimit))
}

// listTasks asks for a namespace's tasks, by container.
func (a *engineAPI) listTasks(ctx context.Context) (map[string]*task.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, tasksLimit)
	defer cancel()
	res, err := a.tasks.List(ctx, &tasksapi.ListTasksRequest{})
	if err != nil {
		return nil, plain(ctx, err, tasksLimit)
	}
	tasks := make(map[string]*task.Process, len(res.GetTasks()))
	for _, p := range res.GetTasks() {
		id := p.GetContainerID()
		if id == "" {
			id = p.GetID() // containerd 1 tells only this one
		}
		tasks[id] = p
	}
	return tasks, nil
}

// get asks for one container.
func (a *engineAPI) get(ctx context.Context, namespace, id string) (*containersapi.Container, error) {
	ctx, cancel := context.WithTimeout(in(ctx, namespace), getLimit)
	defer cancel()
	res, err := a.containers.Get(ctx, &containersapi.GetContainerRequest{ID: id})
	if err != nil {
		return nil, fmt.Errorf("get %s in namespace %s: %w", id, namespace, plain(ctx, err, getLimit))
	}
	return res.GetContainer(), nil
}

// ping asks whether the engine lives.
func (a *engineAPI) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	if _, err := versionapi.NewVersionClient(a.conn).Version(ctx, &emptypb.Empty{}); err != nil {
		return fmt.Errorf("ping: %w", plain(ctx, err, pingLimit))
	}
	return nil
}

// in asks within a namespace.
func in(ctx context.Context, namespace string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
}

// plain says of a time limit what it is, whichever end noticed it.
func plain(ctx context.Context, err error, limit time.Duration) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded {
		return fmt.Errorf("no answer in %v: %w", limit, context.DeadlineExceeded)
	}
	return err
}
