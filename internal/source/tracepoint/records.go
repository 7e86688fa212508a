// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/coroner-dev/coroner/internal/signal"
)

// The kinds of records in the ring (enum kind of probe.bpf.c).
const (
	kindKill = 1 + iota
	kindMark
	kindExit
	kindInvocation
	kindPath
	kinds
)

// What is lost is counted by kind, and apart from it (enum loss) what is no
// evidence of an OOM kill.
const (
	lossOtherKill = kinds + iota
	lossOtherExit
	lossRepeat
	lossOwnRepeat
	losses
)

var lossNames = [losses]string{
	"", "SIGKILLs of the kernel", "OOM victims", "exits of victims", "OOM invocations", "cgroup paths",
	"signals that are not the OOM killer's", "exits of first processes", heldBack, heldBackOwn,
}

// What is said of signals that came too often to be told.
const (
	heldBack    = "more than 4 a second of one signal to one first process"
	heldBackOwn = "more than 4 a second of one signal of a first process to itself"
)

// The sizes of the records (structs of probe.bpf.c).
const (
	headerSize = 16
	taskSize   = 56
	levelSize  = 32
	killSize   = headerSize + 2*taskSize + 8
	markSize   = headerSize + 2*taskSize + 5*8 + 8 // and levels
	exitSize   = headerSize + taskSize + 8
	callSize   = headerSize + 2*taskSize + 16
	pathSize   = headerSize + 24 // and text
	maxLevels  = 16
)

const (
	levelOOMGroup = 1
	levelRoot     = 2
	absentAdj     = -32768
	absentFigure  = math.MinInt64
)

// Where a task's parent lives (enum place of probe.bpf.c).
const (
	placeSameCgroup  = 1
	placeOtherCgroup = 2
)

// constraints are the names of enum oom_constraint (include/linux/oom.h).
var constraints = [...]string{"CONSTRAINT_NONE", "CONSTRAINT_CPUSET", "CONSTRAINT_MEMORY_POLICY", "CONSTRAINT_MEMCG"}

var (
	errShort = errors.New("shorter than its kind")
	errKind  = errors.New("kind not known")
)

// decoder turns the ring's records into signals. It remembers the paths of
// cgroups, which come in records of their own, before those that name them.
type decoder struct {
	paths    *paths
	order    binary.ByteOrder
	pageSize int64
	key      [16]byte
}

// newDecoder returns a decoder; forgotten is told the ids whose path it gave up.
func newDecoder(forgotten func(id uint64)) *decoder {
	d := &decoder{paths: newPaths(maxPaths, forgotten), order: binary.NativeEndian, pageSize: int64(os.Getpagesize())}
	rand.Read(d.key[:]) // never fails
	return d
}

// decode returns what a record says and when it was made, by the clock that
// counts from boot. The body is nil for a record that names a cgroup.
func (d *decoder) decode(b []byte) (body signal.Body, bootNS uint64, err error) {
	if len(b) < headerSize {
		return nil, 0, fmt.Errorf("record of %d bytes: %w", len(b), errShort)
	}
	bootNS = d.order.Uint64(b)
	kind := d.order.Uint32(b[8:])
	sizes := [kinds]int{0, killSize, markSize, exitSize, callSize, pathSize}
	if kind == 0 || kind >= kinds {
		return nil, 0, fmt.Errorf("record of kind %d: %w", kind, errKind)
	}
	if len(b) < sizes[kind] {
		return nil, 0, fmt.Errorf("record of kind %d, %d bytes: %w", kind, len(b), errShort)
	}
	b = b[headerSize:]
	switch kind {
	case kindKill:
		body = d.kill(b)
	case kindMark:
		body = d.mark(b)
	case kindExit:
		body = d.exit(b)
	case kindInvocation:
		body = d.invocation(b)
	case kindPath:
		return nil, bootNS, d.path(b)
	}
	return body, bootNS, nil
}

func (d *decoder) kill(b []byte) signal.Kill {
	return signal.Kill{
		Target: d.task(b),
		Sender: d.task(b[taskSize:]),
		Signal: int(d.order.Uint16(b[2*taskSize+6:])),
		Code:   int(int32(d.order.Uint32(b[2*taskSize:]))),
		Result: resultOf(int(d.order.Uint16(b[2*taskSize+4:]))),
	}
}

func (d *decoder) mark(b []byte) signal.MarkVictim {
	m := signal.MarkVictim{Victim: d.task(b), Trigger: d.task(b[taskSize:])}
	b = b[2*taskSize:]
	m.Figures = signal.Figures{
		TotalVMBytes:  d.figure(b, d.pageSize),
		FileRSSBytes:  d.figure(b[8:], d.pageSize),
		AnonRSSBytes:  d.figure(b[16:], d.pageSize),
		ShmemRSSBytes: d.figure(b[24:], d.pageSize),
		PgtablesBytes: d.figure(b[32:], 1),
	}
	if adj := int(int32(d.order.Uint32(b[40:]))); adj != absentAdj {
		m.Figures.OOMScoreAdj = &adj
	}
	n := min(int(d.order.Uint32(b[44:])), maxLevels)
	b = b[48:]
	path := m.Victim.Cgroup.Path
	for ; n > 0 && len(b) >= levelSize; n-- {
		l := d.level(b)
		l.Path = path
		path = parentPath(path)
		m.Chain = append(m.Chain, l)
		b = b[levelSize:]
	}
	return m
}

