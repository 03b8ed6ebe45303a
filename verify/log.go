// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"provost/attest"
)

// maxLogEntries bounds the work one bundle can ask for.
const maxLogEntries = 8

// checkLogEntries holds what the engine leaves out. It proves nothing by
// itself: whether the checkpoint is signed and the proof leads to it is the
// engine's part.
//
// Every entry must be of a log in the trust root, because the engine skips
// unknown ones and other clients do not. For Rekor v2 entries (hashedrekord
// 0.0.2) the engine rebuilds the leaf from the bundle and never looks at the
// body, the proof's index or its root hash, so these are compared here with
// what was rebuilt, with the entry and with the checkpoint.
func (t *Trust) checkLogEntries(b *bundle.Bundle) error {
	entries := b.GetVerificationMaterial().GetTlogEntries()
	if len(entries) > maxLogEntries {
		return fmt.Errorf("%d entries: want at most %d", len(entries), maxLogEntries)
	}
	if len(entries) == 0 && len(t.material.RekorLogs()) > 0 {
		return errors.New("no entry, and the trusted root names a log")
	}
	for i, entry := range entries {
		id := hex.EncodeToString(entry.GetLogId().GetKeyId())
		log, ok := t.material.RekorLogs()[id]
		if !ok {
			return fmt.Errorf("entry %d: log %.16s is not in the trust root", i, id)
		}
		kind := entry.GetKindVersion()
		if kind.GetKind() != attest.LogKind || kind.GetVersion() != attest.LogVersion {
			return fmt.Errorf("entry %d: kind %.40q %.10q: want hashedrekord 0.0.2", i, kind.GetKind(), kind.GetVersion())
		}
		if err := checkEntry(b, entry); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if err := checkNote(entry.GetInclusionProof().GetCheckpoint().GetEnvelope(), log); err != nil {
			return fmt.Errorf("entry %d: checkpoint: %w", i, err)
		}
	}
	return nil
}

// checkNote asks that a checkpoint is of the log that its entry names: its
// origin is the log's, and it carries one signature that says it is the log's.
// The engine verifies that one. It takes another path, for logs of Rekor v1,
// when an origin ends in a number, and looks at a second signature by the same
// key not at all. What witnesses and others signed is passed over, as long as
// it is a signed note (c2sp.org/signed-note): it may be there, and no more is
// believed for it.
func checkNote(envelope string, log *root.TransparencyLog) error {
	origin, err := originOf(log)
	if err != nil { // closed: ParseTrust has asked before
		return err
	}
	text, signatures, ok := strings.Cut(envelope, "\n\n")
	if !ok || strings.Contains(signatures, "\n\n") { // clients differ on which blank line ends the text
		return errors.New("want one blank line, before the signatures")
	}
	if said, _, _ := strings.Cut(text, "\n"); said != origin {
		return fmt.Errorf("origin %.80q: want %s", said, origin)
	}
	own := 0
	for line := range strings.Lines(signatures) {
		name, value, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(line, "— "), "\n"), " ")
		signature, err := base64.StdEncoding.DecodeString(value)
		if err != nil || len(signature) < 5 || !strings.HasPrefix(line, "— ") || !strings.HasSuffix(line, "\n") {
			return errors.New("a line of signatures is none")
		}
		if name == origin && bytes.Equal(signature[:4], log.ID[:4]) {
			own++
		}
	}
	if own != 1 {
		return fmt.Errorf("%d signatures by the log: want one", own)
	}
	return nil
}

// originOf is the origin line of a log's checkpoints: the hostname of its base
// URL, as every client derives it.
func originOf(log *root.TransparencyLog) (string, error) {
	u, err := url.Parse(log.BaseURL)
	if err != nil || u.Hostname() == "" {
		return "", fmt.Errorf("baseUrl %.80q: want a URL with a host", log.BaseURL)
	}
	return u.Hostname(), nil
}

