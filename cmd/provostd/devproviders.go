// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"crypto/sha1"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"provost/api"
	"provost/api/identity"
	"provost/attest"
	"provost/verify/policy"
)

// A devProvider is a provider whose tokens the development issuer imitates, and
// what the development service makes of them.
type devProvider struct {
	// claims are those of a token for a push, in the provider's names and types.
	claims  func(d *devIssuer, t devToken, now time.Time) map[string]any
	server  string // server_url of the issuer
	mapping *identity.Mapping
	known   map[string]string // claims by which the access rule knows the tokens
	// builders have a name, a condition, a level and perhaps a repository.
	builders []attest.Builder
}

// The development organization is whose all tokens are, whatever repository
// they are of. Where a builder can be of one repository alone, it is of
// devRepository.
const (
	devOrganization = "provost-dev"
	devRepository   = "acme/app"
	devTrustDomain  = "spiffe://dev.provost.localhost"
)

// devProviders are all of them, by their names.
func devProviders() map[string]devProvider {
	const circleci = "oidc.circleci.com/org-id"
	pipeline, workload := stableUUID(devRepository), devTrustDomain+"/ci/"+devRepository
	organization := stableUUID(devOrganization)
	return map[string]devProvider{
		identity.GitHub: {
			claims: (*devIssuer).github, server: "https://github.com",
			known: map[string]string{"job_workflow_ref": devWorkflow},
			builders: []attest.Builder{
				{Name: "dev", Level: 2, Condition: fmt.Sprintf("claims.job_workflow_ref == %q && claims.runner_environment == %q", devWorkflow, "github-hosted")},
				{Name: "dev-self-hosted", Level: 1, Condition: fmt.Sprintf("claims.job_workflow_ref == %q && claims.runner_environment == %q", devWorkflow, "self-hosted")},
			},
		},
		identity.GitLab: {
			claims: (*devIssuer).gitlab, server: "https://gitlab.com",
			known:    map[string]string{"namespace_id": stableID(devOrganization)},
			builders: []attest.Builder{{Name: "dev-gitlab", Level: 2, Condition: fmt.Sprintf("claims.namespace_id == %q", stableID(devOrganization))}},
		},
		identity.Buildkite: {
			claims: (*devIssuer).buildkite,
			known:  map[string]string{"organization_id": organization},
			builders: []attest.Builder{{Name: "dev-buildkite", Level: 2, Repository: "https://github.com/" + devRepository,
				Condition: fmt.Sprintf("claims.organization_id == %q && claims.pipeline_id == %q", organization, pipeline)}},
		},
		identity.CircleCI: {
			claims:   (*devIssuer).circleci,
			known:    map[string]string{circleci: organization},
			builders: []attest.Builder{{Name: "dev-circleci", Level: 1, Condition: fmt.Sprintf("claims[%q] == %q", circleci, organization)}},
		},
		identity.Kubernetes: {
			claims:   (*devIssuer).kubernetes,
			known:    map[string]string{"kubernetes.io.namespace": devOrganization},
			builders: []attest.Builder{{Name: "dev-kubernetes", Level: 1, Condition: fmt.Sprintf("claims[%q] == %q", "kubernetes.io.namespace", devOrganization)}},
		},
		identity.SPIFFE: {
			claims: (*devIssuer).spiffe,
			known:  map[string]string{"sub": workload},
			builders: []attest.Builder{{Name: "dev-spiffe", Level: 1, Repository: "https://github.com/" + devRepository,
				Condition: fmt.Sprintf("claims.sub == %q", workload)}},
		},
		identity.OIDC: {
			claims: (*devIssuer).oidc,
			mapping: &identity.Mapping{Tenant: []string{"organization", "repository_id"}, Repository: "repository_url", Ref: "ref", Commit: "commit",
				Invocation: "run_url", Internal: []string{"runner"}},
			known:    map[string]string{"organization": devOrganization},
			builders: []attest.Builder{{Name: "dev-oidc", Level: 2, Condition: fmt.Sprintf("claims.organization == %q", devOrganization)}},
		},
	}
}

