// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"provost/api/client"
	"provost/api/identity"
	"provost/attest"
)

// An Issuer is an OpenID Connect issuer whose tokens are accepted.
type Issuer struct {
	// URL is the issuer's, compared byte for byte with the token's iss. It is
	// https, or http on this machine. Discovery asks it for its keys. Of
	// provider spiffe it is spiffe://TRUST-DOMAIN, of provider mtls
	// mtls://NAME, a name of your own.
	URL string `yaml:"url"`
	// Audience must be the token's one and only aud.
	Audience string `yaml:"audience"`
	// Algorithms are those a token may be signed with, out of RS256, RS384,
	// RS512, PS256, PS384, PS512, ES256, ES384 and ES512.
	Algorithms []string `yaml:"algorithms"`
	// MaxAge is how long after its iat a token is accepted, however long it
	// says it lives. Each provider has a limit: 10m for github, buildkite,
	// circleci, kubernetes and spiffe, 2h for gitlab, 168h for oidc. A JWT-SVID
	// need not have an iat: such a one is accepted in the last MaxAge before its
	// exp, since how old it is cannot be known.
	MaxAge time.Duration `yaml:"max_age"`
	// Provider is whose tokens these are: github, gitlab, buildkite, circleci,
	// kubernetes, spiffe, or oidc for people, services and gates; mtls for
	// machines with client certificates, which have no tokens and so none of
	// the three above. A trust domain without the three has no tokens either.
	Provider string `yaml:"provider"`
	// BundleFile is the trust domain's bundle, as SPIFFE has it or, for
	// X509-SVIDs alone, PEM. BundleURL is where it is published: an endpoint of
	// the profile https_web, or http on this machine. Provider spiffe has one
	// of them. A changed file is read within ten seconds; an endpoint is asked
	// when its spiffe_refresh_hint says so, every 10 s to 10 min. What cannot
	// be read any more serves for an hour.
	BundleFile string `yaml:"bundle_file"`
	BundleURL  string `yaml:"bundle_url"`
	// CAFile has the CAs that certify the machines of provider mtls, PEM. It
	// is read as BundleFile is.
	CAFile string `yaml:"ca_file"`
	// ServerURL is where the provider's repositories and pages are, without a
	// slash at the end. Default: the issuer's own GitHub for github, the
	// issuer's URL for gitlab, https://buildkite.com for buildkite,
	// https://app.circleci.com for circleci.
	ServerURL string `yaml:"server_url"`
	// PersonClaim is the claim of provider oidc that is the same for the same
	// human at every issuer, such as an employee number. By it two people are
	// told apart where two are needed. Default: issuer and sub together.
	PersonClaim string `yaml:"person_claim"`
	// Mapping makes tokens of provider oidc speak for builds.
	Mapping *identity.Mapping `yaml:"mapping"`
	// CrossCheck asks the API of providers github and gitlab what the token says.
	// Without it no builder whose row asks for the check has more than level 2.
	CrossCheck *CrossCheck `yaml:"cross_check"`
}

// A Rule gives something to the tokens of one issuer whose claims match. What
// all rules that match a token give adds up.
type Rule struct {
	// Issuer is the URL of a configured issuer.
	Issuer string `yaml:"issuer"`
	// Claims must all be in the token with these very values. Numbers and
	// booleans compare by their JSON text; arrays and objects match nothing. A
	// member of an object has a name with a dot.
	Claims map[string]string `yaml:"claims"`
	// When is a CEL expression over claims that must hold, too, such as
	// claims.environment in ["production", "staging"]. Claims and When must
	// say whose tokens are meant.
	When string `yaml:"when"`
	// Tenant is where it is given: a name of your own, or "*" for every tenant.
	// Default, for jobs alone: the tenant of the token's own immutable ids.
	// Named, the rule must pin an immutable id, since a name can be
	// registered again by somebody else.
	Tenant string `yaml:"tenant"`
	// Roles are administrator, key-operator, policy-author, approver, signer,
	// gate and reader.
	Roles []attest.Role `yaml:"roles"`
	// Grants are given beside what the roles are.
	Grants []attest.Grant `yaml:"grants"`
}

// AllTenants is a rule's tenant that stands for every one.
const AllTenants = "*"

// A Registry is where the builders are.
type Registry interface {
	// Builders returns all rows, retired and proposed ones too, and the
	// registry's revision. An error is never an empty answer.
	Builders(ctx context.Context) ([]attest.Builder, int64, error)
}

