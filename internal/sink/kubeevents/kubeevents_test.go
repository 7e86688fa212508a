// SPDX-License-Identifier: Apache-2.0

package kubeevents

import (
	"fmt"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/coroner-dev/coroner/internal/death"
)

// TestFamilies_HaveEachCause: nobody forgot to say whether a cause is told.
func TestFamilies_HaveEachCause(t *testing.T) {
	got := map[death.Cause]int{}
	for _, f := range Families() {
		for _, c := range f.Causes {
			got[c]++
		}
	}
	want := map[death.Cause]int{}
	for _, c := range death.Causes() {
		want[c.Cause] = 1
		if reason := reasonOf(c.Cause); c.OOM && reason != ReasonOOMKilled {
			t.Errorf("%s has the reason %q", c.Cause, reason)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("causes in families (-want +got):\n%s", diff)
	}
}

// TestTake_Wire: an event as it comes over a real connection.
func TestTake_Wire(t *testing.T) {
	r := &rig{api: &api{t: t}}
	srv := httptest.NewServer(r.api)
	defer srv.Close()
	r.start(t, &rest.Config{Host: srv.URL})
	at := time.Now().Add(-time.Second).Truncate(time.Second)
	d := died("d1", death.OOMContainerLimit)
	d.Time, d.Summary = at, "Container main reached its memory limit of 64 MiB."
	r.Take([]death.Death{d})
	r.stop() // and tells what waits
	got, asked := r.api.kept()
	ref := corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: "shop", Name: "web-1", UID: podUID, FieldPath: "spec.containers{main}"}
	want := []corev1.Event{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}, InvolvedObject: ref,
		Type: "Warning", Reason: "OOMKilled", Message: "Container main reached its memory limit of 64 MiB.",
		FirstTimestamp: metav1.NewTime(at), LastTimestamp: metav1.NewTime(at), Count: 1,
		Source: corev1.EventSource{Component: "coroner", Host: "n1"}, ReportingController: "coroner", ReportingInstance: "n1",
	}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(corev1.Event{}, "ObjectMeta.Name", "TypeMeta")); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if len(got) == 1 && !strings.HasPrefix(got[0].Name, "web-1.") || asked != 1 {
		t.Errorf("name %q, %d requests", got[0].Name, asked)
	}
	if st := r.Stat(); st != (Stat{Up: true}) {
		t.Errorf("stat %+v", st)
	}
}

// said are the events that are there, as TYPE REASON of KIND: MESSAGE.
func (r *rig) said() (out []string) {
	all, _ := r.api.kept()
	for _, e := range all {
		out = append(out, fmt.Sprintf("%s %s of %s: %s", e.Type, e.Reason, e.InvolvedObject.Kind, e.Message))
	}
	return out
}

func (r *rig) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, r.said(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// TestTake_Amendments: a death has one event, with what was known after its
// first seconds, and another one only where its cause turned out to be another.
func TestTake_Amendments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := telling(t)
		d := died("d1", death.Killed)
		d.Container.Pod = nil // not known yet
		r.Take([]death.Death{d})
		d = died("d1", death.Killed)
		time.Sleep(hold / 2)
		d = amended(d, death.Killed, "Container main was killed.")
		r.Take([]death.Death{d})
		d = amended(d, death.LivenessProbe, "Its liveness probe failed.")
		r.Take([]death.Death{d})
		time.Sleep(hold - time.Millisecond)
		r.expect(t)
		time.Sleep(time.Millisecond)
		first := "Warning ContainerDied of Pod: Its liveness probe failed."
		r.expect(t, first)

		d = amended(d, death.LivenessProbe, "Its liveness probe failed thrice.")
		r.Take([]death.Death{d})
		older := d
		older.Revision, older.Cause = 2, death.Killed
		r.Take([]death.Death{older})
		time.Sleep(time.Minute)
		r.expect(t, first)

		back := d
		d = amended(d, death.Segfault, "It was a segfault.")
		r.Take([]death.Death{d})
		d = amended(back, death.LivenessProbe, "It was the probe after all.")
		d.Revision++
		r.Take([]death.Death{d})
		time.Sleep(time.Minute)
		r.expect(t, first)

		d = amended(d, death.Segfault, "It was a segfault.")
		r.Take([]death.Death{d})
		time.Sleep(time.Minute)
		second := "Warning ContainerDied of Pod: Told as liveness_probe before; by what is known now: It was a segfault."
		r.expect(t, first, second)

		d = amended(d, death.Stopped, "It was asked to stop.")
		r.Take([]death.Death{d})
		time.Sleep(time.Minute)
		r.expect(t, first, second, "Normal ContainerDied of Pod: Told as segfault before; by what is known now: It was asked to stop.")
		if st := r.Stat(); st != (Stat{Up: true}) {
			t.Errorf("stat %+v", st)
		}
	})
}

