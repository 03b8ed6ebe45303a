// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"provost/api/identity"
	"provost/attest"
	"provost/verify"
)

// A builderPage says what a builder.id stands for.
type builderPage struct {
	Name      string `json:"name"`
	BuilderID string `json:"builderId"` // that the provenance carries: another's, where the row says so
	Page      string `json:"page"`      // this page's own URI
	State     string `json:"state"`
	// Level is the one that such provenance claims, OwnLevel the builder's.
	Level        int            `json:"level"`
	LevelMeaning string         `json:"levelMeaning"`
	OwnLevel     int            `json:"ownLevel"`
	Full         bool           `json:"-"`                // of the builder's own level
	Levels       []string       `json:"levels,omitempty"` // what lowers it, and why
	Lower        []levelEntry   `json:"lowerLevels,omitempty"`
	Description  string         `json:"description,omitempty"`
	Issuer       string         `json:"issuer"`
	Condition    string         `json:"condition"`
	Words        []string       `json:"conditionWords,omitempty"`
	BuildType    string         `json:"buildType"`
	Title        string         `json:"buildTypeTitle,omitempty"`
	Mode         attest.Mode    `json:"mode"`
	ModeMeaning  string         `json:"modeMeaning"`
	Repository   string         `json:"repository,omitempty"`
	CrossCheck   bool           `json:"crossCheck"`
	Predicates   []string       `json:"predicateTypes"`
	Signer       signerEntry    `json:"signer"`
	Origins      []originEntry  `json:"origins"`
	Complete     []attest.Term  `json:"completeness,omitempty"`
	Tenant       []attest.Term  `json:"tenantMaySupply"`
	Extensions   []attest.Term  `json:"extensionFields"`
	History      []historyEntry `json:"history"`
	Earlier      int            `json:"earlierRevisions,omitempty"` // that are not shown
}

type levelEntry struct {
	Level     int    `json:"level"`
	BuilderID string `json:"builderId"`
}

// A signerEntry is whom a verifier holds the bundle to.
type signerEntry struct {
	Identity string `json:"identity"` // the certificate's SAN
	Issuer   string `json:"issuer"`   // the certificate's OIDC issuer
}

// An originEntry is a row of the origin table.
type originEntry struct {
	Field string        `json:"field"`
	From  attest.Source `json:"from"`
	Names []string      `json:"names,omitempty"`
	When  string        `json:"when,omitempty"`
}

// A historyEntry is a revision of a builder. One by which it was retired says
// nothing but that.
type historyEntry struct {
	Revision  int64     `json:"revision"`
	State     string    `json:"state"`
	Since     time.Time `json:"since"`
	BuilderID string    `json:"builderId,omitempty"`
	Level     int       `json:"level,omitempty"`
	Issuer    string    `json:"issuer,omitempty"`
	Condition string    `json:"condition,omitempty"`
	// TwoPeople is when two people had agreed; who they are is not public.
	TwoPeople time.Time `json:"approvedByTwoPeople,omitzero"`
}

type builderEntry struct {
	Name      string `json:"name"`
	BuilderID string `json:"builderId"`
	Page      string `json:"page"`
	Level     int    `json:"level"`
	State     string `json:"state"`
}

type builderIndex struct {
	Builders []builderEntry `json:"builders"`
}

type buildTypeEntry struct {
	Name  string `json:"name,omitempty"` // "" for one that is not ours
	URI   string `json:"uri"`
	Title string `json:"title"`
}

type buildTypeIndex struct {
	BuildTypes []buildTypeEntry `json:"buildTypes"`
}

// A buildTypePage says what provenance of one of our build types has.
type buildTypePage struct {
	Name         string           `json:"name"`
	URI          string           `json:"uri"`
	Title        string           `json:"title"`
	Parameters   []parameterEntry `json:"externalParameters"`
	Internal     []parameterEntry `json:"internalParameters"`
	Invocation   string           `json:"invocationId"`
	Dependencies string           `json:"resolvedDependencies"`
	Levels       string           `json:"levels"`
	Extensions   []attest.Term    `json:"extensionFields"`
	Example      jsontext.Value   `json:"example"`
}

type parameterEntry struct {
	Path    string        `json:"path"`
	From    attest.Source `json:"from"`
	Meaning string        `json:"meaning"`
}

// maxHistory is how many revisions a page shows, the newest.
const maxHistory = 200

// tenantTerms are what a job may say of its own build.
var tenantTerms = []attest.Term{
	{Name: "subject", Meaning: "The names and digests of what was built. A build that names another digest lies about itself alone: who verifies compares builder, source and parameters."},
	{Name: "resolvedDependencies", Meaning: "Further dependencies. Each has the annotation tenantSupplied, and its origin is tenant. Nobody has checked them."},
}

// modeMeanings say who writes the provenance.
var modeMeanings = map[attest.Mode]string{
	attest.ModeToken:        "The service writes the predicate out of the job's verified token. Another field in the request is refused.",
	attest.ModeControlPlane: "The builder's own control plane submits the predicate. The service holds builder.id and buildType to be those of this page, and adds its extension fields.",
}

func (h *builderHistory) state() string {
	if h.retired {
		return attest.BuilderRetired
	}
	return attest.BuilderActive
}

