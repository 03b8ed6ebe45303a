// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package storetest is the contract of a store as a test suite: whatever is
// behind [Backend] must pass [Run] unchanged. The words of the contract stand
// in package attest and package store; here is what they come to.
//
// Faults are part of it. A backend under test says which it can stage by the
// interfaces [Reopener], [Filler] and [Locker]; what it cannot stage is
// skipped, so look at what a run skipped.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"provost/attest"
)

// A Backend is a store under test.
type Backend interface {
	attest.Ledger
	Attestation(ctx context.Context, id string) (attest.Attestation, error)
	Attestations(ctx context.Context, q attest.Query) ([]attest.Attestation, error)
	OpenIntents(ctx context.Context, limit int) ([]attest.Intent, error)

	AppendDecision(ctx context.Context, d attest.Decision) error
	Decision(ctx context.Context, id string) (attest.Decision, error)
	Decisions(ctx context.Context, artifact attest.Digest, environment string, limit int) ([]attest.Decision, error)

	AppendCertificate(ctx context.Context, c attest.Certificate) (attest.Certificate, error)
	Certificates(ctx context.Context) ([]attest.Certificate, error)

	SignedBy(ctx context.Context, q attest.SignedQuery) ([]attest.Attestation, error)
	Signatures(ctx context.Context, signer attest.Power, version int) (int64, error)
	AppendKeyRevocation(ctx context.Context, r attest.KeyRevocation) error
	KeyRevocations(ctx context.Context) ([]attest.KeyRevocation, error)
	Claim(ctx context.Context, name, holder string, now, until time.Time) (bool, error)
	Release(ctx context.Context, name, holder string) error

	OpenSession(ctx context.Context, s attest.Session) error
	Session(ctx context.Context, id attest.Digest) (attest.Session, error)
	TokenSpent(ctx context.Context, token attest.Digest) (attest.Digest, bool, error)
	SpendToken(ctx context.Context, token attest.Digest, until time.Time) error
	PurgeSessions(ctx context.Context, before time.Time) error
	Builders(ctx context.Context) ([]attest.Builder, int64, error)
	AppendBuilder(ctx context.Context, b attest.Builder, revision int64) (attest.Builder, error)
	BuilderHistory(ctx context.Context, name string) ([]attest.Builder, error)

	AppendAPIKey(ctx context.Context, k attest.APIKey) (attest.APIKey, error)
	APIKeys(ctx context.Context, in attest.Tenants, after int64, limit int) ([]attest.APIKey, error)
	APIKey(ctx context.Context, id string) (attest.APIKey, error)
	APIKeyByHash(ctx context.Context, hash attest.Digest) (attest.APIKey, error)
	RevokeAPIKey(ctx context.Context, k attest.APIKey) (attest.APIKey, error)
	AppendImported(ctx context.Context, i attest.Imported) (attest.Imported, error)
	Imported(ctx context.Context, id string) (attest.Imported, error)
	ImportedAbout(ctx context.Context, q attest.ImportedQuery) ([]attest.Imported, error)

	LogHead(ctx context.Context, logID string) (attest.Attestation, error)
	LogIndexes(ctx context.Context, logID string, from, to int64) ([]int64, error)
	IntentOfMessage(ctx context.Context, message attest.Digest) (attest.Intent, error)
	AppendLogOrphan(ctx context.Context, o attest.LogOrphan) error
	LogOrphans(ctx context.Context, limit int) ([]attest.LogOrphan, error)

	AppendAudit(ctx context.Context, r attest.AuditRecord) (attest.AuditRecord, error)
	AuditRecords(ctx context.Context, after int64, limit int) ([]attest.AuditRecord, error)
	AuditHead(ctx context.Context) (attest.AuditHead, error)
	SignedAuditHead(ctx context.Context) (attest.Attestation, error)

	Ready(ctx context.Context) error
	Close() error
}

// A Reopener can be closed and opened again.
type Reopener interface {
	// Reopen opens another store on the data of this one, which is closed.
	Reopen(t *testing.T) Backend
}

