// SPDX-License-Identifier: Apache-2.0

// Package enginetest is for tests of sources that ask container engines: the
// socket of a fake engine, and what a source says of it.
package enginetest

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Socket is what a fake engine listens on. Its connections are pipes, so that
// a test can run in a bubble of synctest.
type Socket struct {
	mu       sync.Mutex
	refusal  error
	play     func(net.Conn)
	accepted chan net.Conn
	closed   chan struct{}
	conns    map[net.Conn]bool
}

// NewSocket returns a Socket that accepts.
func NewSocket() *Socket {
	return &Socket{accepted: make(chan net.Conn), closed: make(chan struct{}), conns: map[net.Conn]bool{}}
}

// Accept takes who connects: a Socket is a net.Listener.
func (s *Socket) Accept() (net.Conn, error) {
	select {
	case c := <-s.accepted:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	return nil
}

// Addr names it.
func (s *Socket) Addr() net.Addr { return &net.UnixAddr{Name: "fake", Net: "unix"} }

// Dial connects to it.
func (s *Socket) Dial(ctx context.Context, _ string) (net.Conn, error) {
	s.mu.Lock()
	err, play := s.refusal, s.play
	s.mu.Unlock()
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "unix", Err: err}
	}
	ours, theirs := net.Pipe()
	s.mu.Lock()
	s.conns[theirs] = true
	s.mu.Unlock()
	if play != nil {
		go play(theirs)
		return ours, nil
	}
	select {
	case s.accepted <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Refuse answers who connects with an error; nil: no more.
func (s *Socket) Refuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = err
}

// Play lets another program than the engine answer who connects; nil: no more.
func (s *Socket) Play(other func(net.Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.play = other
}

// CutOff ends all connections, as an engine's crash does.
func (s *Socket) CutOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close()
	}
	clear(s.conns)
}

// Server is one of gRPC's or net/http's.
type Server interface{ Serve(l net.Listener) error }

// Serve runs a server until stop, which ends it, or the test's end.
func Serve(t testing.TB, l net.Listener, s Server, end func()) (stop func()) {
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	stop = sync.OnceFunc(func() { end(); <-done })
	t.Cleanup(stop)
	return stop
}

// Listen listens at a real socket.
func Listen(t testing.TB, path string) net.Listener {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// ShortTemp is a folder whose paths fit into a socket's address.
func ShortTemp(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Write makes a file and its folder.
func Write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// InvalidUTF8 stands for itself with its letters made none, where a fake with
// RawCodec sends it.
const InvalidUTF8 = "INVALID8"

// RawCodec sends text that is no UTF-8, as containerd 1 does and a kubelet may.
type RawCodec struct{ encoding.CodecV2 }

// NewRawCodec returns a RawCodec over gRPC's own.
func NewRawCodec() RawCodec { return RawCodec{encoding.GetCodecV2(proto.Name)} }

// Marshal encodes v.
func (c RawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, err := c.CodecV2.Marshal(v)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(bytes.ReplaceAll(b.Materialize(), []byte(InvalidUTF8), []byte("\xff\xfeI\xc0\xafID8")))}, nil
}
