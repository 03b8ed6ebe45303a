// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// The outcomes of a decision about authority.
const (
	AuditAllowed = "allowed" // the caller was let; whether it then came to an end is not said
	AuditRefused = "refused"
)

// Bounds on the texts of an audit record, in bytes.
const (
	MaxAuditText   = 1024
	maxAuditAction = 64
)

// An AuditRecord says of one decision about authority who asked for what, from
// where, and how it was decided. Records are append-only and chained: each has
// the hash of the one before it, so that none can be changed, moved or taken
// out of the middle without all that follow being made anew. That records are
// missing at the end shows against a signed [AuditHead] alone.
//
// Hash is the SHA-256 of the record's JSON without the member hash, in the
// canonical form of RFC 8785: every member stands in it, also an empty one,
// sorted by its name, without white space. Previous is one of the members. So
// whoever has the records as the service serves them can compute the chain
// with any library for RFC 8785.
//
// No token stands in a record.
type AuditRecord struct {
	Seq     int64     `json:"seq"`     // from 1, without gaps
	At      time.Time `json:"at"`      // UTC, whole microseconds
	Request string    `json:"request"` // id of the request, as in the service's log
	Remote  string    `json:"remote"`  // address that the request came from
	Issuer  string    `json:"issuer"`  // of the verified token; "" when none was accepted
	Subject string    `json:"subject"` // of the verified token
	Tenant  string    `json:"tenant"`  // of the caller; may be empty
	Session string    `json:"session"` // of the caller; may be empty
	Action  string    `json:"action"`  // short words with dots, such as attest.provenance
	Object  string    `json:"object"`  // what it was to be done to
	Outcome string    `json:"outcome"` // AuditAllowed or AuditRefused
	Why     string    `json:"why"`     // the rules that let the caller, or why it was refused
	// Previous is the hash of the record before; 32 zero bytes in the first.
	Previous Digest `json:"previous"`
	Hash     Digest `json:"hash"`
}

// Allowed is the record that the caller was let. It is not chained yet.
func (c Caller) Allowed(action, object string, at time.Time) AuditRecord {
	return c.audit(AuditRecord{Action: action, Object: object, At: at, Outcome: AuditAllowed, Why: c.Why})
}

// Refused is the record that the caller was not let, and why. It is not
// chained yet.
func (c Caller) Refused(action, object, why string, at time.Time) AuditRecord {
	return c.audit(AuditRecord{Action: action, Object: object, At: at, Outcome: AuditRefused, Why: why})
}

// audit adds who asks, and makes every text one that can be stored: it is cut
// at its bound, and what would move a terminal's cursor is replaced.
func (c Caller) audit(r AuditRecord) AuditRecord {
	r.Request, r.Remote, r.Issuer, r.Subject, r.Tenant, r.Session = c.Request, c.Remote, c.Issuer, c.Subject, c.Tenant, c.Session
	for _, text := range r.texts() {
		*text = auditText(*text)
	}
	return r
}

func (r *AuditRecord) texts() []*string {
	return []*string{&r.Request, &r.Remote, &r.Issuer, &r.Subject, &r.Tenant, &r.Session, &r.Object, &r.Why}
}

func auditText(s string) string {
	s = strings.ToValidUTF8(s, "�")
	if strings.ContainsFunc(s, isControl) {
		s = strings.Map(func(r rune) rune {
			if isControl(r) {
				return '�'
			}
			return r
		}, s)
	}
	if len(s) > MaxAuditText {
		const more = "…"
		s = strings.ToValidUTF8(s[:MaxAuditText-len(more)], "") + more
	}
	return s
}

// Validate returns an [ErrInvalid] for a record that a store may not take.
func (r AuditRecord) Validate() error {
	if r.Action == "" || len(r.Action) > maxAuditAction || strings.ContainsFunc(r.Action, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-'
	}) {
		return fmt.Errorf("%w: audit record: action %.80q: want lower-case words with dots", ErrInvalid, r.Action)
	}
	if r.Outcome != AuditAllowed && r.Outcome != AuditRefused {
		return fmt.Errorf("%w: audit record: outcome %.20q", ErrInvalid, r.Outcome)
	}
	if y := r.At.UTC().Year(); r.At.IsZero() || y < 0 || y > 9999 {
		return fmt.Errorf("%w: audit record: want a time", ErrInvalid)
	}
	for _, text := range r.texts() {
		if len(*text) > MaxAuditText || !utf8.ValidString(*text) || strings.ContainsFunc(*text, isControl) {
			return fmt.Errorf("%w: audit record: a text is longer than %d bytes or has control characters", ErrInvalid, MaxAuditText)
		}
	}
	return nil
}

// Chain returns r as the record that follows last, the head of the chain; the
// zero head is that of no records.
func (r AuditRecord) Chain(last AuditHead) AuditRecord {
	r.At = r.At.UTC().Truncate(time.Microsecond)
	r.Seq, r.Previous = last.Seq+1, last.previous()
	r.Hash = r.hash()
	return r
}

// previous is what the record after h has as Previous.
func (h AuditHead) previous() Digest {
	if h.Hash.IsZero() {
		return Digest{AlgSHA256, strings.Repeat("0", hexLength[AlgSHA256])}
	}
	return h.Hash
}

// Head is the head of a chain that ends with r.
func (r AuditRecord) Head() AuditHead { return AuditHead{Seq: r.Seq, Hash: r.Hash, At: r.At} }

