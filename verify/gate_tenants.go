// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"provost/attest"
)

// maxTenants is how many tenants are judged about one artifact. More is an
// error: the one left out might be the one that built it.
const maxTenants = 16

// A judged is the answer to what one tenant said.
type judged struct {
	tenant    string // whose word was judged; "" for nobody's or several's
	judgement Judgement
	verdict   attest.Verdict
	reasons   []attest.Reason
	inputs    []attest.InputAttestation
}

// judge applies the policy of an environment to what was found. A gate of every
// tenant sees what strangers said, who can say provenance about any digest, so
// each tenant that has provenance is judged alone: none makes up for what
// another did not say. The answer is that of the first that passes, otherwise
// that of the first. Without any provenance all is judged together.
//
// A policy that fails is an answer of ERROR, for the tenant judged only: a
// stranger's evidence that breaks a policy is no answer about another's. An
// error is one of the caller's, or of a context that is done.
func (g *Gate) judge(ctx context.Context, environment string, f finding) (judged, error) {
	tenants := f.builders()
	if len(tenants) == 0 {
		return g.judgeOne(ctx, environment, f.tenant(), f)
	}
	if named := len(slices.DeleteFunc(slices.Clone(tenants), func(t string) bool { return t == "" })); named > maxTenants {
		return judged{verdict: attest.VerdictError, reasons: []attest.Reason{{
			Rule: "evidence.bounded", Severity: attest.SeverityDeny,
			Message: fmt.Sprintf("more than %d tenants have provenance about this artifact", maxTenants),
		}}}, nil
	}
	var first judged
	for i, tenant := range tenants {
		j, err := g.judgeOne(ctx, environment, tenant, f.alone(tenant))
		if err != nil || j.verdict == attest.VerdictPass {
			return j, err
		}
		if i == 0 {
			first = j
		}
	}
	return first, nil
}

// judgeOne judges what is in hand.
func (g *Gate) judgeOne(ctx context.Context, environment, tenant string, f finding) (judged, error) {
	j := judged{tenant: tenant, inputs: f.inputs()}
	var err error
	if j.judgement, err = g.Policy.Judge(ctx, environment, f.facts); err != nil {
		if isCallers(err) || ctx.Err() != nil {
			return judged{}, err
		}
		j.verdict = attest.VerdictError
		j.reasons = []attest.Reason{{Rule: "policy", Severity: attest.SeverityDeny, Message: "the policy could not be evaluated"}}
		return j, nil
	}
	j.verdict, j.reasons = verdict(j.judgement, f)
	return j, nil
}

// builders are the tenants that have provenance, in order; no tenant is last.
func (f *finding) builders() (tenants []string) {
	built, shared := f.built(), false
	for _, k := range f.kept {
		switch {
		case !built[k.id]:
		case k.tenant == "":
			shared = true
		default:
			tenants = append(tenants, k.tenant)
		}
	}
	slices.Sort(tenants)
	tenants = slices.Compact(tenants)
	if shared {
		tenants = append(tenants, "")
	}
	return tenants
}

// built are the attestations that are provenance.
func (f *finding) built() map[string]bool {
	built := map[string]bool{}
	for _, p := range f.facts.Provenance {
		built[p.Attestation] = true
	}
	return built
}

// alone is the finding without what others than a tenant said. What no tenant
// said counts, but for its provenance: with that, a stranger's would make up
// for what they did not say who built the artifact for no tenant. Nothing that
// takes back is set aside, believed or not, so this only ever takes away from
// what speaks for the artifact.
func (f *finding) alone(tenant string) finding {
	one := *f // what it shares with f is only read
	one.kept, one.refused = nil, slices.Clone(f.refused)
	one.facts.Provenance, one.facts.SBOMs = slices.Clone(f.facts.Provenance), slices.Clone(f.facts.SBOMs)
	built, gone := f.built(), map[string]bool{}
	for _, k := range f.kept {
		why := "it is of another tenant than the provenance"
		switch {
		case k.revokes, k.tenant == tenant, k.tenant == "" && !built[k.id]:
			one.kept = append(one.kept, k)
			continue
		case k.tenant == "":
			why = "it is provenance of no tenant, and a tenant's is judged"
		}
		gone[k.id] = true
		one.refuse(k.id, errors.New(why))
	}
	one.facts.remove(gone)
	return one
}
