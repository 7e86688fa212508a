// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// FuzzDeathText shows what another's server or recording tells: nothing of it
// reaches the terminal but characters that can be printed, each in its row.
func FuzzDeathText(f *testing.F) {
	file, err := os.ReadFile("testdata/deaths.json")
	if err != nil {
		f.Fatal(err)
	}
	var page api.DeathsPage
	if err := json.Unmarshal(file, &page); err != nil {
		f.Fatal(err)
	}
	for _, d := range page.Deaths {
		one, err := json.Marshal(d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(one)
	}
	f.Add([]byte(`{"summary":"\u001b[2Ja\nb","cause":"\u202e","rule":"\u0000","id":"a\tb","evidence":[{"source":"\u001b]0;x\u0007"}],"advice":["\r"],"oom":{"limit_bytes":-9223372036854775808}}`))
	f.Add([]byte(`{"oom":{"constraint":"\n","trigger":{"pid":-1}},"killer":{},"exit":{"code":1,"signal":9},"repeat":{"count":-1},"processes":[{"fate":"\u001b"}],"container":{"runtime":"\u001b","pod":{"qos_class":"\u001b"}}}`))
	foreign := func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' }
	f.Fuzz(func(t *testing.T, body []byte) {
		var d death.Death
		if json.Unmarshal(body, &d) != nil {
			return
		}
		text := deathText(&d)
		if !utf8.ValidString(text) || strings.ContainsFunc(text, foreign) {
			t.Errorf("%q", text)
		}
		if rows := strings.Count(text, "\n"); rows > 15+maxProcessLines+len(d.Evidence)+len(d.Advice) {
			t.Errorf("%d rows: %q", rows, text)
		}
		for _, cell := range line(&d) {
			if !utf8.ValidString(cell) || strings.ContainsFunc(cell, foreign) || strings.Contains(cell, "\n") {
				t.Errorf("cell %q", cell)
			}
		}
	})
}
