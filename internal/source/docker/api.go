// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"github.com/coroner-dev/coroner/internal/engines"
)

// podman is the runtime that podman's engine is told by.
const podman = "podman"

var errTooLarge = errors.New("answer is too large")

// engineAPI is one connection to an engine: a client for each size of answer,
// for the bound is the connection's.
type engineAPI struct {
	answers, lists, stream *client.Client
	// taken counts the bytes of the stream since the last event.
	taken *atomic.Int64
}

func newAPI(path string, dial func(ctx context.Context) (net.Conn, error)) (*engineAPI, error) {
	a := &engineAPI{taken: &atomic.Int64{}}
	var err error
	connect := func(limit int64, taken *atomic.Int64) *client.Client {
		c, cerr := client.New(client.WithHost("unix://"+path), client.WithUserAgent("coroner"),
			client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) {
				conn, err := dial(ctx)
				if err != nil {
					return nil, err
				}
				b := &bounded{Conn: conn, limit: limit, taken: taken}
				if taken == nil {
					b.taken, b.perRequest = &atomic.Int64{}, true
				}
				return b, nil
			}))
		err = errors.Join(err, cerr)
		return c
	}
	a.answers, a.lists, a.stream = connect(maxAnswer, nil), connect(maxList, nil), connect(maxAnswer, a.taken)
	if err != nil {
		return nil, fmt.Errorf("engine at %s: %w", path, err)
	}
	return a, nil
}

func (a *engineAPI) close() {
	for _, c := range []*client.Client{a.answers, a.lists, a.stream} {
		_ = c.Close()
	}
}

// bounded is a connection that gives up on an answer that is too large.
type bounded struct {
	net.Conn
	limit int64
	taken *atomic.Int64
	// perRequest is true where each request begins anew.
	perRequest bool
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if b.taken.Add(int64(n)) > b.limit {
		return 0, fmt.Errorf("%w: more than %d MiB", errTooLarge, b.limit>>20)
	}
	return n, err
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.perRequest {
		b.taken.Store(0)
	}
	return b.Conn.Write(p)
}

// identity is which engine this is.
type identity struct{ runtime, version string }

func (i identity) String() string { return strings.TrimSpace(i.runtime + " " + i.version) }

// identify asks for the engine's kind and version.
func (a *engineAPI) identify(ctx context.Context) (identity, error) {
	ctx, cancel := context.WithTimeout(ctx, versionLimit)
	defer cancel()
	v, err := a.answers.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return identity{}, fmt.Errorf("ask for its version: %w", plain(ctx, err, versionLimit))
	}
	id := identity{runtime: "docker", version: engines.Cut(v.Version, engines.MaxVersion)}
	for _, c := range v.Components {
		if strings.Contains(strings.ToLower(engines.Cut(c.Name, engines.MaxName)), podman) {
			id.runtime = podman
		}
	}
	return id, nil
}

// subscribe opens the stream of events, beginning with those since then that
// the engine remembers. The stream ends with ctx.
func (a *engineAPI) subscribe(ctx context.Context, runtime string, since time.Time) (client.EventsResult, error) {
	f := client.Filters{}.Add("type", string(events.ContainerEventType))
	if runtime != podman {
		f.Add("type", string(events.NetworkEventType)).Add("event", string(events.ActionDisconnect))
	}
	for name := range actions {
		f.Add("event", string(name))
	}
	opt := client.EventsListOptions{Filters: f, Since: fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond())}
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(streamLimit, cancel)
	res := a.stream.Events(ctx, opt)
	if timer.Stop() {
		return res, nil
	}
	for range res.Err { // until it has ended
	}
	return res, fmt.Errorf("subscribe to events: no answer in %v", streamLimit)
}

// list asks for all containers.
func (a *engineAPI) list(ctx context.Context) ([]container.Summary, error) {
	ctx, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	res, err := a.lists.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", plain(ctx, err, listLimit))
	}
	return res.Items, nil
}

// inspect asks for one container.
func (a *engineAPI) inspect(ctx context.Context, id string) (container.InspectResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectLimit)
	defer cancel()
	res, err := a.answers.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return container.InspectResponse{}, fmt.Errorf("inspect %s: %w", id, plain(ctx, err, inspectLimit))
	}
	return res.Container, nil
}

// ping asks whether the engine lives.
func (a *engineAPI) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	if _, err := a.answers.Ping(ctx, client.PingOptions{}); err != nil {
		return fmt.Errorf("ping: %w", plain(ctx, err, pingLimit))
	}
	return nil
}

// plain says of a time limit what it is.
func plain(ctx context.Context, err error, limit time.Duration) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer in %v: %w", limit, context.DeadlineExceeded)
	}
	return err
}
