// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/api"
)

// TestNodesTable: the node nearest to an eviction comes first, and what is not
// known is no 0.
func TestNodesTable(t *testing.T) {
	far, near := sampleMap(t), sampleMap(t)
	far.Node, near.Node = "far", "near\x1b[31m"
	near.Gives = []api.NodeGives{{What: "node", LeftBytes: 1}, {What: "eviction_hard", LeftBytes: 3 << 20}}
	near.Pods, near.Advice = nil, nil
	var b strings.Builder
	if err := nodesTable(&b, []api.NodeMap{{Node: "blind"}, far, near}); err != nil {
		t.Fatal(err)
	}
	want := strings.TrimPrefix(`
NODE          CAPACITY  ALLOCATABLE  WORKING SET  KERNEL   TO EVICTION          EVICTED FIRST  ADVICE
near\x1b[31m  64 GiB    53.9 GiB     57 GiB       4.9 GiB  3 MiB                -              0
far           64 GiB    53.9 GiB     57 GiB       4.9 GiB  6.9 GiB (in 11m30s)  shop/cache-0   5
blind         -         -            -            -        -                    -              0
`, "\n")
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}
