// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"testing"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	engine "github.com/sigstore/sigstore-go/pkg/verify"

	"provost/attest"
	"provost/verify"
)

// BenchmarkVerify is what a belief costs, beside sigstore-go alone on the same
// bytes under the same root, which checks less.
func BenchmarkVerify(b *testing.B) {
	g := readGolden(b)
	trusts := g.trusts()
	for _, bundleOf := range g.bundles {
		if bundleOf.signer != verify.SignerIdentity(service, attest.PowerProvenance) {
			continue
		}
		b.Run("provost/"+bundleOf.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := trusts[bundleOf.root].Verify(bundleOf.raw, verify.Expect{Artifact: app}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("sigstore-go/"+bundleOf.name, func(b *testing.B) {
			material := must(root.NewTrustedRootFromJSON(g.rootOf(bundleOf)))
			options := []engine.VerifierOption{engine.WithSignedTimestamps(1), engine.WithoutStatementPredicate()}
			if bundleOf.root != plainRoot {
				options = append(options, engine.WithTransparencyLog(1))
			}
			if bundleOf.root == fullRoot {
				options = append(options, engine.WithSignedCertificateTimestamps(1))
			}
			verifier := must(engine.NewVerifier(material, options...))
			id := must(engine.NewShortCertificateIdentity(service, "", bundleOf.signer.SAN, ""))
			policy := engine.NewPolicy(engine.WithArtifactDigest("sha256", app.Bytes()), engine.WithCertificateIdentity(id))
			b.ReportAllocs()
			for b.Loop() {
				var parsed bundle.Bundle
				check(b, parsed.UnmarshalJSON(bundleOf.raw))
				must(verifier.Verify(&parsed, policy))
			}
		})
	}
}
