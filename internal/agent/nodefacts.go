// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/coroner-dev/coroner/internal/nodemap"
	"github.com/coroner-dev/coroner/internal/source/kube"
)

const (
	// settingsFresh is how long the kubelet's settings are good enough for
	// whoever asks for the map, and settingsPatience how long the map waits.
	settingsFresh    = time.Minute
	settingsPatience = 2 * time.Second
	// settingsRetry is how long nobody is asked who did not answer, at rest.
	settingsRetry = 2 * time.Minute
)

// configured is a source that can be asked for the configuration of its node's
// kubelet.
type configured interface {
	Configz(ctx context.Context) (kube.Configz, error)
}

// kubeletSettings are what the kubelet last said of itself. At rest nobody is
// asked: it is once at the start, when the limit of all pods changes, and when
// somebody asks for the map.
type kubeletSettings struct {
	from configured

	turn chan struct{} // of one: one asks at a time

	mu     sync.Mutex
	config *nodemap.KubeletConfig
	why    string // there is none
	known  bool   // there was an answer
	asked  time.Time
	limit  int64 // of all pods, at that time
}

// newKubeletSettings finds who can be asked; nil: nobody.
func newKubeletSettings(sources []source) *kubeletSettings {
	for _, s := range sources {
		if from, ok := s.(configured); ok {
			return askKubelet(from)
		}
	}
	return nil
}

func askKubelet(from configured) *kubeletSettings {
	return &kubeletSettings{from: from, turn: make(chan struct{}, 1)}
}

// errNobodyAsks says why a map of a Kubernetes node lacks its settings.
var errNobodyAsks = errors.New("source kube is off")

// get is what is known, else why it is not.
func (k *kubeletSettings) get() (*nodemap.KubeletConfig, string) {
	if k == nil {
		return nil, errNobodyAsks.Error()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.config, k.why
}

// stale tells whether it is time to ask for one who came at a time: not where
// somebody else asked since.
func (k *kubeletSettings) stale(limit int64, fresh time.Duration, came time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	age := time.Since(k.asked)
	switch {
	case k.asked.After(came) && (!k.known || k.limit == limit):
		return false
	case k.known && k.limit == limit:
		return fresh > 0 && age >= fresh
	case fresh > 0: // somebody wants it
		return true
	}
	return k.asked.IsZero() || age >= settingsRetry
}

// refresh asks, where what is known is older than fresh, or of another limit of
// all pods; fresh 0: however old. What was known stays where nobody answers.
func (k *kubeletSettings) refresh(ctx context.Context, limit int64, fresh time.Duration) {
	if k == nil {
		return
	}
	came := time.Now()
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return
	}
	if !k.stale(limit, fresh, came) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settingsPatience)
	defer cancel()
	said, err := k.from.Configz(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if !errors.Is(err, kube.ErrNotReached) { // else nobody was asked: the agent begins
		k.asked = time.Now()
	}
	if err != nil {
		if !k.known {
			k.why = err.Error()
		}
		return
	}
	k.known, k.limit, k.config, k.why = true, limit, nil, said.Refused
	if said.Refused != "" {
		return
	}
	c, err := nodemap.ParseConfigz(said.Body)
	if err != nil {
		k.why = err.Error()
		return
	}
	k.config = &c
}