// A Filler can run out of space.
type Filler interface {
	// Fill makes every write fail that needs more space, until Free.
	Fill(t *testing.T)
	Free(t *testing.T)
}

// A Locker can be kept from writing by somebody else.
type Locker interface {
	// Lock makes writes wait until unlock is called.
	Lock(t *testing.T) (unlock func())
}

// Run tests the backend that open returns. Each call of open must return a
// new, empty store; Run closes it.
func Run(t *testing.T, open func(t *testing.T) Backend) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Backend)
	}{
		{"an attestation comes back as it was", attestationRoundTrip},
		{"what cannot come back is refused", unrepresentable},
		{"an idempotency key has one answer", idempotency},
		{"an idempotency key has one answer under concurrency", concurrentKey},
		{"the first attestation wins under concurrency", concurrentAttestations},
		{"an attestation needs its intent", needsIntent},
		{"an attestation says what its intent said", contradiction},
		{"an intent id is used once", intentTwice},
		{"open intents are listed oldest first", openIntents},
		{"a query selects and pages", paging},
		{"a reader who pages while others write misses none", pagingWhileWriting},
		{"1024 subjects are all found", manySubjects},
		{"a bundle of 16 MiB comes back", largeBundle},
		{"a query without sense is refused", badQueries},
		{"a decision comes back as it was", decisionRoundTrip},
		{"a decision that cannot come back is refused", badDecisions},
		{"decisions are listed newest first", decisions},
		{"certificates come back in order", certificates},
		{"the first certificate wins under concurrency", concurrentCertificates},
		{"attestations are found by signer, version and time", signedBy},
		{"revocations come back in the order of storing", keyRevocations},
		{"a lease has one holder until it runs out", leases},
		{"a lease has one holder under concurrency", concurrentLease},
		{"a token is spent once", sessions},
		{"the statements of a session are counted", sessionsCount},
		{"what is asked for in some tenants is theirs", tenants},
		{"the registry knows what holds and what waits", builders},
		{"an API key comes back as it was", apiKeys},
		{"an API key that cannot come back is refused", badAPIKeys},
		{"an API key is revoked once", apiKeysRevoked},
		{"imported bundles come back as they were, each once", imports},
		{"log entries are found by index", logEntries},
		{"an intent is found by its message", intentOfMessage},
		{"log orphans are listed until they have an attestation", logOrphans},
		{"audit records come back chained", auditChain},
		{"an audit record that cannot come back is refused", badAudit},
		{"an intent and its audit record are stored together", auditWithIntent},
		{"a session has its audit record or is not there", auditWithSession},
		{"the audit log is one chain under concurrency", concurrentAudit},
		{"the last signed audit head is found", signedAuditHead},
		{"writers at once fail alone", failAlone},
		{"writers at once keep each to its own context", leaveAlone},
		{"what does not exist is not found", notFound},
		{"a done context stops everything", contextDone},
		{"a context that ends midway leaves all or nothing", contextMidway},
		{"a writer who waits for a lock stops with its context", contextLocked},
		{"a closed store says so", closed},
		{"a reopened store has everything", reopen},
		{"out of space under load, what is acknowledged is there", outOfSpaceTogether},
		{"out of space, nothing is acknowledged; then it goes on", outOfSpace},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := open(t)
			t.Cleanup(func() {
				if err := b.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			test.run(t, b)
		})
	}
}

// Texts that stores get wrong: all must come back as they were.
var texts = []string{
	"", " ", "plain", "ünïcödé ✓ 𝔘 \U0010ffff \ufffd \ufeff", "quote ' \" ` \\ %s $1 ? ; --", "line\nbreak\ttab\r\x01\x7f",
	"NULL", "0", "é vs e\u0301", "trailing ", strings.Repeat("x", 100_000),
}

// Times that stores get wrong. All are compared as instants.
var times = []time.Time{
	{}, // the zero time
	time.Date(1969, 12, 31, 23, 59, 59, 999_999_999, time.UTC),
	time.Unix(0, 1).UTC(),
	time.Date(2026, 3, 1, 12, 0, 0, 123_456_789, time.FixedZone("", -11*3600)),
	time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC),
}