// AuthOptions are what an [Authenticator] uses of the outside.
type AuthOptions struct {
	// Service is the service's own URL: our builders and build types are there.
	Service string
	// Registry has the builders; without one no token speaks for a build.
	Registry Registry
	// Sessions keeps what workload tokens were exchanged for; without it none
	// can be.
	Sessions SessionStore
	// APIKeys finds API keys; without it none is accepted.
	APIKeys APIKeyFinder
	// HTTPClient asks issuers for their keys. Its timeout is lowered to what
	// is bearable, and it follows no redirect.
	HTTPClient *http.Client
	Now        func() time.Time
	// Secret reads a secret from a file that the configuration names, at each
	// use; without it no API is asked.
	Secret func(file string) (string, error)
}

// An Authenticator turns tokens into callers, by one table of issuers, one of
// rules, and the builder registry. It is safe for concurrent use.
type Authenticator struct {
	service   string
	issuers   map[string]*issuer
	rules     []rule
	now       func() time.Time
	memory    tokenMemory
	open      openSessions
	sessions  SessionStore
	apiKeys   APIKeyFinder
	knownKeys apiKeyMemory
	builders
}

// An issuer is a configured [Issuer] with its keys.
type issuer struct {
	Issuer
	provider identity.Provider
	keys     *keySet
	checked  *checkedAPI // nil for none
}

// A rule is a [Rule] ready for use.
type rule struct {
	Rule
	name      string // for the audit log
	condition *identity.Condition
	grants    []attest.Grant
}

// NewAuthenticator checks the tables whole: nothing in them that could not
// match, or would match more than its author can have meant, is accepted. It
// reaches out to nobody. The error is an [attest.ErrInvalid].
func NewAuthenticator(issuers []Issuer, rules []Rule, opts AuthOptions) (*Authenticator, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	a := &Authenticator{service: opts.Service, issuers: map[string]*issuer{}, now: opts.Now, sessions: opts.Sessions, apiKeys: opts.APIKeys, builders: builders{registry: opts.Registry, now: opts.Now}}
	httpClient := boundedClient(opts.HTTPClient)
	for _, i := range issuers {
		provider, err := i.validate()
		if err != nil {
			return nil, fmt.Errorf("%w: issuer %q: %w", attest.ErrInvalid, i.URL, err)
		}
		if i.URL == attest.APIKeyIssuer(opts.Service) { // its subjects would be taken for keys
			return nil, fmt.Errorf("%w: issuer %q: it is the one of our own API keys", attest.ErrInvalid, i.URL)
		}
		if a.issuers[i.URL] != nil {
			return nil, fmt.Errorf("%w: issuer %q is listed twice", attest.ErrInvalid, i.URL)
		}
		i.Algorithms = slices.Clone(i.Algorithms)
		a.issuers[i.URL] = &issuer{i, provider, keySetOf(i, httpClient, opts.Now), newCheckedAPI(i, opts)}
	}
	for n, r := range rules {
		made, err := r.compile(a.issuers[r.Issuer])
		if err != nil {
			return nil, fmt.Errorf("%w: rule %d: %w", attest.ErrInvalid, n+1, err)
		}
		made.name = fmt.Sprintf("rule %d", n+1)
		a.rules = append(a.rules, made)
	}
	return a, a.checkPersons()
}

// checkPersons refuses rules that let people propose or approve who are told
// apart in two ways: one human would be two.
func (a *Authenticator) checkPersons() error {
	var with, without string
	for _, r := range a.rules {
		i := a.issuers[r.Issuer]
		decides := slices.Contains(r.grants, attest.GrantBuilders) || slices.Contains(r.grants, attest.GrantApprove)
		switch {
		case !decides || r.Tenant != AllTenants || i.Provider != identity.OIDC || i.workload():
		case i.PersonClaim != "":
			with = i.URL
		default:
			without = i.URL
		}
	}
	if with != "" && without != "" {
		return fmt.Errorf("%w: people of issuer %s are told apart by person_claim, and those of %s are not: one human could be two", attest.ErrInvalid, with, without)
	}
	return nil
}

// algorithms are all asymmetric ones of RFC 7518. HMAC is not among them: with
// it, whoever can check a token can make one.
var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"}

