// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"github.com/coroner-dev/coroner/internal/death"
)

//go:generate go test -run ^TestDocs_AreTheTables$ -update .

// Docs is the text of docs/causes.md.
func Docs() string {
	var b strings.Builder
	b.WriteString(docsHead)
	for _, c := range death.Causes() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", c.Cause, c.Meaning)
	}
	b.WriteString(docsRules)
	for i, r := range Rules() {
		fmt.Fprintf(&b, "| %d | `%s` | `%s` | %s | %s | %s |\n", i+1, r.ID, r.Cause, r.Confidence, r.Meaning, r.Needs)
	}
	b.WriteString(docsTail)
	return b.String()
}

const docsHead = `<!-- Made by "make generate" from internal/death/cause.go and the tables of internal/inquest/verdict. Do not edit. -->

# Causes

Each death has one cause, and says how far the evidence carries it: ` + "`certain`" + ` (the kernel itself said so), ` + "`probable`" + `
(inferred from figures or from a second-hand source) or ` + "`possible`" + ` (it fits; something that would decide it is missing).

| cause | meaning |
|---|---|
`

const docsRules = `
## Rules

The rules are asked in this order; the first that fits speaks, and its id is in the death's ` + "`rule`" + `. The confidence is the best
that the rule can give.

| | rule | cause | confidence | what happened | evidence that it needs |
|---|---|---|---|---|---|
`

const docsTail = `
## Where the limit comes from

Whose limit was reached is known for certain from the kernel's report in its log, or from ` + "`oom_kill_process`" + ` where that can be
traced. The report is limited to 10 in 5 seconds for the whole machine. Where it is missing, the limit is inferred, and the
confidence is at most ` + "`probable`" + `, from the first of these that is there:

1. on cgroup v2, the cgroup whose own ` + "`oom`" + ` counter rose (` + "`memory.events.local`" + `);
2. usage and limit of the victim's cgroup and of all above it, read in the kernel at the kill: the one that was full;
3. a kill line that speaks of a cgroup, and one single limit on the way up.

Where usage and limits are known, none was full and no line speaks of a cgroup, the machine itself ran out.
`
