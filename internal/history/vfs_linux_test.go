// SPDX-License-Identifier: Apache-2.0

package history

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// disk is a file system for SQLite that does as it is told: it lies between
// SQLite and its own layer for Unix, fails a call, writes half of what it
// should, and knows what a power cut would leave of each file.
type disk struct {
	t     *testing.T
	name  string
	tls   *libc.TLS
	base  uintptr // SQLite's own sqlite3_vfs
	table uintptr // our sqlite3_io_methods
	// hold keeps the functions that C memory points to.
	hold []any

	mu    sync.Mutex
	calls int
	// plan says what becomes of a call; nil: it is done.
	plan  func(n int, what call) outcome
	open  map[uintptr]string // path of each sqlite3_file
	files map[string]*platter
	dead  bool // after a power cut nothing works any more
}

// call is one of the things that SQLite asks for.
type call string

const (
	callOpen, callDelete           call = "open", "delete"
	callRead, callWrite, callSync  call = "read", "write", "sync"
	callTruncate, callSize         call = "truncate", "size"
	callLock, callShmLock, callShm call = "lock", "shm lock", "shm map"
)

// outcome is what becomes of a call.
type outcome int

const (
	done       outcome = iota
	failed             // with EIO
	full               // with ENOSPC, where that can be
	half               // half of it is done, then EIO
	powerIsCut         // nothing is done any more
)

// platter is what is known of a file's content: what surely outlasts a power
// cut, and what was written since.
type platter struct {
	durable []byte
	since   []write
}

type write struct {
	off  int64
	data []byte // nil: cut at off
}

func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// method calls the function of C that is at fp.
func method[F any](fp uintptr) F { return *(*F)(unsafe.Pointer(&struct{ uintptr }{fp})) }

// realOffset is where in our sqlite3_file that of SQLite's own layer begins.
const realOffset = 16

// pointer gives a Go function to C.
func pointer[F any](d *disk, f F) uintptr {
	p := &f
	d.hold = append(d.hold, p)
	return *(*uintptr)(unsafe.Pointer(p))
}

func newDisk(t *testing.T) *disk {
	t.Helper()
	d := &disk{
		t: t, name: fmt.Sprintf("disk-%p", t), tls: libc.NewTLS(),
		open: map[uintptr]string{}, files: map[string]*platter{},
	}
	d.base = sqlite3.Xsqlite3_vfs_find(d.tls, 0)
	name, err := libc.CString(d.name)
	if err != nil {
		t.Fatal(err)
	}
	d.makeTable()
	own := libc.Xcalloc(d.tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_vfs{})))
	v := at[sqlite3.Tsqlite3_vfs](own)
	*v = *at[sqlite3.Tsqlite3_vfs](d.base)
	v.FpNext, v.FzName, v.FszOsFile = 0, name, v.FszOsFile+realOffset
	v.FxOpen = pointer(d, d.xOpen)
	v.FxDelete = pointer(d, d.xDelete)
	if rc := sqlite3.Xsqlite3_vfs_register(d.tls, own, 0); rc != sqlite3.SQLITE_OK {
		t.Fatalf("register file system: %d", rc)
	}
	t.Cleanup(func() {
		sqlite3.Xsqlite3_vfs_unregister(d.tls, own)
		for _, p := range []uintptr{own, name, d.table} {
			libc.Xfree(d.tls, p)
		}
		d.tls.Close()
		d.hold = nil
	})
	return d
}

// makeTable fills the methods of an open file.
func (d *disk) makeTable() {
	d.table = libc.Xcalloc(d.tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{})))
	m := at[sqlite3.Tsqlite3_io_methods](d.table)
	m.FiVersion = 3
	m.FxClose = pointer(d, d.xClose)
	m.FxRead = pointer(d, d.xRead)
	m.FxWrite = pointer(d, d.xWrite)
	m.FxTruncate = pointer(d, d.xTruncate)
	m.FxSync = pointer(d, d.xSync)
	m.FxFileSize = pointer(d, func(tls *libc.TLS, f, size uintptr) int32 {
		if d.ask(callSize) != done {
			return sqlite3.SQLITE_IOERR_FSTAT
		}
		return method[func(*libc.TLS, uintptr, uintptr) int32](methods(f).FxFileSize)(tls, f+realOffset, size)
	})
	m.FxLock = pointer(d, func(tls *libc.TLS, f uintptr, kind int32) int32 {
		if d.ask(callLock) != done {
			return sqlite3.SQLITE_IOERR_LOCK
		}
		return method[func(*libc.TLS, uintptr, int32) int32](methods(f).FxLock)(tls, f+realOffset, kind)
	})
	m.FxUnlock = pointer(d, func(tls *libc.TLS, f uintptr, kind int32) int32 {
		return method[func(*libc.TLS, uintptr, int32) int32](methods(f).FxUnlock)(tls, f+realOffset, kind)
	})
	m.FxCheckReservedLock = pointer(d, func(tls *libc.TLS, f, out uintptr) int32 {
		return method[func(*libc.TLS, uintptr, uintptr) int32](methods(f).FxCheckReservedLock)(tls, f+realOffset, out)
	})
	m.FxFileControl = pointer(d, func(tls *libc.TLS, f uintptr, op int32, arg uintptr) int32 {
		return method[func(*libc.TLS, uintptr, int32, uintptr) int32](methods(f).FxFileControl)(tls, f+realOffset, op, arg)
	})
	m.FxSectorSize = pointer(d, func(tls *libc.TLS, f uintptr) int32 {
		return method[func(*libc.TLS, uintptr) int32](methods(f).FxSectorSize)(tls, f+realOffset)
	})
	m.FxDeviceCharacteristics = pointer(d, func(*libc.TLS, uintptr) int32 { return 0 }) // no promises
	d.makeShared(m)
}

