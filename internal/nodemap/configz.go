// SPDX-License-Identifier: Apache-2.0

package nodemap

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// KubeletConfig is what matters here of the kubelet's configuration.
type KubeletConfig struct {
	KubeReservedBytes, SystemReservedBytes *int64
	// Hard and Soft are the thresholds for memory.available; nil: there is none.
	Hard, Soft *Threshold
	// SoftGrace is how long the soft one must have been crossed.
	SoftGrace time.Duration
}

// Threshold is an amount, or a part of the capacity.
type Threshold struct {
	Setting string
	Bytes   int64
	Percent float64
}

// Of is the threshold on a node with so much memory.
func (t *Threshold) Of(capacity int64) int64 {
	if t.Percent > 0 {
		return int64(float64(capacity) * t.Percent / 100)
	}
	return t.Bytes
}

// ParseConfigz reads what the kubelet answers at /configz.
func ParseConfigz(body []byte) (KubeletConfig, error) {
	const memory = "memory.available"
	var z struct {
		KubeletConfig *struct {
			EvictionHard, EvictionSoft, EvictionSoftGracePeriod, KubeReserved, SystemReserved map[string]string
		} `json:"kubeletconfig"`
	}
	if err := json.Unmarshal(body, &z); err != nil {
		return KubeletConfig{}, fmt.Errorf("parse configz: %w", err)
	}
	k := z.KubeletConfig
	if k == nil {
		return KubeletConfig{}, fmt.Errorf("parse configz: no kubeletconfig in it")
	}
	var c KubeletConfig
	for _, q := range []struct {
		from map[string]string
		to   **int64
	}{{k.KubeReserved, &c.KubeReservedBytes}, {k.SystemReserved, &c.SystemReservedBytes}} {
		n, err := quantity(q.from["memory"])
		if err != nil {
			return KubeletConfig{}, fmt.Errorf("parse configz: reserved: %w", err)
		}
		*q.to = &n
	}
	for _, q := range []struct {
		from map[string]string
		to   **Threshold
	}{{k.EvictionHard, &c.Hard}, {k.EvictionSoft, &c.Soft}} {
		s, there := q.from[memory]
		if !there {
			continue
		}
		t, err := threshold(s)
		if err != nil {
			return KubeletConfig{}, fmt.Errorf("parse configz: threshold: %w", err)
		}
		*q.to = t
	}
	if s := k.EvictionSoftGracePeriod[memory]; s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			return KubeletConfig{}, fmt.Errorf("parse configz: grace period: %w", err)
		}
		c.SoftGrace = d
	}
	return c, nil
}

// threshold is nil for one that is switched off: 0 % and 100 %
// (pkg/kubelet/eviction/helpers.go).
func threshold(s string) (*Threshold, error) {
	if p, ok := strings.CutSuffix(s, "%"); ok {
		f, err := strconv.ParseFloat(p, 64)
		if err != nil || !(f >= 0 && f <= 100) {
			return nil, fmt.Errorf("%.40q is no percentage", s)
		}
		if f == 0 || f == 100 {
			return nil, nil
		}
		return &Threshold{Setting: s, Percent: f}, nil
	}
	n, err := quantity(s)
	if err != nil || n == 0 {
		return nil, err
	}
	return &Threshold{Setting: s, Bytes: n}, nil
}

// quantity reads an amount of Kubernetes; "" is 0.
func quantity(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	if len(s) > 40 {
		return 0, fmt.Errorf("%.40q... is no amount", s)
	}
	q, err := resource.ParseQuantity(s)
	if err != nil {
		return 0, fmt.Errorf("%q: %w", s, err)
	}
	if n := q.Value(); n >= 0 {
		return n, nil
	}
	return 0, fmt.Errorf("%q is below 0", s)
}
