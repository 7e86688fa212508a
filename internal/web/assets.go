// SPDX-License-Identifier: Apache-2.0

package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"strings"
)

//go:embed assets templates
var files embed.FS

// asset is one embedded file under a name that changes with its content.
type asset struct {
	content     []byte
	contentType string
}

// contentTypes are those of our assets; the machine's own table may differ.
func contentTypes() map[string]string {
	return map[string]string{
		".css": "text/css; charset=utf-8",
		".js":  "text/javascript; charset=utf-8",
		".svg": "image/svg+xml",
	}
}

// loadAssets returns the assets by their served name, and the served name of
// each file.
func loadAssets() (served map[string]asset, names map[string]string) {
	served, names = map[string]asset{}, map[string]string{}
	entries, err := files.ReadDir("assets")
	if err != nil {
		panic(err) // embedded: cannot be
	}
	for _, e := range entries {
		content, err := files.ReadFile("assets/" + e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(content)
		ext := path.Ext(e.Name())
		name := strings.TrimSuffix(e.Name(), ext) + "." + hex.EncodeToString(sum[:6]) + ext
		served[name] = asset{content, contentTypes()[ext]}
		names[e.Name()] = name
	}
	return served, names
}

// serveAsset serves a file whose name says what is in it, so for ever.
func (p *pages) serveAsset(w http.ResponseWriter, r *http.Request) {
	a, ok := p.assets[r.PathValue("file")]
	if !ok {
		writeError(w, http.StatusNotFound, "there is no such asset")
		return
	}
	w.Header().Set("Content-Type", a.contentType)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(a.content)
}
