// SPDX-License-Identifier: Apache-2.0

package archtest_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDependencies_AreDefended: docs/dependencies.md has a reason for each
// direct dependency of go.mod, and for no other.
func TestDependencies_AreDefended(t *testing.T) {
	mod := readFile(t, "go.mod")
	var direct []string
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) v\S+$`).FindAllStringSubmatch(mod, -1) {
		direct = append(direct, m[1])
	}
	var defended []string
	for row := range strings.Lines(readFile(t, "docs/dependencies.md")) {
		cells := strings.Split(row, "|")
		if len(cells) < 4 || !strings.Contains(cells[1], ".") {
			continue
		}
		for _, name := range strings.Split(strings.ReplaceAll(cells[1], "(tests)", ""), ",") {
			defended = append(defended, strings.TrimSpace(name))
		}
	}
	slices.Sort(direct)
	slices.Sort(defended)
	if diff := cmp.Diff(direct, defended); diff != "" {
		t.Errorf("docs/dependencies.md (-go.mod +docs):\n%s", diff)
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