// devProviderNames are the names, sorted.
func devProviderNames() []string { return slices.Sorted(maps.Keys(devProviders())) }

// access is the issuer of a provider, as configured, and the rule for its jobs:
// they sign, and ask for decisions.
func (d *devIssuer) access(name string) (api.Issuer, api.Rule) {
	p := devProviders()[name]
	i := api.Issuer{
		URL: d.issuerOf(name), Audience: d.Audience, Algorithms: []string{"ES256"}, MaxAge: 10 * time.Minute,
		Provider: name, ServerURL: p.server, Mapping: p.mapping,
	}
	if name == identity.SPIFFE {
		i.BundleURL = d.URL(name) + "/jwks"
	}
	return i, api.Rule{Issuer: i.URL, Claims: p.known, Roles: []attest.Role{attest.RoleSigner, attest.RoleGate}}
}

// issuerOf is the issuer of a provider's tokens: of SVIDs that is the trust
// domain.
func (d *devIssuer) issuerOf(name string) string {
	if name == identity.SPIFFE {
		return devTrustDomain
	}
	return d.URL(name)
}

// builders are the development builders, as an administrator would propose
// them. The issuer's URL names the port, so they may be others each time.
func (d *devIssuer) builders() (all []attest.Builder) {
	for _, name := range devProviderNames() {
		provider, _ := identity.Lookup(name)
		for _, b := range devProviders()[name].builders {
			b.Issuer, b.BuildType, b.Mode = d.issuerOf(name), provider.Rules().BuildTypeURI(devService), attest.ModeToken
			b.PredicateTypes, b.Signer = attest.UsualPredicateTypes(), attest.PowerProvenance
			b.Description = "Jobs of development tokens. Whoever can read the data directory speaks for it."
			all = append(all, b)
		}
	}
	return all
}

// devBuilderPolicy is what an environment accepts that accepts all of them.
func devBuilderPolicy() (all []policy.Builder) {
	for _, name := range devProviderNames() {
		for _, b := range devProviders()[name].builders {
			all = append(all, policy.Builder{ID: attest.BuilderURI(devService, b.Name), Level: b.Level})
		}
	}
	return all
}

// commit is what the token is asked to name, or a stand-in.
func (t devToken) commit(claim string) string {
	if said := t.Extra[claim]; said != "" {
		return said
	}
	return standInCommit(t.Repository + "@" + t.Ref)
}

// short is the ref as those have it who say apart what it is of.
func (t devToken) short() (kind, name string) {
	if tag, ok := strings.CutPrefix(t.Ref, "refs/tags/"); ok {
		return "tag", tag
	}
	return "branch", strings.TrimPrefix(t.Ref, "refs/heads/")
}

func (d *devIssuer) gitlab(t devToken, now time.Time) map[string]any {
	namespace, _, _ := strings.Cut(t.Repository, "/")
	kind, name := t.short()
	sha, id, number := t.commit("sha"), stableID(t.Repository), strconv.FormatInt(now.UnixMilli(), 10)
	return map[string]any{
		"iss": d.URL(identity.GitLab), "sub": "project_path:" + t.Repository + ":ref_type:" + kind + ":ref:" + name, "jti": rand.Text(),
		"namespace_id": stableID(devOrganization), "namespace_path": namespace, "project_id": id, "project_path": t.Repository,
		"job_namespace_id": stableID(devOrganization), "job_namespace_path": namespace, "job_project_id": id, "job_project_path": t.Repository,
		"user_id": stableID("developer"), "user_login": "developer", "user_email": "developer@example.com",
		"pipeline_id": number, "pipeline_source": "push", "job_id": number, "job_source": "push",
		"ref": name, "ref_type": kind, "ref_path": t.Ref, "ref_protected": "true", "sha": sha,
		"runner_id": 1, "runner_environment": "gitlab-hosted", "project_visibility": "private",
		"ci_config_ref_uri": "gitlab.com/" + t.Repository + "//.gitlab-ci.yml@" + t.Ref, "ci_config_sha": sha,
	}
}

