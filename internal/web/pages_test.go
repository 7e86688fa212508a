// SPDX-License-Identifier: Apache-2.0

package web

import (
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coroner-dev/coroner/internal/death"
)

func TestPages_HostileTextIsVisibleAndHarmless(t *testing.T) {
	s := newSite(t, nil)
	s.put(hostileDeath())
	evil := url.QueryEscape(hostile)
	for _, target := range []string{
		"/", "/deaths/" + url.PathEscape(hostileDeath().ID),
		"/?q=" + evil + "&namespace=" + evil + "&pod=" + evil + "&container=" + evil + "&unit=" + evil + "&node=" + evil,
		"/?since=" + evil, "/?" + evil + "=1", "/?cause=" + evil, "/" + url.PathEscape(hostile), "/deaths/" + url.PathEscape(hostile),
	} {
		body := s.get(target).Body.String()
		if !utf8.ValidString(body) {
			t.Errorf("%s: not UTF-8", target)
		}
		for _, r := range body {
			if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
				t.Errorf("%s: raw %U in the page", target, r)
				break
			}
		}
		for _, bad := range []string{"<script>alert", "<b>?", " style=", "onerror", "javascript:"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s: %q in the page", target, bad)
			}
		}
	}
	body := s.get("/deaths/" + url.PathEscape(hostileDeath().ID)).Body.String()
	for _, want := range []string{`a\x1b[31m\x00`, `\u{202e}gnp.exe&lt;script&gt;`, `\x0a,pid=1`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	if strings.Contains(body, "ZgotmplZ") {
		t.Error("a template refused a value")
	}
}

// TestTemplates_ShowForeignText finds values that a template prints as they
// are: strings from outside must go through show.
func TestTemplates_ShowForeignText(t *testing.T) {
	own := []string{".Version", ".Title", ".Meaning", ".Code", ".Name", ".Percent", ".Bytes", ".Count", ".FirstURL", ".NextURL", ".JSONURL",
		".Class", ".X", ".Width", ".Points", ".Limit", ".Low", ".High", ".Seconds", ".Cause", ".PID", ".UID", ".Lost", ".Revision", ".Events", ".Containers",
		".Cause.Meaning", "$.OOMKills", "$d.Revision", ".Status.UnattributedOOMKills", ".", ".OOMScore", ".OOMScoreAdj"}
	for _, name := range []string{"layout.html", "parts.html", "list.html", "death.html", "node.html", "trouble.html"} {
		raw, err := files.ReadFile("templates/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, action := range strings.Split(string(raw), "{{")[1:] {
			action, _, _ = strings.Cut(action, "}}")
			printed := strings.HasPrefix(action, ".") || strings.HasPrefix(action, "$") && !strings.Contains(action, ":=")
			if !printed {
				continue
			}
			known := false
			for _, o := range own {
				known = known || action == o
			}
			if !known {
				t.Errorf("%s prints {{%s}} without show", name, action)
			}
		}
	}
}

func TestListPage_Empty(t *testing.T) {
	body := newSite(t, nil).get("/").Body.String()
	for _, want := range []string{"Nobody has died", "<code>coroner demo</code>", "watching worker-3.fra1"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in the empty page", want)
		}
	}
}

func TestListPage_KeepsItsFilterAndIsLive(t *testing.T) {
	s := newSite(t, nil)
	s.put(many(120)...)
	body := s.get("/?container=c1&q=number&since=2000h").Body.String()
	for _, want := range []string{`name="container" value="c1"`, `name="q" value="number"`, `name="since" value="2000h"`, "many-0119", "cursor=", "container=c1", "<details open>",
		`data-live="/api/v1/deaths/stream?container=c1&amp;last_event_id=`} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(body, "many-0118") {
		t.Error("a death that the filter leaves out")
	}
	next := body[strings.Index(body, `rel="next" href="`)+len(`rel="next" href="`):]
	next = strings.ReplaceAll(next[:strings.Index(next, `"`)], "&amp;", "&")
	older := s.get(next).Body.String()
	if !strings.Contains(older, "many-0019") || strings.Contains(older, "many-0021") || strings.Contains(older, "data-live") || !strings.Contains(older, "Newest deaths") {
		t.Errorf("the older page at %s is not what follows:\n%s", next, older)
	}
}

// TestListPage_BoundedInLength: a page has at most so many, and the rest follows.
func TestListPage_BoundedInLength(t *testing.T) {
	s := newSite(t, nil)
	s.put(many(maxListLength + 20)...)
	body := s.get("/?limit=1000").Body.String()
	if n := strings.Count(body, `href="/deaths/`); n != maxListLength || !strings.Contains(body, `rel="next"`) {
		t.Errorf("%d deaths on a page, want %d and a link to the rest", n, maxListLength)
	}
}

func TestDeathPage_TellsAll(t *testing.T) {
	s := newSite(t, nil)
	s.put(sampleDeaths()...)
	body := s.get("/deaths/oom-3f2a9c-4211").Body.String()
	for _, want := range []string{
		"its memory limit of 256 MiB was reached", "container limit", "certain", "revision 3", `title="268,435,456 bytes">256 MiB`,
		"first process", "C2 CompilerThre", "MaxRAMPercentage", "One of <b>5</b>", "OOMKilled", "inactive_anon", "62,231", "ReplicaSet",
		`data-watch="oom-3f2a9c-4211"`, `href="/api/v1/deaths/oom-3f2a9c-4211"`, "seen after 1.8 ms", "memcg-container",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q", want)
		}
	}
	// In the order of time, not of the record.
	if strings.Index(body, "The kernel chose") > strings.Index(body, "Killed process 41211") {
		t.Error("evidence is not in time order")
	}
	if body := s.get("/deaths/kill-5150").Body.String(); strings.Contains(body, "Shared</th>") || !strings.Contains(body, "ssh.service") {
		t.Error("the page of a kill has columns without figures, or no killer")
	}
}

