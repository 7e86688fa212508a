// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestDecode_NoDeath(t *testing.T) {
	s := open(t, "", Options{})
	for _, body := range []any{nil, int64(7), []byte("{}"), "", "null", "[]", `"x"`, `{"id":`} {
		var ue *UnreadableError
		if d, err := s.decode("x", body); !errors.As(err, &ue) || d.ID != "" {
			t.Errorf("%v: %+v, %v; want an UnreadableError", body, d, err)
		}
	}
}

// FuzzDecode reads rows that something damaged: it is a death by the row's own
// id, which can be told on and is the same when it comes back, or an error.
func FuzzDecode(f *testing.F) {
	for n := range 3 {
		body, err := json.Marshal(sample(n))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(body))
	}
	for _, s := range []string{"null", "{}", `{"id":7}`, `{"time":"9999-12-31T23:59:59-01:00"}`} {
		f.Add(s)
	}
	s, err := Open(context.Background(), Memory, Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	f.Fuzz(func(t *testing.T, body string) {
		d, err := s.decode("x", body)
		if err != nil {
			var ue *UnreadableError
			if !errors.As(err, &ue) || ue.ID != "x" || d.ID != "" || !s.unreadableHas("x") {
				t.Errorf("%+v, %v", d, err)
			}
			return
		}
		if d.ID != "x" {
			t.Errorf("id %q", d.ID)
		}
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		again, err := s.decode("x", string(text))
		if diff := cmp.Diff(d, again, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("err %v (-first +again):\n%s", err, diff)
		}
		_ = searchable(&d)
	})
}

func (s *Store) unreadableHas(id string) bool {
	s.bad.mu.Lock()
	defer s.bad.mu.Unlock()
	_, ok := s.bad.ids[id]
	return ok
}

// FuzzCursor: a cursor that is taken is a place in the order, and its own form
// leads to the same place.
func FuzzCursor(f *testing.F) {
	f.Add(cursor(0, "x"), int64(-1), "a.b")
	f.Add("MQ", int64(1)<<62, "\x00")
	f.Add("!!", int64(-1)<<63, "")
	f.Fuzz(func(t *testing.T, foreign string, ns int64, id string) {
		if n, i, err := parseCursor(foreign); err == nil {
			n2, i2, err := parseCursor(cursor(n, i))
			if err != nil || n2 != n || i2 != i || i == "" {
				t.Errorf("%q: %d %q, again %d %q, %v", foreign, n, i, n2, i2, err)
			}
		}
		n, i, err := parseCursor(cursor(ns, id))
		if (err == nil) != (id != "") || err == nil && (n != ns || i != id) {
			t.Errorf("%d %q: %d %q, %v", ns, id, n, i, err)
		}
	})
}
