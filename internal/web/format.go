// SPDX-License-Identifier: Apache-2.0

package web

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coroner-dev/coroner/internal/death"
)

// maxShown bounds one foreign text on a page; the JSON has it whole.
const maxShown = 4 << 10

// visible shows what cannot be seen: control characters, invalid UTF-8, and
// the characters that turn the direction of text or have no width, which make
// one name look like another. HTML's own characters are the template's matter.
func visible(s string) string {
	cut := len(s) - maxShown
	if cut > 0 {
		s = s[:maxShown]
	}
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || hidden(r) {
			clean = false
			break
		}
	}
	if !clean {
		s = escape(s)
	}
	if cut > 0 {
		s += fmt.Sprintf(" … (%d bytes more)", cut)
	}
	return s
}

func escape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1, hidden(r) && r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case hidden(r):
			fmt.Fprintf(&b, `\u{%04x}`, r)
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

func hidden(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp) || unicode.Is(unicode.Variation_Selector, r) ||
		unicode.IsSpace(r) && r != ' '
}

// fieldValue is s for a field of a form, without what a field cannot hold.
func fieldValue(s string) string {
	return strings.Map(func(r rune) rune {
		if hidden(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// size shows bytes in the unit that suits them.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	f, u := float64(n), 0
	for math.Abs(f) >= 1024 && u < len(units)-1 {
		f, u = f/1024, u+1
	}
	switch {
	case u == 0:
		return fmt.Sprintf("%d B", n)
	case math.Abs(f) < 9.95:
		return fmt.Sprintf("%.1f %s", f, units[u])
	}
	return fmt.Sprintf("%.0f %s", f, units[u])
}

// grouped writes a number with a comma between thousands.
func grouped[N int | int64](v N) string {
	n := int64(v)
	s := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// ago says how long before now t was, in one unit.
func ago(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case d < -time.Minute:
		return "in the future"
	case d < 2*time.Second:
		return "just now"
	}
	return duration(d) + " ago"
}

// duration is d in its largest unit.
func duration(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", float64(d)/float64(time.Millisecond))
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// shortID is as much of a container's id as people know it by.
func shortID(id string) string {
	if len(id) > 12 && strings.Trim(id, "0123456789abcdef") == "" {
		return id[:12]
	}
	return id
}

// who names what died, in a few words.
func who(d *death.Death) string {
	if name := whichContainer(d.Container); name != "" {
		return name
	}
	if d.Unit != "" {
		return d.Unit
	}
	for i := range d.Processes {
		if p := &d.Processes[i]; p.Comm != "" {
			return fmt.Sprintf("%s (pid %d)", p.Comm, p.PID)
		}
	}
	if d.Container != nil && d.Container.Cgroup != "" {
		return d.Container.Cgroup
	}
	return "a " + string(d.Subject)
}

// whichContainer names a container with its pod; "" where neither has a name.
func whichContainer(c *death.Container) string {
	if c == nil {
		return ""
	}
	name := c.Name
	if name == "" {
		name = shortID(c.ID)
	}
	switch {
	case c.Pod == nil:
		return name
	case c.Pod.Name != "" && name != "":
		return c.Pod.Name + " / " + name
	case c.Pod.Name != "":
		return c.Pod.Name
	case name == "" && c.Pod.UID != "":
		return "pod " + c.Pod.UID
	}
	return name
}

// where says in what surroundings it lived.
func where(d *death.Death) string {
	var parts []string
	if c := d.Container; c != nil {
		if c.Pod != nil && c.Pod.Namespace != "" {
			parts = append(parts, c.Pod.Namespace)
		}
		if c.Namespace != "" {
			parts = append(parts, c.Namespace)
		}
		if c.Runtime != "" {
			parts = append(parts, c.Runtime)
		}
	}
	if d.Subject == death.SubjectProcess && d.Container != nil {
		for i := range d.Processes {
			if comm := d.Processes[i].Comm; comm != "" {
				parts = append(parts, "process "+comm)
				break
			}
		}
	}
	return strings.Join(parts, " · ")
}

// tone groups causes by how far the trouble reaches, for the colour.
func tone(c death.Cause) string {
	switch c {
	case death.OOMContainerLimit, death.OOMPodLimit:
		return "own"
	case death.OOMNodeAllocatable, death.OOMAncestorLimit, death.OOMNode, death.OOMCpuset:
		return "wide"
	case death.Killed:
		return "sent"
	}
	return "none"
}
