// SPDX-License-Identifier: Apache-2.0

// Grow takes memory until Go's runtime is refused more, among as many
// goroutines as are asked for.
package main

import (
	"os"
	"strconv"
)

func main() {
	n := 0
	if len(os.Args) > 1 {
		n, _ = strconv.Atoi(os.Args[1])
	}
	for range n {
		go func() { select {} }()
	}
	var keep [][]byte
	for {
		keep = append(keep, make([]byte, 1<<18))
		for i := range keep[len(keep)-1] {
			keep[len(keep)-1][i] = 1
		}
	}
}
