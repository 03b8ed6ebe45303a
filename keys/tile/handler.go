// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tile

import (
	"bytes"
	"net/http"
	"strings"
	"time"
)

// Handler serves the log as c2sp.org/tlog-tiles says, from the root of its
// paths: checkpoint, and the tiles and bundles of the public tree. It knows no
// other paths, and nothing of a tree that is not public.
func (l *Log) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		path := strings.TrimPrefix(r.URL.Path, "/")
		p, isPlace := l.config.Layout.parsePath(path)
		if !isPlace && path != checkpointName {
			notFound(w)
			return
		}
		cp, err := l.checkpoint()
		if err != nil { // closed: nothing is served of a log that contradicts itself
			unavailable(w)
			return
		}
		if path == checkpointName {
			serve(w, r, "text/plain; charset=utf-8", "no-cache", cp.note)
			return
		}
		if !p.within(cp.size) {
			notFound(w)
			return
		}
		b, err := l.config.read(p, cp.size)
		if err != nil {
			unavailable(w)
			return
		}
		serve(w, r, "application/octet-stream", "public, max-age=31536000, immutable", b)
	})
}

func serve(w http.ResponseWriter, r *http.Request, contentType, cache string, b []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", cache)
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

func notFound(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store") // it may be there tomorrow
	http.Error(w, "not found", http.StatusNotFound)
}

func unavailable(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, "the log cannot be read now", http.StatusServiceUnavailable)
}
