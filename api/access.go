// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"provost/attest"
)

// Providers: what an issuer's tokens speak for.
const (
	ProviderGitHub = "github" // runs of GitHub Actions
	ProviderOIDC   = "oidc"   // people, services, gates; no builds
)

// maxAges bound what Issuer.MaxAge may be: a run's tokens are for the minutes
// of a job, people's for a week of work.
var maxAges = map[string]time.Duration{ProviderGitHub: time.Hour, ProviderOIDC: 7 * 24 * time.Hour}

// githubPins are the claims that say whose a run of GitHub is. Anybody on
// GitHub can have a token with all the others.
var githubPins = []string{"repository", "repository_id", "repository_owner", "repository_owner_id", "job_workflow_ref"}

// An Issuer is an OpenID Connect issuer whose tokens are accepted.
type Issuer struct {
	// URL is the issuer's, compared byte for byte with the token's iss. It is
	// https, or http on this machine. Discovery asks it for its keys.
	URL string `yaml:"url"`
	// Audience must be the token's one and only aud.
	Audience string `yaml:"audience"`
	// Algorithms are those a token may be signed with, out of RS256, RS384,
	// RS512, PS256, PS384, PS512, ES256, ES384 and ES512.
	Algorithms []string `yaml:"algorithms"`
	// MaxAge is how long after its iat a token is accepted, however long it
	// says it lives: 1h at most for provider github, 168h for oidc.
	MaxAge time.Duration `yaml:"max_age"`
	// Provider is "github" or "oidc".
	Provider string `yaml:"provider"`
	// ServerURL is where a GitHub's repositories are, without a slash at the
	// end; https://github.com when empty.
	ServerURL string `yaml:"server_url"`
}

// A Rule gives something to the tokens of one issuer whose claims match. The
// grants of all rules that match a token add up.
type Rule struct {
	// Issuer is the URL of a configured issuer.
	Issuer string `yaml:"issuer"`
	// Claims must all be in the token with these very values. Numbers and
	// booleans compare by their JSON text; arrays and objects match nothing.
	// Of a GitHub they must say whose runs are meant: by one at least of
	// repository, repository_id, repository_owner, repository_owner_id and
	// job_workflow_ref.
	Claims map[string]string `yaml:"claims"`
	// Builder makes matching tokens speak for a build. A token that matches
	// two rules with a builder is refused, and so is one whose build cannot
	// be told from its claims.
	Builder *BuilderRow `yaml:"builder"`
	// Grants are what matching tokens may do.
	Grants []attest.Grant `yaml:"grants"`
}

// A BuilderRow names a builder.
type BuilderRow struct {
	// ID is the builder.id of provenance. When empty it is the URL of the
	// workflow that ran, job_workflow_ref, which the rule must pin.
	//
	// One id stands for one kind of isolation: self-hosted runners are
	// accepted only by a rule that pins runner_environment to self-hosted.
	ID string `yaml:"id"`
}

// AuthOptions are what an [Authenticator] uses of the outside. The zero value
// is fit for use.
type AuthOptions struct {
	// HTTPClient asks issuers for their keys. Its timeout is lowered to what
	// is bearable, and it follows no redirect.
	HTTPClient *http.Client
	Now        func() time.Time
}

// An Authenticator turns tokens into callers, by one table of issuers and one
// of rules. It is safe for concurrent use.
type Authenticator struct {
	issuers map[string]*issuer
	rules   []Rule
	now     func() time.Time
	memory  tokenMemory
}

// An issuer is a configured [Issuer] with its keys.
type issuer struct {
	Issuer
	keys *keySet
}

// NewAuthenticator checks the tables whole: nothing in them that could not
// match, or would match more than its author can have meant, is accepted. It
// reaches out to nobody. The error is an [attest.ErrInvalid].
func NewAuthenticator(issuers []Issuer, rules []Rule, opts AuthOptions) (*Authenticator, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	a := &Authenticator{issuers: map[string]*issuer{}, now: opts.Now}
	httpClient := boundedClient(opts.HTTPClient)
	for _, i := range issuers {
		if err := i.validate(); err != nil {
			return nil, fmt.Errorf("%w: issuer %q: %w", attest.ErrInvalid, i.URL, err)
		}
		if a.issuers[i.URL] != nil {
			return nil, fmt.Errorf("%w: issuer %q is listed twice", attest.ErrInvalid, i.URL)
		}
		if i.Provider == ProviderGitHub && i.ServerURL == "" {
			i.ServerURL = "https://github.com"
		}
		i.Algorithms = slices.Clone(i.Algorithms)
		a.issuers[i.URL] = &issuer{i, &keySet{issuer: i.URL, client: httpClient, now: opts.Now}}
	}
	for n, r := range rules {
		if err := r.validate(a.issuers[r.Issuer]); err != nil {
			return nil, fmt.Errorf("%w: rule %d: %w", attest.ErrInvalid, n+1, err)
		}
		a.rules = append(a.rules, r)
	}
	return a, nil
}

// algorithms are all asymmetric ones of RFC 7518. HMAC is not among them: with
// it, whoever can check a token can make one.
var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"}

