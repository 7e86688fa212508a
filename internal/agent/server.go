// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"time"

	toolkit "github.com/prometheus/exporter-toolkit/web"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/web"
)

// drainTime bounds how long open requests may take at the end.
const drainTime = 3 * time.Second

// server is the agent's face on the network.
type server struct {
	http      *http.Server
	listeners []net.Listener
	flags     *toolkit.FlagConfig
	log       *slog.Logger
	broker    *web.Broker
}

// listen opens the addresses, so that a port in use is known before anything
// else begins. With a systemd socket there is nothing to open.
func listen(ctx context.Context, o WebOptions) ([]net.Listener, error) {
	if err := toolkit.Validate(o.ConfigFile); err != nil {
		return nil, fmt.Errorf("--web.config.file %s: %w", o.ConfigFile, err)
	}
	if o.SystemdSocket {
		return nil, nil
	}
	var out []net.Listener
	for _, address := range o.ListenAddress {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			closeAll(out)
			return nil, fmt.Errorf("serve on %s: %w (another address: --web.listen-address)", address, err)
		}
		out = append(out, l)
	}
	return out, nil
}

func closeAll(ls []net.Listener) {
	for _, l := range ls {
		_ = l.Close()
	}
}

// newServer builds the routes.
func (a *Agent) newServer(listeners []net.Listener) (*server, error) {
	o := a.opts.Web
	var external *url.URL
	prefix := o.RoutePrefix
	if o.ExternalURL != "" {
		u, err := url.Parse(o.ExternalURL)
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("--web.external-url %q: must be a URL such as https://example.org/coroner", o.ExternalURL)
		}
		external = u
		if prefix == "" {
			prefix = u.Path
		}
	}
	broker := web.NewBroker()
	handler, err := web.New(web.Options{
		Store:  shelf{a.store},
		Status: a.Status,
		Ready:  a.Ready, History: a.keeping,
		Broker: broker, Containers: a.containers, Node: a.memory.Map,
		Metrics: a.metrics.Handler(), TelemetryPath: o.TelemetryPath,
		RoutePrefix: prefix, ExternalURL: external,
		Version: a.opts.Version, Logger: a.log,
	})
	if err != nil {
		return nil, err
	}
	if o.EnablePprof {
		handler = withPprof(handler)
	}
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	quiet, most := maxQuiet, maxConns
	if files, err := host.OpenFiles(); err == nil {
		quiet, most = connBounds(files)
	}
	newConns(quiet, most).bound(srv)
	srv.RegisterOnShutdown(broker.Close)
	return &server{
		http: srv, listeners: listeners, log: a.log, broker: broker,
		flags: &toolkit.FlagConfig{
			WebListenAddresses: &o.ListenAddress, WebSystemdSocket: &o.SystemdSocket, WebConfigFile: &o.ConfigFile,
		},
	}, nil
}

// withPprof adds Go's profiles, for those who asked for them.
func withPprof(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", next)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// run serves until stop.
func (s *server) run() error {
	var err error
	if *s.flags.WebSystemdSocket {
		err = toolkit.ListenAndServe(s.http, s.flags, s.log)
	} else {
		err = toolkit.ServeMultiple(s.listeners, s.http, s.flags, s.log)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve: %w", err)
}

// stop lets open requests end, for a while.
func (s *server) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		s.log.Warn("requests were cut off at the end", "err", err)
	}
}

func (s *server) addresses() []net.Addr {
	var out []net.Addr
	for _, l := range s.listeners {
		out = append(out, l.Addr())
	}
	return out
}

// keeping tells whether deaths are kept where they should be, else why not.
func (a *Agent) keeping() (bool, string) {
	why, st := a.keeper.failure(), a.keeper.stat()
	if why == "" {
		return true, "up"
	}
	return false, fmt.Sprintf("down: %s; %d deaths wait, %d were dropped", why, st.QueueLength, st.Dropped)
}

// Ready tells whether at least one source watches.
func (a *Agent) Ready() (bool, []api.SourceStatus) {
	sources := a.sup.status()
	for _, s := range sources {
		if s.Up {
			return true, sources
		}
	}
	return false, sources
}
