// SPDX-License-Identifier: Apache-2.0

package archtest_test

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	licence  = "// SPDX-License-Identifier: Apache-2.0\n"
	maxLines = 600
)

func TestFiles_OpenWithTheLicence(t *testing.T) {
	for _, f := range repository(t) {
		if !f.generated && !strings.HasPrefix(f.text, licence) {
			t.Errorf("%s: first line is not %q", f.path, licence)
		}
	}
}

func TestFiles_AreShort(t *testing.T) {
	for _, f := range repository(t) {
		if n := strings.Count(f.text, "\n"); n > maxLines && !f.generated {
			t.Errorf("%s: %d lines, at most %d", f.path, n, maxLines)
		}
	}
}

func TestPackages_SayWhatTheyAre(t *testing.T) {
	said := make(map[string]bool)
	for _, f := range repository(t) {
		if !f.test {
			said[f.folder] = said[f.folder] || f.ast.Doc != nil
		}
	}
	for folder, ok := range said {
		if !ok {
			t.Errorf("%s: no package comment", folder)
		}
	}
}

func TestPackages_AreNamedAfterWhatTheyDo(t *testing.T) {
	for _, f := range repository(t) {
		for _, bad := range []string{"util", "utils", "common", "helper", "helpers", "types", "base", "misc"} {
			if path.Base(f.folder) == bad || f.ast.Name.Name == bad {
				t.Errorf("%s: package %s", f.path, bad)
			}
		}
	}
}

func TestFunctions_NoInit(t *testing.T) {
	for _, f := range repository(t) {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "init" && fn.Recv == nil {
				t.Errorf("%s: init()", f.at(d))
			}
		}
	}
}

func TestTests_DoNotSleep(t *testing.T) {
	for _, f := range repository(t) {
		if !f.test || strings.Contains(f.text, `"testing/synctest"`) {
			continue // in a synctest bubble time is not real
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok && called(c) == "time.Sleep" {
				t.Errorf("%s: time.Sleep in a test: poll with a deadline, or use testing/synctest", f.at(n))
			}
			return true
		})
	}
}

func TestPaths_GoThroughHost(t *testing.T) {
	free := []string{"internal/host", "internal/oomtest", "test/"}
	for _, f := range repository(t) {
		if f.test || slices.ContainsFunc(free, func(p string) bool { return within(f.folder, p) }) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			s, _ := strconv.Unquote(lit.Value)
			// A path, not a sentence that begins with one.
			if (within(s+"/", "/proc/") || within(s+"/", "/sys/")) && !strings.Contains(s, " ") {
				t.Errorf("%s: literal %q: use host.Roots", f.at(n), s)
			}
			return true
		})
	}
}

// TestVariables_AreTables allows at package level what nobody changes:
// sentinel errors, compiled expressions, tables, embedded files, assertions.
func TestVariables_AreTables(t *testing.T) {
	for _, f := range repository(t) {
		if f.test || f.generated {
			continue
		}
		for _, d := range f.ast.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				if !embedded(g, v) && !constant(v) {
					t.Errorf("%s: variable %s at package level", f.at(s), v.Names[0])
				}
			}
		}
	}
}

func embedded(g *ast.GenDecl, v *ast.ValueSpec) bool {
	for _, doc := range []*ast.CommentGroup{g.Doc, v.Doc} {
		if doc == nil {
			continue
		}
		for _, c := range doc.List {
			if strings.HasPrefix(c.Text, "//go:embed ") {
				return true
			}
		}
	}
	return false
}

func constant(v *ast.ValueSpec) bool {
	if len(v.Values) == 0 {
		return false
	}
	for i, x := range v.Values {
		if v.Names[i].Name == "_" {
			continue
		}
		switch x := x.(type) {
		case *ast.CompositeLit, *ast.BasicLit:
		case *ast.CallExpr:
			makers := []string{"errors.New", "fmt.Errorf", "regexp.MustCompile", "template.Must", "strings.NewReplacer", "netip.MustParsePrefix"}
			_, conversion := x.Fun.(*ast.ArrayType)
			if !conversion && !slices.Contains(makers, called(x)) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// called names the function of a call, as package.Name.
func called(c *ast.CallExpr) string {
	sel, ok := c.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if x, ok := sel.X.(*ast.Ident); ok {
		return x.Name + "." + sel.Sel.Name
	}
	return ""
}