// makeShared fills the methods of the memory that readers and writers share.
func (d *disk) makeShared(m *sqlite3.Tsqlite3_io_methods) {
	m.FxShmMap = pointer(d, func(tls *libc.TLS, f uintptr, page, size, extend int32, out uintptr) int32 {
		if d.ask(callShm) != done {
			return sqlite3.SQLITE_IOERR_SHMMAP
		}
		return method[func(*libc.TLS, uintptr, int32, int32, int32, uintptr) int32](methods(f).FxShmMap)(tls, f+realOffset, page, size, extend, out)
	})
	m.FxShmLock = pointer(d, func(tls *libc.TLS, f uintptr, offset, n, flags int32) int32 {
		if flags&sqlite3.SQLITE_SHM_LOCK != 0 && d.ask(callShmLock) != done {
			return sqlite3.SQLITE_IOERR_SHMLOCK
		}
		return method[func(*libc.TLS, uintptr, int32, int32, int32) int32](methods(f).FxShmLock)(tls, f+realOffset, offset, n, flags)
	})
	m.FxShmBarrier = pointer(d, func(tls *libc.TLS, f uintptr) {
		method[func(*libc.TLS, uintptr)](methods(f).FxShmBarrier)(tls, f+realOffset)
	})
	m.FxShmUnmap = pointer(d, func(tls *libc.TLS, f uintptr, remove int32) int32 {
		return method[func(*libc.TLS, uintptr, int32) int32](methods(f).FxShmUnmap)(tls, f+realOffset, remove)
	})
	m.FxFetch = pointer(d, func(_ *libc.TLS, _ uintptr, _ int64, _ int32, out uintptr) int32 {
		*at[uintptr](out) = 0 // nothing is mapped, everything is read
		return sqlite3.SQLITE_OK
	})
	m.FxUnfetch = pointer(d, func(*libc.TLS, uintptr, int64, uintptr) int32 { return sqlite3.SQLITE_OK })
}

// methods are those of SQLite's own layer for our file f.
func methods(f uintptr) *sqlite3.Tsqlite3_io_methods {
	return at[sqlite3.Tsqlite3_io_methods](at[sqlite3.Tsqlite3_file](f + realOffset).FpMethods)
}

// ask counts a call and says what becomes of it.
func (d *disk) ask(what call) outcome {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.decide(what)
}

func (d *disk) decide(what call) outcome {
	if d.dead {
		return powerIsCut
	}
	d.calls++
	if d.plan == nil {
		return done
	}
	o := d.plan(d.calls, what)
	d.dead = o == powerIsCut
	return o
}

// set begins to count anew, with another plan.
func (d *disk) set(plan func(n int, what call) outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls, d.plan, d.dead = 0, plan, false
}

func (d *disk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls
}

