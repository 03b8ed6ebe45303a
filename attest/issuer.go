// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"

	"provost/attest/rfc3161"
)

// ErrSelfCheck means that a signature or timestamp which this service just
// made does not verify. It is an alarm, not a caller's mistake: a key was
// swapped, or the backend signs with another version than it says.
var ErrSelfCheck = errors.New("own signature does not verify")

// A Signer signs with the current version of one key.
type Signer interface {
	// Sign returns the ECDSA P-256 signature over SHA-256(message), with the
	// version that made it and that version's leaf certificate. It must not
	// return a signature of any other version than the certificate's. An
	// error that may pass wraps [ErrUnavailable].
	Sign(ctx context.Context, message []byte) (Signature, error)
}

// A Signature is what a [Signer] made.
type Signature struct {
	Version     int    // of the key, from 1
	DER         []byte // ASN.1 ECDSA signature
	Certificate []byte // the version's leaf, DER
}

// A Timestamper is an RFC 3161 timestamp authority, or several.
type Timestamper interface {
	// Timestamp returns DER TimeStampResps whose imprint is
	// SHA-256(signature), one at least, each of another authority. An error
	// that may pass wraps [ErrUnavailable].
	Timestamp(ctx context.Context, signature []byte) ([][]byte, error)
}

// A Ledger remembers what is about to be signed and what was released. What it
// has returned nil for survives the process being killed.
type Ledger interface {
	// AppendIntent stores the intent, before anything is signed. When the
	// caller has used intent.IdempotencyKey before, it stores nothing: with
	// the same payload and tenant it returns the earlier intent's ID and, if
	// that one was released, its attestation; with others it returns an
	// [ErrConflict]. Otherwise the intent counts in its session, and when that
	// has ended, or has no statement left, it is an [ErrDenied]. An error that
	// may pass wraps [ErrUnavailable].
	AppendIntent(ctx context.Context, intent Intent) (id string, done *Attestation, err error)
	// AppendAttestation stores a bundle under its intent's ID and returns what
	// is stored there: the first one wins, so that two requests with one
	// idempotency key get one answer. Without the intent it is an
	// [ErrNotFound].
	AppendAttestation(ctx context.Context, a Attestation) (Attestation, error)
}

// An Intent says what is about to be signed, for whom.
type Intent struct {
	ID             string
	At             time.Time // UTC
	CallerIssuer   string
	CallerSubject  string
	Tenant         string // that it belongs to; "" for none
	Session        string // that it counts in; "" for none
	Signer         Power
	PredicateType  string
	Subjects       []Subject
	Payload        Digest // SHA-256 of the encoded statement
	Message        Digest // SHA-256 of its DSSE pre-authentication encoding: what is signed and logged
	IdempotencyKey string // as the caller gave it; scoped to issuer and subject; "" for none
	// Audit is the record that the caller was let. It is stored in the one
	// transaction with the intent, also when the key has been used before, or
	// neither is; nil for none. It is not read back.
	Audit *AuditRecord
}

// An Attestation is a bundle that was released or is about to be.
type Attestation struct {
	ID            string // the intent's
	Seq           int64  // order of storing, for paging; set by the store
	PredicateType string
	Subjects      []Subject
	Signer        Power
	KeyVersion    int
	Tenant        string    // the intent's; set by the store
	SignedAt      time.Time // the timestamp authority's time, UTC; the earliest, of several
	Log           string    // hex ID of the transparency log; "" when not logged
	LogIndex      int64     // in Log
	Bundle        []byte    // Sigstore bundle v0.3, JSON
}

// A Query selects attestations about one artifact, in the order of storing.
type Query struct {
	Artifact         Digest // sha256 or sha512
	In               Tenants
	PredicateType    string // only this type; "" for any
	NotPredicateType string // all but this type; "" for no exception
	After            int64  // only those with a larger Seq
	Limit            int    // at most this many; must be positive
}

// A SignedQuery selects what a signer signed in an interval, in the order of
// storing.
type SignedQuery struct {
	Signer   Power
	Version  int       // of its key; 0 for any
	From, To time.Time // of the trusted time, both inclusive
	After    int64     // only those with a larger Seq
	Limit    int       // at most this many; must be positive
}