func sha256Of(format string, args ...any) attest.Digest {
	return attest.SHA256(fmt.Appendf(nil, format, args...))
}

func sha512Of(seed string) attest.Digest {
	d, err := attest.NewDigest(attest.AlgSHA512, sha256Of("%s", seed).Hex()+sha256Of("%s again", seed).Hex())
	if err != nil {
		panic(err) // well formed by construction
	}
	return d
}

// newIntent is an ordinary intent about one artifact, without a key.
func newIntent(artifact attest.Digest) attest.Intent {
	id := attest.NewID()
	return attest.Intent{
		ID: id, At: time.Date(2026, 3, 1, 12, 0, 0, 1, time.UTC),
		CallerIssuer: "https://issuer.example", CallerSubject: "repo:a/b",
		Signer: attest.PowerProvenance, PredicateType: attest.ProvenanceType,
		Subjects: []attest.Subject{{Name: "artifact", SHA256: artifact}},
		Payload:  sha256Of("payload of %s", id),
	}
}

// released is an attestation that fits the intent.
func released(in attest.Intent, bundle string) attest.Attestation {
	return attest.Attestation{
		ID: in.ID, PredicateType: in.PredicateType, Subjects: in.Subjects, Signer: in.Signer,
		KeyVersion: 1, SignedAt: in.At.Add(time.Second), Bundle: []byte(bundle),
	}
}

func newDecision(artifact attest.Digest, environment string) attest.Decision {
	return attest.Decision{
		ID: attest.NewID(), At: time.Date(2026, 3, 1, 12, 0, 0, 1, time.UTC), Caller: "https://issuer.example repo:a/b",
		Artifact: artifact, Name: "artifact", Environment: environment, Verdict: attest.VerdictPass,
		Reasons: []attest.Reason{{Rule: "r", Severity: attest.SeverityInfo, Message: "m"}},
		VSA:     []byte("vsa"), VSAID: attest.NewID(),
	}
}

// store appends the intent and an attestation for it.
func store(t *testing.T, b Backend, in attest.Intent, bundle string) attest.Attestation {
	t.Helper()
	appendIntent(t, b, in)
	a, err := b.AppendAttestation(t.Context(), released(in, bundle))
	if err != nil {
		t.Fatalf("append attestation: %v", err)
	}
	return a
}

func appendIntent(t *testing.T, b Backend, in attest.Intent) {
	t.Helper()
	id, done, err := b.AppendIntent(t.Context(), in)
	if err != nil {
		t.Fatalf("append intent: %v", err)
	}
	if id != in.ID || done != nil {
		t.Fatalf("append intent: got %s, %v: want %s, nil", id, done, in.ID)
	}
}

func query(t *testing.T, b Backend, q attest.Query) []attest.Attestation {
	t.Helper()
	found, err := b.Attestations(t.Context(), q)
	if err != nil {
		t.Fatalf("attestations: %v", err)
	}
	return found
}

func open(t *testing.T, b Backend) []attest.Intent {
	t.Helper()
	found, err := b.OpenIntents(t.Context(), math.MaxInt32)
	if err != nil {
		t.Fatalf("open intents: %v", err)
	}
	return found
}

// same fails the test unless got is want; digests are compared as values and
// times as instants that must be in UTC.
func same[T any](t *testing.T, what string, want, got T) {
	t.Helper()
	utc := cmp.Comparer(func(want, got time.Time) bool { return want.Equal(got) && got.Location() == want.Location() })
	if diff := cmp.Diff(want, got, cmp.Comparer(func(x, y attest.Digest) bool { return x == y }), utc); diff != "" {
		if len(diff) > 4000 {
			diff = diff[:4000] + "…"
		}
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// refused fails the test unless err is of that kind, and of that kind only.
func refused(t *testing.T, what string, kind, err error) {
	t.Helper()
	for _, k := range []error{attest.ErrInvalid, attest.ErrDenied, attest.ErrNotFound, attest.ErrConflict, attest.ErrUnavailable} {
		if errors.Is(err, k) != (k == kind) {
			t.Errorf("%s: got %v: want %v", what, err, kind)
			return
		}
	}
}
