// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strings"
	"unicode/utf8"

	"github.com/coroner-dev/coroner/internal/death"
)

const (
	// foldedContainer stands for the owners that are too many. No container
	// runtime allows a name that begins with an underscore.
	foldedContainer = "_other"
	shortID         = 12
	// maxLabel is more than any name that Kubernetes, Docker or systemd allow.
	maxLabel = 256
)

// owner is whose death it was, as label values.
type owner struct{ namespace, pod, container string }

// key is a set of label values.
type key struct {
	owner
	cause death.Cause
}

// ownerKey is what all deaths are counted under.
func ownerKey(d *death.Death) (key, bool) {
	o := owner{container: label(d.Unit)}
	if d.Container != nil {
		o = ownerOf(d.Container)
		if o.container == "" {
			o.container = label(d.Unit)
		}
	}
	return key{o, death.Cause(label(string(d.Cause)))}, true
}

// causeOOMs stands for container_ooms where the counters are kept. No death
// has such a cause.
const causeOOMs death.Cause = containerOOMs

// idKey is what the OOM kills of a container are counted under.
func idKey(d *death.Death) (key, bool) {
	if d.Container == nil || d.Container.ID == "" || d.OOMKills() == 0 {
		return key{}, false
	}
	return keyOfID(d.Container.ID), true
}

func keyOfID(id string) key { return key{owner{container: label(id)}, causeOOMs} }

func ownerOf(c *death.Container) owner {
	o := owner{container: label(c.Name)}
	if o.container == "" {
		o.container = label(c.ID[:min(len(c.ID), shortID)])
	}
	if p := c.Pod; p != nil {
		o.namespace = label(p.Namespace)
		if o.pod = label(p.Name); o.pod == "" {
			o.pod = label(p.UID)
		}
	}
	return o
}

// label makes foreign text a valid and bounded label value.
func label(s string) string {
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	if len(s) <= maxLabel {
		return s
	}
	end := maxLabel
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
