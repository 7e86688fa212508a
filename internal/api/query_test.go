// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func TestParseQuery(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     Query
		err      string // the beginning
	}{
		{name: "nothing", in: ""},
		{name: "empty fields of a form", in: "q=&namespace=&cause=&since=&until=&limit=&cursor="},
		{name: "all", in: "cause=oom_node&cause=killed&namespace=n&pod=p&container=c&node=x&unit=u&q=+a+b+&limit=7&cursor=k&since=2h&until=2026-03-04T11:00:00.5%2B01:00",
			want: Query{Cause: []death.Cause{death.OOMNode, death.Killed}, Namespace: "n", Pod: "p", Container: "c", Node: "x", Unit: "u", Q: "a b", Limit: 7, Cursor: "k",
				Since: noon.Add(-2 * time.Hour), Until: noon.Add(-2*time.Hour + 500*time.Millisecond)}},
		{name: "plus sign of a zone that was not escaped", in: "since=2026-03-04T11:00:00+01:00", want: Query{Since: noon.Add(-2 * time.Hour)}},
		{name: "the same cause twice", in: "cause=killed&cause=killed", want: Query{Cause: []death.Cause{death.Killed}}},
		{name: "a cause of a later version", in: "cause=heap_limit", want: Query{Cause: []death.Cause{"heap_limit"}}},
		{name: "zero duration", in: "until=0s", want: Query{Until: noon}},
		{name: "no such cause", in: "cause=OOMKilled", err: `cause: "OOMKilled" is none: want one or more of oom_container_limit, `},
		{name: "no such parameter", in: "cuase=killed", err: `"cuase" is no parameter: want one of cause, `},
		{name: "twice", in: "pod=a&pod=b", err: "pod: given 2 times"},
		{name: "limit of words", in: "limit=many", err: `limit: "many" is out of range: want a number from 1 to 1000`},
		{name: "limit too low", in: "limit=0", err: `limit: "0"`},
		{name: "limit too high", in: "limit=1001", err: `limit: "1001"`},
		{name: "limit beyond numbers", in: "limit=99999999999999999999", err: `limit: `},
		{name: "since of words", in: "since=yesterday", err: `since: "yesterday" is no moment: want RFC 3339, such as 2026-01-31T12:00:00Z, or a duration back from now`},
		{name: "duration into the future", in: "since=-2h", err: `since: "-2h"`},
		{name: "year 9999", in: "until=9999-12-31T00:00:00Z", err: `until: "9999-12-31T00:00:00Z" is out of range: want a year from 1700 to 2250`},
		{name: "year 1", in: "since=0001-01-01T00:00:00Z", err: `since: "0001-01-01T00:00:00Z" is out of range: want a year from 1700 to 2250`},
		{name: "a year too late in UTC", in: "until=2250-12-31T23:30:00-01:00", err: `until: "2250-12-31T23:30:00-01:00" is out of range`},
		{name: "a year too early in UTC", in: "since=1700-01-01T00:30:00%2B01:00", err: `since: "1700-01-01T00:30:00+01:00" is out of range`},
		{name: "the last second", in: "until=2251-01-01T00:59:59%2B01:00", want: Query{Until: time.Date(2250, 12, 31, 23, 59, 59, 0, time.UTC)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := url.ParseQuery(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseQuery(v, noon)
			if tt.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tt.err) {
					t.Errorf("error %v, want %q...", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			again, err := ParseQuery(got.Values(), noon.Add(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("after Values (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseQuery_TakesEveryCause(t *testing.T) {
	for _, i := range death.Causes() {
		if _, err := ParseQuery(url.Values{"cause": {string(i.Cause)}}, noon); err != nil {
			t.Error(err)
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	for _, s := range []string{"", "cause=killed&q=a", "since=2h&until=2026-03-04T11:00:00Z", "limit=1&cursor=x", "until=2250-12-31T23:30:00-01:00", "q=+a+b+", "since=0&until=1ns"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := url.ParseQuery(s)
		if err != nil {
			return
		}
		q, err := ParseQuery(v, noon)
		if err != nil {
			return
		}
		if q.Limit < 0 || q.Limit > MaxLimit || len(q.Cause) > len(v["cause"]) {
			t.Errorf("%q: %d causes, limit %d", s, len(q.Cause), q.Limit)
		}
		for _, m := range []time.Time{q.Since, q.Until} {
			if back := time.Unix(0, m.UnixNano()); !m.IsZero() && !back.Equal(m) {
				t.Errorf("%q: %v is %v in nanoseconds", s, m, back)
			}
		}
		again, err := ParseQuery(q.Values(), noon.Add(time.Hour))
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if diff := cmp.Diff(q, again); diff != "" {
			t.Errorf("%q (-want +got):\n%s", s, diff)
		}
	})
}
