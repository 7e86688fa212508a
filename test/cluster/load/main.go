// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command load is what runs in the containers of the cluster's tests. Its
// first argument says what it does; as "pause" it only holds a sandbox.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM)
	args := os.Args[1:]
	if filepath.Base(os.Args[0]) == "pause" {
		args = []string{"wait"}
	}
	if len(args) == 0 {
		fail("say what to do")
	}
	for _, a := range args {
		do(a, signals)
	}
}

// do is one step: sleep=1s, leak=MiB (0: for ever), fast=MiB, leakwait=MiB, child=STEP, exit=N, say=LINE, segv, wait
// (until SIGTERM, then exit 0), deaf (for ever, also to SIGTERM), rm=FILE,
// touch=FILE, test=FILE, await=FILE.
func do(step string, signals chan os.Signal) {
	name, value, _ := strings.Cut(step, "=")
	n, _ := strconv.Atoi(value)
	switch name {
	case "sleep":
		d, err := time.ParseDuration(value)
		if err != nil {
			fail(err)
		}
		time.Sleep(d)
	case "leak":
		leak(n, 10*time.Millisecond)
	case "fast":
		leak(n, 0)
	case "leakwait": // ends with 0 on SIGTERM
		go leak(n, 10*time.Millisecond)
		<-signals
		os.Exit(0)
	case "say":
		fmt.Println(value)
	case "child":
		c := exec.Command("/proc/self/exe", strings.Split(value, ",")...)
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		fmt.Println("child:", c.Run())
	case "exit":
		os.Exit(n)
	case "segv":
		segv()
	case "wait":
		<-signals
		os.Exit(0)
	case "deaf":
		for {
			<-signals
		}
	case "await":
		for {
			if _, err := os.Stat(value); err == nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	case "touch":
		if err := os.WriteFile(value, nil, 0o644); err != nil {
			fail(err)
		}
	case "rm":
		_ = os.Remove(value)
	case "test":
		if _, err := os.Stat(value); err != nil {
			fail(err)
		}
	default:
		fail("no step " + step)
	}
}

// segv takes away Go's handler, and then what a real fault brings.
func segv() {
	var action [4]uint64 // struct sigaction of zeros: SIG_DFL
	if _, _, err := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGSEGV), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0); err != 0 {
		fail(err)
	}
	var nowhere *int
	*nowhere = 1
}

// leak takes memory and keeps it.
func leak(mib int, pause time.Duration) {
	var held [][]byte
	for i := 0; mib == 0 || i < mib; i++ {
		b := make([]byte, 1<<20)
		for at := 0; at < len(b); at += 4096 {
			b[at] = 1
		}
		held = append(held, b)
		time.Sleep(pause)
	}
	runtime.KeepAlive(held)
}

func fail(why any) {
	fmt.Fprintln(os.Stderr, "load:", why)
	os.Exit(1)
}
