// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/lastwords"
	"github.com/coroner-dev/coroner/internal/signal"
)

// fakeLog is a log that takes its time, or hangs until it is let go.
type fakeLog struct {
	slow    time.Duration
	hang    chan struct{}
	written func() time.Time // nil: long ago
}

func (f *fakeLog) Written() time.Time {
	if f.written == nil {
		return time.Time{}
	}
	return f.written()
}

func (f *fakeLog) Close() error { return nil }

func (f *fakeLog) Read(ctx context.Context, a lastwords.Ask) signal.ContainerLog {
	if f.hang != nil {
		<-f.hang
	}
	select {
	case <-time.After(f.slow):
		return signal.ContainerLog{ID: a.ContainerID, Lines: []signal.LogLine{{Text: a.Until.Sub(a.Since).String()}}}
	case <-ctx.Done():
		return signal.ContainerLog{ID: a.ContainerID, Error: "read log: " + ctx.Err().Error()}
	}
}

// answers collects what words says.
type answers struct {
	mu  sync.Mutex
	all []signal.Signal
}

func (a *answers) take(s signal.Signal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, s)
}

func (a *answers) texts() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, s := range a.all {
		b := s.Body.(signal.ContainerLog)
		if b.Error != "" {
			out = append(out, b.ID+": "+b.Error)
		} else {
			out = append(out, b.ID+": "+b.Lines[0].Text)
		}
	}
	return out
}

func fakeWords(logs map[string]*fakeLog) (*words, *answers) {
	got := &answers{}
	w := newWords(host.Roots{}, got.take, slog.New(slog.DiscardHandler))
	w.open = func(path string) (openLog, error) {
		if l := logs[path]; l != nil {
			return l, nil
		}
		return nil, errors.New("open log: no such file")
	}
	return w, got
}

func wantOf(path string) inquest.Want {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	return inquest.Want{Kind: inquest.WantLog, Source: "docker", ContainerID: path, LogPath: path, Since: at.Add(-time.Minute), At: at}
}

func TestWords_WaitsForTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, got := fakeWords(map[string]*fakeLog{"a": {}, "slow": {slow: time.Hour}})
		w.ask(wantOf("a"))
		w.ask(wantOf("gone"))
		time.Sleep(drainFor - time.Millisecond)
		synctest.Wait()
		if all := got.texts(); len(all) != 1 || all[0] != "gone: open log: no such file" {
			t.Errorf("before the engine has written: %q", all)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if all := got.texts(); len(all) != 2 || all[1] != "a: 1m1s" {
			t.Errorf("after: %q", all)
		}
		if s := got.all[1]; s.Source != "docker" || s.Time.IsZero() || s.Observed.IsZero() {
			t.Errorf("signal %+v", s)
		}
		w.ask(wantOf("slow"))
		time.Sleep(drainFor + readLimit + time.Millisecond)
		synctest.Wait()
		if all := got.texts(); len(all) != 3 || !strings.HasPrefix(all[2], "slow: read log: ") {
			t.Errorf("a slow one: %q", all)
		}
		w.end()
		w.wait()
	})
}

// TestWords_WaitsForABusyEngine: what is still written to is read when that has
// ended, or after a while.
func TestWords_WaitsForABusyEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		last := time.Now().Add(1200 * time.Millisecond)
		w, got := fakeWords(map[string]*fakeLog{
			"busy": {written: func() time.Time {
				if now := time.Now(); now.Before(last) {
					return now
				}
				return last
			}},
			"never quiet":        {written: time.Now},
			"clock was set back": {written: func() time.Time { return last.AddDate(1, 0, 0) }},
		})
		w.ask(wantOf("busy"))
		time.Sleep(time.Until(last.Add(quietFor)) - time.Millisecond)
		synctest.Wait()
		if all := got.texts(); len(all) != 0 {
			t.Errorf("while it is written to: %q", all)
		}
		time.Sleep(quietFor)
		synctest.Wait()
		if all := got.texts(); len(all) != 1 {
			t.Errorf("when it is quiet: %q", all)
		}
		w.ask(wantOf("never quiet"))
		w.ask(wantOf("clock was set back"))
		time.Sleep(drainMost + time.Millisecond)
		synctest.Wait()
		if all := got.texts(); len(all) != 3 {
			t.Errorf("after a while: %q", all)
		}
		w.end()
		w.wait()
	})
}

