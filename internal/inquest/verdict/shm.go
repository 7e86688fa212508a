// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"github.com/coroner-dev/coroner/internal/death"
)

const sigbus = 7

// shmSlack is how far below its size a /dev/shm may have been when a page of
// it could not be had: the counter of shared memory is kept in batches.
const shmSlack = 1 << 20

// shmRules tell a full /dev/shm apart from what else ends by SIGBUS.
var shmRules = []Rule{
	{
		ID: "bus-error-shm-full", Cause: death.BusError, Confidence: death.Probable,
		Meaning: "The first process touched memory that could not be provided (SIGBUS), and the container held as much shared memory as its /dev/shm may hold. Other shared memory counts there, too.",
		Needs:   "SIGBUS as its end; the size of its /dev/shm, from its engine; what it held of shared memory before the end",
		fits:    func(f *Facts) bool { return f.endedBy(sigbus) && f.shmFull() },
		advice: func(f *Facts) []string {
			return []string{
				fmt.Sprintf("Give it a larger /dev/shm than %s: --shm-size (shm_size in a compose file; in a pod an emptyDir of medium Memory on /dev/shm). It counts as the container's memory.", death.FormatBytes(*f.ShmSize)),
				"Or have the program keep less there: browsers take --disable-dev-shm-usage, databases and data loaders have a setting of their own.",
			}
		},
	},
}

// shmFull tells whether the container is known to have filled its /dev/shm.
func (f *Facts) shmFull() bool {
	return f.ShmBytes != nil && f.ShmSize != nil && *f.ShmSize > 0 && *f.ShmBytes >= *f.ShmSize-min(shmSlack, *f.ShmSize/16)
}

func shmSentence(f *Facts) string {
	return fmt.Sprintf("%s ended: %s %s, a bus error, while its /dev/shm was full: it held %s of shared memory, and /dev/shm may have %s.",
		upper(where(f)), firstName(f), endedHow(f), death.FormatBytes(*f.ShmBytes), death.FormatBytes(*f.ShmSize))
}
