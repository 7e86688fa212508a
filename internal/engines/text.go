// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/coroner-dev/coroner/internal/death"
)

// Bounds of the text that is taken from an engine.
const (
	MaxID         = 128
	MaxName       = 256
	MaxImage      = 512
	MaxPath       = 4096
	MaxError      = 4096
	MaxLabels     = 64
	MaxLabelName  = 256
	MaxLabelValue = 4096
	MaxVersion    = 32
	MaxProgram    = 64
)

// Cut makes text valid UTF-8 of at most n bytes.
func Cut(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	s = strings.ToValidUTF8(s, "?")
	return strings.Clone(s) // keeps no large text alive
}

// Program is the last part of the path that args begin with; empty: none.
func Program(args ...string) string {
	if len(args) == 0 || args[0] == "" {
		return ""
	}
	return Cut(path.Base(args[0]), MaxProgram)
}

// ValidID tells whether an id is one that can be asked for: nothing that means
// something in a URL is taken. Docker's are 64 hexadecimal digits, containerd's
// anything of these letters.
func ValidID(id string) bool {
	if id == "" || len(id) > MaxID || strings.Trim(id, ".") == "" {
		return false
	}
	for _, c := range []byte(id) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

// DefaultLabels are those that say which workload a container belongs to.
func DefaultLabels() []string {
	return []string{
		"com.docker.compose.project", "com.docker.compose.service",
		"io.kubernetes.*", "com.amazonaws.ecs.*", "com.hashicorp.nomad.*",
	}
}

// Selection says which labels are carried.
type Selection struct {
	names    map[string]bool
	prefixes []string
}

// SelectionOf takes names of labels, and prefixes that end in *.
func SelectionOf(labels []string) Selection {
	s := Selection{names: map[string]bool{}}
	for _, l := range labels {
		if p, ok := strings.CutSuffix(l, "*"); ok {
			s.prefixes = append(s.prefixes, p)
		} else {
			s.names[l] = true
		}
	}
	return s
}

func (s Selection) has(name string) bool {
	if s.names[name] {
		return true
	}
	return slices.ContainsFunc(s.prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// Pick takes the labels that are carried, and counts those that it cut or left
// out at a bound. Of too many, the first by name are taken.
func (s Selection) Pick(all map[string]string) (out map[string]string, lost int) {
	var names []string
	for name := range all {
		if !s.has(name) {
			continue
		}
		if len(name) > MaxLabelName {
			lost++
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) > MaxLabels {
		lost += len(names) - MaxLabels
		names = names[:MaxLabels]
	}
	for _, name := range names {
		if out == nil {
			out = make(map[string]string, len(names))
		}
		if len(all[name]) > MaxLabelValue {
			lost++
		}
		out[Cut(name, MaxLabelName)] = Cut(all[name], MaxLabelValue)
	}
	return out, lost
}

// Workload reads from all of a container's labels what it belongs to; nil: they
// name nothing.
func Workload(name string, labels map[string]string) *death.Workload {
	w := death.WorkloadOf(name, labels)
	if w != nil {
		w.Group, w.Name = Cut(w.Group, MaxName), Cut(w.Name, MaxName)
	}
	return w
}

// signals are Linux' names of signals (include/uapi/asm-generic/signal.h).
var signals = map[string]int{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8, "KILL": 9,
	"USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CONT": 18,
	"STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27,
	"WINCH": 28, "IO": 29, "POLL": 29, "PWR": 30, "SYS": 31, "RTMIN": 34, "RTMAX": 64,
}

// SignalNumber reads "15", "SIGTERM", "TERM" and "SIGRTMIN+3"; 0: not known.
func SignalNumber(s string) int {
	if n, err := strconv.Atoi(s); err == nil {
		return inRange(n)
	}
	s = strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n, ok := signals[s]; ok {
		return n
	}
	if i := strings.IndexAny(s, "+-"); i > 0 {
		base, ok := signals[s[:i]]
		add, err := strconv.Atoi(s[i:])
		if ok && err == nil && strings.HasPrefix(s, "RT") {
			return inRange(base + add)
		}
	}
	return 0
}

func inRange(n int) int {
	if n < 1 || n > 64 {
		return 0
	}
	return n
}

// Instant reads an engine's time; "0001-01-01T00:00:00Z" is none.
func Instant(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() < 1971 || t.Year() > 9999 {
		return time.Time{}
	}
	return t.UTC()
}
