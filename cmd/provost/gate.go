// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"provost/api/client"
	"provost/attest"
	"provost/verify"
)

type gateFlags struct {
	explain                       bool
	environment, vsa, trustedRoot string
}

func gateCommand(o *options) *cobra.Command {
	f := new(gateFlags)
	c := &cobra.Command{
		Use:   "gate ARTIFACT --env NAME",
		Short: "Ask whether an artifact may go to an environment",
		Long: `Ask the service whether an artifact may go to an environment, and print the
verdict with its reasons. Everything but PASS means no:

  0 PASS   1 ERROR   3 DENY   4 NO_EVIDENCE

A PASS counts only with its signed verdict: the VSA is verified here, with
--trusted-root or the service's own trusted root, before the command says 0.`,
		Example: "  provost gate dist/app --env prod --vsa app.vsa.sigstore.json",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return f.run(c.Context(), o, args[0]) },
	}
	c.Flags().StringVar(&f.environment, "env", "", "`NAME` of the environment to go to")
	c.Flags().BoolVar(&f.explain, "explain", false, "say whose word each field of the provenance is, too")
	c.Flags().StringVar(&f.vsa, "vsa", "", "`FILE` to keep the signed verdict in; replaced if it exists")
	c.Flags().StringVar(&f.trustedRoot, "trusted-root", "", "`FILE` with the trusted root that the verdict is verified with")
	return c
}

func (f *gateFlags) run(ctx context.Context, o *options, arg string) error {
	if f.environment == "" {
		return usageError{hint(errors.New("--env NAME is required"), "provost gate "+arg+" --env prod")}
	}
	a, err := resolveArtifact(arg)
	if err != nil {
		return err
	}
	service, err := o.service()
	if err != nil {
		return err
	}
	if f.vsa != "" {
		if err := canKeep(f.vsa); err != nil {
			return err
		}
		// An earlier verdict must not be taken for this one if none comes.
		if err := os.Remove(f.vsa); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("replace the earlier verdict: %w", err)
		}
	}
	nonce := rand.Text()
	d, err := service.Decide(ctx, client.Question{
		Artifact: client.Artifact{Digest: a.Digest, Name: a.Name}, Environment: f.environment, Nonce: nonce,
	})
	if err != nil { // closed: ERROR
		err = fmt.Errorf("gate: %w", err)
		if errors.Is(err, attest.ErrNotFound) {
			err = hint(err, "the service's configuration names its environments (provostd dev: dev, staging and prod)")
		}
		return err
	}
	if d.Verdict != attest.VerdictError {
		trust, err := o.trust(ctx, f.trustedRoot)
		if err != nil {
			return fmt.Errorf("gate: the service says %s, but whom to trust about it is not known: %w", d.Verdict, err) // closed: ERROR
		}
		if err := f.checkVSA(trust, a, d, nonce); err != nil {
			err = fmt.Errorf("gate: the service says %s, but its signed verdict does not hold: %w", d.Verdict, err)
			return hint(err, "do not promote it; look whom is trusted: provost trust show") // closed: ERROR
		}
		if f.vsa != "" {
			if err := writeTo(f.vsa, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, d.VSA); err != nil {
				return fmt.Errorf("gate: keep the signed verdict: %w", err)
			}
		}
	}
	p := o.printer()
	if err := p.answer(d, func() { printDecision(p, a, d, f.explain) }); err != nil {
		return err
	}
	return exitOf(d.Verdict.String())
}

// checkVSA believes the verdict only as far as it is signed: by the verdict
// signer, about this artifact and environment, saying what the answer says,
// and in answer to this very question: an old PASS is none.
func (f *gateFlags) checkVSA(trust *verify.Trust, a artifact, d client.Decision, nonce string) error {
	v, err := trust.Verify(d.VSA, verify.Expect{Artifact: a.Digest, PredicateType: attest.VSAType})
	if err != nil {
		return err
	}
	summary, err := attest.ParseVSA(v.Statement().Predicate)
	if err != nil {
		return err
	}
	if passed := summary.VerificationResult == attest.VSAPassed; passed != (d.Verdict == attest.VerdictPass) {
		return fmt.Errorf("it says %s", summary.VerificationResult)
	}
	by := v.Identity().Issuer
	if want := verify.PolicyURI(by, f.environment); summary.Policy.URI != want {
		return fmt.Errorf("it is about policy %s, not %s", summary.Policy.URI, want)
	}
	if summary.Verifier.ID != by {
		return fmt.Errorf("its verifier %s is not its signer's service %s", summary.Verifier.ID, by)
	}
	if summary.Extension[verify.VSANonce(by)] != nonce {
		return errors.New("it answers another question: its nonce is not the one that was asked with")
	}
	if got := summary.Extension[verify.VSAVerdict(by)]; got != d.Verdict.String() {
		return fmt.Errorf("it says %v", got)
	}
	if got := summary.Extension[verify.VSADecision(by)]; got != d.ID {
		return fmt.Errorf("it is of decision %v, not %s", got, d.ID)
	}
	return nil
}

func printDecision(p printer, a artifact, d client.Decision, explain bool) {
	p.printf("%s  %s to %s\n", p.mark(d.Verdict.String()), a.Digest, d.Environment)
	var rows []string
	for _, r := range d.Reasons {
		if r.Rule == verify.RuleOrigins && !explain {
			continue
		}
		mark, colour := "ok", dim
		if r.Severity != attest.SeverityInfo {
			mark, colour = "no", red
		}
		rows = append(rows, fmt.Sprintf("  %s\t%s\t%s", p.paint(colour, mark), r.Rule, safe(r.Message)))
	}
	p.table(rows...)
	p.printf("decision %s\n", d.ID)
}
