// SPDX-License-Identifier: Apache-2.0

// Command schemas makes testdata/schemas: what the API of some Kubernetes
// versions, and the Prometheus operator's resources, say of the kinds that the
// chart has. They come from the modules of both, which the Go proxy serves:
//
//	go run ./schemas testdata/schemas
package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// versions are the oldest that the chart takes, one between, and a new one.
var versions = []string{"v1.25.16", "v1.29.14", "v1.34.4"}

const operator = "github.com/prometheus-operator/prometheus-operator@v0.85.0"

// kinds are those of the chart, by their names in the API's specification.
var kinds = map[string]string{
	"apps/v1/DaemonSet": "io.k8s.api.apps.v1.DaemonSet",
	"v1/Service":        "io.k8s.api.core.v1.Service",
	"v1/ServiceAccount": "io.k8s.api.core.v1.ServiceAccount",
	"v1/ConfigMap":      "io.k8s.api.core.v1.ConfigMap",
	"v1/Namespace":      "io.k8s.api.core.v1.Namespace",
	"rbac.authorization.k8s.io/v1/ClusterRole":        "io.k8s.api.rbac.v1.ClusterRole",
	"rbac.authorization.k8s.io/v1/ClusterRoleBinding": "io.k8s.api.rbac.v1.ClusterRoleBinding",
	"networking.k8s.io/v1/NetworkPolicy":              "io.k8s.api.networking.v1.NetworkPolicy",
}

type object = map[string]any

// file is one of those that are made.
type file struct {
	From        []string `json:"from"`
	Kinds       object   `json:"kinds"`
	Definitions object   `json:"definitions"`
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "schemas:", err)
		os.Exit(1)
	}
}

func run(to string) error {
	custom, err := customKinds()
	if err != nil {
		return err
	}
	for _, v := range versions {
		dir, err := module("k8s.io/kubernetes@" + v)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, "api/openapi-spec/swagger.json"))
		if err != nil {
			return err
		}
		var spec struct{ Definitions object }
		if err := json.Unmarshal(text, &spec); err != nil {
			return fmt.Errorf("%s: %w", v, err)
		}
		out := file{[]string{"k8s.io/kubernetes@" + v + " api/openapi-spec/swagger.json", operator}, maps.Clone(custom), object{}}
		for kind, name := range kinds {
			out.Kinds[kind] = object{"$ref": "#/definitions/" + name}
			if err := closure(spec.Definitions, name, out.Definitions); err != nil {
				return fmt.Errorf("%s: %w", v, err)
			}
		}
		if text, err = json.Marshal(out); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, v+".json"), append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// module is the folder of a module, which is downloaded.
func module(name string) (string, error) {
	text, err := exec.Command("go", "mod", "download", "-json", name).Output()
	if err != nil {
		return "", fmt.Errorf("go mod download %s: %w", name, err)
	}
	var m struct{ Dir string }
	err = json.Unmarshal(text, &m)
	return m.Dir, err
}

// customKinds are the operator's.
func customKinds() (object, error) {
	dir, err := module(operator)
	if err != nil {
		return nil, err
	}
	out := object{}
	for _, name := range []string{"podmonitors", "prometheusrules"} {
		text, err := os.ReadFile(filepath.Join(dir, "example/prometheus-operator-crd/monitoring.coreos.com_"+name+".yaml"))
		if err != nil {
			return nil, err
		}
		var crd struct {
			Spec struct {
				Names    struct{ Kind string }
				Versions []struct {
					Name   string
					Schema struct{ OpenAPIV3Schema object }
				}
			}
		}
		if err := yaml.Unmarshal(text, &crd); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, v := range crd.Spec.Versions {
			out["monitoring.coreos.com/"+v.Name+"/"+crd.Spec.Names.Kind] = strict(v.Schema.OpenAPIV3Schema)
		}
	}
	return out, nil
}

// closure adds a definition and all that it refers to.
func closure(all object, name string, to object) error {
	if _, done := to[name]; done {
		return nil
	}
	from, ok := all[name].(object)
	if !ok {
		return fmt.Errorf("no definition %s", name)
	}
	to[name] = strict(from)
	for _, ref := range refs(from, nil) {
		if err := closure(all, strings.TrimPrefix(ref, "#/definitions/"), to); err != nil {
			return err
		}
	}
	return nil
}

func refs(v any, found []string) []string {
	switch v := v.(type) {
	case object:
		if ref, ok := v["$ref"].(string); ok {
			found = append(found, ref)
		}
		for _, x := range v {
			found = refs(x, found)
		}
	case []any:
		for _, x := range v {
			found = refs(x, found)
		}
	}
	return found
}

// strict is a schema without its prose that refuses fields that it does not
// name, as kubectl does with --validate=strict.
func strict(s object) object {
	if s["format"] == "int-or-string" || s["x-kubernetes-int-or-string"] == true {
		return object{"type": []any{"integer", "string"}}
	}
	out := object{}
	for _, key := range []string{"$ref", "type", "enum", "required", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems"} {
		if v, ok := s[key]; ok {
			out[key] = v
		}
	}
	if p, ok := s["properties"].(object); ok {
		named := object{}
		for name, x := range p {
			if x, ok := x.(object); ok {
				named[name] = strict(x)
			}
		}
		out["properties"] = named
		if s["x-kubernetes-preserve-unknown-fields"] != true {
			out["additionalProperties"] = false
		}
	}
	for _, key := range []string{"items", "additionalProperties"} {
		if x, ok := s[key].(object); ok {
			out[key] = strict(x)
		}
	}
	return out
}
