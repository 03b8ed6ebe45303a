// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
)

// bundleVersion is the Sigstore bundle version that is issued, and the only
// one that is believed.
const bundleVersion = "0.3"

// assembleBundle makes a Sigstore bundle v0.3 of the parts: one DSSE envelope
// with one signature, the leaf certificate, RFC 3161 timestamps over the
// signature, and its log entry if there is one. The DSSE keyid stays empty: clients compare any other value with
// their own idea of it and then find no signature at all.
func assembleBundle(payload []byte, sig Signature, p proofs) ([]byte, error) {
	mediaType, err := bundle.MediaTypeString(bundleVersion)
	if err != nil {
		return nil, err
	}
	stamps := make([]*protocommon.RFC3161SignedTimestamp, len(p.stamps))
	for n, s := range p.stamps {
		stamps[n] = &protocommon.RFC3161SignedTimestamp{SignedTimestamp: s}
	}
	var entries []*protorekor.TransparencyLogEntry
	if p.entry != nil {
		entries = append(entries, p.entry)
	}
	b, err := bundle.NewBundle(&protobundle.Bundle{
		MediaType: mediaType,
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_Certificate{
				Certificate: &protocommon.X509Certificate{RawBytes: sig.Certificate},
			},
			TlogEntries:               entries,
			TimestampVerificationData: &protobundle.TimestampVerificationData{Rfc3161Timestamps: stamps},
		},
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload:     payload,
			PayloadType: PayloadType,
			Signatures:  []*protodsse.Signature{{Sig: sig.DER}},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("assemble bundle: %w", err)
	}
	return b.MarshalJSON()
}
