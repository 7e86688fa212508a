// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestRunbooks_CommandsExist: at three in the night each command of a runbook
// is one that there is, with flags that it has.
func TestRunbooks_CommandsExist(t *testing.T) {
	pages, err := filepath.Glob("../../docs/runbooks/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no runbooks: %v", err)
	}
	rules, err := os.ReadFile("../../deploy/prometheus/coroner.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{"rules": string(rules)}
	for _, p := range pages {
		page, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		texts[p] = string(page)
	}
	// A command begins a line of a block, follows a pipe, or is in quotes.
	command := regexp.MustCompile("(?m)(?:^ {4}|\\| |`|\")coroner ([a-z][^`|>\"#;{\n]*)")
	found := 0
	for name, text := range texts {
		for _, m := range command.FindAllStringSubmatch(text, -1) {
			found++
			args := strings.Fields(m[1])
			c, rest, err := newRoot("coroner").Find(args)
			if err != nil || c.Name() != args[0] {
				t.Errorf("%s: coroner %s: no such command: %v", name, m[1], err)
				continue
			}
			if err := c.ParseFlags(rest); err != nil && strings.Contains(err.Error(), "unknown") {
				t.Errorf("%s: coroner %s: %v", name, m[1], err)
			}
		}
	}
	if found < 25 {
		t.Errorf("%d commands found: the test does not see them", found)
	}
}
