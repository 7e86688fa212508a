// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coroner-dev/coroner/internal/source/kube"
)

// counted is a source that counts how often it is asked.
type counted struct {
	says  kube.Configz
	fails error
	takes time.Duration
	n     int
}

func (c *counted) Configz(ctx context.Context) (kube.Configz, error) {
	c.n++
	if c.takes > 0 {
		select {
		case <-time.After(c.takes):
		case <-ctx.Done():
			return kube.Configz{}, ctx.Err()
		}
	}
	return c.says, c.fails
}

// TestKubeletSettings_AtRestNobodyIsAsked: once where there is an answer, now
// and then where there is none; anew when the limit of all pods changes, and
// for whoever wants the map.
func TestKubeletSettings_AtRestNobodyIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := &counted{fails: errors.New("away")}
		k := askKubelet(from)
		rest := func(d, every time.Duration, limit int64) {
			for end := time.Now().Add(d); time.Now().Before(end); <-time.After(every) {
				k.refresh(t.Context(), limit, 0)
			}
		}
		rest(10*time.Minute, 30*time.Second, 7)
		if from.n != 5 {
			t.Errorf("one that does not answer was asked %d times in ten minutes, want 5", from.n)
		}
		if c, why := k.get(); c != nil || why != "away" {
			t.Errorf("got %+v, %q", c, why)
		}
		from.fails, from.says = nil, kube.Configz{Refused: "may not"}
		k.refresh(t.Context(), 7, settingsFresh)
		from.n = 0
		rest(time.Hour, 30*time.Second, 7)
		if _, why := k.get(); from.n != 0 || why != "may not" {
			t.Errorf("one that refused was asked %d times at rest; %q", from.n, why)
		}
		from.says = kube.Configz{Body: []byte(`{"kubeletconfig":{"evictionHard":{"memory.available":"1Gi"}}}`)}
		k.refresh(t.Context(), 8, 0)
		k.refresh(t.Context(), 8, settingsFresh)
		if c, why := k.get(); from.n != 1 || why != "" || c == nil || c.Hard.Bytes != 1<<30 {
			t.Errorf("after another limit it was asked %d times, and has %+v, %q", from.n, c, why)
		}
		from.fails = errors.New("away again")
		k.refresh(t.Context(), 9, 0)
		if c, _ := k.get(); c == nil {
			t.Error("what was known is forgotten where nobody answers")
		}
		from.fails, from.says = nil, kube.Configz{Body: []byte("{")}
		k.refresh(t.Context(), 9, settingsFresh)
		if c, why := k.get(); c != nil || why == "" {
			t.Errorf("of half an answer: %+v, %q", c, why)
		}
	})
	var none *kubeletSettings
	none.refresh(t.Context(), 1, settingsFresh)
	if c, why := none.get(); c != nil || why == "" {
		t.Errorf("where nobody asks: %+v, %q", c, why)
	}
}

// TestKubeletSettings_OneThatHangs is asked once for all who want the map at once.
func TestKubeletSettings_OneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := &counted{takes: time.Hour}
		k := askKubelet(from)
		var all sync.WaitGroup
		began := time.Now()
		for range 30 {
			all.Go(func() { k.refresh(t.Context(), 7, settingsFresh) })
		}
		synctest.Wait()
		gone, leave := context.WithCancel(t.Context())
		leave()
		k.refresh(gone, 7, settingsFresh)
		if waited := time.Since(began); waited > 0 {
			t.Errorf("who has gone waited %v", waited)
		}
		all.Wait()
		if waited := time.Since(began); waited > settingsPatience || from.n != 1 {
			t.Errorf("asked %d times, all had waited after %v", from.n, waited)
		}
	})
}

// TestKubeletSettings_BeforeTheAPI: until the API was found nobody was asked, so
// that it is soon after.
func TestKubeletSettings_BeforeTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := &counted{fails: fmt.Errorf("ask: %w", kube.ErrNotReached)}
		k := askKubelet(from)
		k.refresh(t.Context(), 7, 0)
		from.fails, from.says = nil, kube.Configz{Body: []byte(`{"kubeletconfig":{"evictionHard":{"memory.available":"1Gi"}}}`)}
		<-time.After(10 * time.Second)
		k.refresh(t.Context(), 7, 0)
		if c, why := k.get(); c == nil || from.n != 2 {
			t.Errorf("asked %d times: %+v, %q", from.n, c, why)
		}
	})
}
