// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"provost/attest"
)

// What a decision reads about one artifact. More is an error, never a
// selection: the one left out might be the one that matters.
const (
	maxEvidence      = 1000      // attestations
	maxEvidenceBytes = 256 << 20 // of bundles, together
	evidencePage     = 4         // attestations held at once
)

// maxNonce is the longest nonce of a question, in bytes.
const maxNonce = 64

// errTooMuch: there is more evidence than a decision reads.
var errTooMuch = errors.New("more evidence than a decision reads")

// Evidence is where the gate looks for attestations.
type Evidence interface {
	// Attestations returns what q selects, in the order of storing. An error
	// is never an empty answer.
	Attestations(ctx context.Context, q attest.Query) ([]attest.Attestation, error)
}

// Decisions remembers verdicts. What it has returned nil for survives the
// process being killed.
type Decisions interface {
	AppendDecision(ctx context.Context, d attest.Decision) error
}

// A Policy judges what is believed.
type Policy interface {
	// Judge applies the policy of an environment. An unknown environment is an
	// [attest.ErrNotFound]. Any other error means that nothing was judged.
	Judge(ctx context.Context, environment string, f Facts) (Judgement, error)
}

// A Judgement is what a policy says of the facts. It passes only if no reason
// denies and every required rule was evaluated.
type Judgement struct {
	Reasons   []attest.Reason
	Required  []string // rules that must be evaluated
	Evaluated []string // rules that were
	Level     int      // SLSA build level of the builder that was accepted, 0 to 3
	Policy    attest.Digest
}

// A Question asks whether an artifact may go to an environment.
type Question struct {
	Artifact    attest.Digest
	Name        string // a label; may be empty
	Environment string
	// Nonce comes back in the signed verdict, so that an old verdict is no
	// answer to a new question. At most 64 visible ASCII characters; may be
	// empty.
	Nonce string
}

// A Gate decides. All fields but Imports and Foreign are required.
type Gate struct {
	Trust     func() (*Trust, error) // the trust root as it is now
	Service   string                 // the service's own URL: whose signers are believed, and the verifier.id
	Version   string                 // of this software, for verifier.version
	Evidence  Evidence
	Policy    Policy
	Issuer    *attest.Issuer // signs the verdict
	Decisions Decisions
	Now       func() time.Time
	// Imports is where the gate looks for what others signed, and Foreign the
	// root of a name as it is now, or an [attest.ErrNotFound]. nil for neither.
	Imports Imports
	Foreign func(name string) (*ForeignTrust, error)
}

