// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/oomtest"
)

const writerVariable = "CORONER_RECORDER_WRITER"

// TestMain is also the process that writes a file.
func TestMain(m *testing.M) {
	if spec, ok := os.LookupEnv(writerVariable); ok {
		if err := writeFile(spec); err != nil {
			fmt.Fprintln(os.Stderr, "writer:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	oomtest.Main(m)
}

// testCommand is this binary, as a process that waits for the end of its input
// and writes a file then.
func testCommand(file string, size int) *exec.Cmd {
	c := exec.Command("/proc/self/exe")
	c.Env = []string{writerVariable + "=" + strconv.Itoa(size) + " " + file}
	c.Stderr = os.Stderr
	return c
}

func writeFile(spec string) error {
	n, file, _ := strings.Cut(spec, " ")
	size, err := strconv.Atoi(n)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for ; size > 0; size -= len(block) {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}
