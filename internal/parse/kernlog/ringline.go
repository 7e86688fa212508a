// SPDX-License-Identifier: Apache-2.0

package kernlog

// Syslog parses a line of what syslog(2) gives: "<prio>[secs.usec][caller] text".
// Each line of a record of several lines has the same head. Without a stamp,
// as with printk.time=0, the record has none; false: it is no such line.
func Syslog(line []byte) (Record, bool) {
	if len(line) < 3 || line[0] != '<' {
		return Record{}, false
	}
	prio, rest, ok := number(line[1:])
	if !ok || prio > 1<<16 || len(rest) == 0 || rest[0] != '>' {
		return Record{}, false
	}
	rec := Record{Text: rest[1:]}
	rec.setPriority(prio)
	b := rec.Text
	if len(b) == 0 || b[0] != '[' {
		return rec, true
	}
	for b = b[1:]; len(b) > 0 && b[0] == ' '; {
		b = b[1:]
	}
	stamp, b, ok := seconds(b)
	if !ok || len(b) == 0 || b[0] != ']' {
		return rec, true
	}
	rec.Stamp, rec.HasStamp, rec.Text = stamp, true, b[1:]
	if c, after, ok := callerField(rec.Text); ok {
		rec.Caller, rec.Text = c, after
	}
	rec.Text = oneSpace(rec.Text)
	return rec, true
}
