// SPDX-License-Identifier: Apache-2.0

package kmsg

import "bytes"

// maxTail is how much of the end of one reading is looked for in the next.
const maxTail = 1 << 10

// fresh gives what of log follows tail, the last lines that were read before.
// Of the tail only the end may be left. false: nothing of it is there, so lines
// between the two may be missing. Where the same lines with the same stamps
// were written again, the last of them counts: what is told twice would be
// a death that never was.
func fresh(tail, log []byte) ([]byte, bool) {
	if len(tail) == 0 {
		return log, true
	}
	for end := len(log); ; {
		i := bytes.LastIndex(log[:end], tail)
		if i < 0 {
			break
		}
		if i == 0 || log[i-1] == '\n' {
			return log[i+len(tail):], true
		}
		end = i + len(tail) - 1
	}
	for {
		i := bytes.IndexByte(tail, '\n')
		if i < 0 || i+1 == len(tail) {
			return log, false
		}
		tail = tail[i+1:]
		if bytes.HasPrefix(log, tail) {
			return log[len(tail):], true
		}
	}
}

// lastLines is the end of log, in whole lines: at most maxTail, but one line at least.
func lastLines(log []byte) []byte {
	if len(log) <= maxTail {
		return log
	}
	cut := len(log) - maxTail
	if i := bytes.IndexByte(log[cut-1:len(log)-1], '\n'); i >= 0 {
		return log[cut+i:]
	}
	return log[bytes.LastIndexByte(log[:cut], '\n')+1:]
}
