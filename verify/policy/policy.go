// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package policy judges facts by rules in Rego, with OPA as a library.
//
// It promises that the same rules, environment and facts always give the same
// judgement: built-ins that reach out, draw lots or read a clock are not
// compiled in, time is a fact, and an error inside a built-in ends the
// evaluation instead of leaving a rule undefined.
package policy

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"provost/attest"
	"provost/verify"
)

// timeout bounds one evaluation.
const timeout = 2 * time.Second

//go:embed gate.rego
var gateRules string

// removed are the built-ins that would let a rule depend on anything but its
// input, beside those that OPA itself calls nondeterministic. They read the
// clock.
var removed = []string{
	"crypto.x509.parse_and_verify_certificates", "crypto.x509.parse_and_verify_certificates_with_options",
}

// SBOM says whether an environment asks for a bill of materials.
const (
	SBOMRequired = "required"
	SBOMOptional = "optional"
)

// An Environment is what one place to deploy to asks for. Its JSON is part of
// the policy's digest.
type Environment struct {
	// Builders are the builder.ids accepted, compared exactly, each with the
	// SLSA build level that the platform's administrators vouch for.
	Builders []Builder `json:"builders" yaml:"builders"`
	// Sources are the repositories and refs to build from. Both are globs in
	// which '*' stays within one path segment and '**' does not; there are no
	// other wildcards.
	Sources []Source `json:"sources" yaml:"sources"`
	// SBOM is "required" (the default) or "optional".
	SBOM string `json:"sbom" yaml:"sbom"`
}

// A Builder is an accepted builder.id and its SLSA build level, 0 to 3.
type Builder struct {
	ID    string `json:"id" yaml:"id"`
	Level int    `json:"level" yaml:"level"`
}

// A Source is an expected repository, such as https://github.com/acme/app,
// and the refs of it that may be deployed, such as refs/heads/main.
type Source struct {
	Repository string   `json:"repository" yaml:"repository"`
	Refs       []string `json:"refs" yaml:"refs"`
}

// A Policy is the shipped rules with the environments of one configuration.
type Policy struct {
	query        rego.PreparedEvalQuery
	environments map[string]prepared
}

type prepared struct {
	document map[string]any // the environment as the rules see it
	digest   attest.Digest
}

// New compiles the rules for the environments. An environment without a
// builder or a source is refused: it could never pass, or its author meant
// something else. The error is an [attest.ErrInvalid].
func New(environments map[string]Environment) (*Policy, error) {
	return compile(gateRules, environments)
}

func compile(rules string, environments map[string]Environment) (*Policy, error) {
	p := &Policy{environments: map[string]prepared{}}
	for name, e := range environments {
		if e.SBOM == "" {
			e.SBOM = SBOMRequired
		}
		if err := cmp.Or(verify.CheckEnvironment(name), e.validate()); err != nil {
			return nil, fmt.Errorf("%w: environment %q: %w", attest.ErrInvalid, name, err)
		}
		document, digest, err := prepare(rules, name, e)
		if err != nil {
			return nil, fmt.Errorf("environment %q: %w", name, err)
		}
		p.environments[name] = prepared{document, digest}
	}
	var err error
	p.query, err = rego.New(
		rego.Query("data.provost.gate.judgement"),
		rego.Module("gate.rego", rules),
		rego.Capabilities(capabilities()),
		rego.StrictBuiltinErrors(true),
		rego.Strict(true),
	).PrepareForEval(context.Background())
	if err != nil {
		return nil, fmt.Errorf("compile policy: %w", err)
	}
	return p, nil
}

