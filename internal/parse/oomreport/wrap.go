// SPDX-License-Identifier: Apache-2.0

package oomreport

import (
	"math/bits"

	"github.com/coroner-dev/coroner/internal/parse/kernlog"
)

// wrap undoes what terminals do to the lines of a log: they wrap them at a
// width, or cut them there. A line is held until the next one shows whether it
// goes on.
//
// A wrap is only undone where it is proven: pieces of exactly the width of the
// widest line, proof times. Programs that wrap at spaces swallow those, so
// what looks like them is left in pieces. The end of a line is in doubt then.
type wrap struct {
	active bool
	rec    kernlog.Record // its texts lie in the buffers below
	kind   lineKind
	text   []byte
	starts []int // of the pieces in text, but the first
	caller []byte
	width  int // of the latest line

	// framed is true while lines without framing may go on with a line.
	framed bool
	prefix int // width of that line's framing

	widest int
	kinds  uint32 // the kinds of line that have this width
	hits   int    // pieces of this width that were gone on with
}

// proof is how often a wrap must be seen at one width.
const proof = 3

// cut tells whether a line of this width looks cut there: lines of different
// kinds end at the same width, and none is wider.
func (w *wrap) cut(width int) bool {
	return width > 0 && width == w.widest && w.hits < proof && bits.OnesCount32(w.kinds) > 1
}

// note looks at the shape of the next line. It tells whether the line may be a
// piece of the one before it, and whether that one was filled to the width.
func (w *wrap) note(rec *kernlog.Record, kind lineKind) (piece, full bool) {
	width, blanks := len(rec.Line), 0
	for blanks < width && rec.Line[blanks] == ' ' {
		blanks++
	}
	// Printers indent the further lines of one text to where it began.
	piece = rec.Bare && w.framed && width <= w.widest && (blanks < 4 || blanks != w.prefix)
	full = piece && w.width == w.widest
	switch {
	case full:
		w.hits++
	case piece, width > w.widest:
		w.hits = 0
	}
	if width > w.widest {
		w.widest, w.kinds = width, 0
	}
	if width == w.widest && !rec.Bare {
		w.kinds |= 1 << kind
	}
	if !rec.Bare {
		w.prefix = width - len(rec.Text)
	}
	w.framed, w.width = !rec.Bare || piece, width
	return piece, full
}

// hold keeps a line.
func (w *wrap) hold(rec *kernlog.Record, kind lineKind) {
	w.active, w.kind, w.starts = true, kind, w.starts[:0]
	w.text = append(w.text[:0], rec.Text...)
	w.caller = append(w.caller[:0], rec.Caller...)
	w.rec = *rec
	w.rec.Caller, w.rec.BootID = w.caller, nil
}

// add keeps a piece; false: there is no room.
func (w *wrap) add(piece []byte) bool {
	if len(w.starts) >= maxPieces || len(w.text)+len(piece) > maxHeld {
		return false
	}
	w.starts = append(w.starts, len(w.text))
	w.text = append(w.text, piece...)
	return true
}

// wrapped takes a line of a copy of a log.
func (p *Parser) wrapped(dst []Event, rec *kernlog.Record, kind lineKind, words whose, rest []byte) []Event {
	w := &p.wrap
	piece, full := w.note(rec, kind)
	if full && w.active && w.add(rec.Line) {
		return dst
	}
	// A piece of a line that was let go, or for which there was no room.
	stray := full && !w.active
	dst = p.unwrap(dst, piece)
	switch {
	case stray:
		if loose(kind) {
			return dst
		}
	case kind == lineOther && !p.busy:
		return dst
	}
	if piece {
		p.doubt, p.isPiece, p.width = w.cut(len(rec.Line)), true, len(rec.Line)
		dst = p.line(dst, rec, kind, words, rest)
		p.settled()
		return dst
	}
	w.hold(rec, kind)
	return dst
}

// loose tells whether a line of this kind may only seem to begin, when what
// stood before it is lost: "memory+|swap: usage", "two| words invoked ...".
func loose(k lineKind) bool { return k == lineOther || k == lineUsage || k == lineInvoked }

// unwrap takes the line that was held, for the next one is not a piece of it;
// more: it may be one all the same.
func (p *Parser) unwrap(dst []Event, more bool) []Event {
	w := &p.wrap
	if !w.active {
		return dst
	}
	w.active = false
	rec := w.rec
	if w.hits >= proof || len(w.starts) == 0 {
		rec.Text = w.text
		p.width = len(rec.Line)
		p.doubt = more || len(w.starts) == 0 && w.cut(p.width)
		kind, words, rest := classify(rec.Text)
		dst = p.line(dst, &rec, kind, words, rest)
		p.settled()
		return dst
	}
	from := 0
	for i := range len(w.starts) + 1 {
		end := len(w.text)
		if i < len(w.starts) {
			end = w.starts[i]
		}
		rec.Text, rec.Bare = w.text[from:end], i > 0
		from = end
		p.doubt, p.width = true, 0
		kind, words, rest := classify(rec.Text)
		p.isPiece = i > 0
		if i > 0 && loose(kind) {
			// It is a piece of the line that is held, or nothing.
			dst, _ = p.goesOn(dst, &rec, lineOther)
			continue
		}
		dst = p.line(dst, &rec, kind, words, rest)
	}
	p.settled()
	return dst
}

func (p *Parser) settled() {
	p.busy = p.held.kind != lineOther || p.gathering()
	p.doubt, p.isPiece, p.width = false, false, 0
}