// validate checks an issuer, and sets its defaults.
func (i *Issuer) validate() (identity.Provider, error) {
	provider, ok := identity.Lookup(i.Provider)
	if !ok {
		return nil, fmt.Errorf("provider %q: want one of %s", i.Provider, strings.Join(identity.Names(), ", "))
	}
	if i.Provider == identity.SPIFFE || i.Provider == identity.MTLS {
		return provider, i.validateCertified(provider)
	}
	if i.BundleFile != "" || i.BundleURL != "" || i.CAFile != "" {
		return nil, fmt.Errorf("bundle_file, bundle_url and ca_file go with providers spiffe and mtls")
	}
	if err := checkURL(i.URL); err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	if err := i.validateTokens(provider); err != nil {
		return nil, err
	}
	u, err := url.Parse(i.URL)
	if err != nil {
		return nil, err
	}
	if err := provider.CheckIssuer(u); err != nil {
		return nil, fmt.Errorf("url of provider %s: %w", i.Provider, err)
	}
	if i.Mapping != nil {
		if err := i.Mapping.Validate(); err != nil {
			return nil, err
		}
	}
	if i.Provider != identity.OIDC && (i.PersonClaim != "" || i.Mapping != nil) {
		return nil, fmt.Errorf("person_claim and mapping go with provider oidc")
	}
	if i.ServerURL != "" {
		if i.Provider == identity.OIDC && i.Mapping == nil {
			return nil, fmt.Errorf("server_url goes with providers whose tokens are of builds")
		}
		if err := checkURL(i.ServerURL); err != nil || strings.HasSuffix(i.ServerURL, "/") {
			return nil, fmt.Errorf("server_url %q: want a URL without a slash at the end", i.ServerURL)
		}
	}
	if i.CrossCheck != nil {
		check := *i.CrossCheck
		if err := check.validate(i.Provider); err != nil {
			return nil, err
		}
		i.CrossCheck = &check
	}
	if i.Provider == identity.GitHub {
		// Two GitHubs have repositories of the same names: one must not be
		// attested as the other.
		own, public := identity.GitHubServer(u), "https://github.com"
		switch {
		case i.ServerURL == "":
			i.ServerURL = own
		case i.ServerURL == public && own != public:
			return nil, fmt.Errorf("server_url %s is not that of this issuer, whose repositories are at %s", public, own)
		}
	}
	switch {
	case i.ServerURL != "":
	case i.Provider == identity.GitLab:
		i.ServerURL = strings.TrimSuffix(i.URL, "/")
	}
	return provider, nil
}

// validateTokens checks what an issuer's tokens must be.
func (i *Issuer) validateTokens(provider identity.Provider) error {
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
	if limit := provider.Rules().MaxAge; i.MaxAge > limit {
		return fmt.Errorf("max_age %s: set it to %s at most, the limit of provider %s", i.MaxAge, limit, i.Provider)
	}
	return nil
}

// compile makes a rule ready for use, or says what is wrong with it.
func (r Rule) compile(i *issuer) (rule, error) {
	made := rule{Rule: r}
	switch {
	case i == nil:
		return rule{}, fmt.Errorf("issuer %q is not configured", r.Issuer)
	case len(r.Claims) == 0 && r.When == "":
		return rule{}, fmt.Errorf("claims is empty: it would match every token of %s", r.Issuer)
	case len(r.Roles) == 0 && len(r.Grants) == 0:
		return rule{}, fmt.Errorf("neither roles nor grants: it gives nothing")
	}
	for name, value := range r.Claims {
		if name == "" || value == "" {
			return rule{}, fmt.Errorf("claim %q: value %q: want both", name, value)
		}
	}
	var err error
	if made.condition, err = identity.Both(r.Claims, r.When); err != nil {
		return rule{}, err
	}
	if err := i.checkOwner(made.condition, r.Tenant != ""); err != nil {
		return rule{}, err
	}
	switch tenants := i.provider.Rules().Workload || i.Mapping != nil; {
	case r.Tenant == "" && !tenants:
		return rule{}, fmt.Errorf("tenant is empty: name the one in which this is given, or %q for every one", AllTenants)
	case r.Tenant != "" && r.Tenant != AllTenants && !tenantName.MatchString(r.Tenant):
		return rule{}, fmt.Errorf("tenant %q: want %q, or 1 to 63 lower-case letters, digits and '-'", r.Tenant, AllTenants)
	}
	for _, g := range r.Grants {
		if !slices.Contains(attest.Grants, g) {
			return rule{}, fmt.Errorf("grant %q: want some of %q", g, attest.Grants)
		}
		made.grants = append(made.grants, g)
	}
	for _, role := range r.Roles {
		grants, ok := role.Grants()
		if !ok {
			return rule{}, fmt.Errorf("role %q: want some of %q", role, attest.Roles())
		}
		made.grants = append(made.grants, grants...)
	}
	return made, nil
}

