// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bufio"
	"net/http"
)

// answerSize is how much of a scrape's answer is sent at once. A server's own
// buffer has 2 KiB, and a scrape of many containers hundreds.
const answerSize = 32 << 10

// answer collects what is written. Having bufio's other ways to write as well,
// it spares the text format a buffer of its own.
type answer struct {
	http.ResponseWriter
	*bufio.Writer
}

func (a answer) Write(b []byte) (int, error) { return a.Writer.Write(b) }

// inLargeParts serves what h does in few parts. Who went away is told of where
// the rest is sent: there is nobody to tell.
func inLargeParts(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := answer{w, bufio.NewWriterSize(w, answerSize)}
		h.ServeHTTP(a, r)
		_ = a.Flush()
	})
}
