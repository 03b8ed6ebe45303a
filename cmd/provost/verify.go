// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"provost/attest"
	"provost/verify"
)

// maxBundleFile is the largest file of bundles read, in bytes, and maxBundles
// the most that one may hold.
const (
	maxBundleFile = 256 << 20
	maxBundles    = 1000
)

type verifyFlags struct {
	bundle, trustedRoot, revocations, predicateType, identity, issuer string
	explain                                                           bool
}

func verifyCommand(o *options) *cobra.Command {
	f := new(verifyFlags)
	c := &cobra.Command{
		Use:   "verify ARTIFACT",
		Short: "Verify attestations about an artifact on this machine",
		Long: `Verify attestations about an artifact on this machine.

The bundles come from --bundle, a Sigstore bundle or a file with one bundle a
line; without it they are asked of the service. Whom to trust comes from
--trusted-root, or is asked of the service. With both flags no socket is
opened.

Every bundle must verify, and a signed verdict (VSA) among them must say PASSED;
for which environment and resource it does is printed. Without --certificate-identity it must be signed by
the signer that a Provost service has for that kind of attestation.

A bundle that takes others back is obeyed, whether it is among the bundles or in
the file of --revocations, and what it names does not verify. Every one in that
file must verify itself.`,
		Example: `  provost verify app --bundle app.sigstore.json --trusted-root trusted_root.json
  provost verify sha256:9f86d0… --type slsaprovenance1`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return f.run(c.Context(), o, args[0]) },
	}
	flags := c.Flags()
	flags.StringVar(&f.bundle, "bundle", "", "`FILE` with the bundle, or one bundle a line")
	flags.StringVar(&f.trustedRoot, "trusted-root", "", "`FILE` with the trusted root (trusted_root.json)")
	flags.StringVar(&f.revocations, "revocations", "", "`FILE` with revocations of attestations, one bundle a line")
	flags.StringVar(&f.predicateType, "type", "", "only this predicate type: a `URI`, slsaprovenance1, cyclonedx or spdxjson")
	flags.StringVar(&f.identity, "certificate-identity", "", "the signer's SAN `URI`, compared exactly")
	flags.BoolVar(&f.explain, "explain", false, "print every field of provenance and where it comes from")
	flags.StringVar(&f.issuer, "certificate-oidc-issuer", "", "the issuer `URL` in the signer's certificate, compared exactly")
	return c
}

// An outcome is one bundle's, as printed in JSON.
type outcome struct {
	Verified      bool      `json:"verified"`
	PredicateType string    `json:"predicateType,omitempty"`
	Identity      string    `json:"certificateIdentity,omitempty"`
	Issuer        string    `json:"certificateOidcIssuer,omitempty"`
	SignedAt      time.Time `json:"signedAt,omitzero"`
	Subject       string    `json:"subject,omitempty"`
	Builder       string    `json:"builder,omitempty"`
	Source        string    `json:"source,omitempty"`
	claimedLevel
	Result   string  `json:"verificationResult,omitempty"` // of a VSA
	Policy   string  `json:"policy,omitempty"`             // of a VSA
	Resource string  `json:"resourceUri,omitempty"`        // of a VSA
	Step     string  `json:"step,omitempty"`
	Reason   string  `json:"reason,omitempty"`
	Fields   []field `json:"fields,omitempty"` // of provenance, with --explain
}

// report is the whole answer, as printed in JSON.
type report struct {
	Artifact string    `json:"artifact"`
	Verdict  string    `json:"verdict"`
	Bundles  []outcome `json:"bundles"`
}

func (f *verifyFlags) run(ctx context.Context, o *options, arg string) error {
	if f.identity != "" && f.issuer == "" {
		return usageError{hint(errors.New("--certificate-identity needs --certificate-oidc-issuer"), "name the issuer that the identity is of")}
	}
	want, err := predicateType(f.predicateType)
	if err != nil {
		return err
	}
	a, err := resolveArtifact(arg)
	if err != nil {
		return err
	}
	bundles, err := f.bundles(ctx, o, a, want)
	if err != nil {
		return err
	}
	trust, err := o.trust(ctx, f.trustedRoot)
	if err != nil {
		return err
	}
	revocations, err := f.revoked(trust)
	if err != nil {
		return err
	}
	r := f.judge(trust, a, verifying{bundles, want, revocations})
	if err := f.print(o.printer(), a, r); err != nil {
		return err
	}
	return exitOf(r.Verdict)
}

