// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/euank/go-kmsg-parser/kmsgparser"
	"github.com/google/cadvisor/utils/oomparser"
	"k8s.io/klog/v2"

	"github.com/coroner-dev/coroner/internal/parse/kernlog"
	"github.com/coroner-dev/coroner/internal/parse/oomreport"
)

const corpus = "../internal/parse/oomreport/testdata/kmsg/"

// turns is how often each side runs, in turns; the median counts.
const turns = 41

// feed is what both sides get: the same records, in the form that each takes.
type feed struct {
	raw      [][]byte
	records  []kernlog.Record
	messages []kmsgparser.Message
	bytes    int // of text
	reports  int
}

// quiet are lines of a working node.
func quiet() []string {
	return []string{
		"usb 1-1: new high-speed USB device number 2 using xhci_hcd",
		`audit: type=1400 audit(1715266358.500:77): apparmor="ALLOWED" operation="open" profile="x" name="/proc/1/status" pid=77 comm="y"`,
		"IPv6: ADDRCONF(NETDEV_CHANGE): veth1a2b3c4d: link becomes ready",
		"cni0: port 3(veth1a2b3c4d) entered blocking state",
		"device veth1a2b3c4d entered promiscuous mode",
		"EXT4-fs (sda1): mounted filesystem with ordered data mode. Opts: (null). Quota mode: none.",
		"Memory: 2048000K/2097152K available (14345K kernel code, 2381K rwdata, 8884K rodata, 2716K init)",
		"Output of something that begins like a kill line but is none, and goes on for a while",
	}
}

func (f *feed) add(t testing.TB, seq int, stamp time.Duration, text []byte) {
	t.Helper()
	raw := fmt.Appendf(nil, "6,%d,%d,-;%s\n", seq, stamp.Microseconds(), text)
	rec, err := kernlog.ParseKmsg(raw)
	if err != nil {
		t.Fatal(err)
	}
	f.raw = append(f.raw, raw)
	f.records = append(f.records, rec)
	f.messages = append(f.messages, kmsgparser.Message{
		Priority: 6, SequenceNumber: seq, Timestamp: time.Unix(1_700_000_000, 0).Add(stamp), Message: string(text) + "\n",
	})
	f.bytes += len(text)
}

// lines repeats lines that are no report.
func lines(t testing.TB, times int) *feed {
	f := &feed{}
	for i := range times {
		for _, l := range quiet() {
			f.add(t, len(f.raw)+1, time.Duration(i)*time.Second, []byte(l))
		}
	}
	return f
}

// reports repeats a real report, one a minute.
func reports(t testing.TB, name string, times int) *feed {
	log, err := os.ReadFile(corpus + name + ".kmsg")
	if err != nil {
		t.Fatal(err)
	}
	f := &feed{reports: times}
	for i := range times {
		for line := range bytes.Lines(log) {
			if rec, err := kernlog.ParseKmsg(line); err == nil {
				f.add(t, len(f.raw)+1, rec.Stamp+time.Duration(i)*time.Minute, bytes.Clone(rec.Text))
			}
		}
	}
	return f
}

// ours takes all records, and gives how many kills they told.
func ours(f *feed, raw bool) (int, time.Duration) {
	var p oomreport.Parser
	var d kernlog.Decoder
	var dst []oomreport.Event
	kills := 0
	began := time.Now()
	for i := range f.records {
		rec := f.records[i]
		if raw {
			rec, _ = d.Kmsg(f.raw[i])
		}
		dst = p.Feed(dst[:0], rec)
		for _, e := range dst {
			if k, ok := e.(*oomreport.Kill); ok && k.Report != nil {
				kills++
			}
		}
	}
	return kills, time.Since(began)
}

// filled is a parser whose messages are there already.
type filled struct{ messages chan kmsgparser.Message }

func (f filled) SeekEnd() error                   { return nil }
func (f filled) Parse() <-chan kmsgparser.Message { return f.messages }
func (f filled) SetLogger(kmsgparser.Logger)      {}
func (f filled) Close() error                     { return nil }
func fill(m []kmsgparser.Message) filled {
	ch := make(chan kmsgparser.Message, len(m))
	for _, x := range m {
		ch <- x
	}
	close(ch)
	return filled{ch}
}

// memory is a log device in memory: a record at each read, as the kernel does.
type memory struct {
	records [][]byte
	next    int
}

func (m *memory) Read(p []byte) (int, error) {
	if m.next == len(m.records) {
		return 0, io.EOF
	}
	m.next++
	return copy(p, m.records[m.next-1]), nil
}
func (m *memory) Seek(int64, int) (int64, error) { return 0, nil }
func (m *memory) Close() error                   { return nil }