// checkLogIDs asks that every log has the ID that its key gives it, so that an
// ID names a key and nothing else: of a transparency log the hash that the
// signed note asks for, which for ECDSA is that of the key alone; of a
// certificate log the hash of the key (RFC 6962, section 3.2).
func checkLogIDs(material *root.TrustedRoot) error {
	for _, log := range material.RekorLogs() {
		origin, err := originOf(log)
		if err != nil {
			return fmt.Errorf("log: %w", err)
		}
		_, id, err := note.KeyHash(origin, log.PublicKey)
		if err != nil {
			return fmt.Errorf("log %s: %w", origin, err)
		}
		if !sameBytes(id, log.ID) {
			return fmt.Errorf("log %s: its ID is not that of its key", origin)
		}
	}
	for _, log := range material.CTLogs() {
		public, err := x509.MarshalPKIXPublicKey(log.PublicKey)
		if err != nil {
			return fmt.Errorf("certificate log: %w", err)
		}
		if id := sha256.Sum256(public); !sameBytes(id[:], log.ID) {
			return fmt.Errorf("certificate log %x: its ID is not that of its key", log.ID)
		}
	}
	return nil
}

// checkLogWindows asks that the log of every entry was believed at every
// trusted time of the signature. The engine does not look at a log's window,
// so closing one would change nothing.
func (t *Trust) checkLogWindows(b *bundle.Bundle, stamps []verify.TimestampVerificationResult) error {
	for i, entry := range b.GetVerificationMaterial().GetTlogEntries() {
		log := t.material.RekorLogs()[hex.EncodeToString(entry.GetLogId().GetKeyId())]
		for _, s := range stamps {
			if !within(s.Timestamp, log.ValidityPeriodStart, log.ValidityPeriodEnd) {
				return fmt.Errorf("entry %d: signed at %s, outside the window of its log", i, s.Timestamp.UTC().Format(time.RFC3339))
			}
		}
	}
	return nil
}

// within reports whether t lies in a window. Both ends belong to it, for every
// client (protobuf-specs, TimeRange); a zero end is none.
func within(t, from, to time.Time) bool {
	return !t.Before(from) && (to.IsZero() || !t.After(to))
}

func checkEntry(b *bundle.Bundle, entry *protorekor.TransparencyLogEntry) error {
	proof := entry.GetInclusionProof()
	if proof.GetCheckpoint().GetEnvelope() == "" {
		return errors.New("no inclusion proof with a checkpoint")
	}
	if entry.GetIntegratedTime() != 0 || entry.GetInclusionPromise() != nil {
		return errors.New("a Rekor v2 entry has no integrated time and no promise")
	}
	rebuilt, err := rebuildBody(b)
	if err != nil {
		return err
	}
	if !sameBytes(entry.GetCanonicalizedBody(), rebuilt) {
		return errors.New("the entry's body is not this bundle's")
	}
	size, rootHash, err := attest.ParseCheckpoint(proof.GetCheckpoint().GetEnvelope())
	if err != nil {
		return err
	}
	switch {
	case proof.GetLogIndex() != entry.GetLogIndex():
		return fmt.Errorf("the proof is for index %d, the entry's is %d", proof.GetLogIndex(), entry.GetLogIndex())
	case proof.GetTreeSize() != size:
		return fmt.Errorf("the proof's tree has %d entries, the checkpoint's %d", proof.GetTreeSize(), size)
	case !sameBytes(proof.GetRootHash(), rootHash):
		return errors.New("the proof's root hash is not the checkpoint's")
	}
	return nil
}

// rebuildBody is the entry that Rekor v2 would write for b, of the one kind of
// key that is logged here.
func rebuildBody(b *bundle.Bundle) ([]byte, error) {
	content, err := b.VerificationContent()
	if err != nil || content.Certificate() == nil {
		return nil, errors.New("no certificate")
	}
	if key, ok := content.Certificate().PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the certificate's key is not ECDSA P-256")
	}
	envelope := b.GetDsseEnvelope()
	return attest.LogEntry{
		Digest:    sha256.Sum256(dsse.PAE(attest.PayloadType, envelope.GetPayload())),
		Signature: envelope.GetSignatures()[0].GetSig(), Certificate: content.Certificate().Raw,
	}.Body(), nil
}