// tenantName is the shape of a tenant's name in the configuration. Those made
// of a token's ids have a slash.
var tenantName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// checkOwner refuses a condition that the tokens of strangers would fulfil; with
// named, one that the tokens of whoever takes over a name would.
func (i *issuer) checkOwner(c *identity.Condition, named bool) error {
	r := i.provider.Rules()
	if !r.Workload && i.Mapping == nil {
		if len(c.Pins()) == 0 {
			return fmt.Errorf("the condition names nobody: compare a claim with a value")
		}
		return nil
	}
	immutable := i.immutable()
	owners := append(slices.Clone(immutable), r.Owners...)
	if !identity.Pinned(c.Pins(), owners) {
		return fmt.Errorf("claims would match runs of strangers: pin at least one of %s", strings.Join(owners, ", "))
	}
	if named && !identity.Pinned(c.Pins(), immutable) {
		return fmt.Errorf("names can be registered again by others: pin at least one of %s", strings.Join(immutable, ", "))
	}
	return nil
}

// immutable are the claims that name a tenant for good.
func (i *issuer) immutable() []string {
	if i.Mapping != nil {
		return i.Mapping.Tenant
	}
	return i.provider.Rules().Immutable
}

// checkURL asks for https, or http where nobody can listen in.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || strings.ContainsAny(raw, "?#") {
		return fmt.Errorf("%q: want https://host and a path at most", raw)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !client.Loopback(u.Hostname())) {
		return fmt.Errorf("%q: want https; http is for this machine alone", raw)
	}
	return nil
}

// caller applies rules and registry to verified claims, and to what the CI's
// API said of them, nil for nothing.
func (a *Authenticator) caller(i *issuer, claims identity.Claims, checked *identity.Checked, builders *snapshot) (attest.Caller, error) {
	subject, ok := claims.Text("sub")
	if !ok || subject == "" || len(subject) > maxSubject {
		return attest.Caller{}, unauthenticated("the token's sub: want 1 to %d bytes", maxSubject)
	}
	caller := attest.Caller{Issuer: i.URL, Subject: subject, Tenants: map[string][]attest.Grant{}}
	own, err := i.tenant(claims)
	if err != nil { // closed: whose it is decides about everything
		return attest.Caller{}, err
	}
	texts := claims.Texts()
	var why []string
	for _, r := range a.rules {
		if r.Issuer != i.URL || !r.condition.Match(texts) {
			continue
		}
		why = append(why, r.name)
		switch r.Tenant {
		case AllTenants:
			caller.Grants = addGrants(caller.Grants, r.grants)
			continue
		case "":
		default:
			if own != "" && caller.Tenant != "" && caller.Tenant != r.Tenant { // closed: where it belongs would be a guess
				return attest.Caller{}, fmt.Errorf("%w: the token is ambiguous: its rules name two tenants", attest.ErrDenied)
			}
			if own != "" {
				caller.Tenant = r.Tenant
			}
		}
		tenant := cmp.Or(r.Tenant, own)
		caller.Tenants[tenant] = addGrants(caller.Tenants[tenant], r.grants)
	}
	if own != "" {
		caller.Tenant = cmp.Or(caller.Tenant, own)
		if named := caller.Tenants[own]; caller.Tenant != own && named != nil { // rules with and without a name: one place
			delete(caller.Tenants, own)
			caller.Tenants[caller.Tenant] = addGrants(caller.Tenants[caller.Tenant], named)
		}
	} else {
		caller.Person = i.person(claims)
	}
	build, control, row, err := i.build(a.service, claims, texts, checked, builders)
	if err != nil { // closed: nothing at all is granted on claims that do not add up
		return attest.Caller{}, err
	}
	if caller.Build, caller.Control = build, control; row != "" {
		why = append(why, "builder "+row)
	} else {
		caller.Retired = builders.retiredFor(i.URL, texts)
	}
	caller.Why = strings.Join(why, ", ")
	return caller, nil
}

// tenant is the tenant of the token's own ids, under its issuer: two issuers
// number alike. "" for people.
func (i *issuer) tenant(c identity.Claims) (string, error) {
	own, err := i.provider.Tenant(c)
	if i.Mapping != nil {
		own, err = i.Mapping.TenantOf(c)
	}
	if err != nil || own == "" {
		return "", err
	}
	name := i.URL
	if scheme, rest, _ := strings.Cut(name, "://"); scheme == "https" || scheme == "http" {
		name = strings.TrimSuffix(rest, "/")
	}
	return name + "#" + own, nil // no issuer's URL has one
}

// person is who a person is: see [attest.Person]. Without the claim that says
// so it is nobody who could be told from another, and so is a machine.
func (i *issuer) person(c identity.Claims) string {
	if i.Provider == identity.MTLS {
		return ""
	}
	if i.PersonClaim == "" {
		subject, _ := c.Text("sub")
		return i.URL + " " + subject
	}
	value, _ := c.Text(i.PersonClaim)
	return strings.ToLower(strings.TrimSpace(value))
}

func addGrants(to, more []attest.Grant) []attest.Grant {
	for _, g := range more {
		if !slices.Contains(to, g) {
			to = append(to, g)
		}
	}
	return to
}
