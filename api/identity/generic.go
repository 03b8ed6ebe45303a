// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"provost/attest"
)

// generic is an OpenID Connect issuer of people, services and gates; with a
// [Mapping] in the configuration of builds.
type generic struct{}

func (generic) Rules() Rules {
	return Rules{MaxLevel: 3, MaxAge: 7 * 24 * time.Hour, BuildType: attest.OIDCJob}
}

func (generic) CheckIssuer(*url.URL) error { return nil }

// Tenant is nobody's: what people may do, rules say.
func (generic) Tenant(Claims) (string, error) { return "", nil }

// A Mapping says which claims of a generic issuer's tokens say what of a build.
// Each is the name of a claim; "" for what the tokens do not say.
type Mapping struct {
	// Tenant are the claims that together name a tenant for good. Required.
	Tenant []string `yaml:"tenant"`
	// Repository is the source's URL; the builder's own repository if "".
	Repository string `yaml:"repository"`
	Ref        string `yaml:"ref"`    // a full ref, such as refs/heads/main
	Commit     string `yaml:"commit"` // 40 or 64 hex digits
	// Invocation is a URI of the run. Required.
	Invocation string `yaml:"invocation"`
	// Internal are claims to be kept as internal parameters.
	Internal []string `yaml:"internal"`
}

// maxMapped bounds the claims that a mapping keeps, and those that name a
// tenant.
const maxMapped = 64

// Validate returns an [attest.ErrInvalid] for a mapping that could not be
// meant.
func (m *Mapping) Validate() error {
	switch {
	case len(m.Tenant) == 0 || len(m.Tenant) > maxMapped || slices.Contains(m.Tenant, ""):
		return fmt.Errorf("%w: mapping: tenant: want 1 to %d claims", attest.ErrInvalid, maxMapped)
	case m.Invocation == "":
		return fmt.Errorf("%w: mapping: invocation is empty", attest.ErrInvalid)
	case m.Commit != "" && m.Ref == "":
		return fmt.Errorf("%w: mapping: commit goes with ref", attest.ErrInvalid)
	case len(m.Internal) > maxMapped || slices.Contains(m.Internal, ""):
		return fmt.Errorf("%w: mapping: internal: want at most %d claims", attest.ErrInvalid, maxMapped)
	}
	return nil
}

// TenantOf is [Provider.Tenant] of a mapped issuer.
func (m *Mapping) TenantOf(c Claims) (string, error) {
	r := reader{Claims: c}
	var parts []string
	for _, name := range m.Tenant {
		parts = append(parts, url.PathEscape(r.match(name, shapeValue)))
	}
	return strings.Join(parts, "/"), r.err
}

// Build is what the mapping makes of the claims. A claim that the mapping names
// must be there, but for those that are only kept.
func (generic) Build(c Claims, reg Registered) (*attest.Build, error) {
	m := reg.Mapping
	if m == nil {
		return nil, notABuild("tokens of provider oidc are of people, unless a mapping is configured")
	}
	r := reader{Claims: c}
	repository, said := reg.Builder.Repository, attest.FromRegistry()
	if m.Repository != "" {
		repository, said = r.match(m.Repository, shapeLong), attest.FromToken(m.Repository)
	}
	invocation := r.match(m.Invocation, shapeLong)
	switch {
	case r.err != nil:
		return nil, r.err
	case repository == "":
		return nil, notABuild("no claim names a repository, and the builder does not either")
	case m.Repository != "" && !plainURL(repository):
		return nil, notABuild("%s: want an https URL without a slash at the end", m.Repository)
	case reg.Builder.Repository != "" && reg.Builder.Repository != repository:
		return nil, notABuild("%s is %s, and the builder is of %s", m.Repository, repository, reg.Builder.Repository)
	case !absoluteURI(invocation):
		return nil, notABuild("%s: want a URI", m.Invocation)
	}

	d := newDraft(reg.Service, attest.OIDCJob)
	d.external(attest.ParameterRepository, repository, said)
	d.invocation(invocation, m.Invocation)
	d.keep(&r, "oidc", "", m.Internal...)
	if m.Ref != "" {
		ref := r.match(m.Ref, shapeRef)
		if r.err == nil && !plainRef(ref) {
			return nil, notABuild("%s: not one that git accepts", m.Ref)
		}
		d.external(attest.ParameterRef, ref, attest.FromToken(m.Ref))
		if m.Commit != "" {
			from := attest.Origin{From: attest.SourceRegistry, Names: []string{m.Ref}}
			if m.Repository != "" {
				from = attest.FromToken(m.Repository, m.Ref)
			}
			d.source(repository, ref, r.match(m.Commit, shapeCommit), from, attest.FromToken(m.Commit))
		}
	}
	if len(d.Dependencies) == 0 {
		d.atMost(1, "the token names no commit")
	}
	if r.err != nil {
		return nil, r.err
	}
	return d.Build, nil
}

// plainURL reports whether s is an https URL with a host and a path at most,
// written as a registered repository is.
func plainURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && !strings.ContainsAny(s, "?#@ ") &&
		!strings.HasSuffix(s, "/") && !strings.Contains(s+"/", "/../") && !strings.Contains(s+"/", "/./")
}

func absoluteURI(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme != "" && u.User == nil && !strings.Contains(s, " ")
}

// fields are those of a mapped issuer's builds. Without a mapping they are those
// of any.
func (m *Mapping) fields() []Field {
	if m == nil {
		whole := Mapping{Repository: "<mapping.repository>", Ref: "<mapping.ref>", Commit: "<mapping.commit>", Invocation: "<mapping.invocation>", Internal: []string{"<claim>"}}
		bound := whole
		bound.Repository = ""
		all := whole.fields()
		for i, f := range all {
			switch {
			case slices.Contains(f.Origin.Names, "<claim>"):
				all[i].Origin.Names = []string{"<mapping.internal>"}
			case slices.Contains(f.Origin.Names, "<mapping.commit>") || f.Pointer == sourceURI:
				all[i].When = "where mapping.commit is set"
			case slices.Contains(f.Origin.Names, "<mapping.ref>"):
				all[i].When = "where mapping.ref is set"
			}
		}
		for _, f := range bound.fields() {
			if f.Origin.From == attest.SourceRegistry {
				f.When = "where mapping.repository is empty"
				all = append(all, f)
			}
		}
		return all
	}
	said, at := attest.FromToken(m.Repository), attest.FromToken(m.Repository, m.Ref)
	if m.Repository == "" {
		said, at = attest.FromRegistry(), attest.Origin{From: attest.SourceRegistry, Names: []string{m.Ref}}
	}
	all := []Field{{externalParameters + "source/repository", said, ""}}
	if m.Ref != "" {
		all = append(all, Field{externalParameters + "source/ref", attest.FromToken(m.Ref), ""})
	}
	all = append(all, kept("oidc", "", whereSaid, m.Internal...)...)
	if m.Commit != "" {
		all = append(all, Field{sourceURI, at, ""}, Field{sourceCommit, attest.FromToken(m.Commit), ""})
	}
	return append(all, Field{invocationID, attest.FromToken(m.Invocation), ""})
}
