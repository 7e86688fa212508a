// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What is left out in one run is run in another: the patterns mean tests of one
// package, and there are some.
func TestPatterns_MeanOnePackage(t *testing.T) {
	toRoot(t)
	tests := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for _, tt := range []struct{ pattern, folder string }{{alone, "internal/history"}, {storms, "test/system"}} {
		pattern, found := regexp.MustCompile(tt.pattern), 0
		err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range tests.FindAllStringSubmatch(string(text), -1) {
				switch folder := filepath.ToSlash(filepath.Dir(path)); {
				case !pattern.MatchString(m[1]):
				case folder == tt.folder:
					found++
				default:
					t.Errorf("%s in %s would run nowhere: %s", m[1], folder, tt.pattern)
				}
			}
			return err
		})
		if err != nil || found == 0 {
			t.Errorf("%s: %d tests in %s, %v", tt.pattern, found, tt.folder, err)
		}
	}
}
