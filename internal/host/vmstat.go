// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

// errNoOOMKill is the answer of kernels before 4.13.
var errNoOOMKill = fmt.Errorf("oom_kill of vmstat: %w; Linux 4.13 and later have it", ErrNotSupported)

// NodeOOMKills returns how many processes the OOM killer took on this machine
// since boot (oom_kill of /proc/vmstat). On kernels before 4.13 the error
// wraps ErrNotSupported.
func (r Roots) NodeOOMKills() (uint64, error) {
	v, err := r.OpenVMStat()
	if err != nil {
		return 0, err
	}
	defer v.Close()
	return v.OOMKills()
}

// VMStat reads /proc/vmstat again and again without opening it each time. It
// is for one goroutine.
type VMStat struct {
	f   *os.File
	buf []byte
}

// OpenVMStat opens /proc/vmstat. Close it after use.
func (r Roots) OpenVMStat() (*VMStat, error) {
	f, err := os.Open(r.ProcPath("vmstat"))
	if err != nil {
		return nil, err
	}
	return &VMStat{f: f, buf: make([]byte, 16<<10)}, nil
}

// Close closes the file.
func (v *VMStat) Close() error { return v.f.Close() }

// OOMKills reads the present count, as NodeOOMKills does.
func (v *VMStat) OOMKills() (uint64, error) {
	n := 0
	for {
		if n == len(v.buf) {
			if n >= maxSmallFile {
				return 0, fmt.Errorf("read %s: larger than %d bytes", v.f.Name(), maxSmallFile)
			}
			v.buf = append(v.buf, make([]byte, len(v.buf))...)
		}
		m, err := v.f.ReadAt(v.buf[n:], int64(n))
		n += m
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", v.f.Name(), err)
		}
	}
	return parseVMStatOOMKill(v.buf[:n])
}

// parseVMStatOOMKill finds the line "oom_kill N".
func parseVMStatOOMKill(text []byte) (uint64, error) {
	const key = "oom_kill "
	for len(text) > 0 {
		line := text
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			line, text = text[:i], text[i+1:]
		} else {
			text = nil
		}
		if !bytes.HasPrefix(line, []byte(key)) {
			continue
		}
		n, err := strconv.ParseUint(string(line[len(key):]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse vmstat: oom_kill: %q", clip(string(line)))
		}
		return n, nil
	}
	return 0, errNoOOMKill
}