// hashedRecord is what the hash of a record covers. Its members are sorted, as
// RFC 8785 asks; a test holds that.
type hashedRecord struct {
	Action   string    `json:"action"`
	At       time.Time `json:"at"`
	Issuer   string    `json:"issuer"`
	Object   string    `json:"object"`
	Outcome  string    `json:"outcome"`
	Previous Digest    `json:"previous"`
	Remote   string    `json:"remote"`
	Request  string    `json:"request"`
	Seq      int64     `json:"seq"`
	Session  string    `json:"session"`
	Subject  string    `json:"subject"`
	Tenant   string    `json:"tenant"`
	Why      string    `json:"why"`
}

// hash is what Hash must be; the zero Digest, which equals none, for a record
// that has no JSON.
func (r AuditRecord) hash() Digest {
	raw, err := encodeJSON(hashedRecord{
		r.Action, r.At.UTC(), r.Issuer, r.Object, r.Outcome, r.Previous, r.Remote, r.Request, r.Seq, r.Session, r.Subject, r.Tenant, r.Why,
	})
	if err != nil {
		return Digest{}
	}
	return SHA256(raw)
}

// VerifyAudit checks that the records follow one another and the head from,
// the zero one for records from the first, and returns the head after them. A
// record that was changed, moved, added or taken out is an [ErrConflict] that
// names the first one that does not fit. Records that are missing after the
// last are not seen: compare the head with signed ones.
func VerifyAudit(records []AuditRecord, from AuditHead) (AuditHead, error) {
	for _, r := range records {
		switch {
		case r.Seq != from.Seq+1:
			return from, fmt.Errorf("%w: audit log: after record %d comes record %d", ErrConflict, from.Seq, r.Seq)
		case r.Previous != from.previous():
			return from, fmt.Errorf("%w: audit log: record %d does not follow the record before it: that one was changed", ErrConflict, r.Seq)
		case r.Hash.IsZero() || r.Hash != r.hash():
			return from, fmt.Errorf("%w: audit log: record %d was changed", ErrConflict, r.Seq)
		}
		from = r.Head()
	}
	return from, nil
}

// auditHeadPath ends the predicateType of every [AuditHead]: see
// [RevocationType].
const auditHeadPath = "/attestation/audit-head/v0.1"

// AuditHeadType is the predicateType of a service's signed audit heads, given
// the service's own URL.
func AuditHeadType(service string) string { return service + auditHeadPath }

// IsAuditHead reports whether statements of a predicateType are audit heads, of
// whatever service. They say nothing about any artifact.
func IsAuditHead(predicateType string) bool {
	service, ok := strings.CutSuffix(predicateType, auditHeadPath)
	return ok && service != ""
}

// An AuditHead is where the audit log of a service ended when it was signed:
// its last record, and by that record's hash all before it. The zero head is
// that of an empty log, and is never signed. The statement's one subject has
// the hash as its digest.
type AuditHead struct {
	Service string    `json:"-"` // whose it is: its URL stands in the predicateType
	Seq     int64     `json:"seq"`
	Hash    Digest    `json:"hash"`
	At      time.Time `json:"at"` // of the record, UTC; the signature's timestamp tells when it was signed
}

// Request has the head signed. Two processes that ask for the same head get one
// attestation: it names no time of its own, and its key is made of the head.
func (h AuditHead) Request() Request {
	return Request{
		Subjects:       []Subject{{Name: "audit log", SHA256: h.Hash}},
		Predicate:      h,
		IdempotencyKey: fmt.Sprintf("audit-head-%d", h.Seq),
	}
}

func (h AuditHead) claim(Caller) (claim, error) {
	// No grant: it is the service's own word, and no request from outside can
	// carry it.
	if h.Service == "" {
		return claim{}, fmt.Errorf("%w: audit head of no service", ErrInvalid)
	}
	if err := h.validate(); err != nil {
		return claim{}, err
	}
	predicate, err := encodeJSON(h)
	if err != nil {
		return claim{}, fmt.Errorf("%w: audit head: %w", ErrInvalid, err)
	}
	return claim{AuditHeadType(h.Service), predicate, ""}, nil
}

func (h AuditHead) validate() error {
	if h.Seq < 1 || h.Hash.Algorithm() != AlgSHA256 || h.At.IsZero() {
		return fmt.Errorf("%w: audit head: want a seq from 1, a sha256 and a time", ErrInvalid)
	}
	return nil
}

// ParseAuditHead reads a predicate of a service's [AuditHeadType]. The error is
// an [ErrInvalid].
func ParseAuditHead(service string, predicate []byte) (AuditHead, error) {
	h := AuditHead{}
	if err := DecodeOpenJSON(predicate, &h); err != nil {
		return AuditHead{}, fmt.Errorf("audit head: %w", err)
	}
	if err := h.validate(); err != nil {
		return AuditHead{}, err
	}
	h.Service, h.At = service, h.At.UTC()
	return h, nil
}

// auditIssue is the record that goes with an intent: who may have what signed.
// It is nil for what nobody asked for in these words: the service signs its audit
// heads by itself, and a record of each would move the head for ever.
func auditIssue(c Caller, p Predicate, in Intent) *AuditRecord {
	var action string
	switch p.(type) {
	case Provenance:
		action = "attest.provenance"
	case SBOM:
		action = "attest.sbom"
	case VSA:
		action = "attest.vsa"
	case Revocation:
		action = "attest.revocation"
	case AuditHead, Registered: // a row is recorded as what was asked for
		return nil
	default:
		action = "attest.statement"
	}
	object := fmt.Sprintf("%s %s %s", in.Payload, in.PredicateType, in.Subjects[0].SHA256)
	if n := len(in.Subjects) - 1; n > 0 {
		object += fmt.Sprintf(" and %d more", n)
	}
	r := c.Allowed(action, object, in.At)
	return &r
}