func (d *devIssuer) buildkite(t devToken, now time.Time) map[string]any {
	kind, name := t.short()
	slug := strings.NewReplacer("/", "-", ".", "-", "_", "-").Replace(t.Repository)
	claims := map[string]any{
		"iss": d.URL(identity.Buildkite), "sub": "organization:" + devOrganization + ":pipeline:" + slug + ":ref:" + t.Ref, "jti": rand.Text(),
		"organization_slug": devOrganization, "organization_id": stableUUID(devOrganization), "pipeline_slug": slug, "pipeline_id": stableUUID(t.Repository),
		"build_number": now.Unix(), "build_branch": name, "build_tag": nil, "build_commit": t.commit("build_commit"), "build_source": "webhook", "step_key": "build",
		"job_id": stableUUID(rand.Text()), "agent_id": stableUUID("agent"), "runner_environment": "buildkite-hosted",
	}
	if kind == "tag" {
		claims["build_tag"] = name
	}
	return claims
}

func (d *devIssuer) circleci(t devToken, _ time.Time) map[string]any {
	claims := map[string]any{
		"iss": d.URL(identity.CircleCI), "sub": "org/" + stableUUID(devOrganization) + "/project/" + stableUUID(t.Repository) + "/user/" + stableUUID("developer"),
	}
	for name, value := range map[string]any{
		"org-id": stableUUID(devOrganization), "project-id": stableUUID(t.Repository), "pipeline-definition-id": stableUUID("pipeline of " + t.Repository),
		"pipeline-id": stableUUID(rand.Text()), "workflow-id": stableUUID(rand.Text()), "job-id": stableUUID(rand.Text()),
		"context-ids": []string{stableUUID("context")}, "ssh-rerun": false, "vcs-origin": "github.com/" + t.Repository, "vcs-ref": t.Ref,
	} {
		claims["oidc.circleci.com/"+name] = value
	}
	return claims
}

func (d *devIssuer) kubernetes(t devToken, now time.Time) map[string]any {
	account := strings.ToLower(strings.NewReplacer("/", "-", ".", "-", "_", "-").Replace(t.Repository))
	return map[string]any{
		"iss": d.URL(identity.Kubernetes), "sub": "system:serviceaccount:" + devOrganization + ":" + account, "jti": stableUUID(rand.Text()),
		"kubernetes.io": map[string]any{
			"namespace":      devOrganization,
			"node":           map[string]any{"name": "node-1", "uid": stableUUID("node-1")},
			"pod":            map[string]any{"name": "build-" + strconv.FormatInt(now.Unix(), 36), "uid": stableUUID(rand.Text())},
			"serviceaccount": map[string]any{"name": account, "uid": stableUUID(t.Repository)},
		},
	}
}

func (d *devIssuer) spiffe(t devToken, _ time.Time) map[string]any {
	return map[string]any{"sub": devTrustDomain + "/ci/" + t.Repository, "jti": rand.Text()}
}

func (d *devIssuer) oidc(t devToken, now time.Time) map[string]any {
	return map[string]any{
		"iss": d.URL(identity.OIDC), "sub": "job:" + t.Repository, "jti": rand.Text(),
		"organization": devOrganization, "repository_id": stableID(t.Repository), "repository_url": "https://github.com/" + t.Repository,
		"ref": t.Ref, "commit": t.commit("commit"), "run_url": "https://ci.example.com/runs/" + strconv.FormatInt(now.UnixNano(), 10), "runner": "hosted",
	}
}

// override sets a claim, or with a dotted name a member of an object that is
// there.
func override(claims map[string]any, name, value string) {
	for object, members := range claims {
		inner, ok := members.(map[string]any)
		if member, below := strings.CutPrefix(name, object+"."); ok && below {
			override(inner, member, value)
			return
		}
	}
	claims[name] = value
}

// stableUUID makes a UUID of a name, the same each time.
func stableUUID(name string) string {
	s := sha1.Sum([]byte(name))
	s[6], s[8] = s[6]&0x0f|0x50, s[8]&0x3f|0x80 // RFC 9562, version 5
	return fmt.Sprintf("%x-%x-%x-%x-%x", s[:4], s[4:6], s[6:8], s[8:10], s[10:16])
}
