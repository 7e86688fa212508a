// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines"
)

// The kinds of workloads that own others.
const (
	kindReplicaSet = "ReplicaSet"
	kindDeployment = "Deployment"
	kindJob        = "Job"
	kindCronJob    = "CronJob"
	kindNode       = "Node"
)

// job is the Job that a pod belongs to: whose it is, its own object says.
type job struct{ namespace, name, uid string }

// owner is the workload that a pod belongs to, as far as the pod itself says:
// a Deployment marks the pods of its ReplicaSets, and a CronJob's Job is named
// after it and the minute. nil: it has none, or the kubelet made it from a file.
func owner(p *corev1.Pod) *death.Owner {
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil || ref.Kind == kindNode {
		return nil
	}
	hash := p.Labels[labelTemplateHash]
	if name, ok := strings.CutSuffix(ref.Name, "-"+hash); ok && hash != "" && ref.Kind == kindReplicaSet {
		return &death.Owner{Kind: kindDeployment, Name: engines.Cut(name, engines.MaxName)}
	}
	if isJob(ref) {
		if name, ok := cronJob(ref.Name, instant(p.CreationTimestamp)); ok {
			return &death.Owner{Kind: kindCronJob, Name: engines.Cut(name, engines.MaxName), Inferred: true}
		}
	}
	return &death.Owner{Kind: engines.Cut(ref.Kind, engines.MaxName), Name: engines.Cut(ref.Name, engines.MaxName)}
}

func isJob(ref *metav1.OwnerReference) bool {
	return ref.Kind == kindJob && strings.HasPrefix(ref.APIVersion, "batch/")
}

// jobOf is the Job whose pod p is; nil: none.
func jobOf(p *corev1.Pod) *job {
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil || !isJob(ref) || ref.UID == "" || len(ref.Name) > engines.MaxName || !engines.ValidID(ref.Name) || !engines.ValidID(p.Namespace) {
		return nil
	}
	return &job{strings.Clone(p.Namespace), strings.Clone(ref.Name), engines.Cut(string(ref.UID), engines.MaxName)}
}

// How long after its minute a CronJob's Job may make a pod, and how much sooner
// another clock may say that it did.
const (
	cronLate  = time.Hour
	cronEarly = time.Minute
)

// cronJob is the CronJob whose Job is of this name, if that proves it: the
// controller names a Job after the CronJob and the minute, since 1970, for which
// it is (getJobName, pkg/controller/cronjob/utils.go, 1.21 to 1.36), and the
// pod was made then.
func cronJob(jobName string, made time.Time) (name string, ok bool) {
	i := strings.LastIndexByte(jobName, '-')
	if i <= 0 || made.IsZero() {
		return "", false
	}
	digits := jobName[i+1:]
	minutes, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || strconv.FormatInt(minutes, 10) != digits {
		return "", false
	}
	late := made.Sub(time.Unix(minutes*60, 0))
	return jobName[:i], late >= -cronEarly && late <= cronLate
}

// maxOwners bounds the Jobs of which it is known whose they are.
const maxOwners = 4096

// owners are those of Jobs, by the Job's uid.
type owners map[string]*death.Owner

// add takes the owner of a Job.
func (x owners) add(uid string, o *death.Owner) {
	if _, known := x[uid]; !known && len(x) >= maxOwners {
		clear(x) // they are asked for again where they matter
	}
	x[uid] = o
}

// of is the owner of a pod: what its Job says, where that is known.
func (x owners) of(d *reading) *death.Owner {
	if d.job != nil && x[d.job.uid] != nil {
		return x[d.job.uid]
	}
	return d.seen.Pod.Owner
}
