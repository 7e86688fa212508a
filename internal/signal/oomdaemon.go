// SPDX-License-Identifier: Apache-2.0

package signal

import "time"

// OOMDaemonWord is what the programs that kill before the kernel must left
// behind of one death, looked up because the inquest asked for it (inquest.Want).
type OOMDaemonWord struct {
	// ID is the container, Path the cgroup where that is known, and At the time of
	// the death, as the question had it.
	ID   string    `json:"id,omitempty"`
	Path string    `json:"path,omitempty"`
	At   time.Time `json:"at,omitzero"`
	// OOMs and Killed are the cgroup's attributes user.oomd_ooms, how often such a
	// program began to kill in it, and user.oomd_kill, how many processes that
	// were; nil: it has none, or has gone.
	OOMs   *int64 `json:"ooms,omitempty"`
	Killed *int64 `json:"killed,omitempty"`
	// Lines are what the programs' units wrote to the journal around that time.
	Lines []JournalLine `json:"lines,omitempty"`
	// Error says why the journal was not read.
	Error string `json:"error,omitempty"`
}

// JournalLine is a line that a unit of systemd wrote. Its time, unit and process
// are journald's word, the text is the program's.
type JournalLine struct {
	Time time.Time `json:"time"`
	Unit string    `json:"unit"`
	PID  int       `json:"pid,omitempty"`
	Text string    `json:"text"`
}

func (OOMDaemonWord) kind() string { return "oom_daemon_word" }
