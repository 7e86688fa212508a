// SPDX-License-Identifier: Apache-2.0

package history

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// putStatements are prepared once, for the one connection that writes.
type putStatements struct {
	seq, find, insert, amend, addWords, dropWords, state, count, dropCount *sql.Stmt
}

func (p *putStatements) prepare(ctx context.Context, db *sql.DB) error {
	for _, s := range []struct {
		into **sql.Stmt
		sql  string
	}{
		{&p.seq, `UPDATE sequences SET value = value + ? WHERE name = 'deaths' RETURNING value`},
		{&p.find, `SELECT seq, revision FROM deaths WHERE id = ?`},
		{&p.insert, `INSERT INTO deaths (seq, revision, time_ns, node, subject, cause, namespace, pod, pod_uid,
			container_id, container_name, unit, cgroup, words, body, id)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		{&p.amend, `UPDATE deaths SET seq = ?, revision = ?, time_ns = ?, node = ?, subject = ?, cause = ?, namespace = ?,
			pod = ?, pod_uid = ?, container_id = ?, container_name = ?, unit = ?, cgroup = ?, words = ?,
			body = ? WHERE id = ?`},
		{&p.addWords, searchInsert},
		{&p.dropWords, searchDelete},
		{&p.state, `INSERT INTO state (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`},
		{&p.count, countPut},
		{&p.dropCount, countDrop},
	} {
		stmt, err := db.PrepareContext(ctx, s.sql)
		if err != nil {
			return fmt.Errorf("prepare %.20q: %w", s.sql, err)
		}
		*s.into = stmt
	}
	return nil
}

func (p *putStatements) close() error {
	var errs []error
	for _, s := range []*sql.Stmt{p.seq, p.find, p.insert, p.amend, p.addWords, p.dropWords, p.state, p.count, p.dropCount} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	*p = putStatements{}
	return errors.Join(errs...)
}

// row is a death on its way into the table.
type row struct {
	death *death.Death
	words string
	body  []byte
}

// Round is what Keep keeps in one transaction.
type Round struct {
	Deaths []death.Death
	// State is what the next run goes on from, by name. One that is empty goes.
	State map[string]string
	// Counts are counters as they stand with these deaths.
	Counts []Count
	// AllCounts: counters that are not among Counts go.
	AllCounts bool
}

// Kept is what became of a Round.
type Kept struct {
	// Entries are the deaths that were new or amended, in order.
	Entries []Entry
	// Anew: these are not in the file in which earlier rounds are, because it
	// was removed, replaced or damaged. The state and the counters that were
	// not in this round are to be given again.
	Anew bool
}

// Put is Keep for deaths and state alone.
func (s *Store) Put(ctx context.Context, deaths []death.Death, state map[string]string) ([]Entry, error) {
	kept, err := s.Keep(ctx, Round{Deaths: deaths, State: state})
	return kept.Entries, err
}

// Keep keeps a round in one transaction: after an error none of it is kept,
// and it may be given again. A death that is there already is replaced only by
// a higher revision. When Keep returns without an error, the round survives a
// kill -9 of this process, and a power cut as the package says.
// When the file was removed, replaced or found damaged meanwhile, the round is
// in the one that is at its path now, and Notice says so.
func (s *Store) Keep(ctx context.Context, r Round) (Kept, error) {
	if len(r.Deaths) == 0 && len(r.State) == 0 && len(r.Counts) == 0 && !r.AllCounts {
		return Kept{}, nil
	}
	rows := make([]row, len(r.Deaths))
	var bytes int64
	for i := range r.Deaths {
		d := &r.Deaths[i]
		if d.ID == "" {
			return Kept{}, fmt.Errorf("put death %d: it has no id", i)
		}
		body, err := json.Marshal(d)
		if err != nil {
			return Kept{}, fmt.Errorf("put death %s: %w", d.ID, err)
		}
		rows[i] = row{d, searchable(d), body}
		bytes += int64(len(body) + len(rows[i].words))
	}
	entries, err := s.place(ctx, rows, r)
	if err != nil {
		return Kept{}, err
	}
	s.grown.add(bytes)
	for i := range entries {
		s.bad.forget(entries[i].Death.ID)
	}
	return Kept{entries, s.anew.Swap(false)}, nil
}

// place commits to the file that is at the path.
func (s *Store) place(ctx context.Context, rows []row, r Round) ([]Entry, error) {
	entries, file, err := s.commit(ctx, rows, r)
	if damaged(err) {
		s.suspect.Store(true)
	}
	// Looked at afterwards: what went into a file that nobody can reach any
	// more is put once again.
	now, lost := s.renew(ctx)
	if lost != nil {
		return nil, fmt.Errorf("put deaths: %w", lost)
	}
	if now != file {
		again, _, failed := s.commit(ctx, rows, r)
		if err != nil || len(again) > 0 || failed != nil {
			entries, err = again, failed
		}
	}
	if damaged(err) { // although the check found nothing
		if lost := s.discard(ctx, err); lost != nil {
			return nil, fmt.Errorf("put deaths: %w", lost)
		}
		entries, _, err = s.commit(ctx, rows, r)
	}
	return entries, err
}

// commit writes it all in one transaction, and says into which file.
func (s *Store) commit(ctx context.Context, rows []row, r Round) ([]Entry, int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	entries, err := s.transact(ctx, rows, r)
	return entries, s.files, err
}

func (s *Store) transact(ctx context.Context, rows []row, r Round) (entries []Entry, err error) {
	if s.lost != nil {
		return nil, s.lost
	}
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("put deaths: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	if len(rows) > 0 {
		if entries, err = s.putRows(ctx, tx, rows); err != nil {
			return nil, err
		}
	}
	if err := s.putState(ctx, tx, r.State); err != nil {
		return nil, err
	}
	if err := s.putCounts(ctx, tx, r.Counts, r.AllCounts); err != nil {
		return nil, err
	}
	if err := tx.Commit(); err != nil {
		return nil, fmt.Errorf("put deaths: %w", err)
	}
	return entries, nil
}

func (s *Store) putState(ctx context.Context, tx *sql.Tx, state map[string]string) error {
	for name, value := range state {
		if value == "" {
			if _, err := tx.ExecContext(ctx, `DELETE FROM state WHERE name = ?`, name); err != nil {
				return fmt.Errorf("drop state %s: %w", name, err)
			}
			continue
		}
		if _, err := tx.StmtContext(ctx, s.put.state).ExecContext(ctx, name, plain(value)); err != nil {
			return fmt.Errorf("put state %s: %w", name, err)
		}
	}
	return nil
}

// putRows writes in the order given. It takes the sequence first: that is
// also the lock that keeps the order of numbers and of commits the same.
func (s *Store) putRows(ctx context.Context, tx *sql.Tx, rows []row) ([]Entry, error) {
	var last int64
	if err := tx.StmtContext(ctx, s.put.seq).QueryRowContext(ctx, len(rows)).Scan(&last); err != nil {
		return nil, fmt.Errorf("take sequence: %w", err)
	}
	entries := make([]Entry, 0, len(rows))
	for i, r := range rows {
		seq := last - int64(len(rows)-1-i)
		kept, err := s.putRow(ctx, tx, r, seq)
		if err != nil {
			return nil, fmt.Errorf("put death %s: %w", r.death.ID, err)
		}
		if kept {
			entries = append(entries, Entry{seq, *r.death})
		}
	}
	return entries, nil
}

func (s *Store) putRow(ctx context.Context, tx *sql.Tx, r row, seq int64) (kept bool, err error) {
	stmt := s.put.insert
	var oldSeq, oldRevision int64
	err = tx.StmtContext(ctx, s.put.find).QueryRowContext(ctx, r.death.ID).Scan(&oldSeq, &oldRevision)
	switch {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return false, err
	case int64(r.death.Revision) <= oldRevision:
		return false, nil
	default:
		stmt = s.put.amend
		if _, err := tx.StmtContext(ctx, s.put.dropWords).ExecContext(ctx, oldSeq); err != nil {
			return false, err
		}
	}
	if _, err := tx.StmtContext(ctx, stmt).ExecContext(ctx, columns(r, seq)...); err != nil {
		return false, err
	}
	if _, err := tx.StmtContext(ctx, s.put.addWords).ExecContext(ctx, seq, r.words); err != nil {
		return false, err
	}
	return true, nil
}

// columns are the arguments of the statements insert and amend.
func columns(r row, seq int64) []any {
	d := r.death
	var c death.Container
	var pod death.Pod
	if d.Container != nil {
		c = *d.Container
		if c.Pod != nil {
			pod = *c.Pod
		}
	}
	namespace := cmp.Or(pod.Namespace, c.Namespace) // where a name is one
	cgroup := c.Cgroup
	if cgroup == "" && d.OOM != nil {
		cgroup = d.OOM.TaskMemcg
	}
	return []any{seq, d.Revision, unixNano(d.Time), plain(d.Node), string(d.Subject), string(d.Cause),
		plain(namespace), plain(pod.Name), plain(pod.UID), plain(c.ID), plain(c.Name), plain(d.Unit), plain(cgroup),
		r.words, string(r.body), d.ID}
}

// unixNano is t's nanoseconds, and 0 for a time that an int64 cannot hold.
func unixNano(t time.Time) int64 {
	if y := t.Year(); y < 1700 || y > 2250 {
		return 0
	}
	return t.UnixNano()
}
