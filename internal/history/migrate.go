// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the tables up to this version's, and refuses newer ones. Each
// step is one transaction with its number: a step that is cut short was none.
func (s *Store) migrate(ctx context.Context) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	if err := migrateWith(ctx, s.write, files); err != nil {
		return err
	}
	if err := createSearch(ctx, s.write); err != nil {
		return err
	}
	// Sequence numbers begin at the microseconds of now, not at 1: then those
	// of a history begun anew are above all of the old one's, and a stream
	// that resumes with an old number misses nothing.
	if _, err := s.write.ExecContext(ctx,
		`INSERT INTO sequences (name, value) VALUES ('deaths', ?) ON CONFLICT (name) DO NOTHING`, s.now().UnixMicro()); err != nil {
		return fmt.Errorf("begin sequence: %w", err)
	}
	return nil
}

func migrateWith(ctx context.Context, db *sql.DB, files fs.FS) error {
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files,
		goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	has, knows, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if has > knows {
		return fmt.Errorf("was written by a newer coroner (schema %d, this version knows %d): run that version, or keep the file away and begin a new one", has, knows)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate from schema %d to %d: %w", has, knows, err)
	}
	return nil
}
