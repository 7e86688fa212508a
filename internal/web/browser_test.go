// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/coroner-dev/coroner/internal/api"
)

// browser starts a headless Chromium and opens a tab.
func browser(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		if os.Getenv("CORONER_CI") == "1" {
			t.Fatal("no chromium in PATH (Debian: apt-get install chromium)")
		}
		t.Skip("no chromium in PATH (Debian: apt-get install chromium)")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.WSURLReadTimeout(time.Minute)) // of its start, on a busy machine
	ctx, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(ctx)
	t.Cleanup(closeTab)
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// complaints collects what the browser finds wrong.
type complaints struct {
	mu   sync.Mutex
	said []string
}

func (c *complaints) listen(ctx context.Context, t *testing.T) {
	t.Helper()
	add := func(parts ...string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.said = append(c.said, strings.Join(parts, " "))
	}
	err := chromedp.Listen(ctx, func(ev any) {
		switch e := ev.(type) {
		case *runtime.EventConsoleAPICalled:
			add("console", string(e.Type))
		case *runtime.EventExceptionThrown:
			add("exception", e.ExceptionDetails.Text)
		case *cdplog.EventEntryAdded: // policy violations and failed loads
			add("log", e.Entry.Text, e.Entry.URL)
		case *network.EventRequestWillBeSent:
			if u, err := url.Parse(e.Request.URL); err == nil && u.Scheme != "data" && u.Hostname() != "127.0.0.1" {
				add("request to", e.Request.URL)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	enable := chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		if _, err := cdp.Call(ctx, t, cdplog.Enable, cdp.Empty{}); err != nil {
			return err
		}
		_, err := cdp.Call(ctx, t, network.Enable, network.EnableParams{})
		return err
	})
	if err := chromedp.Do(ctx, enable); err != nil {
		t.Fatal(err)
	}
}

func (c *complaints) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	said := c.said
	c.said = nil
	return said
}

// screen is a size and a colour scheme.
func screen(width int64, scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Steps(chromedp.EmulateViewport(width, 800), chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	}))
}

func eval[T any](ctx context.Context, t *testing.T, js string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](js))
	if err != nil {
		t.Fatalf("%s: %v", js, err)
	}
	return v
}

// TestBrowser_PagesAreClean loads the pages in a real browser. With
// CORONER_SCREENSHOTS=DIR it leaves pictures of them there.
func TestBrowser_PagesAreClean(t *testing.T) {
	ctx := browser(t)
	var c complaints
	c.listen(ctx, t)
	s := newSite(t, func(o *Options) {
		o.Now = time.Now
		o.Node = func(context.Context) (api.NodeMap, error) { return sampleNode(t), nil }
	})
	deaths := sampleDeaths()
	for i := range deaths {
		d := &deaths[i]
		d.Time, d.ObservedAt = d.Time.Add(time.Since(noon)), d.ObservedAt.Add(time.Since(noon))
	}
	s.put(deaths...)
	address, empty := s.serve().URL, newSite(t, nil).serve().URL
	for name, page := range map[string]struct{ url, contains string }{
		"list":     {address + "/", "checkout-7d9f4c5b6-x2x8k / checkout-api"},
		"filtered": {address + "/?cause=killed&cause=oom_node&q=container", "redis-0"},
		"death":    {address + "/deaths/oom-3f2a9c-4211", "What to do"},
		"unit":     {address + "/deaths/oom-unit-1", "killed with its group"},
		"killed":   {address + "/deaths/kill-5150", "ssh.service"},
		"hostile":  {address + "/deaths/" + url.PathEscape(hostileDeath().ID), `\u{202e}gnp.exe<script>alert(1)</script>`},
		"node":     {address + "/node", "It is over 100 % because"},
		"empty":    {empty + "/", "coroner demo"},
	} {
		for _, view := range []struct {
			name, scheme string
			width        int64
		}{{"desktop", "light", 1280}, {"desktop", "dark", 1280}, {"phone", "light", 390}, {"phone", "dark", 390}} {
			if err := chromedp.Do(ctx, screen(view.width, view.scheme), chromedp.Navigate(page.url)); err != nil {
				t.Fatal(err)
			}
			if text := eval[string](ctx, t, `document.body.innerText`); !strings.Contains(text, page.contains) {
				t.Errorf("%s: no %q in the page:\n%s", name, page.contains, text)
			}
			if wide := eval[int](ctx, t, `document.documentElement.scrollWidth`); int64(wide) > view.width {
				t.Errorf("%s on a %s is %d wide, more than %d", name, view.name, wide, view.width)
			}
			if rules := eval[int](ctx, t, `document.styleSheets[0].cssRules.length`); rules == 0 {
				t.Errorf("%s: no style", name)
			}
			if said := c.take(); len(said) > 0 {
				t.Errorf("%s on a %s, %s: the browser complains: %q", name, view.name, view.scheme, said)
			}
			if dir := os.Getenv("CORONER_SCREENSHOTS"); dir != "" {
				png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name+"-"+view.name+"-"+view.scheme+".png"), png, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	// The listener must hear what it listens for.
	eval[bool](ctx, t, `(() => { const s = document.createElement("script"); s.textContent = "1"; document.head.append(s); return true })()`)
	if said := c.take(); len(said) == 0 {
		t.Error("an inline script brought no complaint: the test hears nothing")
	}
}

// TestBrowser_NewDeathsAppear shows a death that comes while the page is open,
// and an amendment on the death's own page.
func TestBrowser_NewDeathsAppear(t *testing.T) {
	ctx := browser(t)
	var c complaints
	c.listen(ctx, t)
	s := newSite(t, nil)
	address := s.serve().URL
	appears := func(text string) {
		t.Helper()
		for deadline := time.Now().Add(15 * time.Second); !eval[bool](ctx, t, `document.body.innerText.includes("`+text+`")`); {
			if time.Now().After(deadline) {
				t.Fatalf("%q does not appear", text)
			}
		}
	}
	if err := chromedp.Do(ctx, chromedp.Navigate(address+"/")); err != nil {
		t.Fatal(err)
	}
	appears("Nobody has died")
	first := many(1)[0]
	s.put(first)
	appears("Number 0.")
	if err := chromedp.Do(ctx, chromedp.Navigate(address+"/deaths/"+first.ID)); err != nil {
		t.Fatal(err)
	}
	appears("Number 0.")
	first.Revision, first.Summary = 2, "Amended since."
	s.put(first)
	appears("Amended since.")
	if said := c.take(); len(said) > 0 {
		t.Errorf("the browser complains: %q", said)
	}
}

// TestBrowser_ComesAgain: a page whose stream was refused, as by an agent with too
// many of them or a proxy before one that is started anew, asks for it again.
func TestBrowser_ComesAgain(t *testing.T) {
	ctx := browser(t)
	s := newSite(t, nil)
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == api.PathStream && asked.Add(1) == 1 {
			busy(w, "too many")
			return
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(s.broker.Close)
	if err := chromedp.Do(ctx, chromedp.Navigate(srv.URL+"/")); err != nil {
		t.Fatal(err)
	}
	s.put(many(1)[0])
	for deadline := time.Now().Add(40 * time.Second); !eval[bool](ctx, t, `document.body.innerText.includes("Number 0.")`); {
		if time.Now().After(deadline) {
			t.Fatalf("the death does not appear; the stream was asked for %d times", asked.Load())
		}
	}
}
