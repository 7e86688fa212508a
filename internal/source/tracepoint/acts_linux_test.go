// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	dirEnv   = "CORONER_TEST_DIR"   // a directory for this process alone
	countEnv = "CORONER_TEST_COUNT" // how often to do it
)

// machineCode is of amd64: what makes the processor complain.
var machineCode = map[string][]byte{
	"ill":   {0x0f, 0x0b},                                     // ud2
	"fpe":   {0x31, 0xc9, 0x31, 0xc0, 0x31, 0xd2, 0xf7, 0xf1}, // 0 / 0
	"trap":  {0xcc},                                           // int3
	"abort": {0xf4},                                           // hlt: how abort(3) ends where the signal does not
}

// endBy is what a first process does, and how it ends.
func endBy(act string) {
	acts := map[string]func(){
		"exit0": func() {},
		"segv":  touchNothing,
		"bus":   fillTmpfs,
		"sys":   callForbidden,
		"xcpu":  spin,
		"xfsz":  writeTooMuch,
		"deaf": func() {
			ready()
			nextByte()
		},
		"hear": func() {
			hear(syscall.SIGTERM, syscall.SIGUSR1)
			ready()
			nextByte()
			os.Exit(4)
		},
		"heed": func() {
			c := hear(syscall.SIGTERM)
			ready()
			<-c
			nextByte()
			os.Exit(5)
		},
		"raise": func() {
			c := hear(syscall.SIGTERM)
			check(syscall.Kill(os.Getpid(), syscall.SIGTERM))
			<-c
			nextByte()
			os.Exit(8)
		},
		"hearxcpu": func() {
			runtime.GOMAXPROCS(4)
			c := hear(syscall.SIGXCPU)
			go spin()
			<-c
			enough.Store(true) // another second of it would bring another signal
			nextByte()
			os.Exit(6)
		},
		"hearxfsz": func() {
			c := hear(syscall.SIGXFSZ)
			go writeTooMuch()
			<-c
			nextByte()
			os.Exit(7)
		},
		"self": func() {
			hear(syscall.SIGUSR1)
			ready()
			nextByte()
			n, err := strconv.Atoi(os.Getenv(countEnv))
			check(err)
			for range n {
				check(syscall.Kill(os.Getpid(), syscall.SIGUSR1))
			}
		},
		"forge":  forge,
		"parent": parent,
		"child":  child,
		"flood":  flood,
	}
	do := acts[act]
	if code, ok := machineCode[act]; ok {
		do = func() { execute(code) }
	}
	if do == nil {
		fmt.Fprintln(os.Stderr, "no such act:", act)
		os.Exit(12)
	}
	if !slices.Contains([]string{"deaf", "hear", "heed", "self"}, act) {
		nextByte() // the others say when they are ready
	}
	forget(4, 5, 6, 7, 8, 11, 31)
	if act == "deaf" || act == "xcpu" || act == "xfsz" {
		forget(syscall.SIGTERM, syscall.SIGXCPU, syscall.SIGXFSZ)
	}
	if act == "abort" {
		check(unix.Tgkill(os.Getpid(), unix.Gettid(), syscall.SIGABRT))
	}
	do()
	os.Exit(0)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(13)
	}
}

// ready says that the process has its handlers: its name gets a mark.
func ready() { check(os.WriteFile("/proc/self/comm", []byte(os.Getenv(commEnv)+"!"), 0)) }

func hear(sigs ...os.Signal) chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, sigs...)
	return c
}

// forget takes the Go runtime's handlers away.
func forget(sigs ...syscall.Signal) {
	var action [4]uint64 // SIG_DFL, no flags, no restorer, no mask
	for _, sig := range sigs {
		_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
		if errno != 0 {
			check(errno)
		}
	}
}

func touchNothing() {
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	check(err)
	b[0] = 1
}

func execute(code []byte) {
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
	check(err)
	copy(b, code)
	entry := uintptr(unsafe.Pointer(&b[0]))
	closure := &entry
	(*(*func())(unsafe.Pointer(&closure)))()
}

// fillTmpfs writes through a mapping what a tmpfs of its own has no room for.
func fillTmpfs() {
	dir := os.Getenv(dirEnv)
	check(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	check(unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	f, err := os.Create(filepath.Join(dir, "full"))
	check(err)
	check(f.Truncate(1 << 20))
	b, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check(err)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
}

// callForbidden has a filter that kills the process for getppid.
func callForbidden() {
	const retKillProcess = 0x80000000
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_GETPPID},
		{Code: unix.BPF_RET | unix.BPF_K, K: retKillProcess},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	check(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	check(unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0))
	_, _, _ = syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
}

// enough ends spin.
var enough atomic.Bool

// spin uses up one second of CPU time, the limit, and then the hard one.
func spin() {
	check(unix.Setrlimit(unix.RLIMIT_CPU, &unix.Rlimit{Cur: 1, Max: 2}))
	for !enough.Load() {
	}
}

// writeTooMuch writes beyond the limit of a file's size, and ends by itself
// where nothing ends it.
func writeTooMuch() {
	check(unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 4096, Max: 4096}))
	fd, err := unix.Open(filepath.Join(os.Getenv(dirEnv), "long"), unix.O_CREAT|unix.O_WRONLY, 0o600)
	check(err)
	for err == nil {
		_, err = unix.Write(fd, make([]byte, 4096))
	}
	if os.Getenv(actEnv) == "xfsz" {
		os.Exit(9)
	}
}

// forge sends signals to itself that pretend to be the kernel's.
func forge() {
	c := hear(syscall.SIGTERM)
	var set uint64 = 1 << (unix.SIGSEGV - 1) // blocked: nothing comes of it
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, uintptr(unsafe.Pointer(&set)), 0, 8, 0, 0)
	if errno != 0 {
		check(errno)
	}
	for _, sig := range []syscall.Signal{syscall.SIGSEGV, syscall.SIGTERM} {
		var info [128]byte // siginfo_t: si_signo, si_errno, si_code
		binary.NativeEndian.PutUint32(info[:], uint32(sig))
		binary.NativeEndian.PutUint32(info[8:], 128)
		_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_TGSIGQUEUEINFO,
			uintptr(os.Getpid()), uintptr(unix.Gettid()), uintptr(sig), uintptr(unsafe.Pointer(&info)), 0, 0)
		if errno != 0 {
			check(errno)
		}
	}
	<-c
	os.Exit(10)
}

// parent has a child in its pid namespace that signals it, and outlives that.
func parent() {
	c := hear(syscall.SIGTERM, syscall.SIGUSR1)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), actEnv+"="+os.Getenv(innerEnv), commEnv+"=inner")
	cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
	check(cmd.Start())
	<-c
	ready()
	_ = cmd.Wait()
	os.Exit(11)
}

func child() {
	check(syscall.Kill(os.Getppid(), syscall.SIGTERM))
	nextByte()
}

// flood signals its parent without end.
func flood() {
	for ppid := os.Getppid(); ; {
		check(syscall.Kill(ppid, syscall.SIGTERM))
	}
}