func (d *decoder) level(b []byte) signal.Level {
	id, usage, limit, flags := d.order.Uint64(b), d.order.Uint64(b[8:]), d.order.Uint64(b[16:]), d.order.Uint64(b[24:])
	l := signal.Level{Cgroup: signal.Cgroup{ID: id}, OOMGroup: flags&levelOOMGroup != 0}
	// PAGE_COUNTER_MAX (include/linux/page_counter.h) stands for no limit.
	if limit < uint64(math.MaxInt64/d.pageSize) {
		v := int64(limit) * d.pageSize
		l.LimitBytes = &v
	}
	// The root is not charged: its counter says nothing.
	if flags&levelRoot == 0 && usage < uint64(math.MaxInt64/d.pageSize) {
		v := int64(usage) * d.pageSize
		l.UsageBytes = &v
	}
	return l
}

func (d *decoder) exit(b []byte) signal.Exit {
	return exitOf(d.task(b), d.order.Uint32(b[taskSize:]))
}

// exitOf takes a status as wait(2) gives it.
func exitOf(t signal.Task, status uint32) signal.Exit {
	e := signal.Exit{Task: t}
	if sig := int(status & 0x7f); sig != 0 {
		e.Signal = &sig
	} else {
		code := int(status >> 8 & 0xff)
		e.Code = &code
	}
	return e
}

func (d *decoder) invocation(b []byte) signal.OOMInvocation {
	v := signal.OOMInvocation{
		Chosen:   d.task(b),
		Trigger:  d.task(b[taskSize:]),
		OOMMemcg: d.cgroup(d.order.Uint64(b[2*taskSize:])),
	}
	if c := d.order.Uint32(b[2*taskSize+8:]); int(c) < len(constraints) {
		v.Constraint = constraints[c]
	}
	return v
}

func (d *decoder) path(b []byte) error {
	id, names, size, cut := d.order.Uint64(b), d.order.Uint32(b[8:]), d.order.Uint32(b[12:]), d.order.Uint32(b[16:])
	text := b[24:]
	if uint64(size) > uint64(len(text)) {
		return fmt.Errorf("path of %d bytes in %d: %w", size, len(text), errShort)
	}
	if cut != 0 {
		// A part of a path would name another cgroup.
		d.paths.put(id, "")
		return nil
	}
	path, ok := joinPath(text[:size], int(names))
	if !ok {
		return fmt.Errorf("path of %d names: %w", names, errShort)
	}
	d.paths.put(id, path)
	return nil
}

func (d *decoder) task(b []byte) signal.Task {
	t := signal.Task{
		PID:    int(d.order.Uint32(b[16:])),
		TID:    int(d.order.Uint32(b[20:])),
		Comm:   cString(b[40:taskSize]),
		Cgroup: d.cgroup(d.order.Uint64(b)),
		PIDNS:  uint64(d.order.Uint32(b[28:])),
		MM:     d.opaque(d.order.Uint64(b[8:])),
	}
	if t.PID == 0 && t.Comm == "" { // only the thread's id was given
		return t
	}
	uid := int64(d.order.Uint32(b[24:]))
	t.UID = &uid
	t.Init = initOf(d.order.Uint16(b[32:]), d.order.Uint16(b[34:]), d.order.Uint32(b[36:]))
	return t
}

// initOf tells what signal.Task.Init is, from the depth of a process's own pid
// namespace, where its parent lives, and its id in that namespace.
func initOf(level, parent uint16, nr uint32) *bool {
	var init bool
	switch {
	case nr == 0:
		return nil
	case level == 0 || nr != 1 || parent == placeSameCgroup:
	case parent == placeOtherCgroup:
		init = true
	default:
		return nil
	}
	return &init
}

func (d *decoder) cgroup(id uint64) signal.Cgroup {
	if id == 0 {
		return signal.Cgroup{}
	}
	return signal.Cgroup{ID: id, Path: d.paths.get(id)}
}

// opaque keeps kernel addresses in: equal ones give equal numbers, and
// nothing leads back without the key, which lives as long as the decoder.
func (d *decoder) opaque(addr uint64) uint64 {
	if addr == 0 {
		return 0
	}
	var in [24]byte
	copy(in[:], d.key[:])
	binary.LittleEndian.PutUint64(in[16:], addr)
	sum := sha256.Sum256(in[:])
	return max(1, binary.LittleEndian.Uint64(sum[:8])>>1)
}

func (d *decoder) figure(b []byte, unit int64) *int64 {
	v := int64(d.order.Uint64(b))
	if v == absentFigure || v > math.MaxInt64/unit {
		return nil
	}
	v = max(v, 0) * unit // the kernel, too, takes a counter below 0 for 0
	return &v
}

// cString returns the bytes before the first zero.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
