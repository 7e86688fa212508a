// SPDX-License-Identifier: Apache-2.0

package archtest_test

import (
	"go/ast"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestPurity: what judges and what parses does no I/O, starts no goroutine and
// reads no clock, so that the same input always gives the same output.
func TestPurity(t *testing.T) {
	pure := []string{"internal/death", "internal/signal", "internal/parse", "internal/inquest", "internal/recorder/pattern"}
	denied := []string{"os", "net", "syscall", "os/exec", "io/fs", "net/http", "context"}
	for _, f := range repository(t) {
		if f.test || !slices.ContainsFunc(pure, func(p string) bool { return within(f.folder, p) || within(f.folder, p+"/") }) {
			continue
		}
		for _, spec := range f.ast.Imports {
			if p, _ := strconv.Unquote(spec.Path.Value); slices.Contains(denied, p) || strings.HasPrefix(p, "golang.org/x/sys") {
				t.Errorf("%s: imports %s", f.at(spec), p)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: starts a goroutine", f.at(n))
			case *ast.CallExpr:
				if name := called(n); slices.Contains([]string{"time.Now", "time.Since", "time.After", "time.Sleep", "time.NewTimer", "time.NewTicker"}, name) {
					t.Errorf("%s: calls %s", f.at(n), name)
				}
			}
			return true
		})
	}
}
