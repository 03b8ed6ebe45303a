// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"errors"
	"testing"
)

func FuzzParseVSA(f *testing.F) {
	f.Add([]byte(`{"verifier":{"id":"https://v.example"},"timeVerified":"2026-01-01T00:00:00Z","resourceUri":"pkg:generic/a",` +
		`"policy":{"uri":"https://v.example/policies/prod"},"verificationResult":"PASSED","verifiedLevels":["SLSA_BUILD_LEVEL_2"],"https://v.example/x":1}`))
	f.Add([]byte(`{"verificationResult":"FAILED","verifiedLevels":["FAILED"]}`))
	f.Add([]byte(`{"verifiedLevels":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := ParseVSA(data)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		failed := len(v.VerifiedLevels) == 1 && v.VerifiedLevels[0] == VSAFailed
		if v.Verifier.ID == "" || (v.VerificationResult == VSAPassed) == failed {
			t.Fatalf("believed: %+v", v)
		}
	})
}
