// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"errors"
	"fmt"
	"time"

	"provost/attest"
)

// VerifyAuditHead believes a signed audit head of the service that its
// certificate names, by that service's signer of verdicts, and returns it with
// the earliest trusted time of its signature. That the audit log reaches it is
// for the caller to compare. It refuses as [Trust.Verify] does.
func (t *Trust) VerifyAuditHead(raw []byte) (head attest.AuditHead, signedAt time.Time, err error) {
	payload, _, err := attest.OpenUnverified(raw)
	if err != nil {
		return head, signedAt, &Error{StepBundle, err}
	}
	said, err := attest.ParseStatement(payload)
	if err != nil {
		return head, signedAt, &Error{StepStatement, err}
	}
	v, err := t.Verify(raw, Expect{Artifact: said.Subjects[0].SHA256, PredicateType: said.PredicateType})
	if err != nil {
		return head, signedAt, err
	}
	service := v.identity.Issuer
	if got, want := v.statement.PredicateType, attest.AuditHeadType(service); got != want {
		return head, signedAt, &Error{StepStatement, fmt.Errorf("predicateType is %s, expected %s", got, want)}
	}
	if want := SignerIdentity(service, attest.PowerVerdict); v.identity != want {
		return head, signedAt, &Error{StepIdentity, fmt.Errorf("signed by %q, expected %q", v.identity.SAN, want.SAN)}
	}
	if head, err = attest.ParseAuditHead(service, v.statement.Predicate); err != nil {
		return attest.AuditHead{}, signedAt, &Error{StepStatement, err}
	}
	if len(v.statement.Subjects) != 1 || v.subject.SHA256 != head.Hash {
		return attest.AuditHead{}, signedAt, &Error{StepSubject, errors.New("the statement's subject is not the head")}
	}
	return head, v.signedAt, nil
}