func TestDeathPage_AlmostNothingKnown(t *testing.T) {
	s := newSite(t, nil)
	s.put(death.Death{ID: "bare", Revision: 1, Time: noon, ObservedAt: noon}, death.Death{ID: "empty parts", Revision: 1, Container: &death.Container{}, OOM: &death.OOM{Trigger: &death.Trigger{}},
		Exit: &death.Exit{}, Killer: &death.Killer{}, Memory: &death.Memory{}, Repeat: &death.Repeat{}, Processes: []death.Process{{}}, Evidence: []death.Evidence{{}}})
	for _, target := range []string{"/", "/deaths/bare", "/deaths/empty%20parts"} {
		if w := s.get(target); w.Code != 200 || strings.Contains(w.Body.String(), "&lt;nil&gt;") || strings.Contains(w.Body.String(), "0001") && target == "/deaths/bare" {
			t.Errorf("%s: %d\n%s", target, w.Code, w.Body)
		}
	}
}

func TestVisible(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"plain name-1.2/ä 漢 💥", "plain name-1.2/ä 漢 💥"},
		{"tab\tline\nnul\x00esc\x1bdel\x7f", `tab\x09line\x0anul\x00esc\x1bdel\x7f`},
		{"bad \xff\xfe end\xc3", `bad \xff\xfe end\xc3`},
		{"\u202egnp.exe", `\u{202e}gnp.exe`},
		{"zero\u200bwidth\u2060\ufeff", `zero\u{200b}width\u{2060}\u{feff}`},
		{"\u0085\u2028\u00a0\U000e0041\ufe0f", `\u{0085}\u{2028}\u{00a0}\u{e0041}\u{fe0f}`},
		{strings.Repeat("x", maxShown+5), strings.Repeat("x", maxShown) + " … (5 bytes more)"},
	} {
		if got := visible(tt.in); got != tt.want {
			t.Errorf("visible(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestFigures(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 64 << 20: "64 MiB", 1 << 30: "1.0 GiB", 1536 << 20: "1.5 GiB", -4096: "-4.0 KiB", 1 << 62: "4.0 EiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "just now", 59 * time.Second: "59 s ago", time.Minute: "1 min ago", 47 * time.Hour: "47 h ago", 49 * time.Hour: "2 days ago", -time.Hour: "in the future"} {
		if got := ago(noon, noon.Add(-d)); got != want {
			t.Errorf("ago(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestAssets_ScriptHasNoInlineStyle(t *testing.T) {
	js, err := os.ReadFile("assets/live.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"innerHTML", "eval(", ".style.", "http://", "https://"} {
		if strings.Contains(string(js), bad) {
			t.Errorf("live.js has %q", bad)
		}
	}
}
