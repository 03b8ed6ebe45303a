// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"provost/attest"
)

// Bounds on a foreign root. maxForeignText is in bytes.
const (
	maxForeignIdentities = 64
	maxForeignTypes      = 64
	maxForeignText       = 1024
)

var foreignName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// A ForeignIdentity is somebody who is believed under a foreign root: the
// issuer in the certificate, compared exactly, and its SAN, by one of two ways.
type ForeignIdentity struct {
	Issuer string
	SAN    string // compared exactly
	// SANPattern is a regular expression (RE2) that has to match the whole SAN.
	// It must begin with literal text.
	SANPattern string
}

// A ForeignRoot says who is believed under another's trusted root, and about
// what.
type ForeignRoot struct {
	Name           string // what it is called here
	Identities     []ForeignIdentity
	PredicateTypes []string // compared exactly
}

// Validate returns an [attest.ErrInvalid] for a root under which nobody could
// be told from others. Service is our own URL: what we sign is not foreign.
func (r ForeignRoot) Validate(service string) error {
	_, err := r.compile(service)
	return err
}

// compile returns the pattern of each identity, nil where the SAN is exact.
func (r ForeignRoot) compile(service string) ([]*regexp.Regexp, error) {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w: foreign root %.80q: %s", attest.ErrInvalid, r.Name, fmt.Sprintf(format, args...))
	}
	switch {
	case !foreignName.MatchString(r.Name):
		return nil, invalid("name: want 1 to 63 lower-case letters, digits and '-'")
	case len(r.Identities) == 0 || len(r.Identities) > maxForeignIdentities:
		return nil, invalid("%d identities: want 1 to %d", len(r.Identities), maxForeignIdentities)
	case len(r.PredicateTypes) == 0 || len(r.PredicateTypes) > maxForeignTypes:
		return nil, invalid("%d predicate types: want 1 to %d", len(r.PredicateTypes), maxForeignTypes)
	}
	for _, t := range r.PredicateTypes {
		if t == "" || len(t) > maxForeignText {
			return nil, invalid("predicate type %.80q: want 1 to %d bytes", t, maxForeignText)
		}
	}
	patterns := make([]*regexp.Regexp, len(r.Identities))
	for n, i := range r.Identities {
		switch {
		case i.Issuer == "" || len(i.Issuer) > maxForeignText:
			return nil, invalid("identity %d: issuer: want 1 to %d bytes", n, maxForeignText)
		case i.Issuer == service:
			return nil, invalid("identity %d: issuer: that is this service: what it signs is not foreign", n)
		case (i.SAN == "") == (i.SANPattern == "") || len(i.SAN)+len(i.SANPattern) > maxForeignText:
			return nil, invalid("identity %d: want one of SAN and SAN pattern, of at most %d bytes", n, maxForeignText)
		case i.SANPattern == "":
			continue
		}
		// Alone first: what closes a group of its own would escape the anchors.
		plain, err := regexp.Compile(strings.TrimPrefix(i.SANPattern, "^"))
		if err != nil {
			return nil, invalid("identity %d: SAN pattern: %v", n, err)
		}
		if literal, _ := plain.LiteralPrefix(); literal == "" {
			return nil, invalid("identity %d: SAN pattern %.80q: want it to begin with literal text", n, i.SANPattern)
		}
		if patterns[n], err = regexp.Compile(`\A(?:` + i.SANPattern + `)\z`); err != nil {
			return nil, invalid("identity %d: SAN pattern: %v", n, err)
		}
	}
	return patterns, nil
}

// ForeignTrust is whom to believe among those whose signatures are not ours.
// The zero ForeignTrust believes nothing.
type ForeignTrust struct {
	root     ForeignRoot
	patterns []*regexp.Regexp // one for each identity
	trust    *Trust
}

