// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"provost/attest"
)

// MaxPage is the largest sum of bundles in one page of attestations, in bytes.
// It holds any one bundle ([attest.MaxBundle]).
const MaxPage = 32 << 20

// A Subject is an artifact by its digests: sha256 is required, sha512 may
// stand beside it, no other algorithm may.
type Subject struct {
	Name   string            `json:"name,omitempty"`
	Digest map[string]string `json:"digest"` // algorithm → lower-case hex
}

// A ProvenanceRequest is all that a caller may say about its build: what came
// out of it, and what else went into it.
type ProvenanceRequest struct {
	Subjects []Subject `json:"subjects"`
	// ResolvedDependencies are marked as tenant-supplied in the provenance:
	// nobody checks them.
	ResolvedDependencies []Resource `json:"resolvedDependencies,omitempty"`
}

// A Resource is something a build used.
type Resource struct {
	URI    string            `json:"uri"`
	Digest map[string]string `json:"digest"`
}

// An Attestation is a released bundle.
type Attestation struct {
	ID            string       `json:"id"`
	PredicateType string       `json:"predicateType"`
	SignedAt      time.Time    `json:"signedAt"` // the timestamp authority's time, UTC
	Signer        attest.Power `json:"signer"`
	KeyVersion    int          `json:"keyVersion"`
	// Bundle is the Sigstore bundle, byte for byte as it is stored, so that
	// its digest is the one that verdicts name.
	Bundle jsontext.Value `json:"bundle,omitzero"`
}

// A Page is a part of a list, in the order of storing. Next continues it; ""
// when this was the end.
type Page struct {
	Attestations []Attestation `json:"attestations"`
	Next         string        `json:"next,omitempty"`
}

// An Artifact is what a decision is about.
type Artifact struct {
	Digest attest.Digest `json:"digest"` // sha256
	Name   string        `json:"name,omitempty"`
}

// A Question asks whether an artifact may go to an environment.
type Question struct {
	Artifact    Artifact `json:"artifact"`
	Environment string   `json:"environment"`
	// Nonce comes back in the signed verdict, so that an old verdict is no
	// answer to a new question; at most 64 visible ASCII characters.
	Nonce string `json:"nonce,omitempty"`
}

// A Decision is a recorded verdict. Everything but PASS means no; the zero
// Decision is an ERROR.
type Decision struct {
	ID          string          `json:"id"`
	Verdict     attest.Verdict  `json:"verdict"`
	Reasons     []attest.Reason `json:"reasons"`
	Environment string          `json:"environment"`
	Artifact    Artifact        `json:"artifact"`
	DecidedAt   time.Time       `json:"decidedAt"` // UTC
	// VSA is the signed verdict, a Sigstore bundle byte for byte as it is
	// stored; null for ERROR.
	VSA jsontext.Value `json:"vsa,omitzero"`
}

// Keys are the signers and every version they ever had.
type Keys struct {
	Keys []Key `json:"keys"`
}

// A Key is one signer.
type Key struct {
	Signer   attest.Power `json:"signer"`
	Identity string       `json:"identity"` // the SAN URI of its certificates
	Versions []KeyVersion `json:"versions"`
}

// A KeyVersion is one version of a key and the window of its certificate.
type KeyVersion struct {
	Version   int       `json:"version"`
	State     string    `json:"state"` // "active", "retired" or "revoked"
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
}

// A Rotation is the version that a rotation made.
type Rotation struct {
	Signer attest.Power `json:"signer"`
	KeyVersion
}

// An AttestationRevocation takes back a single attestation.
type AttestationRevocation struct {
	Reason string `json:"reason,omitempty"` // for people
}

// A RevocationRequest takes back what a key version signed in an interval.
type RevocationRequest struct {
	Version int       `json:"version"`
	From    time.Time `json:"from,omitzero"` // zero: since its certificate began
	To      time.Time `json:"to,omitzero"`   // inclusive; zero: until its certificate ends
	Reason  string    `json:"reason,omitempty"`
	// DryRun asks what it would touch, and records nothing.
	DryRun bool `json:"dryRun,omitempty"`
}

