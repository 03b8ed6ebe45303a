// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"html/template"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"provost/attest"
)

// The pages that builder.ids and build types resolve to (SLSA v1.2 provenance:
// builder.id and buildType SHOULD resolve to what they stand for). They are
// public: whoever verifies provenance needs a builder's scope, and so its
// condition, with the names and values of claims in it. Who proposed or approved
// a builder is nobody's business, and what is only proposed is not public.

//go:embed pages
var pageFiles embed.FS

var pageTemplates = template.Must(template.New("").Funcs(template.FuncMap{
	"date": func(t time.Time) string { return t.UTC().Format("2006-01-02") },
	"join": func(all []string) string { return strings.Join(all, ", ") },
	"text": func(v jsontext.Value) string { return string(v) },
}).ParseFS(pageFiles, "pages/*.html"))

const (
	pageMaxAge  = 60 // seconds
	pageTimeout = 5 * time.Second
	// pagePolicy lets a page load nothing, run nothing and be shown in no frame.
	pagePolicy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	// exampleService stands in the embedded examples for this service.
	exampleService = "https://provost.example"
)

// routePages adds the pages. What a router answers for GET alone, proxies ask
// with HEAD, too.
func (s *Server) routePages(e *echo.Echo) {
	for path, h := range map[string]echo.HandlerFunc{
		"/builders":                    s.buildersPage,
		"/builders/:name":              s.builderPage,
		"/builders/:name/level/:level": s.builderPage,
		"/buildtypes":                  s.buildTypesPage,
		"/buildtypes/:name/v1":         s.buildTypePage,
	} {
		e.GET(path, h)
		e.HEAD(path, h)
	}
}

// A pageCache has the pages of the registry as it was last read, so that
// strangers who ask cost no reading: it reads at most every [registryFresh], and a
// builder's history once for each revision of the registry.
type pageCache struct {
	mu       sync.Mutex
	read     time.Time
	failed   error // of that reading; nil if it succeeded
	revision int64
	names    []string
	made     map[string]*builderHistory // nil for a name without a page
}

// A builderHistory is what a builder's pages are made of.
type builderHistory struct {
	holds   attest.Builder // the row that held last: never one that was only proposed
	retired bool
	top     int // the highest level at which the service ever wrote for it; 0 for control planes
	rows    []attest.Builder
}

// histories returns those of all builders that have a page, or of the one of a
// name, which is an [attest.ErrNotFound] if it has none. It is closed: what
// cannot be read is an error, and no page of yesterday.
func (s *Server) histories(ctx context.Context, names ...string) ([]*builderHistory, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pageTimeout)
	defer cancel()
	c := &s.pages
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := s.now(); c.read.IsZero() || now.Sub(c.read) >= registryFresh || now.Before(c.read) {
		rows, revision, err := s.builders.Builders(ctx)
		if c.read, c.failed = s.now(), err; err != nil {
			return nil, fmt.Errorf("builder registry: %w", err)
		}
		if c.made == nil || c.revision != revision {
			c.made, c.names, c.revision = map[string]*builderHistory{}, nil, revision
			for _, b := range rows {
				c.names = append(c.names, b.Name)
			}
			slices.Sort(c.names)
			c.names = slices.Compact(c.names)
		}
	}
	if c.failed != nil { // those who waited for it do not ask again
		return nil, fmt.Errorf("builder registry: %w", c.failed)
	}
	one := len(names) > 0
	if !one {
		names = c.names
	}
	var found []*builderHistory
	for _, name := range names {
		if !slices.Contains(c.names, name) {
			continue
		}
		h, ok := c.made[name]
		if !ok {
			rows, err := s.builders.BuilderHistory(ctx, name)
			if err != nil {
				c.failed = err
				return nil, fmt.Errorf("builder registry: %w", err)
			}
			h = newBuilderHistory(rows)
			c.made[name] = h
		}
		if h != nil {
			found = append(found, h)
		}
	}
	if one && len(found) == 0 {
		return nil, fmt.Errorf("%w: no such builder", attest.ErrNotFound)
	}
	return found, nil
}

