// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/signal"
)

// The modes of the source.
const (
	modeAPI     = "api"
	modeKubelet = "kubelet" // pods come from the kubelet: the API is away
)

var errNoAnswer = errors.New("the API has not answered yet")

// standing is how the source is doing: by the API for pods, by the kubelet in
// its place, and what is lesser.
type standing struct {
	mu      sync.Mutex
	asked   bool // the API has answered, or failed to
	api     error
	kubelet string // what it answers where the API is away; "": pods, or not asked
	stands  bool   // the kubelet gives pods in the API's place
	lesser  map[string]string
	ahead   time.Duration
	back    chan struct{} // closed and made anew when the API begins or ceases to answer
}

// state is s as a signal; known is false before anything was heard.
func (s *standing) state() (st signal.SourceState, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.asked && !s.stands && s.kubelet == "" {
		return st, false
	}
	api := s.api
	if !s.asked {
		api = errNoAnswer
	}
	st = signal.SourceState{Up: true, Mode: modeAPI}
	var why []string
	if api != nil {
		why = append(why, api.Error())
	}
	switch {
	case api != nil && s.stands:
		st.Mode = modeKubelet
	case api != nil:
		st.Up, st.Mode = false, ""
		if s.kubelet != "" {
			why = append(why, s.kubelet)
		}
	}
	for _, what := range []string{lesserNode, lesserJobs} {
		if w := s.lesser[what]; w != "" && api == nil {
			why = append(why, w)
		}
	}
	if s.ahead != 0 {
		to := "ahead of"
		if s.ahead < 0 {
			to = "behind"
		}
		why = append(why, fmt.Sprintf("the API's clock is %d s %s this machine's, which its times are corrected by", int64(s.ahead.Abs().Seconds()), to))
	}
	st.Reason = engines.Cut(strings.Join(why, "; "), engines.MaxReason)
	return st, true
}

// What can be missing while pods are told.
const (
	lesserNode = "node"
	lesserJobs = "jobs"
)

// miss notes what is missing; "": nothing any more.
func (s *standing) miss(what, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lesser == nil {
		s.lesser = map[string]string{}
	}
	s.lesser[what] = why
}

// answered notes whether the API answers about pods.
func (s *standing) answered(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.asked || (s.api == nil) != (err == nil) {
		if s.back != nil {
			close(s.back)
			s.back = nil
		}
	}
	s.asked, s.api = true, err
	if err == nil {
		s.stands, s.kubelet = false, ""
	}
}

// away tells whether the API does not answer, and gives what is closed when
// that changes.
func (s *standing) away() (asked, away bool, changes <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.back == nil {
		s.back = make(chan struct{})
	}
	return s.asked, s.api != nil, s.back
}

// answers tells whether the API does.
func (s *standing) answers() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked && s.api == nil
}

// byKubelet notes what the kubelet answered; false: the API is back.
func (s *standing) byKubelet(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked && s.api == nil {
		return false
	}
	s.stands, s.kubelet = err == nil, ""
	if err != nil {
		s.kubelet = err.Error()
	}
	return true
}

func (s *standing) setClock(ahead time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead = ahead
}
