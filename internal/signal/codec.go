// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// Header is the first line of a file of signals: what the inquest must be
// told besides the signals.
type Header struct {
	// Format is always FileFormat.
	Format string `json:"format"`
	Node   string `json:"node"`
	BootID string `json:"boot_id,omitempty"`
	Kernel string `json:"kernel,omitempty"`
	Agent  string `json:"agent,omitempty"`
}

// FileFormat names the form of a file of signals and its version.
const FileFormat = "coroner-signals/1"

// ErrFormat is returned by NewReader for a file that holds no signals.
var ErrFormat = errors.New("not a file of coroner's signals (made by: coroner record FILE)")

var errNoBody = errors.New("no body")

type envelope struct {
	Time      time.Time       `json:"time"`
	Observed  time.Time       `json:"observed"`
	Source    death.Source    `json:"source"`
	User      string          `json:"user,omitempty"`
	Recovered bool            `json:"recovered,omitempty"`
	Kind      string          `json:"kind"`
	Body      json.RawMessage `json:"body"`
}

// Writer writes signals as lines of JSON after a header line.
type Writer struct {
	enc *json.Encoder
}

// NewWriter writes the header; Format is filled in.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	h.Format = FileFormat
	enc := json.NewEncoder(w)
	if err := enc.Encode(h); err != nil {
		return nil, fmt.Errorf("write header: %w", err)
	}
	return &Writer{enc: enc}, nil
}

// Write appends one signal.
func (w *Writer) Write(s Signal) error {
	body, err := json.Marshal(s.Body)
	if err != nil {
		return fmt.Errorf("encode %s signal: %w", s.Body.kind(), err)
	}
	return w.enc.Encode(envelope{s.Time, s.Observed, s.Source, s.User, s.Recovered, s.Body.kind(), body})
}

// Reader reads what a Writer wrote.
type Reader struct {
	Header  Header
	Skipped int // signals of a kind that this version does not know
	dec     *json.Decoder
	line    int
}

// NewReader reads the header.
func NewReader(r io.Reader) (*Reader, error) {
	rd := &Reader{dec: json.NewDecoder(bufio.NewReader(r)), line: 1}
	if err := rd.dec.Decode(&rd.Header); err != nil || rd.Header.Format == "" {
		return nil, ErrFormat
	}
	if rd.Header.Format != FileFormat {
		return nil, fmt.Errorf("file format %q: this version reads %q", rd.Header.Format, FileFormat)
	}
	return rd, nil
}

// Read returns the next signal, and io.EOF after the last. Signals of an
// unknown kind are skipped and counted.
func (r *Reader) Read() (Signal, error) {
	for {
		r.line++
		var e envelope
		if err := r.dec.Decode(&e); err != nil {
			if errors.Is(err, io.EOF) {
				return Signal{}, io.EOF
			}
			return Signal{}, fmt.Errorf("signal %d: %w", r.line, err)
		}
		body, known, err := decodeBody(e.Kind, e.Body)
		if err != nil {
			return Signal{}, fmt.Errorf("signal %d: %s: %w", r.line, e.Kind, err)
		}
		if !known {
			r.Skipped++
			continue
		}
		s := Signal{Time: e.Time.UTC(), Observed: e.Observed.UTC(), Source: e.Source, User: e.User, Recovered: e.Recovered, Body: body}
		if !tellable(s.Time) || !tellable(s.Observed) {
			return Signal{}, fmt.Errorf("signal %d: %s: time out of range", r.line, e.Kind)
		}
		return s, nil
	}
}

// tellable tells whether the moments around t fit the nanoseconds of an int64,
// and years of four digits. The zero time is one that is not known.
func tellable(t time.Time) bool { return t.IsZero() || t.Year() >= 1700 && t.Year() <= 2250 }

// bodies decodes each kind of body.
var bodies = map[string]func(json.RawMessage) (Body, error){
	MarkVictim{}.kind():       decode[MarkVictim],
	OOMInvocation{}.kind():    decode[OOMInvocation],
	Kill{}.kind():             decode[Kill],
	Exit{}.kind():             decode[Exit],
	ReportedKill{}.kind():     decode[ReportedKill],
	ReportedGroup{}.kind():    decode[ReportedGroup],
	ReportedNote{}.kind():     decode[ReportedNote],
	CgroupSeen{}.kind():       decode[CgroupSeen],
	CgroupGone{}.kind():       decode[CgroupGone],
	CgroupCounters{}.kind():   decode[CgroupCounters],
	NodeCounters{}.kind():     decode[NodeCounters],
	ContainerSeen{}.kind():    decode[ContainerSeen],
	ContainerGone{}.kind():    decode[ContainerGone],
	ContainerExit{}.kind():    decode[ContainerExit],
	ContainerStop{}.kind():    decode[ContainerStop],
	ContainerOOM{}.kind():     decode[ContainerOOM],
	ContainerLog{}.kind():     decode[ContainerLog],
	MemoryHistory{}.kind():    decode[MemoryHistory],
	ProcessesEscaped{}.kind(): decode[ProcessesEscaped],
	PIDNamespace{}.kind():     decode[PIDNamespace],
	OOMDaemonWord{}.kind():    decode[OOMDaemonWord],
	PodSeen{}.kind():          decode[PodSeen],
	PodGone{}.kind():          decode[PodGone],
	PodEvents{}.kind():        decode[PodEvents],
	NodeSeen{}.kind():         decode[NodeSeen],
	SourceState{}.kind():      decode[SourceState],
	Lost{}.kind():             decode[Lost],
}

// Kinds lists the kinds of bodies, sorted.
func Kinds() []string { return slices.Sorted(maps.Keys(bodies)) }

func decodeBody(kind string, raw json.RawMessage) (Body, bool, error) {
	decode, known := bodies[kind]
	if !known {
		return nil, false, nil
	}
	b, err := decode(raw)
	return b, true, err
}

func decode[B Body](raw json.RawMessage) (Body, error) {
	var b *B
	if len(raw) > 0 { // absent is no body, as null is
		if err := json.Unmarshal(raw, &b); err != nil {
			return nil, err
		}
	}
	if b == nil {
		return nil, errNoBody
	}
	return *b, nil
}