func (i Issuer) validate() error {
	if err := checkURL(i.URL); err != nil {
		return fmt.Errorf("url: %w", err)
	}
	if i.Audience == "" {
		return fmt.Errorf("audience is empty")
	}
	if len(i.Algorithms) == 0 {
		return fmt.Errorf("algorithms is empty")
	}
	for _, alg := range i.Algorithms {
		if !slices.Contains(algorithms, alg) {
			return fmt.Errorf("algorithm %q: want some of %s", alg, strings.Join(algorithms, ", "))
		}
	}
	if i.MaxAge <= 0 {
		return fmt.Errorf("max_age %s: want more than 0", i.MaxAge)
	}
	if limit, ok := maxAges[i.Provider]; ok && i.MaxAge > limit {
		return fmt.Errorf("max_age %s: set it to %.0fh at most, the limit of provider %s", i.MaxAge, limit.Hours(), i.Provider)
	}
	switch i.Provider {
	case ProviderOIDC:
		if i.ServerURL != "" {
			return fmt.Errorf("server_url goes with provider github")
		}
	case ProviderGitHub:
		if i.ServerURL == "" {
			break
		}
		if err := checkURL(i.ServerURL); err != nil || strings.HasSuffix(i.ServerURL, "/") {
			return fmt.Errorf("server_url %q: want a URL without a slash at the end", i.ServerURL)
		}
	default:
		return fmt.Errorf("provider %q: want github or oidc", i.Provider)
	}
	return nil
}

func (r Rule) validate(i *issuer) error {
	switch {
	case i == nil:
		return fmt.Errorf("issuer %q is not configured", r.Issuer)
	case len(r.Claims) == 0:
		return fmt.Errorf("claims is empty: it would match every token of %s", r.Issuer)
	case r.Builder == nil && len(r.Grants) == 0:
		return fmt.Errorf("neither builder nor grants: it gives nothing")
	}
	for name, value := range r.Claims {
		if name == "" || value == "" {
			return fmt.Errorf("claim %q: value %q: want both", name, value)
		}
	}
	if i.Provider == ProviderGitHub && !slices.ContainsFunc(githubPins, func(name string) bool { return r.Claims[name] != "" }) {
		return fmt.Errorf("claims would match runs of strangers: pin at least one of %s", strings.Join(githubPins, ", "))
	}
	for _, g := range r.Grants {
		if !slices.Contains(attest.Grants, g) {
			return fmt.Errorf("grant %q: want some of %q", g, attest.Grants)
		}
	}
	if r.Builder == nil {
		return nil
	}
	if i.Provider != ProviderGitHub {
		return fmt.Errorf("builder: tokens of provider %s speak for no build", i.Provider)
	}
	if r.Builder.ID == "" && r.Claims["job_workflow_ref"] == "" {
		return fmt.Errorf("builder without id: give it one, or pin job_workflow_ref in claims")
	}
	if r.Builder.ID != "" {
		if u, err := url.Parse(r.Builder.ID); err != nil || u.Scheme == "" || u.Host == "" {
			return fmt.Errorf("builder id %q: want a URI", r.Builder.ID)
		}
	}
	return nil
}

// Builders returns every builder.id that the rules can give to a build, sorted
// and without repetition: a policy that wants another waits in vain.
func (a *Authenticator) Builders() []string {
	var ids []string
	for _, r := range a.rules {
		if r.Builder != nil {
			ids = append(ids, builderID(r, a.issuers[r.Issuer].ServerURL, r.Claims["job_workflow_ref"]))
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// builderID is the builder.id that a rule with a builder gives to a run of the
// workflow jobRef.
func builderID(r Rule, server, jobRef string) string {
	if r.Builder.ID != "" {
		return r.Builder.ID
	}
	return server + "/" + jobRef
}

// checkURL asks for https, or http where nobody can listen in.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || strings.ContainsAny(raw, "?#") {
		return fmt.Errorf("%q: want https://host and a path at most", raw)
	}
	ip := net.ParseIP(u.Hostname())
	local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return fmt.Errorf("%q: want https; http is for this machine alone", raw)
	}
	return nil
}

// caller applies the rules to verified claims.
func (a *Authenticator) caller(i *issuer, claims claims) (attest.Caller, error) {
	subject, ok := claims.text("sub")
	if !ok || subject == "" || len(subject) > maxSubject {
		return attest.Caller{}, unauthenticated("the token's sub: want 1 to %d bytes", maxSubject)
	}
	caller := attest.Caller{Issuer: i.URL, Subject: subject}
	var builder *Rule
	for n := range a.rules {
		rule := &a.rules[n]
		if rule.Issuer != i.URL || !rule.matches(claims) {
			continue
		}
		for _, g := range rule.Grants {
			if !slices.Contains(caller.Grants, g) {
				caller.Grants = append(caller.Grants, g)
			}
		}
		if rule.Builder == nil {
			continue
		}
		if builder != nil { // closed: which of two builders it was would be a guess
			return attest.Caller{}, fmt.Errorf("%w: the token is ambiguous: it matches two builders", attest.ErrDenied)
		}
		builder = rule
	}
	if builder == nil {
		return caller, nil
	}
	build, err := githubBuild(claims, i.ServerURL, *builder)
	if err != nil { // closed: nothing at all is granted on claims that do not add up
		return attest.Caller{}, err
	}
	caller.Build = build
	return caller, nil
}

func (r Rule) matches(c claims) bool {
	for name, want := range r.Claims {
		if got, ok := c.text(name); !ok || got != want {
			return false
		}
	}
	return len(r.Claims) > 0
}