// TestTake_NameComesLate: an event waits for the container's name, others do not
// wait for it, and it does not for ever.
func TestTake_NameComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := telling(t)
		nameless := func(id string) death.Death {
			d := died(id, death.OOMContainerLimit)
			d.Container.Name, d.Summary = "", id+" has no name."
			return d
		}
		late, never := nameless("late"), nameless("never")
		r.Take([]death.Death{late, never})
		time.Sleep(time.Second)
		r.Take([]death.Death{died("other", death.Killed)})
		time.Sleep(hold)
		other := "Warning ContainerDied of Pod: " + died("other", death.Killed).Summary
		r.expect(t, other)
		time.Sleep(4 * time.Second)
		late = amended(late, death.OOMContainerLimit, "late has one.")
		named := *late.Container
		named.Name = "main"
		late.Container = &named
		r.Take([]death.Death{late})
		synctest.Wait()
		r.expect(t, other, "Warning OOMKilled of Pod: late has one.")
		time.Sleep(holdName - hold - 6*time.Second)
		r.expect(t, other, "Warning OOMKilled of Pod: late has one.")
		time.Sleep(2 * time.Second)
		r.expect(t, other, "Warning OOMKilled of Pod: late has one.", "Warning OOMKilled of Pod: never has no name.")
	})
}

// TestTake_Untold: what needs no event, and what is of no pod.
func TestTake_Untold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := telling(t)
		known := died("known", death.Error)
		r.Remember([]death.Death{known, died("was-stopped", death.Stopped)})
		var all []death.Death
		for _, c := range []death.Cause{death.Completed, death.Stopped, death.StopTimeout, death.Drained, death.Preempted, death.NodeShutdown} {
			all = append(all, died("c-"+string(c), c))
		}
		recovered := died("recovered", death.Error)
		recovered.Recovered = true
		podless, podman, hostile, evicted := died("podless", death.Error), died("podman", death.Error), died("hostile", death.Error), died("evicted", death.EvictedMemory)
		podless.Container = nil
		podman.Container.Pod = &death.Pod{Name: "web"}
		hostile.Container.Pod = &death.Pod{Namespace: "../../pods", Name: "a/b", UID: "x"}
		evicted.Subject = death.SubjectPod
		all = append(all, recovered, podless, podman, hostile, evicted, amended(known, death.Error, "Read again."))
		r.Take(all)
		withdrawn := died("withdrawn", death.Error)
		r.Take([]death.Death{withdrawn, amended(withdrawn, death.Stopped, "It was asked.")})
		time.Sleep(time.Minute)
		r.expect(t)
		if st := r.Stat(); st != (Stat{Up: true}) {
			t.Errorf("stat %+v", st)
		}
		// What is known of earlier runs can still turn out to be something else.
		r.Take([]death.Death{amended(known, death.Segfault, "A segfault."), amended(died("was-stopped", death.Stopped), death.LivenessProbe, "Its probe failed.")})
		time.Sleep(time.Minute)
		r.expect(t, "Warning ContainerDied of Pod: Told as error before; by what is known now: A segfault.", "Warning ContainerDied of Pod: Its probe failed.")
	})
}

// TestTake_Node: where the machine ran out of memory, the node has an event,
// also for what is in no pod.
func TestTake_Node(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := telling(t)
		unit := died("unit", death.OOMNode)
		unit.Container, unit.Subject, unit.Unit = nil, death.SubjectProcess, "ssh.service"
		r.Take([]death.Death{died("pod", death.OOMNode), unit})
		time.Sleep(time.Minute)
		r.expect(t, "Warning OOMKilled of Pod: Container main died: pod.", "Warning NodeOOM of Node: Container main died: pod.", "Warning NodeOOM of Node: Container main died: unit.")
		all, _ := r.api.kept()
		want := corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: "n1", UID: "n1"}
		if got := all[1]; got.InvolvedObject != want || got.Namespace != "default" {
			t.Errorf("of %+v in %q", got.InvolvedObject, got.Namespace)
		}
	})
}

// TestTake_Storm: kills that a container survives, one after the other, have
// events of their own, then one with a count; the API is asked within the limit
// of the rate, and no kill is uncounted in the end.
func TestTake_Storm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := telling(t)
		const kills = 100
		for i := range kills {
			d := died(fmt.Sprint("kill-", i), death.OOMContainerLimit)
			d.Subject = death.SubjectProcess
			r.Take([]death.Death{d})
			time.Sleep(time.Second)
		}
		time.Sleep(5 * time.Minute)
		last := died("last", death.OOMContainerLimit)
		r.Take([]death.Death{last})
		time.Sleep(time.Minute)
		events, asked := r.api.kept()
		var counted int32
		for _, e := range events {
			counted += e.Count
			if e.ReportingController != "coroner" || e.InvolvedObject.FieldPath != "spec.containers{main}" {
				t.Errorf("event %+v", e)
			}
		}
		// Nine, and one for all others. The rate lets 25 through at once, and two more
		// within the ten minutes.
		if len(events) != 10 || counted != kills+1 || asked > 30 {
			t.Errorf("%d events that count %d, by %d requests; want 10 that count %d, at most 30", len(events), counted, asked, kills+1)
		}
		if e := events[9]; !strings.HasPrefix(e.Message, combined) || !strings.HasSuffix(e.Message, "last.") {
			t.Errorf("the last: %q", e.Message)
		}
		if st := r.Stat(); int(st.Dropped) != kills+1-asked || st.Errors != 0 {
			t.Errorf("stat %+v after %d requests for %d deaths", st, asked, kills+1)
		}
	})
}

