// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

//go:generate go test -run ^TestGenerated$ -update .

var update = flag.Bool("update", false, "rewrite what is made of the chart")

// TestGenerated: the manifests and the chart's README are what is made of it.
func TestGenerated(t *testing.T) {
	for file, text := range map[string]string{
		"../../deploy/kubernetes/coroner.yaml": manifests(t),
		filepath.Join(folder, "README.md"):     readme(t),
	} {
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != text {
			t.Errorf("%s is not what is made of the chart: run \"make generate\"", file)
		}
	}
}

const manifestsHead = `# SPDX-License-Identifier: Apache-2.0
# Made of deploy/helm/coroner with its own values by "make generate":
#
#     kubectl apply -f deploy/kubernetes/coroner.yaml
---
apiVersion: v1
kind: Namespace
metadata:
  name: coroner
  labels:
    # What the node's files and capabilities take.
    pod-security.kubernetes.io/enforce: privileged
    pod-security.kubernetes.io/audit: privileged
    pod-security.kubernetes.io/warn: privileged
`

// manifests are the chart's objects for those who have no helm.
func manifests(t *testing.T) string {
	t.Helper()
	r, err := render(load(t), object{}, "v1.34.4")
	if err != nil {
		t.Fatal(err)
	}
	// It was not helm who made them.
	helms := regexp.MustCompile(`(?m)^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n|^# Source: .*\n`)
	return manifestsHead + helms.ReplaceAllString(r.text, "")
}

func readme(t *testing.T) string {
	t.Helper()
	head, err := os.ReadFile("readme.md")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(folder, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return string(head) + "\n| value | by default | what it is |\n|---|---|---|\n" + strings.Join(rows(t, "", doc.Content[0]), "")
}

// rows are those of the values' table. A value without a word is a mistake.
func rows(t *testing.T, below string, of *yaml.Node) (out []string) {
	t.Helper()
	for i := 0; i+1 < len(of.Content); i += 2 {
		key, value := of.Content[i], of.Content[i+1]
		name, words := below+key.Value, said(key)
		if value.Kind == yaml.MappingNode && value.Style&yaml.FlowStyle == 0 && words == "" && !known(name) {
			out = append(out, rows(t, name+".", value)...)
			continue
		}
		short := plain(words)
		if short == "" && !known(name) {
			t.Errorf("values.yaml does not say what %s is", name)
		}
		out = append(out, fmt.Sprintf("| `%s` | `%s` | %s |\n", name, inline(t, value), short))
	}
	return out
}

// known are values whose names say all, as in Kubernetes.
func known(name string) bool {
	return slices.Contains([]string{
		"image.pullPolicy", "serviceAccount.create", "serviceAccount.annotations", "rbac.create", "affinity", "podAnnotations", "podLabels",
		"tolerations", "nodeSelector", "service.annotations", "podMonitor.interval", "podMonitor.scrapeTimeout", "dashboards.labels", "dashboards.annotations",
		"web.port", "terminationGracePeriodSeconds", "updateStrategy",
	}, name)
}

// said is the comment right above a key.
func said(key *yaml.Node) string {
	blocks := strings.Split(key.HeadComment, "\n\n")
	return blocks[len(blocks)-1]
}

func plain(comment string) string {
	var words []string
	for line := range strings.Lines(comment) {
		words = append(words, strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "#")))
	}
	return strings.ReplaceAll(strings.Join(words, " "), "|", "\\|")
}

// inline is a value in one line.
func inline(t *testing.T, v *yaml.Node) string {
	t.Helper()
	var flow func(n *yaml.Node)
	flow = func(n *yaml.Node) {
		n.HeadComment, n.LineComment, n.FootComment = "", "", ""
		if n.Kind != yaml.ScalarNode {
			n.Style |= yaml.FlowStyle
		}
		for _, c := range n.Content {
			flow(c)
		}
	}
	flow(v)
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}