// describeBuilder is the page of a builder at a level; lower says that it is the
// page of an id below its own.
func (s *Server) describeBuilder(h *builderHistory, level int, lower bool) builderPage {
	b, service := h.holds, s.auth.service
	signer := verify.SignerIdentity(service, b.Signer)
	page := builderPage{
		Name: b.Name, BuilderID: b.BuilderID(service, level), Page: attest.BuilderURI(service, b.Name), State: h.state(),
		Level: level, LevelMeaning: attest.DescribeLevel(level), OwnLevel: b.Level, Full: !lower, Description: b.Description,
		Issuer: b.Issuer, Condition: b.Condition, BuildType: b.BuildType, Mode: b.Mode, ModeMeaning: modeMeanings[b.Mode],
		Repository: b.Repository, CrossCheck: b.CrossCheck, Predicates: b.PredicateTypes,
		Signer:  signerEntry{signer.SAN, signer.Issuer},
		Origins: s.originsOf(b), Tenant: tenantTerms, Extensions: attest.Extensions,
	}
	if lower {
		// Also of a level that is not below the builder's own any more.
		page.BuilderID = lowerID(service, b.Name, level)
		page.Page = page.BuilderID
	} else {
		for n := range h.top - 1 {
			page.Lower = append(page.Lower, levelEntry{n + 1, lowerID(service, b.Name, n+1)})
		}
	}
	if condition, err := identity.Compile(b.Condition); err == nil {
		page.Words = condition.Words()
	}
	if t, ok := attest.DescribeBuildType(service, b.BuildType); ok && b.Mode == attest.ModeToken {
		page.Title = t.Title
		page.Complete = []attest.Term{
			{Name: "externalParameters", Meaning: "All that the token says and a build depends on. What is in no token (inputs, variables) is not there."},
			{Name: "resolvedDependencies", Meaning: t.Dependencies},
			{Name: "invocationId", Meaning: t.Invocation},
		}
		page.Levels = append(page.Levels, t.Levels)
	}
	if b.Mode == attest.ModeControlPlane {
		page.Tenant = []attest.Term{{Name: "all", Meaning: "Whatever the control plane lets its tenants say. The service cannot tell."}}
	}
	if b.CrossCheck {
		page.Levels = append(page.Levels, "The CI's own API is asked about each run: level 2 at most where it does not confirm what the token says or is not there to be asked, level 1 for a run that failed, and for a commit that is not on its branch or tag. What it contradicts is refused.")
	}
	page.history(h, service)
	return page
}

// lowerID is the builder.id of builds that could not claim a builder's own level.
func lowerID(service, name string, level int) string {
	return fmt.Sprintf("%s/level/%d", attest.BuilderURI(service, name), level)
}

func (page *builderPage) history(h *builderHistory, service string) {
	rows := h.rows
	if len(rows) > maxHistory {
		page.Earlier = len(rows) - maxHistory
		rows = rows[page.Earlier:]
	}
	for _, b := range rows {
		e := historyEntry{Revision: b.Revision, State: b.State, Since: b.ProposedAt.UTC()}
		if b.State == attest.BuilderActive {
			if b.ApprovedAt.After(e.Since) {
				e.Since = b.ApprovedAt.UTC()
			}
			e.BuilderID, e.Level, e.Issuer, e.Condition = b.BuilderID(service, b.Level), b.Level, b.Issuer, b.Condition
			if b.ApprovedBy != (attest.Person{}) {
				e.TwoPeople = b.ApprovedAt.UTC()
			}
		}
		page.History = append(page.History, e)
	}
}

// originsOf is the origin table of a builder's provenance.
func (s *Server) originsOf(b attest.Builder) (all []originEntry) {
	if b.Mode == attest.ModeControlPlane {
		return []originEntry{
			{Field: "/buildDefinition/buildType", From: attest.SourceRegistry, When: "held to be this one"},
			{Field: "/runDetails/builder/id", From: attest.SourceRegistry, When: "held to be this one"},
			{Field: "", From: attest.SourceControl, When: "everything else"},
		}
	}
	provider, mapping := s.providerOf(b)
	if provider == nil {
		return nil
	}
	for _, f := range identity.FieldsOf(provider, mapping) {
		all = append(all, originEntry{f.Pointer, f.Origin.From, f.Origin.Names, f.When})
	}
	return all
}

// providerOf is the provider whose tokens speak for a builder. The issuer of a
// retired one need not be configured any more: its build type says it, too.
func (s *Server) providerOf(b attest.Builder) (identity.Provider, *identity.Mapping) {
	if i, ok := s.auth.issuers[b.Issuer]; ok && i.provider.Rules().BuildTypeURI(s.auth.service) == b.BuildType {
		return i.provider, i.Mapping
	}
	isSPIFFE := strings.HasPrefix(b.Issuer, "spiffe://")
	for _, name := range identity.Names() {
		p, ok := identity.Lookup(name)
		if name == identity.SPIFFE && !isSPIFFE || name == identity.Kubernetes && isSPIFFE {
			continue
		}
		if ok && b.BuildType != "" && p.Rules().BuildTypeURI(s.auth.service) == b.BuildType {
			return p, nil
		}
	}
	return nil, nil
}

func describeBuildType(service string, t attest.BuildType) (buildTypePage, error) {
	example, err := pageFiles.ReadFile("pages/" + t.Name + ".json")
	if err != nil {
		return buildTypePage{}, err
	}
	page := buildTypePage{
		Name: t.Name, URI: attest.BuildTypeURI(service, t.Name), Title: t.Title,
		Invocation: t.Invocation, Dependencies: t.Dependencies, Levels: t.Levels, Extensions: attest.Extensions,
		Example: jsontext.Value(strings.ReplaceAll(string(example), exampleService, service)),
	}
	for _, p := range t.Parameters {
		page.Parameters = append(page.Parameters, parameterEntry{p.Path, p.From, p.Meaning})
	}
	for _, p := range t.Internal {
		page.Internal = append(page.Internal, parameterEntry{p.Path, p.From, p.Meaning})
	}
	return page, nil
}