// A Predicate is what a request asks to have said. [Provenance], [SBOM],
// [Submitted], [VSA], [Revocation], [AuditHead] and [Registered] are all there are; each
// stands in the file of its name.
type Predicate interface {
	// claim decides whether the caller may say this, and says it.
	claim(Caller) (claim, error)
}

// A claim is a predicate that was allowed and encoded.
type claim struct {
	predicateType string
	predicate     []byte
	tenant        string // that the attestation belongs to; "" for none
}

// A Request asks for one attestation.
type Request struct {
	Subjects       []Subject
	Predicate      Predicate
	IdempotencyKey string // at most MaxIdempotencyKey bytes; "" for none
}

// An Issuer turns requests into released bundles. All fields but Log are
// required.
type Issuer struct {
	Signers     map[Power]Signer
	Timestamper Timestamper
	Log         Log // nil: bundles carry no log entry
	Ledger      Ledger
	Now         func() time.Time

	crowd  Crowd
	leaf   atomic.Pointer[x509.Certificate] // the last one parsed; there are few
	stamps rfc3161.Parser
}

// Issue signs one attestation. It is the only caller of [Signer.Sign].
//
// Refusals are ErrInvalid, ErrDenied or ErrConflict; ErrUnavailable may pass;
// [ErrSelfCheck] is an alarm. Whatever fails, nothing is released: an intent
// without an attestation stays behind, and says that something may have been
// signed which nobody was given.
func (i *Issuer) Issue(ctx context.Context, caller Caller, req Request) (Attestation, error) {
	ctx, leave := i.crowd.Join(ctx)
	defer leave()
	// 1, 2: decide and encode, without touching anything.
	c, err := req.Predicate.claim(caller)
	if err != nil {
		return Attestation{}, err
	}
	if err := caller.mayHaveSigned(c.predicateType, req.Subjects); err != nil {
		return Attestation{}, err
	}
	if err := validateIdempotencyKey(req.IdempotencyKey); err != nil {
		return Attestation{}, err
	}
	payload, err := Statement{req.Subjects, c.predicateType, c.predicate}.Encode()
	if err != nil {
		return Attestation{}, err
	}
	power := PowerFor(c.predicateType)
	signer, ok := i.Signers[power]
	if !ok { // closed: no signer, no signature
		return Attestation{}, fmt.Errorf("no signer %q", power)
	}

	// 3: no record, no act.
	message := dsse.PAE(PayloadType, payload)
	intent := Intent{
		ID: NewID(), At: i.Now().UTC(),
		CallerIssuer: caller.Issuer, CallerSubject: caller.Subject, Tenant: c.tenant, Session: caller.Session,
		Signer: power, PredicateType: c.predicateType, Subjects: req.Subjects,
		Payload: SHA256(payload), Message: SHA256(message), IdempotencyKey: req.IdempotencyKey,
	}
	intent.Audit = auditIssue(caller, req.Predicate, intent)
	id, done, err := i.Ledger.AppendIntent(ctx, intent)
	if err != nil { // closed: nothing was signed
		return Attestation{}, fmt.Errorf("append intent: %w", err)
	}
	if done != nil { // a retried request gets the first answer
		return *done, nil
	}

	// 4, 5, 6: closed on every path; what was made is dropped.
	ctx = withIntent(ctx, id)
	sig, err := signer.Sign(ctx, message)
	if err != nil {
		return Attestation{}, fmt.Errorf("sign intent %s: %w", id, err)
	}
	leaf, err := i.checkSignature(message, sig)
	if err != nil {
		return Attestation{}, fmt.Errorf("sign intent %s: %w", id, err)
	}
	proofs, err := i.prove(ctx, message, sig, leaf)
	if err != nil {
		return Attestation{}, fmt.Errorf("intent %s: %w", id, err)
	}
	bundle, err := assembleBundle(payload, sig, proofs)
	if err != nil {
		return Attestation{}, fmt.Errorf("intent %s: %w", id, err)
	}

	// 7: not stored, not released.
	stored, err := i.Ledger.AppendAttestation(ctx, Attestation{
		ID: id, PredicateType: c.predicateType, Subjects: req.Subjects,
		Signer: power, KeyVersion: sig.Version, SignedAt: proofs.signedAt, Bundle: bundle,
		Log: hex.EncodeToString(proofs.entry.GetLogId().GetKeyId()), LogIndex: proofs.entry.GetLogIndex(),
	})
	if err != nil {
		return Attestation{}, fmt.Errorf("append attestation %s: %w", id, err)
	}
	return stored, nil
}