// TestWords_Bounded: one log that hangs keeps the others from being read, and
// nobody waiting.
func TestWords_Bounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		w, got := fakeWords(map[string]*fakeLog{"hangs": {hang: hang}, "a": {}})
		if s := w.ask(wantOf("hangs")); s != nil {
			t.Fatalf("refused: %+v", s)
		}
		synctest.Wait()
		time.Sleep(time.Second)
		for range maxAsked - 1 {
			if s := w.ask(wantOf("a")); s != nil {
				t.Fatalf("refused: %+v", s)
			}
		}
		s := w.ask(wantOf("b"))
		if s == nil || !strings.Contains(s.Body.(signal.ContainerLog).Error, "too many at once") || s.Source != "docker" {
			t.Fatalf("one too many: %+v", s)
		}
		time.Sleep(drainFor + readLimit + time.Second)
		synctest.Wait()
		all := got.texts()
		if len(all) != maxAsked-1 || !strings.Contains(all[0], "others are slow") {
			t.Errorf("%d answers, first %q", len(all), all[:1])
		}
		if s := w.ask(wantOf("a")); s != nil {
			t.Errorf("refused after the others were answered: %+v", s)
		}
		w.end() // which does not wait for what hangs
		close(hang)
		w.wait()
		if n := len(got.texts()); n != maxAsked-1 {
			t.Errorf("%d answers after the end, want none", n-maxAsked+1)
		}
	})
}

// TestWords_End: it ends while answers wait for a queue that is full, and while
// logs wait to be read.
func TestWords_End(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		queue := make(chan signal.Signal)
		w, _ := fakeWords(map[string]*fakeLog{"a": {}})
		w.emit = func(s signal.Signal) { queue <- s }
		for range 3 {
			w.ask(wantOf("a"))
		}
		time.Sleep(drainFor + time.Second)
		w.ask(wantOf("a"))
		synctest.Wait() // three wait for the queue
		var read sync.WaitGroup
		read.Go(func() {
			for range queue {
			}
		})
		w.end()
		close(queue)
		w.wait()
		read.Wait()
		if s := w.ask(wantOf("a")); s != nil {
			t.Errorf("refused: %+v", s)
		}
		w.wait()
	})
}

// TestPipeline_HeapLimit: a container that leaves is asked for its last words,
// and these amend its death.
func TestPipeline_HeapLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c-json.log")
	began := time.Now().UTC()
	line := `Exception in thread \"main\" java.lang.OutOfMemoryError: Java heap space`
	text := fmt.Sprintf("{\"log\":\"%s\\n\",\"stream\":\"stderr\",\"time\":%q}\n", line, began.Format(time.RFC3339Nano))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	told := map[string]death.Death{}
	amended := make(chan struct{})
	p := newPipeline(inquest.New(inquest.Options{Node: "n1"}), func(r progress) {
		mu.Lock()
		defer mu.Unlock()
		for _, d := range r.deaths {
			if told[d.ID] = d; d.Cause == death.HeapLimit {
				close(amended)
			}
		}
	})
	w := newWords(host.Roots{}, p.emit, slog.New(slog.DiscardHandler))
	p.ask = w.ask
	var ran sync.WaitGroup
	ran.Go(p.run)
	sig := func(b signal.Body) {
		p.emit(signal.Signal{Time: began, Observed: time.Now(), Source: death.SourceDocker, Body: b})
	}
	sig(signal.SourceState{Up: true})
	sig(signal.ContainerSeen{Container: death.Container{ID: "c1", Name: "cart", Runtime: "docker"}, PID: 7, State: "running", Program: "java", LogPath: path, LimitBytes: new(int64(64 << 20))})
	sig(signal.ContainerExit{ID: "c1", Runtime: "docker", Code: new(1), PID: 7})
	select {
	case <-amended:
	case <-time.After(10 * time.Second):
		t.Error("no heap_limit in 10 s")
	}
	w.end()
	close(p.in)
	ran.Wait()
	w.wait()
	if len(told) != 1 {
		t.Fatalf("%d deaths: %+v", len(told), told)
	}
	for _, d := range told {
		if d.Confidence != death.Certain || d.Revision < 2 || !strings.Contains(d.Summary, "may have 64 MiB") {
			t.Errorf("death %+v", d)
		}
		found := false
		for _, e := range d.Evidence {
			found = found || e.Source == death.SourceDocker && strings.HasSuffix(e.Text, `Exception in thread "main" java.lang.OutOfMemoryError: Java heap space`)
		}
		if !found {
			t.Errorf("the line is not in the evidence: %+v", d.Evidence)
		}
	}
}
