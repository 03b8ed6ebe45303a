// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"github.com/sigstore/sigstore-go/pkg/bundle"
)

// bundleVersion is the Sigstore bundle version that is issued, and the only
// one that is believed.
const bundleVersion = "0.3"

// The JSON of a bundle, as far as we write it (protobuf-specs
// sigstore_bundle.proto, in the JSON mapping of protocol buffers: bytes are
// base64, 64-bit numbers are strings, what is zero is left out).
type (
	wireBundle struct {
		MediaType            string       `json:"mediaType"`
		VerificationMaterial wireMaterial `json:"verificationMaterial"`
		DSSEEnvelope         wireEnvelope `json:"dsseEnvelope"`
	}
	wireMaterial struct {
		Certificate wireBytes      `json:"certificate"`
		TlogEntries []wireLogEntry `json:"tlogEntries,omitempty"`
		Timestamps  struct {
			RFC3161 []wireTimestamp `json:"rfc3161Timestamps"`
		} `json:"timestampVerificationData"`
	}
	wireBytes struct {
		RawBytes []byte `json:"rawBytes"`
	}
	wireTimestamp struct {
		SignedTimestamp []byte `json:"signedTimestamp"`
	}
	wireEnvelope struct {
		Payload     []byte          `json:"payload"`
		PayloadType string          `json:"payloadType"`
		Signatures  []wireSignature `json:"signatures"`
	}
	wireSignature struct {
		Sig []byte `json:"sig"`
	}
	wireLogEntry struct {
		LogIndex int64 `json:"logIndex,string,omitzero"`
		LogID    struct {
			KeyID []byte `json:"keyId"`
		} `json:"logId"`
		KindVersion struct {
			Kind    string `json:"kind"`
			Version string `json:"version"`
		} `json:"kindVersion"`
		InclusionProof    wireProof `json:"inclusionProof"`
		CanonicalizedBody []byte    `json:"canonicalizedBody"`
	}
	wireProof struct {
		LogIndex   int64    `json:"logIndex,string,omitzero"`
		RootHash   []byte   `json:"rootHash"`
		TreeSize   int64    `json:"treeSize,string,omitzero"`
		Hashes     [][]byte `json:"hashes,omitempty"`
		Checkpoint struct {
			Envelope string `json:"envelope"`
		} `json:"checkpoint"`
	}
)

// assembleBundle makes a Sigstore bundle v0.3 of the parts: one DSSE envelope
// with one signature, the leaf certificate, RFC 3161 timestamps over the
// signature, and its log entry if there is one. The DSSE keyid stays empty:
// clients compare any other value with their own idea of it and then find no
// signature at all.
//
// It is written here and not by protojson, which took as long as verifying a
// signature does; a test compares the two.
func assembleBundle(payload []byte, sig Signature, p proofs) ([]byte, error) {
	mediaType, err := bundle.MediaTypeString(bundleVersion)
	if err != nil {
		return nil, err
	}
	b := wireBundle{
		MediaType:            mediaType,
		VerificationMaterial: wireMaterial{Certificate: wireBytes{sig.Certificate}},
		DSSEEnvelope:         wireEnvelope{payload, PayloadType, []wireSignature{{sig.DER}}},
	}
	for _, s := range p.stamps {
		b.VerificationMaterial.Timestamps.RFC3161 = append(b.VerificationMaterial.Timestamps.RFC3161, wireTimestamp{s})
	}
	if e := p.entry; e != nil {
		proof := e.GetInclusionProof()
		w := wireLogEntry{LogIndex: e.GetLogIndex(), CanonicalizedBody: e.GetCanonicalizedBody(), InclusionProof: wireProof{
			LogIndex: proof.GetLogIndex(), RootHash: proof.GetRootHash(), TreeSize: proof.GetTreeSize(), Hashes: proof.GetHashes(),
		}}
		w.LogID.KeyID = e.GetLogId().GetKeyId()
		w.KindVersion.Kind, w.KindVersion.Version = e.GetKindVersion().GetKind(), e.GetKindVersion().GetVersion()
		w.InclusionProof.Checkpoint.Envelope = proof.GetCheckpoint().GetEnvelope()
		b.VerificationMaterial.TlogEntries = []wireLogEntry{w}
	}
	return encodeJSON(b)
}