func (d *disk) xOpen(tls *libc.TLS, _, name, f uintptr, flags int32, out uintptr) int32 {
	at[sqlite3.Tsqlite3_file](f).FpMethods = 0
	switch d.ask(callOpen) {
	case done:
	case full:
		return sqlite3.SQLITE_FULL
	default:
		return sqlite3.SQLITE_CANTOPEN
	}
	base := at[sqlite3.Tsqlite3_vfs](d.base)
	rc := method[func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32](base.FxOpen)(tls, d.base, name, f+realOffset, flags, out)
	if rc != sqlite3.SQLITE_OK {
		return rc
	}
	at[sqlite3.Tsqlite3_file](f).FpMethods = d.table
	path := ""
	if name != 0 {
		path = libc.GoString(name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open[f] = path
	if d.files[path] == nil {
		was, _ := os.ReadFile(path)
		d.files[path] = &platter{durable: was}
	}
	return rc
}

func (d *disk) xDelete(tls *libc.TLS, _, name uintptr, sync int32) int32 {
	if d.ask(callDelete) != done {
		return sqlite3.SQLITE_IOERR_DELETE
	}
	base := at[sqlite3.Tsqlite3_vfs](d.base)
	rc := method[func(*libc.TLS, uintptr, uintptr, int32) int32](base.FxDelete)(tls, d.base, name, sync)
	d.mu.Lock()
	defer d.mu.Unlock()
	if rc == sqlite3.SQLITE_OK {
		delete(d.files, libc.GoString(name))
	}
	return rc
}

func (d *disk) xClose(tls *libc.TLS, f uintptr) int32 {
	d.mu.Lock()
	delete(d.open, f)
	d.mu.Unlock()
	return method[func(*libc.TLS, uintptr) int32](methods(f).FxClose)(tls, f+realOffset)
}

func (d *disk) xRead(tls *libc.TLS, f, buf uintptr, n int32, off int64) int32 {
	if d.ask(callRead) != done {
		return sqlite3.SQLITE_IOERR_READ
	}
	return method[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](methods(f).FxRead)(tls, f+realOffset, buf, n, off)
}

// xWrite holds the lock all through, so that the platter has the writes in order.
func (d *disk) xWrite(tls *libc.TLS, f, buf uintptr, n int32, off int64) int32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	o := d.decide(callWrite)
	switch o {
	case full:
		return sqlite3.SQLITE_FULL
	case failed, powerIsCut:
		return sqlite3.SQLITE_IOERR_WRITE
	case half:
		n /= 2
	}
	rc := method[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](methods(f).FxWrite)(tls, f+realOffset, buf, n, off)
	if rc == sqlite3.SQLITE_OK {
		p := d.files[d.open[f]]
		p.since = append(p.since, write{off, append([]byte{}, unsafe.Slice(at[byte](buf), n)...)})
	}
	if o == half {
		return sqlite3.SQLITE_IOERR_WRITE
	}
	return rc
}

func (d *disk) xTruncate(tls *libc.TLS, f uintptr, size int64) int32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.decide(callTruncate) != done {
		return sqlite3.SQLITE_IOERR_TRUNCATE
	}
	rc := method[func(*libc.TLS, uintptr, int64) int32](methods(f).FxTruncate)(tls, f+realOffset, size)
	if rc == sqlite3.SQLITE_OK {
		p := d.files[d.open[f]]
		p.since = append(p.since, write{off: size})
	}
	return rc
}

// xSync makes what was written durable; it leaves out the real one, which is slow.
func (d *disk) xSync(_ *libc.TLS, f uintptr, _ int32) int32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.decide(callSync) != done {
		return sqlite3.SQLITE_IOERR_FSYNC
	}
	p := d.files[d.open[f]]
	for _, w := range p.since {
		p.durable = w.apply(p.durable)
	}
	p.since = nil
	return sqlite3.SQLITE_OK
}

func (w write) apply(to []byte) []byte {
	if w.data == nil {
		if int64(len(to)) > w.off {
			return to[:w.off:w.off]
		}
		return append(to, make([]byte, w.off-int64(len(to)))...)
	}
	if end := w.off + int64(len(w.data)); int64(len(to)) < end {
		to = append(to, make([]byte, end-int64(len(to)))...)
	}
	copy(to[w.off:], w.data)
	return to
}

// leftBy writes into dir what a power cut leaves of the files: what was
// synced, and of the rest whatever rnd likes, in sectors of 512 bytes. With a
// nil rnd it is a kill -9: the kernel has it all.
func (d *disk) leftBy(rnd *rand.Rand, dir string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for path, p := range d.files {
		if path == "" || strings.HasSuffix(path, "-shm") {
			continue
		}
		content := append([]byte{}, p.durable...)
		luck := 4
		if rnd != nil {
			luck = rnd.IntN(5) // of 4: how much of it is there
		}
		for _, w := range p.since {
			content = w.torn(content, rnd, luck)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), content, 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (w write) torn(to []byte, rnd *rand.Rand, luck int) []byte {
	if luck == 4 {
		return w.apply(to)
	}
	if w.data == nil {
		if rnd.IntN(4) < luck {
			return w.apply(to)
		}
		return to
	}
	for at := 0; at < len(w.data); at += 512 {
		if rnd.IntN(4) < luck {
			to = write{w.off + int64(at), w.data[at:min(at+512, len(w.data))]}.apply(to)
		}
	}
	return to
}
