// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore-go/pkg/bundle"
)

// bundleVersion is the Sigstore bundle version that is issued, and the only
// one that is believed.
const bundleVersion = "0.3"

// assembleBundle makes a Sigstore bundle v0.3 of the parts: one DSSE envelope
// with one signature, the leaf certificate, one RFC 3161 timestamp over the
// signature. The DSSE keyid stays empty: clients compare any other value with
// their own idea of it and then find no signature at all.
func assembleBundle(payload []byte, sig Signature, timestamp []byte) ([]byte, error) {
	mediaType, err := bundle.MediaTypeString(bundleVersion)
	if err != nil {
		return nil, err
	}
	b, err := bundle.NewBundle(&protobundle.Bundle{
		MediaType: mediaType,
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_Certificate{
				Certificate: &protocommon.X509Certificate{RawBytes: sig.Certificate},
			},
			TimestampVerificationData: &protobundle.TimestampVerificationData{
				Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: timestamp}},
			},
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
