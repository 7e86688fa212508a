// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
)

func client(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := NewClient(srv.URL, srv.Client())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNewClient(t *testing.T) {
	for in, want := range map[string]string{
		"localhost:3001": "http://localhost:3001", ":3001": "http://localhost:3001", "node": "http://node",
		"https://u:p@node/coroner/": "https://u:p@node/coroner", "http://[::1]:3001/?x#y": "http://[::1]:3001",
	} {
		c, err := NewClient(in, nil)
		if err != nil || c.Base.String() != want {
			t.Errorf("%q: %v, %v; want %q", in, c, err, want)
		}
	}
	for _, in := range []string{"", "http://", "ftp://node", "http://a b", "unix:///run/x"} {
		if _, err := NewClient(in, nil); err == nil || !strings.Contains(err.Error(), "--server") {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestClient_NeverShowsThePassword(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	host := strings.TrimPrefix(closed.URL, "http://")
	closed.Close()
	c, err := NewClient("http://admin:hunter2@"+host+"/coroner/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Address(), "http://"+host+"/coroner"; got != want {
		t.Errorf("Address() = %q, want %q", got, want)
	}
	_, unreachable := c.Status(t.Context())
	_, scheme := NewClient("ftp://admin:hunter2@node", nil)
	_, broken := NewClient("http://admin:hunter2@no de", nil)
	_, rest := NewClient("http://admin:hunter2@node:3001x", nil)
	for _, err := range []error{unreachable, scheme, broken, rest} {
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "admin") {
			t.Errorf("error %v, want one without user and password", err)
		}
	}
	if password, _ := c.Base.User.Password(); password != "hunter2" {
		t.Errorf("the password for asking is %q", password)
	}
}

// TestClient_ThroughAnAPIServer: what the server between says is not taken for
// the agent's, and the client goes by the name it was given.
func TestClient_ThroughAnAPIServer(t *testing.T) {
	c := client(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"kind":"Status","message":"pods \"x\" is forbidden","reason":"Forbidden","code":403}`)
	})
	c.Name = "the agent x"
	_, err := c.Status(t.Context())
	var status *StatusError
	if !errors.As(err, &status) || status.Reason != "Forbidden" || err.Error() != `the agent x: pods "x" is forbidden (HTTP 403)` {
		t.Errorf("%v", err)
	}
}

func TestClient_All(t *testing.T) {
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != PathDeaths || r.URL.Query().Get("pod") != "p" {
			t.Errorf("asked %s", r.URL)
		}
		page := map[string]string{"": `{"deaths":[{"id":"1"},{"id":"2"}],"next":"a"}`, "a": `{"deaths":[{"id":"3"}]}`}[r.URL.Query().Get("cursor")]
		_, _ = io.WriteString(w, page)
	})
	var got []string
	for d, err := range c.All(t.Context(), Query{Pod: "p"}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, d.ID)
	}
	if diff := cmp.Diff([]string{"1", "2", "3"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestClient_ErrorsNameTheRemedy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		address string
		answer  http.HandlerFunc
		is      error
		want    []string
	}{
		{name: "nobody there", address: "u:secret@" + closed, is: ErrUnreachable, want: []string{closed, "connection refused", "coroner agent", "--server"}},
		{name: "not found", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(404)
			_ = json.NewEncoder(w).Encode(Error{"no death has the id"})
		}, is: ErrNotFound, want: []string{"no death has the id", "404"}},
		{name: "another program's 404", answer: http.NotFound, is: ErrNotFound, want: []string{"is it coroner's address", "--server"}},
		{name: "wants a password", answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, want: []string{"USER:PASSWORD"}},
		{name: "bad query", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			_ = json.NewEncoder(w).Encode(Error{"limit: out of range"})
		}, want: []string{"limit: out of range", "400"}},
		{name: "not JSON", answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, want: []string{"not as coroner does", "--server"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c *Client
			if tt.answer != nil {
				c = client(t, tt.answer)
			} else if c, err = NewClient(tt.address, nil); err != nil {
				t.Fatal(err)
			}
			_, err := c.Death(t.Context(), "x/y")
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) {
				t.Fatalf("error %v, want %v", err, tt.is)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%q tells the password", err)
			}
		})
	}
}

func TestClient_DeathEscapesTheID(t *testing.T) {
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(death.Death{ID: strings.TrimPrefix(r.URL.Path, PathDeaths+"/")})
	})
	if d, err := c.Death(t.Context(), "a/b?c#d%"); err != nil || d.ID != "a/b?c#d%" {
		t.Errorf("%q, %v", d.ID, err)
	}
}

// script is a server that answers one request after the other, in synctest's
// time. It notes what was asked.
type script struct {
	asked   []string
	answers []func(w *io.PipeWriter) int
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked = append(s.asked, r.Header.Get("Last-Event-ID"))
	if len(s.answers) == 0 {
		return nil, errors.New("no answer left")
	}
	read, write := io.Pipe()
	answer := s.answers[0]
	s.answers = s.answers[1:]
	context.AfterFunc(r.Context(), func() { _ = write.CloseWithError(r.Context().Err()) })
	return &http.Response{StatusCode: answer(write), Body: read, Header: http.Header{}}, nil
}

// says writes text and then ends, or hangs.
func says(text string, hang bool) func(*io.PipeWriter) int {
	return func(w *io.PipeWriter) int {
		go func() {
			_, _ = io.WriteString(w, text)
			if !hang {
				_ = w.Close()
			}
		}()
		return 200
	}
}

func refuses(code int) func(*io.PipeWriter) int {
	return func(w *io.PipeWriter) int { _ = w.Close(); return code }
}

func TestStream_ResumesWhereItBroke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []func(*io.PipeWriter) int{
			says("retry: 5\n: hello\nid: 10\n\nid: 11\nevent: death\ndata: {\"id\":\"a\"}\n\nid: 12\nevent: death\ndata: {\"id\":", false), // cut amid an event
			refuses(503),
			says("id: 12\nevent: death\ndata: {\"id\":\"b\",\ndata: \"node\":\"n\"}\n\nid: 13\nevent: other\ndata: x\n\n", true), // then silence
			says("id: 14\nevent: death\ndata: {\"id\":\"c\"}\n\n", true),
		}}
		c, err := NewClient("node:3001", &http.Client{Transport: s})
		if err != nil {
			t.Fatal(err)
		}
		var retries []string
		c.OnRetry = func(err error, _ time.Duration) { retries = append(retries, err.Error()) }
		var got []string
		start := time.Now()
		err = c.Stream(t.Context(), Query{Node: "n"}, "9", func(id string, d death.Death) error {
			got = append(got, id+d.ID+d.Node)
			if d.ID == "c" {
				return io.EOF
			}
			return nil
		})
		if !errors.Is(err, io.EOF) {
			t.Errorf("Stream: %v", err)
		}
		if diff := cmp.Diff([]string{"11a", "12bn", "14c"}, got); diff != "" {
			t.Errorf("deaths (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"9", "11", "11", "13"}, s.asked); diff != "" {
			t.Errorf("Last-Event-ID (-want +got):\n%s", diff)
		}
		if len(retries) != 3 || !strings.Contains(retries[2], "fell silent") {
			t.Errorf("retries %q", retries)
		}
		if took := time.Since(start); took < silence || took > silence+2*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestStream_RefusesWhatLooksBack(t *testing.T) {
	c := client(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("asked for %s", r.URL) })
	for name, q := range map[string]Query{
		"since": {Since: noon}, "until": {Until: noon}, "limit": {Limit: 5}, "cursor": {Cursor: "x"},
	} {
		err := c.Stream(t.Context(), q, "", func(string, death.Death) error { return nil })
		if err == nil || !strings.HasPrefix(err.Error(), name+": ") {
			t.Errorf("%s: %v, want an error that names it", name, err)
		}
	}
}

func TestStream_Ends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := func(string, death.Death) error { return fmt.Errorf("a death") }
		for name, tt := range map[string]struct {
			answers []func(*io.PipeWriter) int
			want    string
		}{
			"nobody there at first": {nil, "coroner agent"},
			"refused query":         {[]func(*io.PipeWriter) int{refuses(400)}, "400"},
			"refused later":         {[]func(*io.PipeWriter) int{says("", false), refuses(403)}, "403"},
		} {
			c, err := NewClient("node:3001", &http.Client{Transport: &script{answers: tt.answers}})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Stream(t.Context(), Query{}, "", never); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %q", name, err, tt.want)
			}
		}
		// Waiting ends with the context, at once and without an error.
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
		defer cancel()
		answers := []func(*io.PipeWriter) int{says("id: 1\n\n", false)}
		c, err := NewClient("node:3001", &http.Client{Transport: &script{answers: answers}})
		if err != nil {
			t.Fatal(err)
		}
		tries := 0
		c.OnRetry = func(error, time.Duration) { tries++ }
		if err := c.Stream(ctx, Query{}, "", never); err != nil {
			t.Errorf("Stream after cancellation: %v", err)
		}
		if most := int(3*time.Hour/(maxWait/2)) + 20; tries < 100 || tries > most {
			t.Errorf("%d tries in 3 hours, want at most %d", tries, most)
		}
	})
}
