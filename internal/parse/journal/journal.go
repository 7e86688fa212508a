// SPDX-License-Identifier: Apache-2.0

// Package journal reads files of systemd's journal from their end (systemd's
// JOURNAL_FILE_FORMAT), without its library. It is made for a few fields of
// the last entries: no index is used, and what is packed is left out.
package journal

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
)

// Entry is one entry of the journal.
type Entry struct {
	// Time is when journald took it, BootID of which boot it is, without dashes.
	Time   time.Time
	BootID string
	// Fields are those that were asked for. A name that begins with an underscore
	// is journald's own: who wrote the entry did not choose its value.
	Fields map[string]string
	// Packed: a field is compressed, and may be one of those.
	Packed bool
}

// What a file must be, else it is refused.
var (
	errSignature = errors.New("no journal file: another signature")
	errFlags     = errors.New("written in a way that is not known here")
	errObject    = errors.New("damaged object")
)

// The bounds of what is read of one file.
const (
	maxArrays = 1024 // each is at least as large as the one before, mostly twice
	maxItems  = 256  // of one entry
	maxField  = 1 << 10
	maxKept   = 4096 // fields that many entries share
)

const (
	headerSize      = 208 // of the first systemd that has this format
	objectSize      = 16
	entrySize       = 64
	arraySize       = 24
	dataSize        = 64
	compactDataSize = 72

	kindData  = 1
	kindEntry = 3
	kindArray = 6

	packedFlags = 1 | 2 | 4 // XZ, LZ4, ZSTD, of an object
	compactFlag = 16        // of a file
	knownFlags  = 1<<5 - 1  // of a file, that make it unreadable if not known
	flagsAt     = 12        // in the header, as the following
	entriesAt   = 152
	arrayAt     = 176
)

// File is a journal file. journald may write to it meanwhile.
type File struct {
	r       io.ReaderAt
	compact bool
	entries uint64
	array   uint64 // the first
	fields  map[string]bool
	known   map[uint64]field // by their place
}

type field struct {
	name, value string
	packed      bool
}

// Open reads the header. The fields are those that entries shall have.
func Open(r io.ReaderAt, fields ...string) (*File, error) {
	head := make([]byte, headerSize)
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	flags := binary.LittleEndian.Uint32(head[flagsAt:])
	switch {
	case string(head[:8]) != "LPKSHHRH":
		return nil, errSignature
	case flags&^uint32(knownFlags) != 0:
		return nil, fmt.Errorf("flags %#x: %w", flags, errFlags)
	}
	f := &File{
		r: r, compact: flags&compactFlag != 0, fields: map[string]bool{}, known: map[uint64]field{},
		entries: binary.LittleEndian.Uint64(head[entriesAt:]), array: binary.LittleEndian.Uint64(head[arrayAt:]),
	}
	for _, name := range fields {
		f.fields[name] = true
	}
	return f, nil
}

// array is one of the chain that lists all entries in their order.
type array struct{ items, used uint64 }

// arrays gives the chain, as far as it is used.
func (f *File) arrays() ([]array, error) {
	var out []array
	left := f.entries
	for at := f.array; at != 0 && left > 0; {
		if len(out) == maxArrays {
			return nil, fmt.Errorf("more than %d lists of entries: %w", maxArrays, errObject)
		}
		b, err := f.object(at, kindArray, arraySize)
		if err != nil {
			return nil, err
		}
		room := (binary.LittleEndian.Uint64(b[8:]) - arraySize) / f.itemSize()
		a := array{at + arraySize, min(left, room)}
		out, left = append(out, a), left-a.used
		next := binary.LittleEndian.Uint64(b[objectSize:])
		if next != 0 && next <= at { // they are appended
			return nil, fmt.Errorf("list at %d follows that at %d: %w", next, at, errObject)
		}
		at = next
	}
	return out, nil
}

func (f *File) itemSize() uint64 {
	if f.compact {
		return 4
	}
	return 8
}

// object reads the first bytes of an object, n of them.
func (f *File) object(at uint64, kind byte, n int) ([]byte, error) {
	b := make([]byte, n)
	if at > 1<<62 {
		return nil, errObject
	}
	if _, err := f.r.ReadAt(b, int64(at)); err != nil {
		return nil, fmt.Errorf("object at %d: %w", at, err)
	}
	if size := binary.LittleEndian.Uint64(b[8:]); b[0] != kind || size < uint64(n) || size > 1<<40 {
		return nil, fmt.Errorf("object at %d, kind %d, %d bytes: %w", at, b[0], size, errObject)
	}
	return b, nil
}

// Back gives the entries from the last one on. An error ends it.
func (f *File) Back() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		lists, err := f.arrays()
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for i := len(lists) - 1; i >= 0; i-- {
			for n := lists[i].used; n > 0; n-- {
				e, err := f.entryOf(lists[i].items + (n-1)*f.itemSize())
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}

// entryOf reads the entry to which a place in a list points.
func (f *File) entryOf(place uint64) (Entry, error) {
	var b [8]byte
	if _, err := f.r.ReadAt(b[:f.itemSize()], int64(place)); err != nil {
		return Entry{}, fmt.Errorf("list of entries: %w", err)
	}
	return f.entry(binary.LittleEndian.Uint64(b[:]))
}

func (f *File) entry(at uint64) (Entry, error) {
	b, err := f.object(at, kindEntry, entrySize)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{
		Time:   time.UnixMicro(int64(binary.LittleEndian.Uint64(b[24:]) & (1<<62 - 1))).UTC(),
		BootID: hex.EncodeToString(b[40:56]), Fields: map[string]string{},
	}
	step := uint64(16) // place and hash
	if f.compact {
		step = 4
	}
	items := make([]byte, min((binary.LittleEndian.Uint64(b[8:])-entrySize)/step, maxItems)*step)
	if _, err := f.r.ReadAt(items, int64(at+entrySize)); err != nil {
		return Entry{}, fmt.Errorf("entry at %d: %w", at, err)
	}
	for ; len(items) > 0; items = items[step:] {
		place := uint64(binary.LittleEndian.Uint32(items))
		if !f.compact {
			place = binary.LittleEndian.Uint64(items)
		}
		d, err := f.data(place)
		if err != nil {
			return Entry{}, err
		}
		e.Packed = e.Packed || d.packed
		if d.name != "" {
			e.Fields[d.name] = d.value
		}
	}
	return e, nil
}

// data reads a field; its name is empty where nobody asked for it.
func (f *File) data(at uint64) (field, error) {
	if d, known := f.known[at]; known {
		return d, nil
	}
	head := dataSize
	if f.compact {
		head = compactDataSize
	}
	b, err := f.object(at, kindData, head)
	if err != nil {
		return field{}, err
	}
	d := field{packed: b[1]&packedFlags != 0}
	if !d.packed {
		text := make([]byte, min(binary.LittleEndian.Uint64(b[8:])-uint64(head), maxField))
		if _, err := f.r.ReadAt(text, int64(at)+int64(head)); err != nil {
			return field{}, fmt.Errorf("field at %d: %w", at, err)
		}
		if name, value, _ := strings.Cut(string(text), "="); f.fields[name] {
			d.name, d.value = name, value
		}
	}
	if len(f.known) < maxKept {
		f.known[at] = d
	}
	return d, nil
}
