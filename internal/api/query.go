// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// The bounds of Query.Limit.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// Query selects deaths. An empty field selects all; fields are joined by and.
type Query struct {
	// Cause: any of these.
	Cause []death.Cause
	// Namespace is of Kubernetes, or containerd's own.
	Namespace string
	// Pod is a pod's name or uid.
	Pod string
	// Container is a name, an id, or the first 6 or more digits of an id.
	Container string
	Node      string
	Unit      string
	// Q holds words that must all occur in what the death says.
	Q string
	// Since is the first moment that counts, Until the first that does not.
	Since, Until time.Time
	// Limit is the most deaths on a page; 0 means DefaultLimit.
	Limit int
	// Cursor is the Next of the page before.
	Cursor string
}

// parameters are the names that ParseQuery accepts.
func parameters() []string {
	return []string{"cause", "namespace", "pod", "container", "node", "unit", "q", "since", "until", "limit", "cursor"}
}

// ParseQuery reads a query from an address's parameters. Empty parameters, as
// a form sends them, count as absent; unknown ones are refused, so that a
// misspelt filter never selects everything. Since and until are RFC 3339 or a
// duration such as 2h, which means that long before now.
func ParseQuery(v url.Values, now time.Time) (Query, error) {
	for name := range v {
		if !slices.Contains(parameters(), name) {
			return Query{}, fmt.Errorf("%q is no parameter: want one of %s", name, strings.Join(parameters(), ", "))
		}
	}
	q := Query{
		Namespace: v.Get("namespace"),
		Pod:       v.Get("pod"),
		Container: v.Get("container"),
		Node:      v.Get("node"),
		Unit:      v.Get("unit"),
		Q:         strings.TrimSpace(v.Get("q")),
		Cursor:    v.Get("cursor"),
	}
	for _, name := range parameters() {
		if name != "cause" && len(v[name]) > 1 {
			return Query{}, fmt.Errorf("%s: given %d times, want it once (only cause may be repeated)", name, len(v[name]))
		}
	}
	var err error
	if q.Cause, err = parseCauses(v["cause"]); err != nil {
		return Query{}, err
	}
	if q.Since, err = ParseTime(v.Get("since"), now); err != nil {
		return Query{}, fmt.Errorf("since: %w", err)
	}
	if q.Until, err = ParseTime(v.Get("until"), now); err != nil {
		return Query{}, fmt.Errorf("until: %w", err)
	}
	if q.Limit, err = parseLimit(v.Get("limit")); err != nil {
		return Query{}, err
	}
	return q, nil
}

func parseCauses(values []string) ([]death.Cause, error) {
	var causes []death.Cause
	for _, s := range values {
		c := death.Cause(s)
		if s == "" || slices.Contains(causes, c) {
			continue
		}
		if !knownCause(c) {
			return nil, fmt.Errorf("cause: %q is none: want one or more of %s", s, strings.Join(causeIDs(), ", "))
		}
		causes = append(causes, c)
	}
	return causes, nil
}

func knownCause(c death.Cause) bool {
	return slices.ContainsFunc(death.Causes(), func(i death.CauseInfo) bool { return i.Cause == c })
}

func causeIDs() []string {
	var ids []string
	for _, i := range death.Causes() {
		ids = append(ids, string(i.Cause))
	}
	return ids
}

// ParseTime reads a moment as RFC 3339 or as a duration before now. An empty
// text is the zero time.
func ParseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d).UTC(), nil
	}
	// A plus sign that was not escaped in an address arrives as a space.
	t, err := time.Parse(time.RFC3339Nano, strings.ReplaceAll(s, " ", "+"))
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no moment: want RFC 3339, such as 2026-01-31T12:00:00Z, or a duration back from now, such as 30m or 48h", s)
	}
	t = t.UTC()
	if t.Year() < minYear || t.Year() > maxYear {
		return time.Time{}, fmt.Errorf("%q is out of range: want a year from %d to %d", s, minYear, maxYear)
	}
	return t, nil
}

// The years whose nanoseconds since 1970 fit an int64, with room.
const (
	minYear = 1700
	maxYear = 2250
)

func parseLimit(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > MaxLimit {
		return 0, fmt.Errorf("limit: %q is out of range: want a number from 1 to %d", s, MaxLimit)
	}
	return n, nil
}

// Values writes q as an address's parameters; ParseQuery reads them back.
func (q Query) Values() url.Values {
	v := url.Values{}
	for _, c := range q.Cause {
		v.Add("cause", string(c))
	}
	for name, s := range map[string]string{
		"namespace": q.Namespace, "pod": q.Pod, "container": q.Container, "node": q.Node,
		"unit": q.Unit, "q": q.Q, "cursor": q.Cursor,
	} {
		if s != "" {
			v.Set(name, s)
		}
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if !q.Until.IsZero() {
		v.Set("until", q.Until.UTC().Format(time.RFC3339Nano))
	}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}