// ParseForeign reads another's trusted root. It must name a certificate
// authority, and a transparency log or a timestamp authority: somebody who says
// when a signature was there. If it names a log, every bundle must be in it; if
// it names a certificate log, every leaf must carry its promise. Service is our
// own URL. The error is an [attest.ErrInvalid].
func ParseForeign(r ForeignRoot, service string, trustedRoot []byte) (*ForeignTrust, error) {
	patterns, err := r.compile(service)
	if err != nil {
		return nil, err
	}
	material, err := parseRoot(trustedRoot)
	if err != nil {
		return nil, fmt.Errorf("%w: foreign root %s: trusted root: %w", attest.ErrInvalid, r.Name, err)
	}
	logs := len(material.RekorLogs())
	if len(material.FulcioCertificateAuthorities()) == 0 || logs+len(material.TimestampingAuthorities()) == 0 {
		return nil, fmt.Errorf("%w: foreign root %s: trusted root: no certificate authority, or neither a log nor a timestamp authority", attest.ErrInvalid, r.Name)
	}
	options := []verify.VerifierOption{verify.WithObserverTimestamps(1), verify.WithoutStatementPredicate()}
	if logs > 0 {
		options = append(options, verify.WithTransparencyLog(1))
	}
	if len(material.CTLogs()) > 0 {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	engine, err := verify.NewVerifier(material, options...)
	if err != nil {
		return nil, fmt.Errorf("%w: foreign root %s: trusted root: %w", attest.ErrInvalid, r.Name, err)
	}
	r.Identities, r.PredicateTypes = slices.Clone(r.Identities), slices.Clone(r.PredicateTypes)
	return &ForeignTrust{root: r, patterns: patterns, trust: &Trust{material, engine}}, nil
}

// Foreign is a bundle of others that was believed. Only [ForeignTrust.Verify]
// makes one that says anything. It is another type than [Verified], so that it
// is never taken for what we signed.
type Foreign struct {
	root      string
	statement attest.Statement
	identity  Identity
	signedAt  time.Time
}

// Root is the name of the foreign root under which it was believed.
func (f *Foreign) Root() string { return f.root }

// Statement is what was signed. Its subjects are those that a sha256 or a
// sha512 names, and may have the one without the other.
func (f *Foreign) Statement() attest.Statement { return f.statement }

// Identity is who signed.
func (f *Foreign) Identity() Identity { return f.identity }

// SignedAt is the earliest trusted time of the signature, UTC.
func (f *Foreign) SignedAt() time.Time { return f.signedAt }

// Verify believes a bundle that others signed, or says in an [Error] at which
// step not. Bundles of the versions 0.1 to 0.3 are read, of one DSSE envelope
// with one in-toto statement, one signature and a certificate: a key that is
// only hinted at says nothing about who signed. The engine is sigstore-go; what
// it leaves out and others read is held here, where it does not depend on our
// own bundles' shape:
//
//   - JSON that two parsers read differently, in the bundle or the payload;
//   - log entries of unknown logs, which the engine skips, and of signatures
//     made outside the window of the log;
//   - entries of Rekor v2 under the checkpoint of a Rekor v1, for which the
//     engine compares nothing with the bundle.
//
// It says nothing about an artifact: ask the statement. Everything it refuses,
// it refuses closed: the returned Foreign is nil.
func (t *ForeignTrust) Verify(raw []byte) (*Foreign, error) {
	if t == nil || t.trust == nil {
		return nil, &Error{StepBundle, errors.New("nothing is trusted")}
	}
	b, err := parseForeignBundle(raw)
	if err != nil {
		return nil, &Error{StepBundle, err}
	}
	if err := t.trust.checkForeignEntries(b); err != nil {
		return nil, &Error{StepLog, err}
	}
	result, err := t.trust.engine.Verify(b, verify.NewPolicy(
		verify.WithoutArtifactUnsafe(),    // the statement says what it is about
		verify.WithoutIdentitiesUnsafe())) // compared below
	if err != nil {
		return nil, t.trust.refusal(b, err)
	}
	if len(result.VerifiedTimestamps) == 0 { // closed: the engine was asked for one
		return nil, &Error{StepTime, errors.New("no trusted time")}
	}
	if err := t.trust.checkLogWindows(b, result.VerifiedTimestamps); err != nil {
		return nil, &Error{StepLog, err}
	}
	f := &Foreign{root: t.root.Name, identity: certificateIdentity(result.Signature.Certificate), signedAt: earliest(result.VerifiedTimestamps)}
	if f.statement, err = parseForeignStatement(b.GetDsseEnvelope().GetPayload()); err != nil {
		return nil, &Error{StepStatement, err}
	}
	if !slices.Contains(t.root.PredicateTypes, f.statement.PredicateType) {
		return nil, &Error{StepStatement, fmt.Errorf("predicateType %.200q is not among those believed under root %s", f.statement.PredicateType, t.root.Name)}
	}
	if !t.believes(f.identity) {
		return nil, &Error{StepIdentity, fmt.Errorf("signed by %.200q of issuer %.200q, who is not among those believed under root %s", f.identity.SAN, f.identity.Issuer, t.root.Name)}
	}
	return f, nil
}

// believes reports whether an identity is one of the root's.
func (t *ForeignTrust) believes(who Identity) bool {
	if who.SAN == "" || who.Issuer == "" {
		return false
	}
	for n, i := range t.root.Identities {
		if i.Issuer != who.Issuer {
			continue
		}
		if p := t.patterns[n]; p == nil && i.SAN == who.SAN || p != nil && p.MatchString(who.SAN) {
			return true
		}
	}
	return false
}

// parseForeignBundle reads the shapes of bundle that others write.
func parseForeignBundle(raw []byte) (*bundle.Bundle, error) {
	b, err := parseAnyBundle(raw)
	if err != nil {
		return nil, err
	}
	content, err := b.VerificationContent()
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if content.Certificate() == nil {
		return nil, errors.New("no certificate: a key that is only hinted at says nothing about who signed")
	}
	return b, nil
}

// checkForeignEntries holds what the engine leaves out of the log entries of
// others. Whether an entry is one of Rekor v2 is told by its body, as the engine
// does: the version beside it can say anything.
func (t *Trust) checkForeignEntries(b *bundle.Bundle) error {
	entries, err := b.TlogEntries()
	if err != nil {
		return err
	}
	if len(entries) > maxLogEntries {
		return fmt.Errorf("%d entries: want at most %d", len(entries), maxLogEntries)
	}
	if len(entries) == 0 && len(t.material.RekorLogs()) > 0 {
		return errors.New("no entry, and the trusted root names a log")
	}
	for i, entry := range entries {
		log, ok := t.material.RekorLogs()[fmt.Sprintf("%x", entry.LogKeyID())]
		if !ok {
			return fmt.Errorf("entry %d: log %.16x is not in the trust root", i, entry.LogKeyID())
		}
		if !entry.IsRekorV2() {
			continue
		}
		if err := checkNote(entry.TransparencyLogEntry().GetInclusionProof().GetCheckpoint().GetEnvelope(), log); err != nil {
			return fmt.Errorf("entry %d: checkpoint: %w", i, err)
		}
	}
	return nil
}

// statementTypes are the in-toto statements that others sign: npm wrote v0.1
// for years.
var statementTypes = []string{"https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"}

// parseForeignStatement reads a verified payload of others. Members and digest
// algorithms that are not known are ignored (in-toto attestation spec v1,
// parsing rules), and so is a subject that neither a sha256 nor a sha512 names,
// as long as another is left. npm's have a sha512 alone.
func parseForeignStatement(payload []byte) (attest.Statement, error) {
	var none attest.Statement
	var wire struct {
		Type    string `json:"_type"`
		Subject []struct {
			Name   string            `json:"name"`
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
		PredicateType string         `json:"predicateType"`
		Predicate     jsontext.Value `json:"predicate"`
	}
	if len(payload) > attest.MaxStatement {
		return none, &attest.LimitError{What: "statement", Limit: attest.MaxStatement, Unit: "bytes"}
	}
	if err := attest.DecodeOpenJSON(payload, &wire); err != nil {
		return none, err
	}
	if !slices.Contains(statementTypes, wire.Type) {
		return none, fmt.Errorf("_type %.80q: want %s", wire.Type, strings.Join(statementTypes, " or "))
	}
	if len(wire.Subject) > attest.MaxSubjects {
		return none, &attest.LimitError{What: "subjects", Limit: attest.MaxSubjects, Unit: "subjects"}
	}
	s := attest.Statement{PredicateType: wire.PredicateType, Predicate: wire.Predicate}
	for i, w := range wire.Subject {
		sub := attest.Subject{Name: w.Name}
		for alg, into := range map[string]*attest.Digest{attest.AlgSHA256: &sub.SHA256, attest.AlgSHA512: &sub.SHA512} {
			value, ok := w.Digest[alg]
			if !ok {
				continue
			}
			var err error
			if *into, err = attest.NewDigest(alg, value); err != nil {
				return none, fmt.Errorf("subject %d: %w", i, err)
			}
		}
		if len(sub.Name) > attest.MaxSubjectName || strings.ContainsFunc(sub.Name, func(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }) {
			return none, fmt.Errorf("subject %d: name: want at most %d bytes without control characters", i, attest.MaxSubjectName)
		}
		if cmp.Or(sub.SHA256, sub.SHA512).IsZero() || slices.Contains(s.Subjects, sub) {
			continue
		}
		s.Subjects = append(s.Subjects, sub)
	}
	if len(s.Subjects) == 0 {
		return none, errors.New("no subject that a sha256 or a sha512 names")
	}
	return s, nil
}
