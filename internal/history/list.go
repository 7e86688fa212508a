// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

const (
	// DefaultLimit is the length of a page when Query.Limit is 0.
	DefaultLimit = 100
	// MaxLimit is the most that a page holds.
	MaxLimit = 1000
	// maxPageBytes ends a page early, so that a thousand deaths with large
	// task tables do not fill the memory; the next page goes on from there.
	maxPageBytes = 4 << 20
	// minIDPrefix is how many digits of a container's id name it.
	minIDPrefix = 6
	// minUID is the length of a static pod's uid, which has no hyphens.
	minUID = 32
)

// Query selects deaths. An empty field selects all; fields are joined by and.
// Its fields are those of package api, so that one converts to the other.
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

// QueryError says what in a query is wrong.
type QueryError struct {
	// Field is the query's field by the API's name.
	Field  string
	Reason string
}

// Error is the field and the reason.
func (e *QueryError) Error() string { return e.Field + ": " + e.Reason }

// BadQuery tells a reader that does not know this package that the query is to blame.
func (e *QueryError) BadQuery() bool { return true }

// Page is a part of a listing, newest first.
type Page struct {
	Deaths []death.Death
	// Next continues the listing; empty on the last page.
	Next string
	// Seq is the sequence number up to which this page knows everything.
	Seq int64
}

// Get returns one death, ErrNotFound, or an *UnreadableError.
func (s *Store) Get(ctx context.Context, id string) (d death.Death, err error) {
	err = s.reading(ctx, func() error {
		var body any
		err := s.read.QueryRowContext(ctx, `SELECT body FROM deaths WHERE id = ?`, id).Scan(&body)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return ErrNotFound
		case err != nil:
			return fmt.Errorf("get death %q: %w", id, s.met(err))
		}
		d, err = s.decode(id, body)
		return err
	})
	return d, err
}

// List returns the newest deaths that q selects. Deaths that arrive between
// two pages do not move those that are still to come. A page is shorter by
// the deaths that cannot be read, but never empty before the last one.
func (s *Store) List(ctx context.Context, q Query) (page Page, err error) {
	err = s.reading(ctx, func() error {
		page, err = s.listPage(ctx, q)
		return err
	})
	return page, err
}

func (s *Store) listPage(ctx context.Context, q Query) (Page, error) {
	page, err := s.listRows(ctx, q)
	for err == nil && len(page.Deaths) == 0 && page.Next != "" {
		seq := page.Seq
		q.Cursor = page.Next
		page, err = s.listRows(ctx, q)
		page.Seq = seq
	}
	return page, err
}

func (s *Store) listRows(ctx context.Context, q Query) (Page, error) {
	where, args, err := conditions(q)
	if err != nil {
		return Page{}, err
	}
	if q.Cursor != "" {
		ns, id, err := parseCursor(q.Cursor)
		if err != nil {
			return Page{}, err
		}
		where, args = append(where, `(time_ns, id) < (?, ?)`), append(args, ns, id)
	}
	limit, seen := pageLength(q.Limit), 0
	page := Page{Deaths: []death.Death{}}
	var last found
	page.Seq, err = s.scan(ctx, `time_ns`, ` DESC`, where, limit+1, args, func(f found) bool {
		if seen == limit || f.full && len(page.Deaths) > 0 {
			page.Next = cursor(last.key, last.id)
			return false
		}
		last = f
		seen++
		if f.death != nil {
			page.Deaths = append(page.Deaths, *f.death)
		}
		return true
	})
	return page, err
}

// Since returns what q selects of the deaths that are new or amended after
// the sequence number after, in that order, at most q.Limit. Cursor, Since
// and Until of q do not count. upTo is where to go on from.
func (s *Store) Since(ctx context.Context, q Query, after int64) (entries []Entry, upTo int64, err error) {
	err = s.reading(ctx, func() error {
		entries, upTo, err = s.since(ctx, q, after)
		return err
	})
	return entries, upTo, err
}

func (s *Store) since(ctx context.Context, q Query, after int64) (entries []Entry, upTo int64, err error) {
	q.Cursor, q.Since, q.Until = "", time.Time{}, time.Time{}
	where, args, err := conditions(q)
	if err != nil {
		return nil, after, err
	}
	where = append(where, `seq > ?`)
	upTo = after
	for more := true; more && len(entries) == 0; { // once, unless nothing of it can be read
		var newUpTo int64
		entries, newUpTo, more, err = s.sinceRows(ctx, where, append(args[:len(args):len(args)], upTo), pageLength(q.Limit))
		if err != nil {
			return nil, after, err
		}
		upTo = newUpTo
	}
	return entries, upTo, nil
}

func (s *Store) sinceRows(ctx context.Context, where []string, args []any, limit int) (entries []Entry, upTo int64, more bool, err error) {
	seen := 0
	newest, err := s.scan(ctx, `seq`, ``, where, limit+1, args, func(f found) bool {
		if seen == limit || f.full && len(entries) > 0 {
			more = true
			return false
		}
		upTo = f.key
		seen++
		if f.death != nil {
			entries = append(entries, Entry{f.key, *f.death})
		}
		return true
	})
	if !more {
		upTo = newest
	}
	return entries, upTo, more, err
}

