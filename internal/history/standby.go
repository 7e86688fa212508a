// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

const (
	// standbyBytes bounds the memory that stands in for a file: some 2,000 deaths.
	standbyBytes = 16 << 20
	// standbyFirst is how long a file that cannot be opened is left alone,
	// doubled each time up to standbyLast.
	standbyFirst = time.Second
	standbyLast  = time.Minute
)

// standBy lets memory stand in for the file that cannot be opened.
func (s *Store) standBy(ctx context.Context, why error) error {
	if err := s.open(ctx, Memory); err != nil {
		return fmt.Errorf("%w; nor can memory stand in for it: %w", why, err)
	}
	s.standby = why
	s.log.Error("history is kept in memory until its file can be used", "path", s.path, "err", why)
	return nil
}

// comeBack tries to open the file until it works or ctx ends. Nobody waits for
// the file meanwhile.
func (s *Store) comeBack(ctx context.Context) {
	s.mu.RLock()
	why, began := s.standby, s.now()
	s.mu.RUnlock()
	for wait := standbyFirst; why != nil; wait = min(2*wait, standbyLast) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		file := newStore(s.path, s.opts)
		err := file.begin(ctx)
		if err == nil {
			err = s.moveTo(ctx, file, began)
		}
		if err == nil {
			return
		}
		if err.Error() != why.Error() {
			s.log.Warn("history still cannot be used", "path", s.path, "err", err)
		}
		why = err
		s.mu.Lock()
		s.standby = err
		s.tell()
		s.mu.Unlock()
	}
}

// moveTo moves what is in memory into the file, and takes that into use.
func (s *Store) moveTo(ctx context.Context, file *Store, began time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.tell()
	n, err := file.receive(ctx, s.write)
	if err != nil {
		err = errors.Join(fmt.Errorf("history %s: move what is in memory: %w", s.path, err), file.closeFile())
		unlock(file.lock)
		return err
	}
	if err := s.closeFile(); err != nil {
		s.log.Warn("history in memory not closed", "err", err)
	}
	s.notice = fmt.Sprintf("%s could not be used from %s to %s (%v): the %d deaths of that time are in it now",
		s.path, began.UTC().Format(time.RFC3339), s.now().UTC().Format(time.RFC3339), s.standby, n)
	if file.notice != "" {
		s.notice += "; " + file.notice
	}
	s.write, s.read, s.put = file.write, file.read, file.put
	s.lock, s.own, s.unclosed = file.lock, file.own, file.unclosed
	s.standby = nil
	s.bad.clear()
	s.log.Info("history is in its file now", "path", s.path, "deaths", n)
	return nil
}

// receive takes over everything from memory in one transaction. A death that
// is there already is replaced only by a higher revision; state and counters
// are those of memory, for that is what was shown.
func (s *Store) receive(ctx context.Context, memory *sql.DB) (n int, err error) {
	state := map[string]string{}
	if err := readState(ctx, memory, state); err != nil {
		return 0, err
	}
	counts, err := readCounts(ctx, memory)
	if err != nil {
		return 0, err
	}
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }()
	if n, err = s.receiveDeaths(ctx, tx, memory); err != nil {
		return 0, err
	}
	if err := s.putState(ctx, tx, state); err != nil {
		return 0, err
	}
	if err := s.putCounts(ctx, tx, counts, true); err != nil {
		return 0, err
	}
	return n, tx.Commit()
}

// receiveDeaths keeps the sequence numbers, by which streams go on, unless the
// file has higher ones.
func (s *Store) receiveDeaths(ctx context.Context, tx *sql.Tx, memory *sql.DB) (n int, err error) {
	var inFile, first, last int64
	if err := memory.QueryRowContext(ctx, `SELECT value, coalesce((SELECT min(seq) FROM deaths), value) FROM sequences
		WHERE name = 'deaths'`).Scan(&last, &first); err != nil {
		return 0, err
	}
	if err := tx.QueryRowContext(ctx, `SELECT value FROM sequences WHERE name = 'deaths'`).Scan(&inFile); err != nil {
		return 0, err
	}
	after := max(0, inFile-first+1) // not 0: the clock was set back
	rows, err := memory.QueryContext(ctx, `SELECT seq, body FROM deaths ORDER BY seq`)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var seq int64
		var body []byte
		var d death.Death
		if err := rows.Scan(&seq, &body); err != nil {
			return n, err
		}
		if err := json.Unmarshal(body, &d); err != nil {
			return n, err
		}
		if _, err := s.putRow(ctx, tx, row{&d, searchable(&d), body}, seq+after); err != nil {
			return n, fmt.Errorf("put death %s: %w", d.ID, err)
		}
		n++
	}
	if err := rows.Err(); err != nil {
		return n, err
	}
	_, err = tx.ExecContext(ctx, `UPDATE sequences SET value = ? WHERE name = 'deaths' AND value < ?`, last+after, last+after)
	return n, err
}
