// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/coroner-dev/coroner/internal/host"
)

// housekeeping is how often losses are counted and the wall clock is looked at.
const housekeeping = time.Second

// bpf watches through programs in the kernel.
//
// Its ring has 1 MiB. One OOM kill takes some 700 bytes of it (the SIGKILL,
// the mark with a chain of six levels, the exit) and 200 more when its cgroup
// is new: it holds over a thousand kills that nobody has read yet, several
// seconds of a storm as fast as machines kill. Reading is copying; the memory
// is the agent's while it is touched, so it is not larger.
type bpf struct {
	opts    Options
	main    *ebpf.Collection
	extra   *ebpf.Collection // nil where oom_kill_process cannot be traced
	links   []link.Link
	ring    *ringbuf.Reader
	decoder *decoder
	proc    procfs
	reason  string
	// markName is the program for OOM victims that fits this kernel.
	markName string
	seen     tally
}

var errNoTypes = errors.New("kernel's description of its types")

// tally is how much of each loss was told already.
type tally struct {
	lost   [losses]uint64
	missed [2]uint64 // runs of the programs for OOM victims and signals
}

func openBPF(opts Options) (watcher, error) {
	if strconv.IntSize < 64 {
		return nil, fmt.Errorf("kernel programs: %w; 64-bit kernels do", host.ErrNotSupported)
	}
	b := &bpf{opts: opts, proc: newProcfs(opts.Roots)}
	if err := b.open(); err != nil {
		opts.Logger.Debug("load programs", "err", err)
		if cerr := b.close(); cerr != nil {
			opts.Logger.Debug("unload programs", "err", cerr)
		}
		return nil, explain(opts.Roots, err)
	}
	return b, nil
}

func (b *bpf) open() error {
	// To 5.10 maps count against the limit of locked memory. Where the limit
	// cannot be raised, loading says so.
	if err := rlimit.RemoveMemlock(); err != nil {
		b.opts.Logger.Debug("raise locked memory", "err", err)
	}
	types, err := kernelTypes(b.opts.Roots)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoTypes, err)
	}
	all, err := loadProbe()
	if err != nil {
		return err
	}
	b.markName = markProgram(types)
	main := all.Copy()
	for name := range main.Programs {
		if name != b.markName && name != probeProgSignalGenerate && name != probeProgSchedProcessExit {
			delete(main.Programs, name)
		}
	}
	load := ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: types}}
	if b.main, err = ebpf.NewCollectionWithOptions(main, load); err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	b.decoder = newDecoder(func(id uint64) {
		// Its path has to be told again. It may not be marked: no matter.
		_ = b.main.Maps[probeMapSent].Delete(id)
	})
	if b.ring, err = ringbuf.NewReader(b.main.Maps[probeMapRing]); err != nil {
		return fmt.Errorf("open ring: %w", err)
	}
	if err := b.attachInvocation(all, load); err != nil {
		b.reason = "oom_kill_process cannot be traced, so the limit's cgroup comes from other sources: " + rootCause(err)
	}
	// Last the mark, so that what is marked had its kill seen.
	for _, p := range []struct{ event, program string }{
		{"sched_process_exit", probeProgSchedProcessExit},
		{"signal_generate", probeProgSignalGenerate},
		{"mark_victim", b.markName},
	} {
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: p.event, Program: b.main.Programs[p.program]})
		if err != nil {
			return fmt.Errorf("attach to tracepoint %s: %w", p.event, err)
		}
		b.links = append(b.links, l)
	}
	return nil
}

// attachInvocation traces a static function, which a kernel may have inlined
// or refuse to patch.
func (b *bpf) attachInvocation(all *ebpf.CollectionSpec, load ebpf.CollectionOptions) error {
	for name := range all.Programs {
		if name != probeProgOomKillProcess {
			delete(all.Programs, name)
		}
	}
	load.MapReplacements = b.main.Maps
	c, err := ebpf.NewCollectionWithOptions(all, load)
	if err != nil {
		return err
	}
	l, err := link.AttachTracing(link.TracingOptions{Program: c.Programs[probeProgOomKillProcess]})
	if err != nil {
		c.Close()
		return err
	}
	b.extra, b.links = c, append(b.links, l)
	return nil
}

// kernelTypes reads the kernel's description of its own types.
func kernelTypes(r host.Roots) (*btf.Spec, error) {
	if r.Sys == "" {
		return btf.LoadKernelSpec()
	}
	return btf.LoadSpec(r.SysPath("kernel", "btf", "vmlinux"))
}

// markProgram picks the program that fits this kernel's tracepoint: its
// first argument is a number on older kernels, the task on newer ones.
func markProgram(types *btf.Spec) string {
	var def *btf.Typedef
	if err := types.TypeByName("btf_trace_mark_victim", &def); err != nil {
		return probeProgMarkVictimTask
	}
	if ptr, ok := def.Type.(*btf.Pointer); ok {
		if fn, ok := ptr.Target.(*btf.FuncProto); ok && len(fn.Params) > 1 {
			if _, isInt := btf.UnderlyingType(fn.Params[1].Type).(*btf.Int); isInt {
				return probeProgMarkVictimPid
			}
		}
	}
	return probeProgMarkVictimTask
}

func (b *bpf) mode() string   { return ModeBPF }
func (b *bpf) lesser() string { return b.reason }

func (b *bpf) close() error {
	var errs []error
	for _, l := range slices.Backward(b.links) {
		errs = append(errs, l.Close())
	}
	if b.ring != nil {
		errs = append(errs, b.ring.Close())
	}
	for _, c := range []*ebpf.Collection{b.extra, b.main} {
		if c != nil {
			c.Close()
		}
	}
	return errors.Join(errs...)
}

// rootCause returns the innermost error's words: loaders wrap at length.
func rootCause(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}
