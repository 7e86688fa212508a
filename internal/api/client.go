// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// ErrNotFound is matched by the error for a death that the server does not have.
var ErrNotFound = errors.New("not found")

// ErrUnreachable is matched by the error for a server that does not answer.
var ErrUnreachable = errors.New("no answer")

// maxAnswer bounds what is read of one answer. The server ends a page long before.
const maxAnswer = 64 << 20

// StatusError is an answer that is not a success.
type StatusError struct {
	Address string // what was asked
	Code    int
	Message string // what the server said
	// Reason is Kubernetes' word for why, where its API server answered in place
	// of the agent: Forbidden, NotFound.
	Reason string
}

// Error names the address, the status and the server's own words.
func (e *StatusError) Error() string {
	return fmt.Sprintf("%s: %s (HTTP %d)", e.Address, e.Message, e.Code)
}

// Is makes a 404 match ErrNotFound.
func (e *StatusError) Is(target error) bool {
	return target == ErrNotFound && e.Code == http.StatusNotFound
}

// Client asks an agent or a hub. Make one with NewClient.
type Client struct {
	// Base is the server's address with its route prefix, without a slash at the end.
	Base *url.URL
	// Name is what the server is called where it is shown; empty: its address.
	Name string
	// HTTP does the requests. It must have no Timeout of its own, which would
	// end streams; Deaths, Death and Status are bounded by their context.
	HTTP *http.Client
	// OnMark, when set, hears where a stream stands that has brought no death since:
	// at its begin, and with each heartbeat.
	OnMark func(id string)
	// OnRetry, when set, hears why a stream is broken and when it tries again.
	OnRetry func(err error, wait time.Duration)
}

// NewClient returns a client for the server at address: "host:port" or an
// http or https URL, whose user and password are used. A nil h means
// a client of its own.
func NewClient(address string, h *http.Client) (*Client, error) {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		shown := address[strings.LastIndex(address, "@")+1:] // a password is before that
		return nil, fmt.Errorf("%q is no server's address: want host:port or an http(s) URL (flag --server)", shown)
	}
	if strings.HasPrefix(u.Host, ":") {
		u.Host = "localhost" + u.Host
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawQuery, u.Fragment = "", ""
	if h == nil {
		h = &http.Client{}
	}
	return &Client{Base: u, HTTP: h}, nil
}

// Address is the server's address as it may be shown: without user and password.
func (c *Client) Address() string {
	if c.Name != "" {
		return c.Name
	}
	u := *c.Base
	u.User = nil
	return u.String()
}

// Deaths returns one page.
func (c *Client) Deaths(ctx context.Context, q Query) (DeathsPage, error) {
	var page DeathsPage
	err := c.get(ctx, PathDeaths, q.Values(), &page)
	return page, err
}

// All iterates over every death that q selects, newest first, page by page.
// It ends after the first error.
func (c *Client) All(ctx context.Context, q Query) iter.Seq2[death.Death, error] {
	return func(yield func(death.Death, error) bool) {
		for {
			page, err := c.Deaths(ctx, q)
			if err != nil {
				yield(death.Death{}, err)
				return
			}
			for _, d := range page.Deaths {
				if !yield(d, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			q.Cursor = page.Next
		}
	}
}

// Death returns one death; the error matches ErrNotFound when there is none.
func (c *Client) Death(ctx context.Context, id string) (death.Death, error) {
	var d death.Death
	err := c.get(ctx, PathDeaths+"/"+url.PathEscape(id), nil, &d)
	return d, err
}

// Status returns how the server is doing.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.get(ctx, PathStatus, nil, &s)
	return s, err
}

func (c *Client) get(ctx context.Context, path string, v url.Values, into any) error {
	resp, err := c.do(ctx, path, v, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.Address(), err)
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("the answer of %s is over %d bytes: ask for fewer deaths with --limit", c.Address(), maxAnswer)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%s answers, but not as coroner does: %w (is it coroner's address? flag --server)", c.Address(), err)
	}
	return nil
}

// do sends one request and turns everything but a success into an error.
func (c *Client) do(ctx context.Context, path string, v url.Values, header http.Header) (*http.Response, error) {
	raw := c.Base.String() + path
	if len(v) > 0 {
		raw += "?" + v.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, raw, nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", c.Address(), err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer func() { _ = resp.Body.Close() }()
		return nil, c.refused(resp)
	}
	return resp, nil
}

func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("ask %s: %w", c.Address(), context.Cause(ctx))
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // its own text repeats the whole address
	}
	if c.Name != "" {
		return fmt.Errorf("%w from %s: %w", ErrUnreachable, c.Name, err)
	}
	return fmt.Errorf("%w from %s: %w (is the agent running? start it with: coroner agent; or name another address with --server)",
		ErrUnreachable, c.Address(), err)
}

func (c *Client) refused(resp *http.Response) error {
	e := &StatusError{Address: c.Address(), Code: resp.StatusCode}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var told struct {
		Error
		Message string `json:"message"` // of a Kubernetes API server
		Reason  string `json:"reason"`
	}
	switch err := json.Unmarshal(body, &told); {
	case err == nil && told.Error.Error != "":
		e.Message = told.Error.Error
	case err == nil && told.Message != "":
		e.Message, e.Reason = told.Message, told.Reason
	case resp.StatusCode == http.StatusUnauthorized:
		e.Message = "wants a user and password: --server http://USER:PASSWORD@HOST:PORT"
	case resp.StatusCode == http.StatusNotFound:
		e.Message = "has no such path (is it coroner's address? flag --server)"
	default:
		e.Message = "answers " + http.StatusText(resp.StatusCode)
	}
	return e
}
