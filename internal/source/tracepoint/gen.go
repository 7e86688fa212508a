// SPDX-License-Identifier: Apache-2.0

package tracepoint

// The object files are committed, so that a build needs no compiler for C. To
// make them anew: apt-get install clang libbpf-dev, then go generate.
//
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags linux -target bpfel,bpfeb -no-global-types -cflags "-O2 -g -Wall -Werror -mcpu=v2" probe bpf/probe.bpf.c