// bundles reads the bundles from the file, or asks the service for those about
// the artifact.
func (f *verifyFlags) bundles(ctx context.Context, o *options, a artifact, want string) ([][]byte, error) {
	if f.bundle == "" {
		// Verdicts are left out unless asked for: a VSA says what was judged, and
		// is no evidence. Revocations say what of the others holds no more.
		return o.fetchBundles(ctx, a.Digest, func(t string) bool {
			return t == want || want == "" && t != attest.VSAType || attest.IsRevocation(t)
		})
	}
	raw, err := readBounded(f.bundle, maxBundleFile)
	if err != nil {
		return nil, hint(fmt.Errorf("read bundle: %w", err), "provost attest keeps bundles as ARTIFACT.sigstore.json and ARTIFACT.intoto.jsonl")
	}
	return splitBundles(raw)
}

// splitBundles takes a file apart: one JSON document, or one a line.
func splitBundles(raw []byte) ([][]byte, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return nil, nil
	}
	if attest.CheckJSON(raw) == nil {
		return [][]byte{raw}, nil
	}
	var bundles [][]byte
	for line := range bytes.Lines(raw) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			bundles = append(bundles, line)
		}
		if len(bundles) > maxBundles {
			return nil, fmt.Errorf("read bundle: %w", &attest.LimitError{What: "file", Limit: maxBundles, Unit: "bundles"})
		}
	}
	if len(bundles) == 1 || attest.CheckJSON(bundles[0]) != nil {
		// Not lines of JSON after all: one broken document, to be refused
		// whole.
		return [][]byte{raw}, nil
	}
	return bundles, nil
}

// revoked reads the file of revocations. One that does not verify is an error:
// nobody knows what it takes back.
func (f *verifyFlags) revoked(trust *verify.Trust) (verify.Revocations, error) {
	if f.revocations == "" {
		return nil, nil
	}
	raw, err := readBounded(f.revocations, maxBundleFile)
	if err != nil {
		return nil, fmt.Errorf("read revocations: %w", err)
	}
	bundles, err := splitBundles(raw)
	if err != nil {
		return nil, err
	}
	var all verify.Revocations
	for i, b := range bundles {
		r, err := trust.VerifyRevocation(b, f.issuer)
		if err != nil {
			return nil, hint(fmt.Errorf("revocation %d of %s: %w", i+1, f.revocations, err),
				"it can neither be obeyed nor passed over: get the file again, or leave out --revocations")
		}
		all = append(all, r)
	}
	return all, nil
}

// A verifying is what judge goes through.
type verifying struct {
	bundles     [][]byte
	want        string // predicate type; "" for any
	revocations verify.Revocations
}

// judge verifies every bundle. PASS needs at least one of the wanted type, and
// none that fails or was taken back; a bundle of another type is neither.
func (f *verifyFlags) judge(trust *verify.Trust, a artifact, in verifying) report {
	r := report{Artifact: a.Digest.String(), Verdict: attest.VerdictNoEvidence.String(), Bundles: []outcome{}}
	verified, errs := make([]*verify.Verified, len(in.bundles)), make([]error, len(in.bundles))
	for i, raw := range in.bundles {
		v, err := trust.Verify(raw, verify.Expect{
			Artifact: a.Digest, Identity: verify.Identity{SAN: f.identity, Issuer: f.issuer},
		})
		if err == nil && attest.IsRevocation(v.Statement().PredicateType) {
			var revocation *verify.Revocation
			if revocation, err = trust.VerifyRevocation(raw, f.issuer); err == nil {
				in.revocations = append(in.revocations, revocation)
				continue
			}
		}
		verified[i], errs[i] = v, err
	}
	failed, passed := 0, 0
	for i, v := range verified {
		err := errs[i]
		switch {
		case err != nil:
		case v == nil, in.want != "" && v.Statement().PredicateType != in.want: // a revocation, or not asked for
			continue
		default:
			err = in.revocations.Check(v)
		}
		if err != nil {
			failed++
			r.Bundles = append(r.Bundles, refusal(err))
			continue
		}
		out := accepted(v)
		if r.Bundles = append(r.Bundles, out); out.Result == attest.VSAFailed {
			failed++ // it holds, and what it says is no
			continue
		}
		passed++
	}
	switch {
	case failed > 0:
		r.Verdict = attest.VerdictDeny.String()
	case passed > 0:
		r.Verdict = attest.VerdictPass.String()
	}
	return r
}