// theirs does the same with oomparser. It takes its log from /dev/kmsg and no
// other place, so the parser below it is put there by force.
func theirs(t testing.TB, f *feed, raw bool) (int, time.Duration) {
	t.Helper()
	var below kmsgparser.Parser
	if raw {
		own, err := kmsgparser.NewParser() // opens /dev/kmsg
		if err != nil {
			t.Skipf("oomparser has to begin with the real log: %v", err)
		}
		if err := own.Close(); err != nil {
			t.Fatal(err)
		}
		set(reflect.ValueOf(own).Elem().FieldByName("kmsgReader"), reflect.ValueOf(&memory{records: f.raw}))
		below = own
	} else {
		below = fill(f.messages)
	}
	p := &oomparser.OomParser{}
	set(reflect.ValueOf(p).Elem().FieldByName("parser"), reflect.ValueOf(below))
	out := make(chan *oomparser.OomInstance, f.reports+1)
	began := time.Now()
	p.StreamOoms(out)
	took := time.Since(began)
	return len(out), took
}

// set writes a field that its package keeps to itself.
func set(field, value reflect.Value) {
	reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().Set(value)
}

// compare runs both in turns and gives the median time of each.
func compare(t testing.TB, f *feed, raw bool) (our, their time.Duration) {
	t.Helper()
	var a, b []float64
	for range turns {
		n, took := ours(f, raw)
		if n != f.reports {
			t.Fatalf("coroner found %d reports, want %d", n, f.reports)
		}
		a = append(a, float64(took))
		if n, took = theirs(t, f, raw); n != f.reports {
			t.Fatalf("oomparser found %d reports, want %d", n, f.reports)
		}
		b = append(b, float64(took))
	}
	return time.Duration(quantile(a, .5)), time.Duration(quantile(b, .5))
}

func silence() {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	klog.InitFlags(fs)
	_ = fs.Set("logtostderr", "false")
	_ = fs.Set("alsologtostderr", "false")
	_ = fs.Set("stderrthreshold", "FATAL")
	klog.SetOutput(io.Discard)
}

// TestParsers_SeeTheSame: what is compared is comparable. It runs in CI.
func TestParsers_SeeTheSame(t *testing.T) {
	silence()
	for _, f := range []*feed{lines(t, 2), reports(t, "6.1.0.cgv2.container-limit", 3), reports(t, "6.1.0.cgv1.many-tasks-400", 2)} {
		us, _ := ours(f, true)
		they, _ := theirs(t, f, false)
		if us != f.reports || they != f.reports {
			t.Errorf("coroner found %d, oomparser %d, want %d", us, they, f.reports)
		}
	}
}

func measureParser(t *testing.T, r *Report) {
	silence()
	perLine := func(f *feed, took time.Duration) float64 { return float64(f.bytes) / float64(took.Nanoseconds()) }
	perReport := func(f *feed, took time.Duration) float64 {
		return float64(took.Nanoseconds()) / 1000 / float64(f.reports)
	}
	none := lines(t, 500)
	our, their := compare(t, none, false)
	r.Results["parser.lines"] = Result{Values: []float64{perLine(none, our)}}
	r.Results["parser.lines.peer"] = Result{Values: []float64{perLine(none, their)}}
	r.Results["parser.lines.allocs"] = Result{Values: []float64{allocations(none)}, Remark: "the framing's parsing included"}
	our, _ = compare(t, none, true)
	r.Results["parser.raw"] = Result{Values: []float64{perLine(none, our)}, Remark: "bytes of text, without framing"}

	one := reports(t, "6.1.0.cgv2.container-limit", 100)
	our, their = compare(t, one, false)
	r.Results["parser.report"] = Result{Values: []float64{perReport(one, our)}, Remark: fmt.Sprintf("%d lines", len(one.raw)/one.reports)}
	r.Results["parser.report.peer"] = Result{Values: []float64{perReport(one, their)}}
	r.Results["parser.report.ratio"] = Result{Values: []float64{float64(their) / float64(our)}}
	our, their = compare(t, one, true)
	r.Results["parser.raw.ratio"] = Result{Values: []float64{float64(their) / float64(our)},
		Remark: number(perReport(one, our)) + " against " + number(perReport(one, their)) + " µs"}

	many := reports(t, "6.1.0.cgv1.many-tasks-400", 10)
	our, their = compare(t, many, false)
	r.Results["parser.tasks.ratio"] = Result{Values: []float64{float64(their) / float64(our)},
		Remark: number(perReport(many, our)) + " against " + number(perReport(many, their)) + " µs"}
}

// allocations is how many a line costs, beyond those of the first.
func allocations(f *feed) float64 {
	var p oomreport.Parser
	var d kernlog.Decoder
	var dst []oomreport.Event
	var before, after runtime.MemStats
	for turn := range 2 {
		if turn == 1 {
			runtime.ReadMemStats(&before)
		}
		for _, raw := range f.raw {
			rec, _ := d.Kmsg(raw)
			dst = p.Feed(dst[:0], rec)
		}
	}
	runtime.ReadMemStats(&after)
	// Other goroutines allocate too, a few times in all.
	return float64((after.Mallocs - before.Mallocs) / uint64(len(f.raw)))
}