// proofs say when a signature was made, and where everybody can see it.
type proofs struct {
	stamps   [][]byte  // RFC 3161 responses, one at least
	signedAt time.Time // the earliest of them
	entry    *protorekor.TransparencyLogEntry
}

// prove has a signature timestamped, and then logged, and checks what comes
// back. The log is last: what fails before it leaves no entry behind.
func (i *Issuer) prove(ctx context.Context, message []byte, sig Signature, leaf *x509.Certificate) (p proofs, err error) {
	if p.stamps, err = i.Timestamper.Timestamp(ctx, sig.DER); err != nil {
		return proofs{}, fmt.Errorf("timestamp: %w", err)
	}
	if p.signedAt, err = i.checkTimestamps(p.stamps, sig.DER, leaf); err != nil {
		return proofs{}, fmt.Errorf("timestamp: %w", err)
	}
	if i.Log == nil {
		return p, nil
	}
	e := LogEntry{Digest: sha256.Sum256(message), Signature: sig.DER, Certificate: sig.Certificate}
	if p.entry, err = i.Log.Append(ctx, e); err != nil {
		return proofs{}, fmt.Errorf("log: %w", err)
	}
	if err := checkLogged(e, p.entry); err != nil {
		return proofs{}, fmt.Errorf("log: %w", err)
	}
	return p, nil
}

// NewID returns a new unguessable identifier: 26 lower-case letters and
// digits.
func NewID() string { return strings.ToLower(rand.Text()) }

// checkSignature verifies our own signature with the key of the leaf it is
// released under.
func (i *Issuer) checkSignature(message []byte, sig Signature) (*x509.Certificate, error) {
	leaf := i.leaf.Load()
	if leaf == nil || !bytes.Equal(leaf.Raw, sig.Certificate) {
		var err error
		if leaf, err = x509.ParseCertificate(sig.Certificate); err != nil {
			return nil, fmt.Errorf("%w: leaf of version %d: %w", ErrSelfCheck, sig.Version, err)
		}
		i.leaf.Store(leaf)
	}
	pub, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	hash := sha256.Sum256(message)
	if !ok || !ecdsa.VerifyASN1(pub, hash[:], sig.DER) {
		return nil, fmt.Errorf("%w: version %d and its leaf disagree", ErrSelfCheck, sig.Version)
	}
	return leaf, nil
}

// checkTimestamps returns the earliest time in our own timestamps.
func (i *Issuer) checkTimestamps(responses [][]byte, signature []byte, leaf *x509.Certificate) (earliest time.Time, err error) {
	for _, r := range responses {
		at, err := i.checkTimestamp(r, signature, leaf)
		if err != nil {
			return time.Time{}, err
		}
		if earliest.IsZero() || at.Before(earliest) {
			earliest = at
		}
	}
	if earliest.IsZero() {
		return time.Time{}, fmt.Errorf("%w: no timestamp", ErrSelfCheck)
	}
	return earliest, nil
}

// checkTimestamp returns the time in our own timestamp, if it stamps this
// signature at a time inside the leaf's validity. Outside it no verifier would
// ever believe the bundle.
func (i *Issuer) checkTimestamp(response, signature []byte, leaf *x509.Certificate) (time.Time, error) {
	ts, err := i.stamps.Parse(response)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: timestamp: %w", ErrSelfCheck, err)
	}
	if ts.Imprint != sha256.Sum256(signature) {
		return time.Time{}, fmt.Errorf("%w: timestamp is over something else", ErrSelfCheck)
	}
	if ts.Time.Before(leaf.NotBefore) || ts.Time.After(leaf.NotAfter) {
		return time.Time{}, fmt.Errorf("%w: timestamp %s lies outside the leaf's window %s to %s", ErrUnavailable,
			ts.Time.UTC().Format(time.RFC3339), leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339))
	}
	return ts.Time, nil
}

func validateIdempotencyKey(key string) error {
	if len(key) > MaxIdempotencyKey {
		return &LimitError{What: "Idempotency-Key", Limit: MaxIdempotencyKey, Unit: "bytes"}
	}
	for _, c := range []byte(key) {
		if c <= 0x20 || c >= 0x7f {
			return fmt.Errorf("%w: Idempotency-Key: want visible ASCII", ErrInvalid)
		}
	}
	return nil
}
