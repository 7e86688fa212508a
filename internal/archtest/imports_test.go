// SPDX-License-Identifier: Apache-2.0

package archtest_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

// layer says what the packages of a folder may import of ours, besides their
// own subfolders. A name ending in a slash is a folder, and so in allows.
type layer struct {
	name   string
	allows []string
}

// layers go upwards. docs/architecture.md draws them.
func layers() []layer {
	const (
		death, signal, host, api = "internal/death", "internal/signal", "internal/host", "internal/api"
		engines, enginetest      = "internal/engines", "internal/engines/enginetest"
		parse, source, sink      = "internal/parse/", "internal/source/", "internal/sink/"
		inquest, verdict         = "internal/inquest", "internal/inquest/verdict"
		recorder, pattern        = "internal/recorder", "internal/recorder/pattern"
		history, web             = "internal/history", "internal/web"
		lastwords, journal       = "internal/lastwords", "internal/journal"
		kubeclient               = "internal/kubeclient"
		nodemap                  = "internal/nodemap"
		cluster, clustertest     = "internal/cluster", "internal/cluster/clustertest"
	)
	return []layer{
		{death, nil},
		{signal, []string{death}},
		{host, nil},
		{parse, []string{death, parse}},
		{api, []string{death}},
		{pattern, nil},
		{verdict, []string{death, parse, pattern}},
		{inquest, []string{death, signal, parse, verdict, pattern}},
		{engines, []string{death, signal}},
		{enginetest, []string{death, signal, engines}},
		{recorder, []string{signal, host, pattern}},
		{kubeclient, nil},
		{source, []string{death, signal, parse, host, engines, kubeclient}},
		{lastwords, []string{signal, parse, host}},
		{journal, []string{signal, parse, host}},
		{sink, []string{death, kubeclient}},
		{nodemap, []string{death, api, host, parse}},
		{history, []string{death}},
		{web, []string{death, api}},
		{"internal/agent", []string{death, signal, parse, host, api, inquest, verdict, recorder, pattern, source, lastwords, journal, kubeclient, sink, history, web, nodemap}},
		{"internal/mixin", []string{death, sink}},
		{cluster, []string{death, signal, api, inquest, source, kubeclient}},
		{clustertest, []string{death, api, history, web}},
		{"internal/oomtest", nil},
		{"internal/archtest", nil},
		{"cmd/", []string{"internal/"}},
		{"test/", []string{"internal/", "test/"}},
		{"deploy/", nil},
		{"bench", nil}, // a module of its own; its tests import what they measure
	}
}

func TestImports_GoDownwards(t *testing.T) {
	for _, f := range repository(t) {
		if f.test {
			continue
		}
		l, ok := layerOf(f.folder)
		if !ok {
			t.Errorf("%s: this folder is in no layer: add a row to layers()", f.path)
			continue
		}
		for _, spec := range f.ast.Imports {
			p, _ := strconv.Unquote(spec.Path.Value)
			ours, ok := strings.CutPrefix(p, module)
			if !ok || within(ours, f.folder+"/") {
				continue
			}
			if !slices.ContainsFunc(l.allows, func(a string) bool { return within(ours, a) }) {
				t.Errorf("%s: %s must not import %s", f.at(spec), l.name, ours)
			}
			forTests := within(ours, "internal/oomtest") || within(ours, "internal/engines/enginetest") || within(ours, "internal/cluster/clustertest")
			if forTests && !within(f.folder, "test/") {
				t.Errorf("%s: %s is for tests", f.at(spec), ours)
			}
		}
	}
}

func TestImports_OnlyInNamedPlaces(t *testing.T) {
	places := map[string][]string{
		"os/exec":       {"internal/oomtest", "cmd/", "test/"},
		"unsafe":        {"internal/source/", "internal/host", "internal/oomtest", "cmd/coroner", "test/cluster/"},
		"log":           nil, // log/slog
		"io/ioutil":     nil,
		"expvar":        nil,
		"net/http":      {"internal/api", "internal/web", "internal/agent", "internal/sink/", "internal/source/kube", "internal/cluster", "internal/cluster/clustertest", "cmd/", "test/"},
		"C":             nil,
		"reflect":       nil,
		"math/rand":     nil, // math/rand/v2
		"os/signal":     {"cmd/", "test/"},
		"embed":         {"internal/web", "internal/history", "internal/source/", "cmd/", "bench"},
		"text/template": nil, // html/template, or fmt
	}
	for _, f := range repository(t) {
		if f.test || f.generated {
			continue
		}
		for _, spec := range f.ast.Imports {
			p, _ := strconv.Unquote(spec.Path.Value)
			allowed, limited := places[p]
			if limited && !slices.ContainsFunc(allowed, func(a string) bool { return within(f.folder, a) }) {
				t.Errorf("%s: %q is not for this place", f.at(spec), p)
			}
		}
	}
}

// layerOf finds the layer of a folder, the closest one first.
func layerOf(folder string) (layer, bool) {
	var best layer
	for _, l := range layers() {
		if (within(folder, l.name) || within(folder, l.name+"/")) && len(l.name) > len(best.name) {
			best = l
		}
	}
	return best, best.name != ""
}

// within tells whether a package is the one named, or below the folder named.
func within(pkg, name string) bool {
	if strings.HasSuffix(name, "/") {
		return strings.HasPrefix(pkg, name)
	}
	return pkg == name
}

func itoa(n int) string { return strconv.Itoa(n) }
