// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// Count is the value of the counters of one set of labels. Its fields are
// those of package metrics, so that one converts to the other.
type Count struct {
	Namespace, Pod, Container string
	Cause                     death.Cause
	OOMKills, Terminations    uint64
	Last                      time.Time
}

const (
	countPut = `INSERT INTO counters (oom_kills, terminations, last_ns, namespace, pod, container, cause)
		VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (namespace, pod, container, cause) DO UPDATE
		SET oom_kills = excluded.oom_kills, terminations = excluded.terminations, last_ns = excluded.last_ns`
	countDrop = `DELETE FROM counters WHERE namespace = ? AND pod = ? AND container = ? AND cause = ?`
)

// putCounts writes the values as they are given; one that counts nothing goes.
func (s *Store) putCounts(ctx context.Context, tx *sql.Tx, counts []Count, all bool) error {
	if all {
		if _, err := tx.ExecContext(ctx, `DELETE FROM counters`); err != nil {
			return fmt.Errorf("put counters: %w", err)
		}
	}
	put, drop := tx.StmtContext(ctx, s.put.count), tx.StmtContext(ctx, s.put.dropCount)
	for _, c := range counts {
		key := []any{plain(c.Namespace), plain(c.Pod), plain(c.Container), plain(string(c.Cause))}
		var err error
		if c.OOMKills == 0 && c.Terminations == 0 {
			_, err = drop.ExecContext(ctx, key...)
		} else {
			_, err = put.ExecContext(ctx, append([]any{int64(c.OOMKills), int64(c.Terminations), unixNano(c.Last)}, key...)...)
		}
		if err != nil {
			return fmt.Errorf("put counters: %w", err)
		}
	}
	return nil
}

// Counts returns the counters that Keep was given along with deaths. Like
// State it returns of a damaged file what can be read.
func (s *Store) Counts(ctx context.Context) ([]Count, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	counts, err := readCounts(ctx, s.read)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("read counters: %w", ctx.Err())
	}
	if err != nil {
		s.log.Warn("counters of the last run not read to the end", "path", s.path, "err", err)
	}
	return counts, nil
}

func readCounts(ctx context.Context, db *sql.DB) ([]Count, error) {
	rows, err := db.QueryContext(ctx, `SELECT namespace, pod, container, cause, oom_kills, terminations, last_ns
		FROM counters ORDER BY namespace, pod, container, cause`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var counts []Count
	var bad error
	for rows.Next() {
		var c Count
		var kills, ends, last int64
		if err := rows.Scan(&c.Namespace, &c.Pod, &c.Container, &c.Cause, &kills, &ends, &last); err != nil {
			bad = err
			continue
		}
		c.OOMKills, c.Terminations = uint64(max(kills, 0)), uint64(max(ends, 0))
		if last != 0 {
			c.Last = time.Unix(0, last).UTC()
		}
		counts = append(counts, c)
	}
	return counts, errors.Join(bad, rows.Err())
}
