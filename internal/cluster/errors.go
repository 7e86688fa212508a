// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/coroner-dev/coroner/internal/api"
)

// Error is why a cluster, or one of its agents, did not answer.
type Error struct {
	What   string // what was asked, and of whom
	Remedy string // what to do; empty: nothing that is known
	Err    error
}

// Error says what was asked, and then why it failed.
func (e *Error) Error() string { return e.What + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// said puts into words why the API did not answer, with the right that is missing.
func (c *Cluster) said(verb, resource, namespace string, err error) error {
	where := ""
	if namespace != "" {
		where = " in namespace " + namespace
	}
	e := &Error{What: fmt.Sprintf("%s %s%s (context %s)", verb, resource, where, c.Context), Err: err}
	var broken *url.Error
	switch {
	case apierrors.IsForbidden(err):
		e.Remedy = c.right(verb, resource, namespace)
	case apierrors.IsUnauthorized(err):
		e.Remedy = "the API server does not know this user: log in again, or choose another with --context"
	case errors.Is(err, context.DeadlineExceeded):
		e.Err = fmt.Errorf("no answer within %s: %w", c.limit, context.DeadlineExceeded)
		e.Remedy = "is the cluster reachable from here? kubectl cluster-info; another one: --context"
	case errors.As(err, &broken):
		e.Err = fmt.Errorf("%s: %w", c.base.Host, broken.Err) // its own text repeats the whole address
		e.Remedy = "is the cluster reachable from here? kubectl cluster-info; another one: --context"
	}
	return e
}

// right says which right is missing, and how to see it.
func (c *Cluster) right(verb, resource, namespace string) string {
	in := " -n " + namespace
	if namespace == "" {
		in = " -A"
	}
	return fmt.Sprintf("this user needs the right to %s %s (docs/kubernetes.md); to see it: kubectl auth can-i %s %s%s", verb, resource, verb, resource, in)
}

// refusal puts into words why an agent did not answer.
func (c *Cluster) refusal(a *agent, err error) error {
	e := &Error{What: a.String() + " (context " + c.Context + ")", Err: err}
	var status *api.StatusError
	var broken *url.Error
	switch {
	case errors.As(err, &status) && status.Code == http.StatusForbidden && status.Reason != "":
		e.Err = fmt.Errorf("%s (HTTP %d)", cut(status.Message), status.Code)
		e.Remedy = c.right("get", "pods/proxy", a.namespace)
	case errors.As(err, &status) && status.Code == http.StatusUnauthorized && status.Reason == "":
		e.Err = errors.New("wants a user and password, which the API server's proxy does not pass on")
		e.Remedy = fmt.Sprintf("kubectl port-forward -n %s %s 3001, and --server http://USER:PASSWORD@localhost:3001", a.namespace, a.pod)
	case errors.As(err, &status) && status.Code/100 == 3:
		e.Err = fmt.Errorf("answers with a redirect, which is not followed (HTTP %d)", status.Code)
	case errors.As(err, &status):
		e.Err = fmt.Errorf("%s (HTTP %d)", cut(status.Message), status.Code)
	case errors.Is(err, context.DeadlineExceeded):
		e.Err = fmt.Errorf("no answer within %s: %w", c.limit, context.DeadlineExceeded)
	case errors.As(err, &broken):
		e.Err = broken.Err
	}
	return e
}

// maxWords bounds what is shown of an agent's own words.
const maxWords = 512

func cut(s string) string {
	if len(s) > maxWords {
		return s[:maxWords] + "..."
	}
	return s
}
