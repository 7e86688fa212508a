// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"errors"
	"io"
	"net/url"
	"syscall"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// TestSaid: the same trouble has the same words each time that a watch begins,
// and client-go still sees what it is.
func TestSaid(t *testing.T) {
	for _, timeout := range []string{"300", "599"} {
		const at = "https://10.0.0.1:6443/api/v1/pods?watch=true&timeoutSeconds="
		err := said("watch pods", &url.Error{Op: "Get", URL: at + timeout, Err: syscall.ECONNREFUSED})
		if got, want := err.Error(), "watch pods: 10.0.0.1:6443: connection refused"; got != want || !utilnet.IsConnectionRefused(err) {
			t.Errorf("%q, want %q", got, want)
		}
		if err := said("watch pods", &url.Error{Op: "Get", URL: at + timeout, Err: io.EOF}); !utilnet.IsProbableEOF(err) {
			t.Errorf("%v is no end of a connection", err)
		}
	}
	if got := said("list pods", &url.Error{URL: "://", Err: errors.New("x")}).Error(); got != "list pods: the API: x" {
		t.Errorf("got %q", got)
	}
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no"))
	if err := said("list pods", forbidden); !apierrors.IsForbidden(err) {
		t.Errorf("%v", err)
	}
}