// newBuilderHistory is nil for a builder that never spoke for anything. The row
// by which a builder was retired may have the words of a proposal that nobody
// approved, so nothing of it counts but its date.
func newBuilderHistory(rows []attest.Builder) *builderHistory {
	var h builderHistory
	for _, b := range rows {
		switch b.State {
		case attest.BuilderActive:
			h.holds, h.retired = b, false
			if b.Mode == attest.ModeToken { // what a control plane submits has its full id, or none
				h.top = max(h.top, b.Level)
			}
		case attest.BuilderRetired:
			h.retired = true
		default:
			continue
		}
		h.rows = append(h.rows, b)
	}
	if h.holds.Name == "" {
		return nil
	}
	return &h
}

func (s *Server) buildersPage(c echo.Context) error {
	if _, err := none(c); err != nil {
		return err
	}
	all, err := s.histories(c.Request().Context())
	if err != nil {
		return err
	}
	page := builderIndex{Builders: []builderEntry{}}
	for _, h := range all {
		page.Builders = append(page.Builders, builderEntry{
			Name: h.holds.Name, BuilderID: h.holds.BuilderID(s.auth.service, h.holds.Level),
			Page: attest.BuilderURI(s.auth.service, h.holds.Name), Level: h.holds.Level, State: h.state(),
		})
	}
	return writePage(c, "builders", page)
}

func (s *Server) builderPage(c echo.Context) error {
	if _, err := none(c); err != nil {
		return err
	}
	name, err := param(c, "name")
	if err != nil {
		return err
	}
	found, err := s.histories(c.Request().Context(), name)
	if err != nil {
		return err
	}
	h := found[0]
	level := h.holds.Level
	if n := c.Param("level"); n != "" {
		// Below its own level now, or below the one it had when it signed.
		if level, err = strconv.Atoi(n); err != nil || strconv.Itoa(level) != n || level < 1 || level >= h.top {
			return fmt.Errorf("%w: the builder has no such level", attest.ErrNotFound)
		}
	}
	return writePage(c, "builder", s.describeBuilder(h, level, c.Param("level") != ""))
}

func (s *Server) buildTypesPage(c echo.Context) error {
	if _, err := none(c); err != nil {
		return err
	}
	page := buildTypeIndex{}
	for _, t := range attest.BuildTypes {
		page.BuildTypes = append(page.BuildTypes, buildTypeEntry{t.Name, attest.BuildTypeURI(s.auth.service, t.Name), t.Title})
	}
	page.BuildTypes = append(page.BuildTypes, buildTypeEntry{"", attest.GitHubWorkflowType, attest.GitHubWorkflow.Title})
	return writePage(c, "buildtypes", page)
}

func (s *Server) buildTypePage(c echo.Context) error {
	if _, err := none(c); err != nil {
		return err
	}
	name, err := param(c, "name")
	if err != nil {
		return err
	}
	t, ok := attest.FindBuildType(name)
	if !ok {
		return fmt.Errorf("%w: no such build type", attest.ErrNotFound)
	}
	page, err := describeBuildType(s.auth.service, t)
	if err != nil {
		return err
	}
	return writePage(c, "buildtype", page)
}

// writePage answers with JSON for those who prefer it and say so, and with HTML
// for all others.
func writePage(c echo.Context, name string, page any) error {
	h := c.Response().Header()
	contentType, body := echo.MIMEApplicationJSON, []byte(nil)
	var err error
	if prefersJSON(c.Request().Header.Values("Accept")) {
		body, err = json.Marshal(page, json.Deterministic(true))
	} else {
		var out bytes.Buffer
		err = pageTemplates.ExecuteTemplate(&out, name, map[string]any{"Page": page, "Up": strings.Repeat("../", strings.Count(c.Path(), "/")-1)})
		contentType, body = echo.MIMETextHTMLCharsetUTF8, out.Bytes()
	}
	if err != nil {
		return fmt.Errorf("page: %w", err)
	}
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "public, max-age="+strconv.Itoa(pageMaxAge))
	h.Set("Vary", "Accept")
	return c.Blob(http.StatusOK, contentType, body)
}

// prefersJSON reports whether JSON is named, and preferred to HTML.
func prefersJSON(accept []string) bool {
	var inJSON, inHTML float64
	for _, item := range strings.Split(strings.Join(accept, ","), ",") {
		kind, params, err := mime.ParseMediaType(item)
		if err != nil {
			continue
		}
		q := 1.0
		if said, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(said, 64); err != nil {
				continue
			}
		}
		switch kind {
		case echo.MIMEApplicationJSON:
			inJSON = max(inJSON, q)
		case echo.MIMETextHTML:
			inHTML = max(inHTML, q)
		}
	}
	return inJSON > inHTML
}
