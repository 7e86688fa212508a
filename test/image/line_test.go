// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v2"
)

const (
	readme  = "../../README.md"
	compose = "../../deploy/compose/compose.yaml"
)

// option is one option of "docker run" with its value, "" where it has none.
type option struct{ name, value string }

func (o option) String() string { return strings.TrimSpace(o.name + " " + o.value) }

// bare are the options without a value.
func bare() []string { return []string{"-d", "--read-only"} }

// documented reads the line of the README that runs the agent.
func documented(t *testing.T) (options []option, image string) {
	t.Helper()
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n    docker run ")
	if !ok {
		t.Fatal("the README runs no container")
	}
	line := ""
	for part := range strings.Lines(rest) {
		part, more := strings.CutSuffix(strings.TrimSpace(part), `\`)
		line += part + " "
		if !more {
			break
		}
	}
	words := strings.Fields(line)
	for ; len(words) > 1; words = words[1:] {
		o := option{name: words[0]}
		if !slices.Contains(bare(), o.name) {
			words = words[1:]
			o.value = words[0]
		}
		options = append(options, o)
	}
	return options, words[0]
}

// TestCompose_SaysWhatTheLineSays: each option of the README's line stands in
// the compose file, and nothing else.
func TestCompose_SaysWhatTheLineSays(t *testing.T) {
	lists := map[string]string{
		"-p": "ports", "--security-opt": "security_opt", "--cap-drop": "cap_drop", "--cap-add": "cap_add", "--device": "devices", "-v": "volumes",
	}
	single := map[string]string{
		"--name": "container_name", "--restart": "restart", "--pid": "pid", "--cgroupns": "cgroup", "--uts": "uts",
		"--memory": "mem_limit", "--memory-swap": "memswap_limit", "--oom-score-adj": "oom_score_adj",
	}
	options, image := documented(t)
	want := map[string]any{"image": image}
	for _, o := range options {
		switch {
		case o.name == "-d": // compose has "up -d"
		case o.name == "--read-only":
			want["read_only"] = "true"
		case o.name == "--ulimit":
			name, limit, _ := strings.Cut(o.value, "=")
			want["ulimits"] = map[any]any{name: limit}
		case lists[o.name] != "":
			list, _ := want[lists[o.name]].([]any)
			want[lists[o.name]] = append(list, o.value)
		case single[o.name] != "":
			want[single[o.name]] = o.value
		default:
			t.Errorf("what is %s in a compose file?", o)
		}
	}
	text, err := os.ReadFile(compose)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Name     string
		Services map[string]map[string]any
		Volumes  map[string]map[string]string
	}
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		t.Fatal(err)
	}
	got := file.Services["coroner"]
	for key, value := range got {
		got[key] = spoken(value)
	}
	if diff := cmp.Diff(want, got); diff != "" || len(file.Services) != 1 {
		t.Errorf("compose file (-README +compose):\n%s", diff)
	}
	if file.Volumes["coroner"]["name"] != "coroner" {
		t.Errorf("the volume of the compose file is %v, that of the line coroner", file.Volumes)
	}
}

// spoken turns numbers and the like into what stands in the file.
func spoken(value any) any {
	switch v := value.(type) {
	case []any:
		for i := range v {
			v[i] = spoken(v[i])
		}
		return v
	case map[any]any:
		for k := range v {
			v[k] = spoken(v[k])
		}
		return v
	}
	return fmt.Sprint(value)
}