// Recent returns the newest deaths since a moment, at most limit of them,
// oldest first. It is what an agent begins with: damage is logged and may make
// the list shorter. The only error is that of ctx.
func (s *Store) Recent(ctx context.Context, since time.Time, limit int) ([]death.Death, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var deaths []death.Death
	_, err := s.scan(ctx, `time_ns`, ` DESC`, []string{`time_ns >= ?`}, max(limit, 0), []any{unixNano(since)}, func(f found) bool {
		if f.death != nil {
			deaths = append(deaths, *f.death)
		}
		return true
	})
	if ctx.Err() != nil {
		return nil, fmt.Errorf("recent deaths: %w", ctx.Err())
	}
	if err != nil {
		s.log.Warn("recent deaths not read to the end", "path", s.path, "err", err)
	}
	slices.Reverse(deaths)
	return deaths, nil
}

// found is a row of a listing.
type found struct {
	key   int64 // by which the listing is ordered
	id    string
	death *death.Death // nil: it cannot be read
	full  bool         // the bytes of a page are used up
}

// scan gives rows to take until it returns false. It returns the newest
// sequence number of the very state of the history that the rows are from.
func (s *Store) scan(ctx context.Context, key string, order string, where []string, limit int, args []any, take func(found) bool) (int64, error) {
	tx, err := s.read.BeginTx(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("list deaths: %w", s.met(err))
	}
	defer func() { _ = tx.Rollback() }()
	var newest int64
	if err := tx.QueryRowContext(ctx, `SELECT value FROM sequences WHERE name = 'deaths'`).Scan(&newest); err != nil {
		return 0, fmt.Errorf("list deaths: %w", s.met(err))
	}
	// The bodies come last, so that sorting does not carry them around.
	inner := `SELECT ` + key + `, id FROM deaths`
	if len(where) > 0 {
		inner += ` WHERE ` + strings.Join(where, ` AND `)
	}
	inner += ` ORDER BY ` + key + order + `, id` + order + ` LIMIT ?`
	rows, err := tx.QueryContext(ctx, `SELECT found.`+key+`, found.id, deaths.body FROM (`+inner+`) AS found
		JOIN deaths ON deaths.id = found.id ORDER BY found.`+key+order+`, found.id`+order, append(args, limit)...)
	if err != nil {
		return 0, fmt.Errorf("list deaths: %w", s.met(err))
	}
	defer func() { _ = rows.Close() }()
	bytes := 0
	for rows.Next() {
		var f found
		var body any
		if err := rows.Scan(&f.key, &f.id, &body); err != nil {
			return 0, fmt.Errorf("list deaths: %w", s.met(err))
		}
		if d, err := s.decode(f.id, body); err == nil {
			f.death = &d
		}
		if text, ok := body.(string); ok {
			bytes += len(text)
		}
		f.full = bytes > maxPageBytes
		if !take(f) {
			break
		}
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("list deaths: %w", s.met(err))
	}
	return newest, nil
}

// conditions are the parts of q that do not depend on the order.
func conditions(q Query) (where []string, args []any, err error) {
	add := func(condition string, a ...any) {
		where, args = append(where, condition), append(args, a...)
	}
	if n := len(q.Cause); n > 0 {
		add(`cause IN (?`+strings.Repeat(`, ?`, n-1)+`)`, anys(q.Cause)...)
	}
	if q.Namespace != "" {
		add(`namespace = ?`, q.Namespace)
	}
	if q.Pod != "" {
		if strings.Trim(q.Pod, "0123456789abcdef-") == "" && len(q.Pod) >= minUID {
			add(`(pod = ? OR pod_uid = ?)`, q.Pod, q.Pod)
		} else {
			add(`pod = ?`, q.Pod)
		}
	}
	if c := q.Container; c != "" {
		if idPrefix(c) {
			// 'g' is the first letter after the digits of an id.
			add(`(container_name = ? OR (container_id >= ? AND container_id < ?))`, c, c, c+"g")
		} else {
			add(`(container_name = ? OR container_id = ?)`, c, c)
		}
	}
	if q.Node != "" {
		add(`node = ?`, q.Node)
	}
	if q.Unit != "" {
		add(`unit = ?`, q.Unit)
	}
	if !q.Since.IsZero() {
		add(`time_ns >= ?`, unixNano(q.Since))
	}
	if !q.Until.IsZero() {
		add(`time_ns < ?`, unixNano(q.Until))
	}
	condition, words, err := searchWhere(q.Q)
	if condition != "" {
		add(condition, words...)
	}
	return where, args, err
}

func anys[T ~string](in []T) []any {
	out := make([]any, len(in))
	for i, v := range in {
		out[i] = string(v)
	}
	return out
}

// idPrefix tells whether s can be the first digits of a container's id.
func idPrefix(s string) bool {
	return len(s) >= minIDPrefix && strings.Trim(s, "0123456789abcdef") == ""
}

func pageLength(limit int) int {
	if limit <= 0 {
		return DefaultLimit
	}
	return min(limit, MaxLimit)
}

// cursor names a death's place in the order of the listing.
func cursor(ns int64, id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(ns, 36) + "." + id))
}

func parseCursor(s string) (ns int64, id string, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		before, after, found := strings.Cut(string(raw), ".")
		ns, err = strconv.ParseInt(before, 36, 64)
		if err == nil && found && after != "" {
			return ns, after, nil
		}
	}
	return 0, "", &QueryError{"cursor", "not one of ours: want the \"next\" of the page before"}
}
