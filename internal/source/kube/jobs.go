// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines"
)

// maxJobsAsked bounds the Jobs that wait to be asked about.
const maxJobsAsked = 64

// askOwner has it asked whose a Job is, once. The table is locked.
func (f *follower) askOwner(j job) {
	if f.asked[j.uid] || f.table.owned[j.uid] != nil {
		return
	}
	select {
	case f.jobs <- j:
		f.asked[j.uid] = true
	default: // it is asked with the pod's next change
	}
}

// askOwners asks whose Jobs are, one after the other, until ctx ends.
func (f *follower) askOwners(ctx context.Context, c *client) {
	var forbidden time.Time
	wait := time.Duration(0) // since then
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-f.jobs:
			if time.Since(forbidden) < wait {
				f.owned(j, nil)
				continue
			}
			uid, refs, err := c.ownersOf(ctx, j)
			switch {
			case apierrors.IsForbidden(err):
				forbidden, wait = time.Now(), min(max(2*wait, forbiddenFirst), forbiddenFor)
				f.missing(lesserJobs, "whose Jobs are is known by their names alone: "+err.Error())
				f.owned(j, nil)
			case err != nil || uid != j.uid: // gone, perhaps, and another has its name
				f.owned(j, nil)
			default:
				wait = 0
				f.missing(lesserJobs, "")
				f.owned(j, ownerOfJob(j, refs))
			}
		}
	}
}

// ownerOfJob is the workload that a Job belongs to: what controls it, or it
// itself.
func ownerOfJob(j job, refs []metav1.OwnerReference) *death.Owner {
	for _, r := range refs {
		if r.Controller != nil && *r.Controller {
			return &death.Owner{Kind: engines.Cut(r.Kind, engines.MaxName), Name: engines.Cut(r.Name, engines.MaxName)}
		}
	}
	return &death.Owner{Kind: kindJob, Name: j.name}
}

// owned takes the answer; nil: there is none, and the pod's next change asks again.
func (f *follower) owned(j job, o *death.Owner) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.asked, j.uid)
	if o != nil {
		f.table.belongs(j.uid, o, time.Now().UTC())
	}
}
