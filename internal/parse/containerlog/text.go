// SPDX-License-Identifier: Apache-2.0

package containerlog

import (
	"bytes"
	"encoding/json"
)

// jsonPart reads a line of Docker's json-file driver, which nerdctl has too:
// {"log":"text\n","stream":"stderr","time":"2026-11-22T12:00:00.123456789Z"}.
// A line of more than 16 KiB is split; all parts but the last lack the \n.
func jsonPart(line []byte) (part, bool) {
	var e struct {
		Log    *string `json:"log"`
		Stream string  `json:"stream"`
		Time   string  `json:"time"`
	}
	if err := json.Unmarshal(line, &e); err != nil || e.Log == nil {
		return part{}, false
	}
	at, ok := stamp(e.Time)
	if !ok {
		return part{}, false
	}
	text := []byte(*e.Log)
	return part{at: at, stream: e.Stream, text: text, more: !bytes.HasSuffix(text, []byte{'\n'})}, true
}

// criPart reads a line of the CRI's format, which podman's k8s-file has too:
// 2016-10-06T00:17:09.669794202Z stderr F text. The tag P says that the line
// goes on in the next; more tags may follow it after a colon.
func criPart(line []byte) (part, bool) {
	when, rest, ok1 := bytes.Cut(line, []byte{' '})
	stream, rest, ok2 := bytes.Cut(rest, []byte{' '})
	tags, text, _ := bytes.Cut(rest, []byte{' '}) // an empty line may end with its tag
	if !ok1 || !ok2 || len(when) > len("2016-10-06T00:17:09.669794202+00:00") {
		return part{}, false
	}
	at, ok := stamp(string(when))
	tag, _, _ := bytes.Cut(tags, []byte{':'})
	if !ok || string(tag) != "F" && string(tag) != "P" {
		return part{}, false
	}
	return part{at: at, stream: string(stream), text: text, more: string(tag) == "P"}, true
}
