// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/coroner-dev/coroner/internal/death"
)

// The index of words is SQLite's FTS5; this file is all that knows it. Its
// rowid is the death's seq. It keeps no copy of the text ("contentless").

const (
	// maxWords bounds a search, maxText what is searched of one death.
	maxWords = 32
	maxText  = 64 << 10
)

func createSearch(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, `CREATE VIRTUAL TABLE IF NOT EXISTS deaths_words
		USING fts5(words, content='', contentless_delete=1, tokenize='unicode61')`)
	if err != nil {
		return fmt.Errorf("create search index: %w", err)
	}
	return nil
}

const (
	searchInsert = `INSERT INTO deaths_words (rowid, words) VALUES (?, ?)`
	searchDelete = `DELETE FROM deaths_words WHERE rowid = ?`
	// searchTidy gives the pages of deleted words free.
	searchTidy = `INSERT INTO deaths_words (deaths_words) VALUES ('optimize')`
)

// searchable is the text of d that a search looks at, in lower case.
func searchable(d *death.Death) string {
	var b strings.Builder
	add := func(parts ...string) {
		for _, p := range parts {
			if p != "" && b.Len() < maxText {
				b.WriteString(p)
				b.WriteByte('\n')
			}
		}
	}
	add(d.Summary, d.Node, string(d.Cause), d.Unit)
	addContainer := func(c *death.Container) {
		if c == nil {
			return
		}
		add(c.Name, c.ID, c.Image, c.Runtime, c.Cgroup, c.Namespace)
		if w := c.Workload; w != nil {
			add(w.Kind, w.String())
		}
		if p := c.Pod; p != nil {
			add(p.Namespace, p.Name, p.UID)
			if p.Owner != nil {
				add(p.Owner.Kind, p.Owner.Name)
			}
		}
	}
	addContainer(d.Container)
	if d.OOM != nil {
		add(d.OOM.Constraint, d.OOM.OOMMemcg, d.OOM.TaskMemcg)
		if t := d.OOM.Trigger; t != nil {
			add(t.Comm, t.Cgroup)
		}
	}
	if k := d.Killer; k != nil {
		add(k.Comm, k.Cgroup, k.Unit)
		addContainer(k.Container)
	}
	for i := range d.Evidence {
		add(d.Evidence[i].Text)
	}
	for i := range d.Processes {
		add(d.Processes[i].Comm, d.Processes[i].Cgroup)
	}
	s := b.String()
	return strings.ToLower(plain(s[:min(len(s), maxText)]))
}

// plain makes s fit for a text column anywhere: valid UTF-8 without NUL.
func plain(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", " ")
}

// searchWhere turns the words of q into a condition. Each word must occur, a
// word's end may be left out ("leak" finds "leaker"). A word is quoted for
// FTS5, so that nothing in it is an operator; one without letters or digits,
// which FTS5 does not index, is looked for in the text.
func searchWhere(q string) (where string, args []any, err error) {
	words := strings.FieldsFunc(strings.ToLower(plain(q)), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	})
	slices.Sort(words)
	words = slices.Compact(words)
	if len(words) > maxWords {
		return "", nil, &QueryError{"q", fmt.Sprintf("%d words: want at most %d", len(words), maxWords)}
	}
	var match []string
	var conditions []string
	for _, w := range words {
		if strings.ContainsFunc(w, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) {
			match = append(match, `"`+strings.ReplaceAll(w, `"`, `""`)+`"*`)
			continue
		}
		conditions = append(conditions, `words LIKE ? ESCAPE '\'`)
		args = append(args, "%"+strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(w)+"%")
	}
	if len(match) > 0 {
		conditions = append(conditions, `seq IN (SELECT rowid FROM deaths_words WHERE deaths_words MATCH ?)`)
		args = append(args, strings.Join(match, " AND "))
	}
	return strings.Join(conditions, " AND "), args, nil
}
