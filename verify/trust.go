// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"provost/attest"
)

// MaxTrustedRoot is the largest trusted root read, in bytes.
const MaxTrustedRoot = 4 << 20

// maxTimestamps bounds the work one bundle can ask for.
const maxTimestamps = 8

// mediaType is the only one believed. Older spellings of version 0.3 name the
// same format, but the specification says that this one MUST be written.
const mediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// Trust is whom to believe: certificate authorities, timestamp authorities and
// logs, from one trusted_root.json. The zero Trust believes nothing.
type Trust struct {
	material *root.TrustedRoot
	engine   *verify.Verifier
}

// ParseTrust reads a Sigstore trusted root (media type
// application/vnd.dev.sigstore.trustedroot+json;version=0.1). It must name at
// least one certificate authority and one timestamp authority: without a
// trusted time there is no telling whether a leaf was valid. Each must say from
// when on it is believed. If the root names a log, every bundle must prove its
// inclusion; if it names a certificate log, every leaf must carry that log's
// promise (an SCT). The error is an [attest.ErrInvalid].
func ParseTrust(trustedRoot []byte) (*Trust, error) {
	material, err := parseRoot(trustedRoot)
	if err != nil {
		return nil, fmt.Errorf("%w: trusted root: %w", attest.ErrInvalid, err)
	}
	if len(material.FulcioCertificateAuthorities()) == 0 || len(material.TimestampingAuthorities()) == 0 {
		return nil, fmt.Errorf("%w: trusted root: no certificate authority or no timestamp authority", attest.ErrInvalid)
	}
	options := []verify.VerifierOption{verify.WithSignedTimestamps(1), verify.WithoutStatementPredicate()}
	if len(material.RekorLogs()) > 0 {
		options = append(options, verify.WithTransparencyLog(1))
	}
	if len(material.CTLogs()) > 0 {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	engine, err := verify.NewVerifier(material, options...)
	if err != nil {
		return nil, fmt.Errorf("%w: trusted root: %w", attest.ErrInvalid, err)
	}
	return &Trust{material, engine}, nil
}

// parseRoot reads a trusted root, ours or another's, as every parser would.
func parseRoot(trustedRoot []byte) (*root.TrustedRoot, error) {
	if len(trustedRoot) > MaxTrustedRoot {
		return nil, &attest.LimitError{What: "trusted root", Limit: MaxTrustedRoot, Unit: "bytes"}
	}
	if err := checkJSON(trustedRoot); err != nil {
		return nil, err
	}
	said, err := root.NewTrustedRootProtobuf(trustedRoot)
	if err != nil {
		return nil, err
	}
	material, err := root.NewTrustedRootFromProtobuf(said)
	if err != nil {
		return nil, err
	}
	if err := checkWindows(said); err != nil {
		return nil, err
	}
	if len(material.RekorLogs()) != len(said.GetTlogs()) || len(material.CTLogs()) != len(said.GetCtlogs()) { // the engine would keep the last
		return nil, errors.New("two logs have the same ID")
	}
	return material, checkLogIDs(material)
}

// checkWindows asks every authority and log from when on it is believed. The
// engine takes a beginning that is missing for "always", and the year 1 for
// none, at either end.
func checkWindows(said *prototrustroot.TrustedRoot) error {
	var windows []*protocommon.TimeRange
	for _, a := range slices.Concat(said.GetCertificateAuthorities(), said.GetTimestampAuthorities()) {
		windows = append(windows, a.GetValidFor())
	}
	for _, l := range slices.Concat(said.GetTlogs(), said.GetCtlogs()) {
		windows = append(windows, l.GetPublicKey().GetValidFor())
	}
	for _, w := range windows {
		start, end := w.GetStart(), w.GetEnd()
		if start == nil || start.AsTime().IsZero() {
			return errors.New("validFor without a start")
		}
		if end != nil && end.AsTime().Before(start.AsTime()) {
			return errors.New("validFor ends before it starts")
		}
	}
	return nil
}

// An Identity is who signed, as the leaf certificate says: its SAN and the
// issuer extension (Fulcio OID 1.3.6.1.4.1.57264.1.8).
type Identity struct {
	SAN    string
	Issuer string
}

// SignerIdentity is the identity of a Provost service's signer, given the
// service's own URL.
func SignerIdentity(service string, p attest.Power) Identity {
	return Identity{SAN: service + "/signers/" + string(p), Issuer: service}
}

// Expect is what a bundle must be about and who must have signed it. The zero
// Expect matches nothing.
type Expect struct {
	// Artifact must be a subject of the statement.
	Artifact attest.Digest
	// Identity must have signed, compared exactly. With an empty SAN it must
	// be the signer that Provost's convention names for the statement's
	// predicate type, of the service named by Issuer; with both empty, of the
	// service that the certificate names. So what signs SBOMs never vouches
	// for provenance, whoever verifies.
	Identity Identity
	// PredicateType must be the statement's; "" expects any.
	PredicateType string
}

// Verified is a bundle that was believed. Only [Trust.Verify] makes one that
// says anything.
type Verified struct {
	statement attest.Statement
	subject   attest.Subject
	identity  Identity
	signedAt  time.Time
	leaf      *x509.Certificate
	digest    attest.Digest
	payload   []byte // what was signed
	signature []byte
}

// Statement is the signed statement.
func (v *Verified) Statement() attest.Statement { return v.statement }

// Subject is the subject that matched the expected artifact.
func (v *Verified) Subject() attest.Subject { return v.subject }

// Identity is who signed.
func (v *Verified) Identity() Identity { return v.identity }

// SignedAt is the earliest trusted time of the signature, UTC.
func (v *Verified) SignedAt() time.Time { return v.signedAt }

// Window is the validity of the leaf certificate that signed, UTC.
func (v *Verified) Window() (notBefore, notAfter time.Time) {
	if v.leaf == nil {
		return
	}
	return v.leaf.NotBefore.UTC(), v.leaf.NotAfter.UTC()
}

// name is what a revocation calls it.
func (v *Verified) name() attest.Revoked { return attest.NameOf(v.payload, v.signature) }

// Digest is the SHA-256 of the bundle's bytes.
func (v *Verified) Digest() attest.Digest { return v.digest }

// Verify believes a bundle, or says in an [Error] at which step not. Its
// engine is sigstore-go; beyond that it refuses what the engine lets pass:
//
//   - JSON that two parsers read differently, in the bundle or the payload;
//   - any media type but that of bundle version 0.3, more than one signature, a
//     DSSE keyid;
//   - any timestamp or log entry that cannot be verified, not only too few;
//   - log entries whose body, index, tree size or root hash disagree with what
//     was signed and proven (the engine rebuilds these and ignores what the
//     bundle says; other clients read it);
//   - checkpoints of another origin than the log's, or that the log signed
//     twice;
//   - log entries of signatures made outside the window of the log;
//   - SCTs of certificate logs that the root does not name, if it names any, or
//     that were promised after the leaf had signed;
//   - statements that are not strictly well formed.
//
// Everything it refuses, it refuses closed: the returned Verified is nil.
func (t *Trust) Verify(raw []byte, expect Expect) (*Verified, error) {
	if t == nil || t.engine == nil || expect.Artifact.IsZero() {
		return nil, &Error{StepBundle, errors.New("nothing is trusted or nothing is expected")}
	}
	b, err := parseBundle(raw)
	if err != nil {
		return nil, &Error{StepBundle, err}
	}
	if err := t.checkLogEntries(b); err != nil {
		return nil, &Error{StepLog, err}
	}
	result, err := t.engine.Verify(b, verify.NewPolicy(
		verify.WithArtifactDigest(expect.Artifact.Algorithm(), expect.Artifact.Bytes()),
		verify.WithoutIdentitiesUnsafe())) // compared below, exactly and by predicate type
	if err != nil {
		return nil, t.refusal(b, err)
	}
	if err := t.checkTimestamps(b, result); err != nil {
		return nil, &Error{StepTime, err}
	}
	if err := t.checkLogWindows(b, result.VerifiedTimestamps); err != nil {
		return nil, &Error{StepLog, err}
	}

	envelope := b.GetDsseEnvelope()
	v := &Verified{
		identity: certificateIdentity(result.Signature.Certificate),
		signedAt: earliest(result.VerifiedTimestamps),
		digest:   attest.SHA256(raw),
		payload:  envelope.GetPayload(), signature: envelope.GetSignatures()[0].GetSig(),
	}
	content, err := b.VerificationContent()
	if err != nil || content.Certificate() == nil {
		return nil, &Error{StepCertificate, errors.New("no certificate")}
	}
	v.leaf = content.Certificate()
	if err := t.checkSCTs(v.leaf, result.VerifiedTimestamps); err != nil {
		return nil, &Error{StepCertificate, err}
	}
	if v.statement, err = attest.ParseStatement(v.payload); err != nil {
		return nil, &Error{StepStatement, err}
	}
	if expect.PredicateType != "" && v.statement.PredicateType != expect.PredicateType {
		return nil, &Error{StepStatement, fmt.Errorf("predicateType is %s, expected %s", v.statement.PredicateType, expect.PredicateType)}
	}
	var ok bool
	if v.subject, ok = v.statement.About(expect.Artifact); !ok {
		return nil, &Error{StepSubject, fmt.Errorf("the statement is not about %s", expect.Artifact)}
	}
	if err := checkIssuedFor(v.leaf, v.identity.SAN); err != nil {
		return nil, &Error{StepIdentity, err}
	}
	if want, got := expected(expect.Identity, v), v.identity; got != want || got.SAN == "" || got.Issuer == "" {
		return nil, &Error{StepIdentity, fmt.Errorf("signed by %q of issuer %q, expected %q of issuer %q",
			got.SAN, got.Issuer, want.SAN, want.Issuer)}
	}
	return v, nil
}

// checkJSON is [attest.CheckJSON] for documents that the engine decodes. Beyond
// it the engine takes the field names of the .proto files, such as
// tlog_entries, which other clients do not know and pass over.
func checkJSON(raw []byte) error {
	if err := attest.CheckJSON(raw); err != nil {
		return err
	}
	d := jsontext.NewDecoder(bytes.NewReader(raw))
	for {
		token, err := d.ReadToken()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		kind, n := d.StackIndex(d.StackDepth())
		isName := kind == '{' && n%2 == 1 && token.Kind() == '"' // RFC 8259, section 4: names and values alternate
		if isName && strings.Contains(token.String(), "_") {
			return fmt.Errorf("member %.80q: want the JSON name of the field", token.String())
		}
	}
}

// parseBundle reads the one shape of our own bundles that is believed.
func parseBundle(raw []byte) (*bundle.Bundle, error) {
	b, err := parseAnyBundle(raw)
	if err != nil {
		return nil, err
	}
	leaf, isLeaf := b.GetVerificationMaterial().GetContent().(*protobundle.VerificationMaterial_Certificate)
	switch {
	case b.GetMediaType() != mediaType:
		return nil, fmt.Errorf("media type %.80q: want %s", b.GetMediaType(), mediaType)
	case b.GetDsseEnvelope().GetSignatures()[0].GetKeyid() != "":
		return nil, errors.New("the DSSE keyid must be empty")
	case !isLeaf:
		return nil, errors.New("no certificate: bundles that name a key only by hint are not believed")
	}
	if _, err := x509.ParseCertificate(leaf.Certificate.GetRawBytes()); err != nil { // none, or two in a row, do not parse either
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return b, nil
}

// parseAnyBundle reads what bundles have in common, ours and those of others: one
// signature of one payload, and a bounded number of timestamps.
func parseAnyBundle(raw []byte) (*bundle.Bundle, error) {
	if len(raw) > attest.MaxBundle {
		return nil, &attest.LimitError{What: "bundle", Limit: attest.MaxBundle, Unit: "bytes"}
	}
	if err := checkJSON(raw); err != nil {
		return nil, err
	}
	b := new(bundle.Bundle)
	if err := b.UnmarshalJSON(raw); err != nil {
		return nil, err
	}
	envelope := b.GetDsseEnvelope()
	stamps := b.GetVerificationMaterial().GetTimestampVerificationData().GetRfc3161Timestamps()
	switch {
	case len(stamps) > maxTimestamps:
		return nil, fmt.Errorf("%d timestamps: want at most %d", len(stamps), maxTimestamps)
	case len(envelope.GetPayload()) == 0:
		return nil, errors.New("no DSSE envelope with a payload")
	case envelope.GetPayloadType() != attest.PayloadType:
		return nil, fmt.Errorf("payloadType %.80q: want %s", envelope.GetPayloadType(), attest.PayloadType)
	case len(envelope.GetSignatures()) != 1:
		return nil, fmt.Errorf("%d signatures: want one", len(envelope.GetSignatures()))
	}
	return b, nil
}

// checkTimestamps asks that every timestamp holds. The engine counts those
// that do and skips the others, so that a client which reads them all would
// refuse what it accepted.
func (t *Trust) checkTimestamps(b *bundle.Bundle, result *verify.VerificationResult) error {
	stamps, err := b.Timestamps()
	if err != nil {
		return err
	}
	if len(stamps) > 0 && len(result.VerifiedTimestamps) == len(stamps) {
		return nil // the engine took each: it counts nothing else
	}
	verified, refused, err := verify.VerifySignedTimestamp(b, t.material)
	if err != nil {
		return err
	}
	if len(refused) > 0 || len(verified) != len(stamps) || len(result.VerifiedTimestamps) == 0 {
		return fmt.Errorf("%d of %d timestamps do not verify: %w", len(stamps)-len(verified), len(stamps), errors.Join(refused...))
	}
	return nil
}

// issuingCA is the name of a CA that a Provost service has for one signer.
var issuingCA = regexp.MustCompile(`^.{1,36} (provenance|evidence|verdict) issuing CA [1-9][0-9]*$`)

// checkIssuedFor holds a CA to the one signer that it is named for. X.509 has no
// constraint that would, so other clients do not.
func checkIssuedFor(leaf *x509.Certificate, san string) error {
	m := issuingCA.FindStringSubmatch(leaf.Issuer.CommonName)
	if m != nil && !strings.HasSuffix(san, "/signers/"+m[1]) {
		return fmt.Errorf("the CA %q may not speak for %q", leaf.Issuer.CommonName, san)
	}
	return nil
}

func certificateIdentity(c *certificate.Summary) Identity {
	if c == nil {
		return Identity{}
	}
	return Identity{SAN: c.SubjectAlternativeName, Issuer: c.Issuer}
}

func earliest(stamps []verify.TimestampVerificationResult) (t time.Time) {
	for _, s := range stamps {
		if t.IsZero() || s.Timestamp.Before(t) {
			t = s.Timestamp
		}
	}
	return t.UTC()
}

// expected is the identity that v must have been signed by.
func expected(want Identity, v *Verified) Identity {
	if want.SAN != "" {
		return want
	}
	service := want.Issuer
	if service == "" {
		service = v.identity.Issuer
	}
	return SignerIdentity(service, attest.PowerFor(v.statement.PredicateType))
}

// sameBytes is for digests; neither side is secret.
func sameBytes(a, b []byte) bool { return len(a) > 0 && bytes.Equal(a, b) }