var environmentName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$`)

// Decide answers a question. The returned decision is stored, and carries its
// verdict as a signed VSA unless it is ERROR.
//
// With an error there is no decision, and its verdict is the zero one, ERROR:
// ErrInvalid, ErrDenied and ErrNotFound (no such environment) are the
// caller's; ErrUnavailable may pass. A policy that fails to evaluate gives a
// decision of ERROR that is stored and says so, and so does more evidence than
// is read.
func (g *Gate) Decide(ctx context.Context, caller attest.Caller, q Question) (attest.Decision, error) {
	if err := caller.Require(attest.GrantDecide); err != nil {
		return attest.Decision{}, err
	}
	if err := q.validate(); err != nil {
		return attest.Decision{}, err
	}
	home, err := caller.Home(attest.GrantDecide)
	if err != nil {
		return attest.Decision{}, err
	}
	d := attest.Decision{
		ID: attest.NewID(), At: g.Now().UTC().Truncate(time.Second),
		Caller: caller.Issuer + " " + caller.Subject, Tenant: home,
		Artifact: q.Artifact, Name: q.Name, Environment: q.Environment,
	}

	// 1, 2: gather and believe. Any failure is an error, never "nothing was
	// found".
	in := caller.Within(attest.GrantDecide)
	in.Shared = true // among it what takes back
	found, err := g.gather(ctx, q.Artifact, in, d.At)
	if errors.Is(err, errTooMuch) {
		d.Reasons = []attest.Reason{{
			Rule: "evidence.bounded", Severity: attest.SeverityDeny,
			Message: fmt.Sprintf("there are more than %d attestations or %d bytes about this artifact", maxEvidence, maxEvidenceBytes),
		}}
		return g.record(ctx, d)
	}
	if err != nil {
		return attest.Decision{}, fmt.Errorf("gather evidence: %w", ours(err))
	}

	// 3: judge. An unknown environment is the caller's mistake; any other
	// failure is a verdict of ERROR.
	judged, err := g.judge(ctx, q.Environment, found)
	if err != nil {
		return attest.Decision{}, fmt.Errorf("judge: %w", err)
	}
	if d.Tenant == "" { // asked by one who may ask for all: the verdict is theirs whose artifact it is
		d.Tenant = judged.tenant
	}
	d.Verdict, d.Reasons = judged.verdict, judged.reasons
	if d.Verdict == attest.VerdictError {
		return g.record(ctx, d)
	}

	// 4: sign and record. Without a signed, stored verdict there is none.
	vsa, err := g.Issuer.Issue(ctx, caller, attest.Request{
		Subjects:  []attest.Subject{subjectOf(q)},
		Predicate: g.summary(d, q, judged.judgement, judged.inputs),
	})
	if err != nil {
		return attest.Decision{}, fmt.Errorf("sign verdict: %w", ours(err))
	}
	d.VSA, d.VSAID = vsa.Bundle, vsa.ID
	return g.record(ctx, d)
}

// record returns the decision if it could be stored; otherwise there is none.
func (g *Gate) record(ctx context.Context, d attest.Decision) (attest.Decision, error) {
	if err := g.Decisions.AppendDecision(ctx, d); err != nil {
		return attest.Decision{}, fmt.Errorf("append decision: %w", ours(err))
	}
	return d, nil
}

// A finding is all that was found about an artifact.
type finding struct {
	service     string
	count       int // attestations, believed or not
	imports     int // imported bundles, believed or not
	size        int // of all bundles, in bytes
	facts       Facts
	kept        []kept          // what was believed
	revocations Revocations     // believed; among kept
	doubtful    []doubtful      // revocations that are not
	refused     []attest.Reason // what was not believed, and why
}

// A kept is what stays in hand of an attestation that was believed.
type kept struct {
	id      string
	tenant  string
	name    attest.Revoked
	revokes bool // it is a revocation
	input   attest.InputAttestation
}

// A doubtful is a revocation that could not be believed.
type doubtful struct {
	id   string
	name attest.Revoked // unverified; empty when it cannot be read
	err  error
}

// gather reads everything about an artifact, a page at a time so that large
// bundles are not all held at once, and believes what it can. It fails when
// anything cannot be read, when there is no trust root, and when there is more
// than a decision reads. What was taken back is not among the facts, in
// whatever order it was stored.
func (g *Gate) gather(ctx context.Context, artifact attest.Digest, in attest.Tenants, now time.Time) (finding, error) {
	trust, err := g.Trust()
	if err != nil {
		return finding{}, fmt.Errorf("trust root: %w", err)
	}
	f := finding{service: g.Service, facts: Facts{Now: now, Artifact: artifact, Provenance: []ProvenanceFact{}, SBOMs: []SBOMFact{}, Imported: []ImportedFact{}}}
	q := attest.Query{Artifact: artifact, In: in, NotPredicateType: attest.VSAType, Limit: evidencePage}
	for {
		page, err := g.Evidence.Attestations(ctx, q)
		if err != nil {
			return finding{}, err
		}
		for _, a := range page {
			if a.Seq <= q.After { // closed: a store that repeats itself may also leave out
				return finding{}, fmt.Errorf("attestation %s is out of order", a.ID)
			}
			q.After = a.Seq
			f.count++
			if f.size += len(a.Bundle); f.tooMuch() {
				return finding{}, errTooMuch
			}
			f.believe(trust, a)
		}
		if len(page) < evidencePage {
			f.takeBack()
			if err := g.gatherImported(ctx, &f, in); err != nil {
				return finding{}, err
			}
			return f, nil
		}
	}
}

// tooMuch reports whether more was read than a decision reads.
func (f *finding) tooMuch() bool {
	return f.count+f.imports > maxEvidence || f.size > maxEvidenceBytes
}

// believe verifies one attestation, and keeps it or the reason why not.
func (f *finding) believe(trust *Trust, a attest.Attestation) {
	v, err := trust.Verify(a.Bundle, Expect{Artifact: f.facts.Artifact, Identity: Identity{Issuer: f.service}, PredicateType: a.PredicateType})
	switch {
	case err != nil:
	case v.statement.PredicateType == attest.RevocationType(f.service):
		var r *Revocation
		if r, err = v.revocation(); err == nil {
			f.revocations = append(f.revocations, r)
		}
	case attest.IsAuditHead(v.statement.PredicateType), attest.IsBuilder(v.statement.PredicateType): // whoever asks about its hash finds it; it is about no artifact
		f.count--
		return
	default:
		err = f.facts.add(f.service, a.ID, v)
	}
	if err == nil {
		f.kept = append(f.kept, kept{
			id: a.ID, tenant: a.Tenant, name: v.name(), revokes: attest.IsRevocation(v.statement.PredicateType),
			input: attest.InputAttestation{
				URI:    f.service + "/v1/attestations/" + a.ID,
				Digest: map[string]string{v.Digest().Algorithm(): v.Digest().Hex()},
			},
		})
		return
	}
	if claimsToRevoke(f.service, a) {
		d := doubtful{id: a.ID, err: err}
		if payload, signature, err := attest.OpenUnverified(a.Bundle); err == nil {
			d.name = attest.NameOf(payload, signature)
		}
		f.doubtful = append(f.doubtful, d)
		return
	}
	f.refuse(a.ID, err)
}

func (f *finding) refuse(id string, err error) {
	f.refused = append(f.refused, attest.Reason{
		Rule: "evidence.verifies", Severity: attest.SeverityInfo,
		Message: fmt.Sprintf("attestation %s is not believed: %s", id, err),
	})
}

// takeBack removes what was taken back from what was believed. A revocation
// that was believed stays, whoever would take it back.
//
// A revocation that is not believed denies. It is in our own store, where only
// what this service signed is put, so either somebody changed it, and nobody
// knows any more what it took back, or the signer of verdicts lost its trust
// over the time it was made: to pass over it would bring back what was taken
// back for good. To forge one takes writing to the store, and who can do that
// can deny anyway. The way out is a new revocation, of what the doubtful one
// took back and of the doubtful one itself; once named by one that is
// believed, it denies no more.
func (f *finding) takeBack() {
	gone := map[string]bool{}
	f.kept = slices.DeleteFunc(f.kept, func(k kept) bool {
		r := f.revocations.naming(f.service, k.name)
		if r == nil || k.revokes {
			return false
		}
		gone[k.id] = true
		f.refuse(k.id, r.refusal())
		return true
	})
	f.facts.remove(gone)
	for _, d := range f.doubtful {
		if r := f.revocations.naming(f.service, d.name); r != nil {
			f.refuse(d.id, r.refusal())
			continue
		}
		f.refused = append(f.refused, attest.Reason{
			Rule: "evidence.revocations", Severity: attest.SeverityDeny,
			Message: fmt.Sprintf("attestation %s takes others back and is not believed: %s", d.id, d.err),
		})
	}
}

// tenant is whose the evidence is, if it is of one; "" otherwise.
func (f *finding) tenant() string {
	tenant := ""
	for _, k := range f.kept {
		switch {
		case k.tenant == "" || k.tenant == tenant:
		case tenant == "":
			tenant = k.tenant
		default:
			return ""
		}
	}
	return tenant
}

// inputs are what the verdict rests on: what was believed, revocations too.
func (f *finding) inputs() (all []attest.InputAttestation) {
	for _, k := range f.kept {
		all = append(all, k.input)
	}
	return all
}

// verdict turns a judgement into the answer. PASS is the last case, reached
// only when something was believed, nothing denies and every required rule was
// evaluated.
func verdict(j Judgement, found finding) (attest.Verdict, []attest.Reason) {
	evaluated := map[string]bool{}
	for _, rule := range j.Evaluated {
		evaluated[rule] = true
	}
	for _, rule := range j.Required {
		if !evaluated[rule] {
			return attest.VerdictError, []attest.Reason{{Rule: rule, Severity: attest.SeverityDeny, Message: "the rule was not evaluated"}}
		}
	}
	if len(j.Required) == 0 || j.Policy.IsZero() || j.Level < 0 || j.Level > 3 {
		return attest.VerdictError, []attest.Reason{{
			Rule: "policy", Severity: attest.SeverityDeny, Message: "the policy requires no rule, has no digest or claims no build level that there is",
		}}
	}
	if found.count == 0 {
		return attest.VerdictNoEvidence, []attest.Reason{{
			Rule: "evidence.present", Severity: attest.SeverityDeny, Message: "no attestation about this artifact was found",
		}}
	}
	reasons := append(found.refused, j.Reasons...)
	reasons = append(reasons, found.facts.explain()...)
	for _, r := range reasons {
		if r.Severity != attest.SeverityInfo {
			return attest.VerdictDeny, reasons
		}
	}
	if len(found.kept) == len(found.revocations) { // closed, whatever a policy makes of no facts
		return attest.VerdictDeny, append(reasons, attest.Reason{
			Rule: "evidence.believed", Severity: attest.SeverityDeny, Message: "no attestation about this artifact is believed",
		})
	}
	return attest.VerdictPass, reasons
}

// summary is the verdict as a VSA: one per artifact and environment, the
// environment named in policy.uri.
func (g *Gate) summary(d attest.Decision, q Question, j Judgement, inputs []attest.InputAttestation) attest.VSA {
	result, levels := attest.VSAFailed, []string{attest.VSAFailed}
	if d.Verdict == attest.VerdictPass {
		result, levels = attest.VSAPassed, []string{fmt.Sprintf("SLSA_BUILD_LEVEL_%d", j.Level)}
	}
	extension := map[string]any{
		VSADecision(g.Service): d.ID,
		VSAVerdict(g.Service):  d.Verdict.String(),
		VSAReasons(g.Service):  d.Reasons,
	}
	if q.Nonce != "" {
		extension[VSANonce(g.Service)] = q.Nonce
	}
	return attest.VSA{
		Verifier:           attest.Verifier{ID: g.Service, Version: map[string]string{"provost": g.Version}},
		TimeVerified:       d.At,
		ResourceURI:        resourceURI(d.Name, d.Artifact),
		Policy:             attest.PolicyRef{URI: PolicyURI(g.Service, d.Environment), Digest: map[string]string{j.Policy.Algorithm(): j.Policy.Hex()}},
		InputAttestations:  inputs,
		VerificationResult: result,
		VerifiedLevels:     levels,
		SLSAVersion:        "1.2",
		Extension:          extension,
		Tenant:             d.Tenant,
	}
}

// The names in a verdict of a service, given its URL: the policy of an
// environment, and the extensions of the VSA.
func PolicyURI(service, environment string) string { return service + "/policies/" + environment }
func VSADecision(service string) string            { return service + "/vsa/decision" }
func VSAVerdict(service string) string             { return service + "/vsa/verdict" }
func VSAReasons(service string) string             { return service + "/vsa/reasons" }
func VSANonce(service string) string               { return service + "/vsa/nonce" }

func (q Question) validate() error {
	if q.Artifact.Algorithm() != attest.AlgSHA256 {
		return fmt.Errorf("%w: artifact digest: want sha256", attest.ErrInvalid)
	}
	if err := CheckEnvironment(q.Environment); err != nil {
		return err
	}
	if len(q.Nonce) > maxNonce || strings.ContainsFunc(q.Nonce, func(r rune) bool { return r <= 0x20 || r >= 0x7f }) {
		return fmt.Errorf("%w: nonce: want at most %d visible ASCII characters", attest.ErrInvalid, maxNonce)
	}
	if len(q.Name) > attest.MaxSubjectName {
		return &attest.LimitError{What: "name", Limit: attest.MaxSubjectName, Unit: "bytes"}
	}
	if !utf8.ValidString(q.Name) || strings.ContainsFunc(q.Name, unicode.IsControl) {
		return fmt.Errorf("%w: name has control characters or is not UTF-8", attest.ErrInvalid)
	}
	return nil
}

// CheckEnvironment returns an [attest.ErrInvalid] unless name can name an
// environment: it stands in URLs.
func CheckEnvironment(name string) error {
	if len(name) > attest.MaxEnvironment || !environmentName.MatchString(name) {
		return fmt.Errorf("%w: environment %.80q: want at most %d lower-case letters, digits, '.', '_' and '-'", attest.ErrInvalid, name, attest.MaxEnvironment)
	}
	return nil
}

func subjectOf(q Question) attest.Subject {
	return attest.Subject{Name: q.Name, SHA256: q.Artifact}
}

// resourceURI is a package URL of the generic type, of the name as asked and
// the digest. The name alone is the word of whoever asked: a VSA that carried
// it bare would vouch for one artifact under the name of another.
func resourceURI(name string, d attest.Digest) string {
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		if part != "" {
			parts = append(parts, purlEscape(part))
		}
	}
	if len(parts) == 0 {
		parts = []string{d.Hex()}
	}
	return "pkg:generic/" + strings.Join(parts, "/") + "?checksum=" + d.String()
}

// purlEscape is the percent-encoding of package URLs: all but letters, digits
// and "-._~:".
func purlEscape(s string) string {
	return strings.NewReplacer("+", "%20", "%3A", ":").Replace(url.QueryEscape(s))
}
