// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func events(r io.Reader) (all []event, err error) {
	err = readEvents(r, func(e event) error { all = append(all, e); return nil })
	return all, err
}

func TestReadEvents(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []event
	}{
		{"one", "id: 7\nevent: death\ndata: {}\n\n", []event{{"7", "death", "{}"}}},
		{"lines that end as on another system", "id: 7\r\ndata: {}\r\n\r\n", []event{{"7", "", "{}"}}},
		{"more than one carriage return", "id: 7\r\r\ndata: {}\r\n\r\r\n", []event{{"7", "", "{}"}}},
		{"an id alone", "id: 7\n\n", []event{{id: "7"}}},
		{"comments and other fields", ": heartbeat\n\nretry: 5\n\n", nil},
		{"two lines of data", "data: a\ndata: b\n\n", []event{{data: "a\nb"}}},
		{"an empty line of data", "data:\ndata:b\n\n", []event{{data: "\nb"}}},
		{"cut", "id: 7\ndata: {}\n", nil},
		{"an id that no header can carry", "id: 7\nid: a\x00b\nid: \x7f\ndata: {}\n\n", []event{{id: "7", data: "{}"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := events(strings.NewReader(tt.text))
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(event{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("error %v, want %v", err, io.ErrUnexpectedEOF)
			}
		})
	}
}

// endless is a stream of lines that never ends an event.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	const line = "data: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789\n"
	n := 0
	for n+len(line) <= len(p) {
		n += copy(p[n:], line)
	}
	e.read += n
	if e.read > 4*maxEvent {
		return 0, io.ErrNoProgress
	}
	return n, nil
}

func TestReadEvents_BoundsAnEventOfManyLines(t *testing.T) {
	all, err := events(&endless{})
	if all != nil || !errors.Is(err, errEventSize) {
		t.Errorf("%d events, %v; want %v", len(all), err, errEventSize)
	}
}

// FuzzReadEvents: nothing comes out that is not in the stream; an id can be
// sent back; what was read is written and read again the same.
func FuzzReadEvents(f *testing.F) {
	for _, s := range []string{
		"id: 7\nevent: death\ndata: {}\n\n", ": heartbeat\n\n", "id\ndata\n\n", "data: a\r\ndata:b\n\nid:  x\n\n", "id: 1\n\nid: 2", "data:\ndata:\n\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := events(strings.NewReader(text))
		if err == nil {
			t.Fatal("the stream ended without an error")
		}
		var again strings.Builder
		size := 0
		for _, e := range all {
			size += len(e.id) + len(e.name) + len(e.data)
			req, err := http.NewRequest(http.MethodGet, "http://x/", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Last-Event-ID", e.id)
			if err := req.Write(io.Discard); err != nil {
				t.Errorf("id %q: %v", e.id, err)
			}
			if strings.ContainsAny(e.id, "\x00\r\n") || !strings.Contains(text, e.id) || !strings.Contains(text, e.name) {
				t.Errorf("%+v of %q", e, text)
			}
			_, _ = fmt.Fprintf(&again, "id: %s\nevent: %s\n", e.id, e.name)
			if e.data != "" {
				for line := range strings.SplitSeq(e.data, "\n") {
					_, _ = fmt.Fprintf(&again, "data: %s\n", line)
				}
			}
			again.WriteString("\n")
		}
		if size > len(text) {
			t.Errorf("%d bytes of %d", size, len(text))
		}
		twice, _ := events(strings.NewReader(again.String()))
		if diff := cmp.Diff(all, twice, cmp.AllowUnexported(event{})); diff != "" {
			t.Errorf("(-first +again):\n%s", diff)
		}
	})
}
