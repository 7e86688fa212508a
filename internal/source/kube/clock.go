// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"net/http"
	"sync/atomic"
	"time"
)

// clockSlack is what the API's clock may differ from this machine's before it
// matters: times of the API are whole seconds.
const clockSlack = 3 * time.Second

// slowAnswer is how long an answer may take to say anything of the clock.
const slowAnswer = 2 * time.Second

// clock knows how far the API's clock is ahead of this machine's, by which the
// kernel, the runtime and the kubelet tell time. Each answer's header Date says it.
type clock struct {
	ahead   atomic.Int64
	changed func()
}

// by is how far the API's clock is ahead; 0 where it is as good as this one.
func (c *clock) by() time.Duration {
	if c == nil {
		return 0
	}
	return time.Duration(c.ahead.Load())
}

// answered takes an answer's date, asked for and come at these times.
func (c *clock) answered(date, asked, came time.Time) {
	if came.Sub(asked) > slowAnswer {
		return
	}
	// The date is cut to seconds: what it was is up to one second later.
	atLeast, atMost := date.Sub(came), date.Add(time.Second).Sub(asked)
	ahead := (atLeast + atMost) / 2
	was := c.by()
	switch {
	case ahead.Abs() < clockSlack:
		ahead = 0
	case (ahead-was).Abs() < time.Second && was != 0:
		return
	}
	if ahead = ahead.Round(time.Second); ahead != was {
		c.ahead.Store(int64(ahead))
		c.changed()
	}
}

// wrap has each answer's date looked at.
func (c *clock) wrap(rt http.RoundTripper) http.RoundTripper { return &dated{rt, c} }

// dated is a transport that looks at dates.
type dated struct {
	http.RoundTripper
	clock *clock
}

// RoundTrip implements http.RoundTripper.
func (d *dated) RoundTrip(r *http.Request) (*http.Response, error) {
	asked := time.Now()
	w, err := d.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if date, err := http.ParseTime(w.Header.Get("Date")); err == nil {
		d.clock.answered(date, asked, time.Now())
	}
	return w, nil
}
