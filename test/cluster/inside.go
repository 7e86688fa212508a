// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dial connects from the cluster's network namespace: a socket stays in the one
// that it was made in, whoever uses it.
func (c *Cluster) dial(ctx context.Context, network, to string) (net.Conn, error) {
	type connection struct {
		net.Conn
		err error
	}
	made := make(chan connection)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		conn, err := func() (net.Conn, error) {
			ns, err := os.Open("/run/netns/" + c.netns)
			if err != nil {
				return nil, err
			}
			defer func() { _ = ns.Close() }()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return nil, fmt.Errorf("setns %s: %w", c.netns, err)
			}
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, to)
		}()
		made <- connection{conn, err}
	}()
	m := <-made
	return m.Conn, m.err
}

// clients makes what asks the agent, and the API server as its administrator:
// a kubectl for each question would be the cluster's biggest load.
func (c *Cluster) clients() error {
	cert, err := tls.LoadX509KeyPair(c.path("admin.crt"), c.path("admin.key"))
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(c.path("ca.crt"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return errors.New("ca.crt has no certificate")
	}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:     c.dial,
		TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool},
	}}
	return nil
}

// open asks for what may never end.
func (c *Cluster) open(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%s: %s: %s", url, resp.Status, text)
	}
	return resp.Body, nil
}

// get asks for an object in JSON.
func (c *Cluster) get(url string, v any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	body, err := c.open(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if err := json.NewDecoder(body).Decode(v); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	return nil
}

// patch changes an object.
func (c *Cluster) patch(url, text string) error {
	req, err := http.NewRequest(http.MethodPatch, url, strings.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/merge-patch+json")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	said, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, said)
	}
	return err
}

// seen is a death as the agent's stream told it, and when.
type seen struct {
	at time.Time
	death
}

// follow gives what the agent's stream tells, from its first line on, until ctx
// ends.
func (c *Cluster) follow(ctx context.Context, namespace string) (<-chan seen, error) {
	body, err := c.open(ctx, agentURL+"/api/v1/deaths/stream?namespace="+namespace)
	if err != nil {
		return nil, err
	}
	out := make(chan seen, 64)
	lines := bufio.NewReader(body)
	if _, err := lines.ReadString('\n'); err != nil { // where it begins
		_ = body.Close()
		return nil, err
	}
	go func() {
		defer close(out)
		defer func() { _ = body.Close() }()
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			text, ok := strings.CutPrefix(line, "data: ")
			s := seen{at: time.Now()}
			if ok && json.Unmarshal([]byte(text), &s.death) == nil {
				out <- s
			}
		}
	}()
	return out, nil
}

// podStatus is what is looked at of a pod.
type podStatus struct {
	Metadata struct{ Name, UID string }
	Status   struct {
		Phase, Reason     string
		ContainerStatuses []struct {
			Name, ContainerID string
			RestartCount      int
			State, LastState  struct {
				Running    *struct{}
				Terminated *struct {
					ExitCode int
					Reason   string
				}
			}
			Resources struct {
				Limits map[string]string
			}
		}
	}
}

// pod is a namespace's pod p, as the API has it.
func (c *Cluster) pod(namespace string) (p podStatus, err error) {
	err = c.get(server+"/api/v1/namespaces/"+namespace+"/pods/p", &p)
	return p, err
}
