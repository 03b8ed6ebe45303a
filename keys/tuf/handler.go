// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tuf

import (
	"net/http"
	"os"
	"regexp"
	"strings"
)

// Prefix is where [Repository.Handler] serves.
const Prefix = "/tuf/"

var servedTarget = regexp.MustCompile(`^targets/(?:[0-9a-f]{64}|[0-9a-f]{128})\.[a-z0-9][a-z0-9._-]{0,99}$`)

// Handler serves the repository's files under [Prefix], to anybody, and
// nothing else that stands in the directory. timestamp.json must be asked for
// each time, everything else never changes.
func (r *Repository) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		name, ok := strings.CutPrefix(req.URL.Path, Prefix)
		caching := "public, max-age=31536000, immutable"
		switch {
		case !ok:
			notFound(w)
			return
		case name == timestampName:
			caching = "no-cache"
		case !numbered.MatchString(name) && !servedTarget.MatchString(name):
			notFound(w)
			return
		}
		dir, err := os.OpenRoot(r.config.Directory) // no link leads out of it
		if err != nil {
			notFound(w)
			return
		}
		defer dir.Close()
		f, err := dir.Open(name)
		if err != nil {
			notFound(w)
			return
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil || !info.Mode().IsRegular() {
			notFound(w)
			return
		}
		h := w.Header()
		h.Set("Cache-Control", caching)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Type", "application/octet-stream")
		if strings.HasSuffix(name, ".json") {
			h.Set("Content-Type", "application/json")
		}
		http.ServeContent(w, req, "", info.ModTime(), f)
	})
}

// notFound must not be remembered: clients ask for the next root until there
// is one.
func notFound(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, "not found", http.StatusNotFound)
}
