// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"provost/attest"
)

// A Provider knows the tokens of one CI or platform.
type Provider interface {
	// Rules are what holds of all its tokens.
	Rules() Rules
	// CheckIssuer refuses an issuer URL that the platform would not have. The
	// URL is https, or http on this machine, which every provider accepts but those with a
	// scheme of their own.
	CheckIssuer(u *url.URL) error
	// Tenant is a name for whose token it is among those of its issuer, made of
	// claims that stay the same when things are renamed, and are never given
	// again. "" is nobody's.
	// It is an [attest.ErrDenied] when the claims do not say.
	Tenant(c Claims) (string, error)
	// Build is the build that the claims speak of, without a builder.id, at
	// the highest level that such a token can carry. What it is not sure of is
	// an [attest.ErrDenied].
	Build(c Claims, r Registered) (*attest.Build, error)
}

// Rules are what holds of all tokens of a provider.
type Rules struct {
	// MaxAge is the most that an issuer's own limit to a token's age may be.
	MaxAge time.Duration
	// Workload says that tokens are of jobs: each is accepted once, for a
	// session.
	Workload bool
	// Immutable are the claims that name a tenant for good. A rule that gives
	// something in a named tenant must pin one at least.
	Immutable []string
	// Owners are the claims, beside Immutable, that say whose a token is.
	// Anybody can have a token with all the others.
	Owners []string
	// BuildType is the buildType of provenance made of its tokens: a URI, or
	// the name of one of ours; "" when they speak for no build.
	BuildType string
	// MaxLevel is the highest SLSA build level that provenance made of its
	// tokens can reach, and Unchecked the highest without a cross-check, if
	// that is lower: what a token does not say cannot be claimed.
	MaxLevel  int
	Unchecked int
	// Fields are those of its provenance that are not the same for every
	// provider: see [FieldsOf], which has all.
	Fields []Field
	// NoRepository is "" when tokens name their repository. Otherwise a builder
	// must have one, and its condition must pin one value of this claim, which
	// tells what is built from it.
	NoRepository string
}

// A Registered is what the registry and the configuration say of a build.
type Registered struct {
	Service   string // our own URL
	ServerURL string // of the platform's repositories and pages, without a slash at the end
	Builder   attest.Builder
	Pins      Pins // of the builder's condition
	Mapping   *Mapping
	Checked   *Checked // what the CI's API said; nil when it was not asked
}

// Provider names, as configured.
const (
	GitHub     = "github"
	GitLab     = "gitlab"
	Buildkite  = "buildkite"
	CircleCI   = "circleci"
	Kubernetes = "kubernetes"
	SPIFFE     = "spiffe"
	OIDC       = "oidc"
	MTLS       = "mtls"
)

var providers = map[string]Provider{
	GitHub:     github{},
	GitLab:     gitlab{},
	Buildkite:  buildkite{},
	CircleCI:   circleci{},
	Kubernetes: kubernetes{},
	SPIFFE:     spiffe{},
	OIDC:       generic{},
	MTLS:       mtls{},
}

// Lookup returns the provider of that name.
func Lookup(name string) (Provider, bool) {
	p, ok := providers[name]
	return p, ok
}

// Names are the providers, sorted.
func Names() []string {
	return slices.Sorted(maps.Keys(providers))
}

// BuildTypeURI is the buildType of that provider's provenance.
func (r Rules) BuildTypeURI(service string) string {
	if r.BuildType == "" || strings.Contains(r.BuildType, "://") {
		return r.BuildType
	}
	return attest.BuildTypeURI(service, r.BuildType)
}

// LevelLimit is the highest level that a builder can have.
func (r Rules) LevelLimit(crossChecked bool) int {
	if !crossChecked && r.Unchecked > 0 {
		return r.Unchecked
	}
	return r.MaxLevel
}

// Pinned reports whether the condition names whose tokens it is about, by one
// of the claims given.
func Pinned(p Pins, claims []string) bool {
	return slices.ContainsFunc(claims, func(name string) bool { return len(p[name]) > 0 })
}

// Register completes the build of a token that matched a builder: its
// builder.id, build type and level, and their origins.
func Register(p Provider, c Claims, r Registered) (*attest.Build, error) {
	build, err := p.Build(c, r)
	if err != nil {
		return nil, err
	}
	if want := p.Rules().BuildTypeURI(r.Service); build.BuildType != want || r.Builder.BuildType != want {
		return nil, notABuild("the builder's build type is %s, and the token's %s", r.Builder.BuildType, want)
	}
	if build.Level == 0 || build.Level >= r.Builder.Level {
		build.Level, build.LevelReason = r.Builder.Level, ""
	}
	build = r.Checked.Apply(build, r.Builder) // before the id, which says the level
	build.Origins["/runDetails/builder/id"] = attest.FromRegistry()
	build.Origins["/buildDefinition/buildType"] = attest.FromRegistry()
	build.BuilderID = r.Builder.BuilderID(r.Service, build.Level)
	build.Registration = &attest.Registration{Name: r.Builder.Name, Revision: r.Builder.Revision, PredicateTypes: r.Builder.PredicateTypes}
	return build, nil
}

// hostedOnly is what CheckIssuer asks of a platform whose issuer has one URL.
func hostedOnly(u *url.URL, want string) error {
	if u.Scheme == "http" || u.String() == want {
		return nil
	}
	return fmt.Errorf("want %s", want)
}

// originsOf are those of a build's internal parameters, one claim each.
func originsOf(prefix string, parameters map[string]any) attest.Origins {
	o := attest.Origins{}
	for name := range maps.Keys(parameters) {
		o[prefix+"/"+name] = attest.FromToken(name)
	}
	return o
}
