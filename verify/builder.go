// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"errors"

	"provost/attest"
)

// VerifyBuilder believes a row of a service's builder registry by the bundle
// that was signed before it was stored: by the service's signer of verdicts, of
// this very row. It refuses as [Trust.Verify] does.
func (t *Trust) VerifyBuilder(raw []byte, r attest.Registered) error {
	predicate, err := r.Predicate()
	if err != nil {
		return &Error{StepStatement, err}
	}
	v, err := t.Verify(raw, Expect{
		Artifact: attest.SHA256(predicate), PredicateType: attest.BuilderType(r.Service),
		Identity: SignerIdentity(r.Service, attest.PowerVerdict),
	})
	if err != nil {
		return err
	}
	if !bytes.Equal(v.statement.Predicate, predicate) {
		return &Error{StepStatement, errors.New("it is about another row")}
	}
	return nil
}
