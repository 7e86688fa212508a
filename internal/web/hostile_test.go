// SPDX-License-Identifier: Apache-2.0

package web

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/coroner-dev/coroner/internal/death"
)

// hostileTexts are what somebody may call a process, a cgroup or a label. Each
// would set window.ran, or make the browser complain, if it were believed.
func hostileTexts() []string {
	return []string{
		`<script>window.ran=1</script>`, `"><img src=x onerror="window.ran=2">`, `' onmouseover='window.ran=3`,
		`</title></head><body onload="window.ran=4">`, `javascript:window.ran=5`, `{{.}}{{template "content"}}${window.ran=6}`,
		`<svg/onload=window.ran=7>`, `</script><script>window.ran=8</script>`, `<!-- <iframe src="javascript:window.ran=9">`,
		`<base href="http://192.0.2.1/">`, `<style>*{display:none}</style>`, `<meta http-equiv=refresh content="0;url=http://192.0.2.1/">`,
		`&lt;b&gt;&#60;`, "\u2028\u202e</a><form action=//192.0.2.1>",
	}
}

// hostileDeaths have each text in every field that comes from outside.
func hostileDeaths() []death.Death {
	var out []death.Death
	for i, x := range hostileTexts() {
		at := noon.Add(-time.Duration(i) * time.Second)
		out = append(out, death.Death{
			ID: fmt.Sprint("x-", i, x), Revision: 1, Time: at, ObservedAt: at, Node: x, Subject: death.SubjectContainer,
			Cause: death.Killed, Confidence: death.Certain, Rule: x, Summary: "It says " + x, Unit: x,
			Container: &death.Container{
				ID: x, Name: x, Runtime: x, Image: x, Cgroup: "/" + x, Labels: map[string]string{x: x},
				Pod:      &death.Pod{Namespace: x, Name: x, UID: x, QoSClass: x},
				Workload: &death.Workload{Kind: x, Group: x, Name: x},
			},
			Processes: []death.Process{{PID: 7, Comm: x, Fate: death.FateVictim}},
			Killer:    &death.Killer{PID: 8, Comm: x, Cgroup: "/" + x, Signal: 9, Unit: x},
			OOM: &death.OOM{
				Constraint: x, OOMMemcg: "/" + x, TaskMemcg: "/" + x, Trigger: &death.Trigger{PID: 9, Comm: x, Cgroup: x},
				MemoryStat: map[string]int64{x: 5, "anon": 3},
			},
			Evidence: []death.Evidence{{Time: at, Source: death.SourceKmsg, Text: x}},
			Advice:   []string{x},
		})
	}
	return out
}

// TestBrowser_HostileTextIsText: no script of theirs runs, nothing of theirs
// becomes an element, and all of it is there to be read.
func TestBrowser_HostileTextIsText(t *testing.T) {
	ctx := browser(t)
	var c complaints
	c.listen(ctx, t)
	s := newSite(t, nil)
	deaths := hostileDeaths()
	s.put(deaths...)
	address := s.serve().URL
	look := func(page string, texts ...string) {
		t.Helper()
		if err := chromedp.Do(ctx, chromedp.Navigate(page)); err != nil {
			t.Fatal(err)
		}
		if ran := eval[bool](ctx, t, `"ran" in window`); ran {
			t.Errorf("%s: a script ran", page)
		}
		const foreign = `document.querySelectorAll("script:not([src^='/assets/']), iframe, base, style, meta[http-equiv], [onload], [onerror], [onmouseover], a[href^='javascript'], form:not([action='/'])").length`
		if n := eval[int](ctx, t, foreign); n != 0 {
			t.Errorf("%s: %d elements that are not ours", page, n)
		}
		shown := eval[string](ctx, t, `document.body.textContent`)
		for _, x := range texts {
			if !strings.Contains(shown, visible(x)) {
				t.Errorf("%s: %q is not shown", page, x)
			}
		}
		if said := c.take(); len(said) > 0 {
			t.Errorf("%s: the browser complains: %q", page, said)
		}
	}
	for i := range deaths {
		look(address+"/deaths/"+url.PathEscape(deaths[i].ID), hostileTexts()[i])
		look(address + "/?q=" + url.QueryEscape(hostileTexts()[i]))
	}
	look(address + "/")
}
