// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"io"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/coroner-dev/coroner/internal/engines"
)

// maxConfigz bounds the kubelet's configuration: some 5 KiB.
const maxConfigz = 1 << 20

// Configz is the kubelet's answer at /configz, as the API server hands it on.
type Configz struct {
	Body []byte
	// Refused is why there is none, where the API said so.
	Refused string
}

// ErrNotReached tells that no Run has found the API.
var ErrNotReached = errors.New("no API of Kubernetes was reached")

// Configz asks, once, for the configuration of the node's kubelet. That the API
// refuses is no error: it would again.
func (s *Source) Configz(ctx context.Context) (Configz, error) {
	c := s.asks.Load()
	if c == nil {
		return Configz{}, ErrNotReached
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	body, err := c.configz(ctx, s.opt.Node)
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return Configz{Refused: engines.Cut(err.Error(), engines.MaxReason)}, nil
	}
	return Configz{Body: body}, err
}

func (c *client) configz(ctx context.Context, node string) ([]byte, error) {
	body, err := c.rest.Get().Resource("nodes").Name(node).SubResource("proxy").Suffix("configz").SetHeader("Accept", "application/json").Stream(ctx)
	if err != nil {
		return nil, said("get the kubelet's configz", err)
	}
	defer func() { _ = body.Close() }()
	b, err := io.ReadAll(io.LimitReader(body, maxConfigz+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the kubelet's configz: %w", err)
	case len(b) > maxConfigz:
		return nil, fmt.Errorf("the kubelet's configz is larger than %d bytes", maxConfigz)
	}
	return b, nil
}