func refusal(err error) outcome {
	out := outcome{Reason: err.Error()}
	var at *verify.Error
	if errors.As(err, &at) {
		out.Step, out.Reason = string(at.Step), at.Err.Error()
	}
	return out
}

func accepted(v *verify.Verified) outcome {
	out := outcome{
		Verified: true, PredicateType: v.Statement().PredicateType, SignedAt: v.SignedAt(),
		Identity: v.Identity().SAN, Issuer: v.Identity().Issuer, Subject: v.Subject().Name,
	}
	if out.PredicateType == attest.ProvenanceType {
		if b, err := attest.ParseProvenance(v.Statement().Predicate); err == nil {
			out.Builder, out.claimedLevel = b.BuilderID, claimedLevel{b.Level, b.LevelReason}
			if len(b.Dependencies) > 0 {
				out.Source = b.Dependencies[0].URI
			}
			if out.Fields, err = explain(v.Statement(), b); err != nil {
				out.Reason = "its fields cannot be listed: " + err.Error()
			}
		}
	}
	if out.PredicateType == attest.VSAType {
		out.Result = attest.VSAFailed // closed: a summary that cannot be read is no yes
		if s, err := attest.ParseVSA(v.Statement().Predicate); err == nil {
			out.Result, out.Policy, out.Resource = s.VerificationResult, s.Policy.URI, s.ResourceURI
		}
	}
	return out
}

func (f *verifyFlags) print(p printer, a artifact, r report) error {
	for i := range r.Bundles {
		if !f.explain {
			r.Bundles[i].Fields = nil
		}
	}
	return p.answer(r, func() {
		p.printf("%s  %s\n", p.mark(r.Verdict), a.Digest)
		for _, b := range r.Bundles {
			if !b.Verified {
				p.printf("\n%s: %s\n", p.paint(red, "does not verify, at "+orNone(b.Step)), safe(b.Reason))
				continue
			}
			rows := []string{
				"  type\t" + safe(b.PredicateType), "  signer\t" + safe(b.Identity), "  issuer\t" + safe(b.Issuer),
				"  signed\t" + b.SignedAt.Format(time.RFC3339), "  subject\t" + safe(orNone(b.Subject)),
			}
			if b.Builder != "" {
				rows = append(rows, "  builder\t"+safe(b.Builder), "  source\t"+safe(b.Source))
				rows = append(rows, b.claimedLevel.rows()...)
			}
			if b.Result != "" {
				rows = append(rows, "  result\t"+safe(b.Result), "  policy\t"+safe(b.Policy), "  resource\t"+safe(b.Resource))
			}
			if b.Result == attest.VSAFailed {
				p.printf("\n%s\n", p.paint(red, "holds, and says no"))
			} else {
				p.printf("\n%s\n", p.paint(green, "verified"))
			}
			p.table(rows...)
			if len(b.Fields) > 0 {
				printFields(p, b.Fields)
			}
		}
		if len(r.Bundles) == 0 {
			p.printf("%s\n", f.nothing())
		}
	})
}

// nothing says what was looked for and not found.
func (f *verifyFlags) nothing() string {
	s := "no attestation"
	if f.predicateType != "" {
		s += " of type " + safe(f.predicateType)
	}
	if f.bundle != "" {
		return s + " is in " + safe(f.bundle)
	}
	return s + " about it was found"
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// predicateType resolves cosign's short names.
func predicateType(s string) (string, error) {
	switch s {
	case "":
		return "", nil
	case "slsaprovenance1", "slsaprovenance":
		return attest.ProvenanceType, nil
	case "cyclonedx":
		return "https://cyclonedx.org/bom", nil
	case "spdxjson":
		return "https://spdx.dev/Document/v2.3", nil
	}
	if !strings.Contains(s, "://") {
		return "", usageError{hint(fmt.Errorf("--type %q is not a predicate type", s), "a URI, slsaprovenance1, cyclonedx or spdxjson")}
	}
	return s, nil
}
