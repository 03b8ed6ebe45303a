// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"cmp"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"provost/attest"
)

// circleciClaim begins the names of CircleCI's own claims.
const circleciClaim = "oidc.circleci.com/"

// maxContexts bounds the contexts of a job.
const maxContexts = 64

// Shapes of claims, and the issuers: one for each organization, and one for
// all.
var (
	circleciHost    = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[1-9][0-9]{0,4})?$`)
	circleciIssuers = regexp.MustCompile(`^https://oidc\.circleci\.com(/org/[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12})?$`)
)

// circleci is CircleCI (circleci.com/docs/openid-connect-tokens).
type circleci struct{}

// Rules: vcs-origin is no owner, as projects of several organizations may be
// of one repository.
func (circleci) Rules() Rules {
	return Rules{
		MaxLevel: 1,
		MaxAge:   10 * time.Minute, Workload: true,
		Immutable: []string{circleciClaim + "project-id", circleciClaim + "org-id"},
		Owners:    []string{circleciClaim + "pipeline-definition-id"},
		BuildType: attest.CircleCIJob,
		Fields:    circleciFields,
	}
}

func (circleci) CheckIssuer(u *url.URL) error {
	if u.Scheme == "http" || circleciIssuers.MatchString(u.String()) {
		return nil
	}
	return errors.New("want https://oidc.circleci.com/org/<organization id>, or https://oidc.circleci.com")
}

// Tenant is the project, by its and its organization's id. An organization's
// own issuer speaks for no other.
func (circleci) Tenant(c Claims) (string, error) {
	r := reader{Claims: c}
	organization, project := r.match(circleciClaim+"org-id", shapeUUID), r.match(circleciClaim+"project-id", shapeUUID)
	issuer, _ := r.Text("iss")
	if _, of, ok := strings.Cut(issuer, "/org/"); ok && of != organization && r.err == nil {
		r.err = notABuild("%sorg-id is not the organization of the issuer", circleciClaim)
	}
	return organization + "/" + project, r.err
}

// Build is at level 1, as there is no commit in the token. A build of a fork
// has the fork's repository in vcs-origin, so a builder that has a repository
// of its own says nothing for it.
func (ci circleci) Build(c Claims, reg Registered) (*attest.Build, error) {
	if _, err := ci.Tenant(c); err != nil {
		return nil, err
	}
	r := reader{Claims: c}
	if !r.Has(circleciClaim+"vcs-origin") || !r.Has(circleciClaim+"vcs-ref") {
		return nil, notABuild("%svcs-origin or vcs-ref is missing: pipelines of custom webhooks name no source", circleciClaim)
	}
	var (
		rerun      = r.match(circleciClaim+"ssh-rerun", shapeValue)
		origin     = r.match(circleciClaim+"vcs-origin", shapeLong)
		ref        = r.match(circleciClaim+"vcs-ref", shapeRef)
		workflow   = r.match(circleciClaim+"workflow-id", shapeUUID)
		job        = r.match(circleciClaim+"job-id", shapeUUID)
		repository = "https://" + origin
	)
	host, path, _ := strings.Cut(origin, "/")
	switch {
	case r.err != nil:
		return nil, r.err
	case rerun != "false":
		return nil, notABuild("%sssh-rerun is %s: somebody could have typed the build", circleciClaim, rerun)
	case !circleciHost.MatchString(host) || !plainPath(path, 1):
		return nil, notABuild("%svcs-origin: want the host and path of a repository", circleciClaim)
	case !plainRef(ref):
		return nil, notABuild("%svcs-ref: not one that git accepts", circleciClaim)
	case reg.Builder.Repository != "" && reg.Builder.Repository != repository:
		return nil, notABuild("%svcs-origin is %s, and the builder is of %s: it may be a fork's", circleciClaim, origin, reg.Builder.Repository)
	}

	d := newDraft(reg.Service, attest.CircleCIJob)
	d.external(attest.ParameterRepository, repository, attest.FromToken(circleciClaim+"vcs-origin"))
	d.external(attest.ParameterRef, ref, attest.FromToken(circleciClaim+"vcs-ref"))
	if definition := circleciClaim + "pipeline-definition-id"; r.Has(definition) {
		d.external("pipeline.definition", r.match(definition, shapeUUID), attest.FromToken(definition))
	}
	if contexts := circleciClaim + "context-ids"; r.Has(contexts) {
		d.internal("circleci", "context-ids", circleciContexts(&r, contexts), attest.FromToken(contexts))
	}
	d.keep(&r, "circleci", circleciClaim, "org-id", "pipeline-id", "project-id", "ssh-rerun")
	server := cmp.Or(reg.ServerURL, "https://app.circleci.com")
	d.invocation(server+"/workflow/"+workflow+"/job/"+job, circleciClaim+"workflow-id", circleciClaim+"job-id")
	d.atMost(1, "the token names no commit")
	if r.err != nil {
		return nil, r.err
	}
	return d.Build, nil
}

// circleciContexts are the ids of the contexts whose secrets the job had.
func circleciContexts(r *reader, name string) []any {
	var ids []string
	if err := json.Unmarshal(r.Claims[name], &ids); r.err == nil && (err != nil || len(ids) > maxContexts) {
		r.err = notABuild("claim %s is malformed", name)
	}
	all := make([]any, len(ids))
	for i, id := range ids {
		if all[i] = id; r.err == nil && !shapeUUID.MatchString(id) {
			r.err = notABuild("claim %s is malformed", name)
		}
	}
	return all
}

var circleciFields = slices.Concat([]Field{
	{externalParameters + "source/repository", attest.FromToken(circleciClaim + "vcs-origin"), ""},
	{externalParameters + "source/ref", attest.FromToken(circleciClaim + "vcs-ref"), ""},
	{externalParameters + "pipeline/definition", attest.FromToken(circleciClaim + "pipeline-definition-id"), whereSaid},
},
	kept("circleci", circleciClaim, "", "org-id", "project-id", "ssh-rerun"),
	kept("circleci", circleciClaim, whereSaid, "context-ids", "pipeline-id"),
	[]Field{{invocationID, attest.FromToken(circleciClaim+"workflow-id", circleciClaim+"job-id"), ""}})