func (e Environment) validate() error {
	if len(e.Builders) == 0 || len(e.Sources) == 0 {
		return fmt.Errorf("needs at least one builder and one source")
	}
	if e.SBOM != SBOMRequired && e.SBOM != SBOMOptional {
		return fmt.Errorf("sbom %q: want required or optional", e.SBOM)
	}
	seen := map[string]bool{}
	for _, b := range e.Builders {
		if b.ID == "" || seen[b.ID] || b.Level < 0 || b.Level > 3 {
			return fmt.Errorf("builder %q at level %d: want distinct ids and levels 0 to 3", b.ID, b.Level)
		}
		seen[b.ID] = true
	}
	for _, s := range e.Sources {
		if s.Repository == "" || len(s.Refs) == 0 || slices.Contains(s.Refs, "") {
			return fmt.Errorf("source %q: needs a repository and at least one ref", s.Repository)
		}
		for _, pattern := range append([]string{s.Repository}, s.Refs...) {
			// What else the matcher knows would be a surprise, or an error
			// when it is too late.
			if strings.ContainsAny(pattern, `?[]{}\`) {
				return fmt.Errorf("source %q: %q: want no wildcard but '*' and '**'", s.Repository, pattern)
			}
		}
	}
	return nil
}

// prepare returns the environment as the rules see it, and the digest of the
// policy: the rules and this environment.
func prepare(rules, name string, e Environment) (map[string]any, attest.Digest, error) {
	raw, err := json.Marshal(struct {
		Name string `json:"name"`
		Environment
	}{name, e})
	if err != nil {
		return nil, attest.Digest{}, err
	}
	var document map[string]any
	if err := json.Unmarshal(raw, &document); err != nil {
		return nil, attest.Digest{}, err
	}
	return document, attest.SHA256(slices.Concat([]byte(rules), []byte{0}, raw)), nil
}

// capabilities pins the language to Rego v1 without the removed built-ins and
// without any host to reach.
func capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool {
		return b.IsNondeterministic() || slices.Contains(removed, b.Name)
	})
	c.AllowNet = []string{}
	c.Features = []string{ast.FeatureRegoV1, ast.FeatureRefHeadStringPrefixes, ast.FeatureRefHeads}
	return c
}

// Environments returns the names of the environments, sorted.
func (p *Policy) Environments() []string {
	var names []string
	for name := range p.environments {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// provenancePresent is the rule on which the other ones about provenance rest.
const provenancePresent = "slsa.provenance_present"

func aboutProvenance(rule string) bool {
	return rule != provenancePresent && (strings.HasPrefix(rule, "slsa.") || rule == "time.sound")
}

// output is what the rules say.
type output struct {
	Required []string          `json:"required"`
	Holds    []string          `json:"holds"`
	Because  map[string]string `json:"because"`
	Level    int               `json:"level"`
}

// Judge implements [verify.Policy]. A required rule that is not proven to hold
// is a reason to deny; a rule that could not be evaluated at all is missing
// from Evaluated. An undefined result, an evaluation error and a timeout are
// errors.
func (p *Policy) Judge(ctx context.Context, environment string, f verify.Facts) (verify.Judgement, error) {
	env, ok := p.environments[environment]
	if !ok { // closed: no policy, no verdict
		return verify.Judgement{}, fmt.Errorf("%w: environment %.80q has no policy", attest.ErrNotFound, environment)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	results, err := p.query.Eval(ctx, rego.EvalInput(map[string]any{"facts": f, "environment": env.document}))
	if err != nil {
		return verify.Judgement{}, fmt.Errorf("evaluate policy: %w", err)
	}
	if len(results) != 1 || len(results[0].Expressions) != 1 {
		return verify.Judgement{}, fmt.Errorf("evaluate policy: %d results: want one", len(results))
	}
	raw, err := json.Marshal(results[0].Expressions[0].Value)
	if err != nil {
		return verify.Judgement{}, fmt.Errorf("evaluate policy: %w", err)
	}
	var out output
	if err := json.Unmarshal(raw, &out); err != nil {
		return verify.Judgement{}, fmt.Errorf("evaluate policy: %w", err)
	}
	j := verify.Judgement{Required: out.Required, Level: out.Level, Policy: env.digest}
	for _, rule := range out.Required {
		why, evaluated := out.Because[rule]
		if !evaluated {
			continue // closed: the gate asks for every required rule
		}
		j.Evaluated = append(j.Evaluated, rule)
		severity := attest.SeverityDeny
		switch {
		case slices.Contains(out.Holds, rule):
			severity = attest.SeverityInfo
		case aboutProvenance(rule) && !slices.Contains(out.Holds, provenancePresent):
			why = "not judged: there is no provenance" // one missing fact, and not as many findings
		}
		j.Reasons = append(j.Reasons, attest.Reason{Rule: rule, Severity: severity, Message: why})
	}
	// What denies comes first.
	slices.SortStableFunc(j.Reasons, func(a, b attest.Reason) int {
		if a.Severity == b.Severity {
			return 0
		} else if a.Severity == attest.SeverityDeny {
			return -1
		}
		return 1
	})
	return j, nil
}
