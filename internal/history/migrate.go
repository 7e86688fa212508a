// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strings"

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
	steps, err := read(files)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, nil, goose.WithGoMigrations(steps...),
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

// read makes steps of goose's files without goose's parser, which takes 12 MiB
// to find the ends of statements that SQLite finds itself.
func read(files fs.FS) ([]*goose.Migration, error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return nil, err
	}
	var steps []*goose.Migration
	for _, name := range names {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return nil, fmt.Errorf("version of %s: %w", name, err)
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		_, up, ok := strings.Cut(string(text), "-- +goose Up\n")
		up, _, both := strings.Cut(up, "-- +goose Down\n")
		if !ok || !both || strings.Contains(up, "-- +goose") {
			return nil, fmt.Errorf("%s: not one Up and one Down", name)
		}
		steps = append(steps, goose.NewGoMigration(version, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, up)
			return err
		}}, nil))
	}
	return steps, nil
}