// TestTake_EndAfterStorm: kills that a container survived do not hide its end.
func TestTake_EndAfterStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := telling(t)
		for i := range 50 {
			d := died(fmt.Sprint("kill-", i), death.OOMContainerLimit)
			d.Subject = death.SubjectProcess
			r.Take([]death.Death{d})
		}
		r.Take([]death.Death{died("end", death.Error)})
		time.Sleep(time.Minute)
		if all := r.said(); all[len(all)-1] != "Warning ContainerDied of Pod: Container main died: end." {
			t.Errorf("events %q", all)
		}
	})
}

// TestTake_Containers: those of one pod are told apart also in a series.
func TestTake_Containers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := telling(t)
		for i := range 24 {
			d := died(fmt.Sprint("kill-", i), death.OOMContainerLimit)
			d.Container.Name = []string{"main", "side"}[i%2]
			r.Take([]death.Death{d})
			time.Sleep(10 * time.Second)
		}
		events, _ := r.api.kept()
		of := map[string]int32{}
		for _, e := range events {
			of[e.InvolvedObject.FieldPath] += e.Count
		}
		if diff := cmp.Diff(map[string]int32{"spec.containers{main}": 12, "spec.containers{side}": 12}, of); diff != "" {
			t.Errorf("counts (-want +got):\n%s", diff)
		}
	})
}

// TestTake_Kinds: an event names the list of the spec that its container is in.
func TestTake_Kinds(t *testing.T) {
	s := newSink(Options{Node: "n1"})
	for kind, want := range map[death.Kind]string{
		"": "spec.containers{main}", death.KindInit: "spec.initContainers{main}", death.KindSidecar: "spec.initContainers{main}", death.KindEphemeral: "spec.ephemeralContainers{main}",
	} {
		d := died("d1", death.Error)
		d.Container.Kind = kind
		if got := s.events(&d, "", time.Now())[0].InvolvedObject.FieldPath; got != want {
			t.Errorf("kind %q: got %q, want %q", kind, got, want)
		}
	}
}

// TestTake_Hostile: text of others can neither be long nor play tricks.
func TestTake_Hostile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := telling(t)
		for i := range 12 {
			d := died(fmt.Sprint("d", i), death.Error)
			d.Summary = fmt.Sprint(i) + "\x00\x1b[2J\u202e\xff\n" + strings.Repeat("ü", 4000)
			d.Container.Name = "no{label}"
			r.Take([]death.Death{d})
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		events, _ := r.api.kept()
		if len(events) != 10 {
			t.Fatalf("%d events", len(events))
		}
		for _, e := range events {
			if len(e.Message) > maxMessage || strings.ContainsFunc(e.Message, func(c rune) bool { return c == '\ufffd' || c < ' ' || c == '\u202e' }) || e.InvolvedObject.FieldPath != "" {
				t.Errorf("%d bytes %q of %q", len(e.Message), e.Message, e.InvolvedObject.FieldPath)
			}
		}
	})
}

func FuzzBounded(f *testing.F) {
	for _, s := range []string{"", "plain", "\xff\xfe", strings.Repeat("ü", 600), "a\u202eb\x00"} {
		f.Add(s, 40)
	}
	f.Fuzz(func(t *testing.T, s string, n int) {
		n = 3 + max(n, -n)%2000
		got := bounded(s, max(n, 3))
		if len(got) > max(n, 3) || got != bounded(got, max(n, 3)) {
			t.Errorf("%d bytes of %d: %q", len(got), n, got)
		}
		if slices.ContainsFunc([]rune(got), func(c rune) bool { return c == '\ufffd' || c < ' ' }) {
			t.Errorf("%q", got)
		}
	})
}

// TestFamilies_AreDocumented: docs/kubernetes.md has each family's row.
func TestFamilies_AreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range Families() {
		reason := "none"
		if f.Reason != "" {
			reason = "`" + f.Reason + "`"
		}
		var causes []string
		for _, c := range f.Causes {
			causes = append(causes, "`"+string(c)+"`")
		}
		if row := "| " + reason + " | " + strings.Join(causes, ", ") + ": " + f.Why; !strings.Contains(string(text), row) {
			t.Errorf("docs/kubernetes.md has no row %s", row)
		}
	}
}
