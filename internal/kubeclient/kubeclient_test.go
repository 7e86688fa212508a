// SPDX-License-Identifier: Apache-2.0

package kubeclient

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
)

func TestConfig(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := Config(""); !errors.Is(err, ErrAbsent) {
		t.Errorf("outside of a cluster: %v", err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if _, err := Config(path); err == nil || errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), path) {
		t.Errorf("a file that is not there: %v", err)
	}
	text := `{"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "c", "cluster": {"server": "https://api.test:6443"}}],
 "contexts": [{"name": "c", "context": {"cluster": "c"}}], "current-context": "c"}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Config(path)
	if err != nil || c.Host != "https://api.test:6443" {
		t.Fatalf("got %+v, %v", c, err)
	}
	if _, err := Core(c); err != nil {
		t.Error(err)
	}
	if _, err := Core(&rest.Config{Host: "https://\x00"}); err == nil {
		t.Error("a host that is none passed")
	}
}