// A Revocation is what was taken back, or would be, and what it touches.
type Revocation struct {
	ID         string       `json:"id,omitempty"` // "" when it was not recorded
	Signer     attest.Power `json:"signer"`
	Version    int          `json:"version"`
	From       time.Time    `json:"from"` // whole seconds, UTC
	To         time.Time    `json:"to"`   // inclusive
	RecordedAt time.Time    `json:"recordedAt,omitzero"`
	// Warning says what could not be done after it was recorded.
	Warning string `json:"warning,omitempty"`
	Impact  Impact `json:"impact"`
}

// An Impact is what was signed in an interval.
type Impact struct {
	// Versions are the key versions whose signatures verifiers refuse in the
	// interval: clients can be told of CAs alone, so all that one certified.
	Versions     []int          `json:"versions"`
	Attestations []Attestation  `json:"attestations"` // without bundles, in the order of storing
	Artifacts    []Subject      `json:"artifacts"`    // what they are about
	Environments []Environment  `json:"environments"` // where the artifacts were let in
	Total        map[string]int `json:"total"`        // attestations by predicate type, all of them
	// Truncated says that there are more attestations than are listed.
	Truncated bool `json:"truncated"`
}

// An Environment is where a decision let an artifact in.
type Environment struct {
	Environment string        `json:"environment"`
	Artifact    attest.Digest `json:"artifact"`
	Decision    string        `json:"decision"` // the newest that passed
	DecidedAt   time.Time     `json:"decidedAt"`
}

// Intents are the signatures that may have been made and were never released.
type Intents struct {
	Intents []Intent `json:"intents"`
}

// An Intent says what was about to be signed.
type Intent struct {
	ID            string       `json:"id"`
	At            time.Time    `json:"at"` // UTC
	Signer        attest.Power `json:"signer"`
	PredicateType string       `json:"predicateType"`
	Subjects      []Subject    `json:"subjects"`
}

// An AuditPage is a part of the audit log, in the order of the records. Nothing
// of it is verified: see [attest.VerifyAudit].
type AuditPage struct {
	Records []attest.AuditRecord `json:"records"`
	Next    string               `json:"next,omitempty"` // continues it; "" when this was the end
	Head    *Attestation         `json:"head,omitzero"`  // the head that was signed last; nil when there is none
}

// Readiness says which of the things that the service needs it has.
type Readiness struct {
	Status string            `json:"status"` // "ready" or "not ready"
	Checks map[string]string `json:"checks"` // name → "ok" or "failing"
}

// ProblemType is the media type of a [Problem] (RFC 9457).
const ProblemType = "application/problem+json"

// A Problem is an answer that is not what was asked for. It is the error that
// the calls of [Client] return for one, and it is the [attest.ErrInvalid],
// ErrDenied, ErrNotFound, ErrConflict or ErrUnavailable that its status stands
// for.
type Problem struct {
	Type      string `json:"type"` // "about:blank": the status says it all
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail,omitempty"`
	RequestID string `json:"request_id,omitempty"`
	// Limit is the bound that was exceeded, with status 413; Unit says what it
	// counts.
	Limit int64  `json:"limit,omitzero"`
	Unit  string `json:"unit,omitempty"`
	// Grant is the grant that is missing, with status 403.
	Grant attest.Grant `json:"grant,omitempty"`
	// RetryAfter is how long the server asks to wait; 0 if it does not say.
	RetryAfter time.Duration `json:"-"`
}

func (p *Problem) Error() string {
	s := fmt.Sprintf("%d %s", p.Status, p.Title)
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	if p.RequestID != "" {
		s += " (request " + p.RequestID + ")"
	}
	return s
}

// ErrUnauthenticated is a [Problem] of status 401: the token was not accepted,
// or there was none.
var ErrUnauthenticated = errors.New("unauthenticated")

// ErrInsecure is a service URL of plain http to another machine. Nothing was
// sent. It is an [attest.ErrInvalid], too.
var ErrInsecure = errors.New("insecure")

// Is makes a Problem the kind of error that its status stands for.
func (p *Problem) Is(target error) bool {
	switch p.Status {
	case http.StatusUnauthorized:
		return target == ErrUnauthenticated
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType:
		return target == attest.ErrInvalid
	case http.StatusForbidden:
		return target == attest.ErrDenied
	case http.StatusNotFound:
		return target == attest.ErrNotFound
	case http.StatusConflict:
		return target == attest.ErrConflict
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return target == attest.ErrUnavailable
	}
	return false
}
