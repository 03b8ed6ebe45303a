// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"google.golang.org/protobuf/encoding/protojson"
)

// A Log is a transparency log that takes Rekor v2 entries.
type Log interface {
	// Append logs a signature and returns its entry, with an inclusion proof
	// to a checkpoint that is durable and public. An error that may pass
	// wraps [ErrUnavailable]; the entry may be in the log nevertheless.
	Append(ctx context.Context, e LogEntry) (*protorekor.TransparencyLogEntry, error)
}

// A LogEntry is a signature as it is logged.
type LogEntry struct {
	Digest      [sha256.Size]byte // of the message that was signed, the DSSE PAE
	Signature   []byte            // ASN.1 ECDSA P-256
	Certificate []byte            // the signer's leaf, DER
}

// A LogOrphan is an entry found in a log that no attestation has: somebody
// signed, and the service did not live to store what came of it. Or it was not
// the service.
type LogOrphan struct {
	Log     string // hex ID of the log
	Index   int64
	Message Digest // SHA-256, what was signed
	Intent  string // ID of the intent to sign it; "" when there is none
	At      time.Time
}

// The kind and version of the entries that are logged (Rekor v2 knows no
// other for an attestation).
const (
	LogKind    = "hashedrekord"
	LogVersion = "0.0.2"
)

// Body is the entry as it stands in the log: what Rekor v2 writes, a
// hashedrekord 0.0.2 in canonical JSON (RFC 8785). Since every member is
// base64 or fixed, canonical means: sorted keys, no white space.
func (e LogEntry) Body() []byte {
	b := base64.StdEncoding.AppendEncode([]byte(`{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","digest":"`), e.Digest[:])
	b = base64.StdEncoding.AppendEncode(append(b, `"},"signature":{"content":"`...), e.Signature)
	b = base64.StdEncoding.AppendEncode(append(b, `","verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256","x509Certificate":{"rawBytes":"`...), e.Certificate)
	return append(b, `"}}}}}}`...)
}

// checkLogged verifies what our own log answered: the body is ours and is
// proven to be in the tree of the checkpoint. Whether the checkpoint is
// signed, the log itself has checked, once for all entries under it.
func checkLogged(e LogEntry, logged *protorekor.TransparencyLogEntry) error {
	p := logged.GetInclusionProof()
	size, root, err := ParseCheckpoint(p.GetCheckpoint().GetEnvelope())
	if err != nil {
		return fmt.Errorf("%w: log entry: %w", ErrSelfCheck, err)
	}
	body := e.Body()
	switch {
	case !bytes.Equal(body, logged.GetCanonicalizedBody()):
		return fmt.Errorf("%w: the log has another body", ErrSelfCheck)
	case logged.GetKindVersion().GetKind() != LogKind, logged.GetKindVersion().GetVersion() != LogVersion:
		return fmt.Errorf("%w: the log has another kind of entry", ErrSelfCheck)
	case logged.GetLogIndex() < 0, logged.GetLogIndex() != p.GetLogIndex(), p.GetTreeSize() != size, !bytes.Equal(p.GetRootHash(), root):
		return fmt.Errorf("%w: the log's proof and checkpoint disagree", ErrSelfCheck)
	}
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(logged.GetLogIndex()), uint64(size),
		rfc6962.DefaultHasher.HashLeaf(body), p.GetHashes(), root); err != nil {
		return fmt.Errorf("%w: log entry %d: %w", ErrSelfCheck, logged.GetLogIndex(), err)
	}
	return nil
}

// ParseCheckpoint reads tree size and root hash of a checkpoint
// (c2sp.org/tlog-checkpoint: origin, size, base64 root hash, one a line). It
// verifies nothing.
func ParseCheckpoint(envelope string) (size int64, root []byte, err error) {
	lines := strings.SplitN(envelope, "\n", 4)
	if len(lines) < 4 {
		return 0, nil, errors.New("checkpoint: want origin, size and root hash")
	}
	if size, err = strconv.ParseInt(lines[1], 10, 64); err != nil || size < 0 {
		return 0, nil, errors.New("checkpoint: tree size is not a number")
	}
	if root, err = base64.StdEncoding.DecodeString(lines[2]); err != nil {
		return 0, nil, errors.New("checkpoint: root hash is not base64")
	}
	return size, root, nil
}

type intentKey struct{}

// withIntent makes a context carry the intent that the work under it is for,
// so that the outside can be told, for tracing alone. No decision reads it.
func withIntent(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, intentKey{}, id)
}

// IntentOf is the ID of the intent that the work under ctx is for; "" for
// none.
func IntentOf(ctx context.Context) string {
	id, _ := ctx.Value(intentKey{}).(string)
	return id
}

// CheckpointOf is the tree size and root hash that a stored bundle's log entry
// was proven in. Nothing is verified: it is for comparing the log with what it
// said before, never for believing a bundle.
func CheckpointOf(raw []byte) (size int64, root []byte, err error) {
	b := new(protobundle.Bundle)
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, b); err != nil {
		return 0, nil, fmt.Errorf("%w: bundle: %w", ErrInvalid, err)
	}
	entries := b.GetVerificationMaterial().GetTlogEntries()
	if len(entries) == 0 {
		return 0, nil, fmt.Errorf("%w: bundle has no log entry", ErrInvalid)
	}
	return ParseCheckpoint(entries[0].GetInclusionProof().GetCheckpoint().GetEnvelope())
}

// ParseLogEntry returns the digest that a log entry's body says was signed. The
// error is an [ErrInvalid].
func ParseLogEntry(body []byte) (Digest, error) {
	var entry struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
		Spec       struct {
			V002 struct {
				Data struct {
					Algorithm string `json:"algorithm"`
					Digest    []byte `json:"digest"`
				} `json:"data"`
			} `json:"hashedRekordV002"`
		} `json:"spec"`
	}
	if err := DecodeOpenJSON(body, &entry); err != nil {
		return Digest{}, fmt.Errorf("log entry: %w", err)
	}
	data := entry.Spec.V002.Data
	if entry.Kind != LogKind || entry.APIVersion != LogVersion || data.Algorithm != "SHA2_256" {
		return Digest{}, fmt.Errorf("%w: log entry: want %s %s over SHA-256", ErrInvalid, LogKind, LogVersion)
	}
	return NewDigest(AlgSHA256, hex.EncodeToString(data.Digest))
}
