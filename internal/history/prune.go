// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// pruneEvery is how often Run looks, besides when much was put.
	pruneEvery = 10 * time.Minute
	// pruneBatch is how many deaths go in one transaction, so that a Put does
	// not wait long.
	pruneBatch = 200
	// pruneRounds bounds the search for how many deaths are too many bytes.
	pruneRounds = 8
)

// growth wakes Run when a good part of MaxBytes was put since the last look.
type growth struct {
	bytes *atomic.Int64
	step  int64
	full  chan struct{}
}

func newGrowth(maxBytes int64) growth {
	return growth{bytes: new(atomic.Int64), step: maxBytes / 16, full: make(chan struct{}, 1)}
}

func (g growth) add(n int64) {
	if g.step > 0 && g.bytes.Add(n) > g.step {
		g.wake()
	}
}

func (g growth) wake() {
	select {
	case g.full <- struct{}{}:
	default:
	}
}

// Run prunes now and then, and returns from standby, until ctx ends, and
// returns nil. What fails is logged and tried again the next time.
func (s *Store) Run(ctx context.Context) error {
	var back sync.WaitGroup
	defer back.Wait()
	back.Go(func() { s.comeBack(ctx) })
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		_, err := s.renew(ctx)
		var removed int64
		if err == nil {
			removed, err = s.Prune(ctx, s.now())
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.log.Warn("history not pruned", "path", s.path, "err", err)
		case removed > 0:
			s.log.Info("history pruned", "path", s.path, "deaths", removed)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.grown.full:
		}
	}
}

// Prune removes the deaths that are past the retention at now, then the
// oldest ones until the history is within its size, and gives the space back.
// It returns how many deaths went.
func (s *Store) Prune(ctx context.Context, now time.Time) (int64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.grown.bytes.Store(0)
	var removed int64
	if s.opts.Retention > 0 {
		cutoff := unixNano(now.Add(-s.opts.Retention))
		n, err := s.removeOldest(ctx, cutoff, math.MaxInt64)
		removed += n
		if err != nil {
			return removed, err
		}
	}
	n, err := s.pruneSize(ctx)
	removed += n
	if s.standby != nil {
		s.dropped.Add(uint64(n)) // they never were in the file
	}
	if err != nil || removed == 0 {
		return removed, err
	}
	s.bad.clear() // those that are left are found again
	return removed, s.vacuum(ctx)
}

// maxBytes is how large the history may be where it is now.
func (s *Store) maxBytes() int64 {
	if s.standby != nil && (s.opts.MaxBytes <= 0 || s.opts.MaxBytes > standbyBytes) {
		return standbyBytes
	}
	return s.opts.MaxBytes
}

// pruneSize removes the share of the oldest deaths that is over nine tenths
// of the size, and looks again, because deaths differ in size.
func (s *Store) pruneSize(ctx context.Context) (removed int64, err error) {
	most := s.maxBytes()
	for range pruneRounds {
		used, err := s.usedBytes(ctx, s.write)
		if err != nil || most <= 0 || used <= most {
			return removed, err
		}
		var rows int64
		if err := s.write.QueryRowContext(ctx, `SELECT count(*) FROM deaths`).Scan(&rows); err != nil {
			return removed, fmt.Errorf("count deaths: %w", err)
		}
		if rows == 0 {
			return removed, nil
		}
		over := float64(used) - 0.9*float64(most)
		n, err := s.removeOldest(ctx, math.MaxInt64, int64(math.Ceil(float64(rows)*over/float64(used))))
		removed += n
		if err != nil {
			return removed, err
		}
		if _, err := s.write.ExecContext(ctx, searchTidy); err != nil {
			return removed, fmt.Errorf("tidy search index: %w", err)
		}
	}
	return removed, nil
}

// removeOldest removes up to most deaths from before the cutoff, oldest first.
func (s *Store) removeOldest(ctx context.Context, cutoff, most int64) (removed int64, err error) {
	for removed < most {
		n, err := s.removeBatch(ctx, cutoff, min(most-removed, pruneBatch))
		removed += n
		if err != nil || n == 0 {
			return removed, err
		}
	}
	return removed, nil
}

func (s *Store) removeBatch(ctx context.Context, cutoff, most int64) (int64, error) {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("prune: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	// The last death that goes.
	var ns int64
	var id string
	err = tx.QueryRowContext(ctx, `SELECT time_ns, id FROM (
			SELECT time_ns, id FROM deaths WHERE time_ns < ? ORDER BY time_ns, id LIMIT ?
		) AS oldest ORDER BY time_ns DESC, id DESC LIMIT 1`, cutoff, most).Scan(&ns, &id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("prune: %w", err)
	}
	if _, err := tx.ExecContext(ctx,
		`DELETE FROM deaths_words WHERE rowid IN (SELECT seq FROM deaths WHERE (time_ns, id) <= (?, ?))`, ns, id); err != nil {
		return 0, fmt.Errorf("prune: %w", err)
	}
	result, err := tx.ExecContext(ctx, `DELETE FROM deaths WHERE (time_ns, id) <= (?, ?)`, ns, id)
	if err != nil {
		return 0, fmt.Errorf("prune: %w", err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return 0, fmt.Errorf("prune: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return 0, fmt.Errorf("prune: %w", err)
	}
	return n, nil
}

// usedBytes is the size of the pages that hold something.
func (s *Store) usedBytes(ctx context.Context, db *sql.DB) (int64, error) {
	var used int64
	err := db.QueryRowContext(ctx, `SELECT (c.page_count - f.freelist_count) * p.page_size
		FROM pragma_page_count() AS c, pragma_freelist_count() AS f, pragma_page_size() AS p`).Scan(&used)
	if err != nil {
		return 0, fmt.Errorf("measure history: %w", err)
	}
	return used, nil
}

// vacuum gives free pages back to the file system, a MiB at a time so that a
// Put does not wait long.
func (s *Store) vacuum(ctx context.Context) error {
	for {
		var before, after int64
		if err := s.write.QueryRowContext(ctx, `PRAGMA freelist_count`).Scan(&before); err != nil {
			return fmt.Errorf("vacuum: %w", err)
		}
		if _, err := s.write.ExecContext(ctx, `PRAGMA incremental_vacuum(256)`); err != nil {
			return fmt.Errorf("vacuum: %w", err)
		}
		if err := s.write.QueryRowContext(ctx, `PRAGMA freelist_count`).Scan(&after); err != nil {
			return fmt.Errorf("vacuum: %w", err)
		}
		if after == 0 || after >= before {
			break
		}
	}
	// A reader in the way only puts this off.
	_, _ = s.write.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`)
	return nil
}
