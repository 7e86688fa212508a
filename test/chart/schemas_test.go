// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schemas are what one version of Kubernetes says of the kinds of objects that
// the chart has (see ./schemas).
type schemas struct{ kinds map[string]*jsonschema.Schema }

func versions(t *testing.T) map[string]schemas {
	t.Helper()
	files, err := filepath.Glob("testdata/schemas/v*.json")
	if err != nil || len(files) < 3 {
		t.Fatalf("schemas %v: %v", files, err)
	}
	out := map[string]schemas{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := jsonschema.UnmarshalJSON(f)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		f.Close()
		c := jsonschema.NewCompiler()
		c.DefaultDraft(jsonschema.Draft7)
		if err := c.AddResource("kubernetes.json", text); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s := schemas{map[string]*jsonschema.Schema{}}
		for kind := range text.(object)["kinds"].(object) {
			s.kinds[kind], err = c.Compile("kubernetes.json#/kinds/" + strings.ReplaceAll(kind, "/", "~1"))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		out[strings.TrimSuffix(filepath.Base(name), ".json")] = s
	}
	return out
}

func (s schemas) validate(o object) error {
	kind := fmt.Sprint(o["apiVersion"], "/", o["kind"])
	schema := s.kinds[kind]
	if schema == nil {
		return fmt.Errorf("no kind %s", kind)
	}
	return schema.Validate(o)
}
