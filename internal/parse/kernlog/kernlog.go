// SPDX-License-Identifier: Apache-2.0

// Package kernlog understands the framings in which the kernel's log reaches
// a reader: raw records of /dev/kmsg (since Linux 3.5), what dmesg, journalctl
// and syslog daemons make of them, and what people paste. It gives back the
// kernel's own text and whatever the framing says about time and origin; it
// does not look at what the text means.
//
// Only raw records, dmesg -x, dmesg --raw and journalctl -o json tell whether
// the kernel or somebody with write access to /dev/kmsg speaks. The other
// framings lose that, so their text is no more trustworthy than their file.
package kernlog

import "time"

// Record is one record of the kernel's log, or one line of a copy of it.
type Record struct {
	// Seq is the record's number in /dev/kmsg, counted from boot.
	Seq    uint64
	HasSeq bool
	// Stamp is the time since boot by printk's clock, which stands still in
	// suspend and drifts against CLOCK_MONOTONIC.
	Stamp    time.Duration
	HasStamp bool
	// Time is the wall time that the framing gives; zero: none.
	Time time.Time
	// Facility and Level are syslog's; -1: the framing does not say.
	Facility, Level int
	// Fragment is set by flag c (or +, before 4.10): the record belongs to
	// the line that the record before it began.
	Fragment bool
	// Bare is true for a line that carried no framing at all.
	Bare bool
	// Caller is the printing context, as in T123 or C0 (CONFIG_PRINTK_CALLER,
	// since 5.1); empty: not known. Like Text it is only valid until the next
	// call, or while the input is.
	Caller []byte
	// BootID is the journal's name of the boot (_BOOT_ID); empty: not known.
	// It is only valid for as long as Text is.
	BootID []byte
	// Line is the whole line as it stands in the copy, without its line end;
	// nil for a record of the device itself and for the journal's objects,
	// which are whole or none.
	Line []byte
	// Text is what the kernel printed, byte by byte.
	Text []byte
}

// unknown is a Record of which nothing is known.
func unknown(text []byte) Record { return Record{Facility: -1, Level: -1, Text: text} }

// setPriority takes a syslog priority apart.
func (r *Record) setPriority(prio uint64) {
	r.Facility, r.Level = int(prio>>3), int(prio&7)
}

// number reads decimal digits from the front of b: up to 19, which a uint64
// holds whatever they are.
func number(b []byte) (n uint64, rest []byte, ok bool) {
	i := 0
	for i < len(b) && isDigit(b[i]) {
		n = n*10 + uint64(b[i]-'0')
		i++
	}
	if i == 0 || i > 19 {
		return 0, b, false
	}
	return n, b[i:], true
}

func isDigit(c byte) bool { return c-'0' < 10 }
