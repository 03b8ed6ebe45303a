// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// What we write is what protojson would have written, as every client reads
// it.
func TestAssembleBundleIsTheProtobuf(t *testing.T) {
	sig := Signature{Version: 1, DER: []byte("der <&> \xff"), Certificate: []byte("certificate")}
	entry := func(index int64) *protorekor.TransparencyLogEntry {
		return &protorekor.TransparencyLogEntry{
			LogIndex: index, LogId: &protocommon.LogId{KeyId: []byte{1, 2, 3}},
			KindVersion: &protorekor.KindVersion{Kind: LogKind, Version: LogVersion},
			InclusionProof: &protorekor.InclusionProof{LogIndex: index, RootHash: []byte{4}, TreeSize: index + 1, Hashes: [][]byte{{5}, {6}},
				Checkpoint: &protorekor.Checkpoint{Envelope: "origin\n1\nroot\n\n— name <sig>\n"}},
			CanonicalizedBody: []byte(`{"a":"b"}`),
		}
	}
	for name, p := range map[string]proofs{
		"without a log": {stamps: [][]byte{[]byte("stamp")}},
		"two stamps":    {stamps: [][]byte{[]byte("stamp"), []byte("another")}},
		"index 0":       {stamps: [][]byte{[]byte("stamp")}, entry: entry(0)},
		"a large index": {stamps: [][]byte{[]byte("stamp")}, entry: entry(1<<53 + 1)},
	} {
		t.Run(name, func(t *testing.T) {
			payload := []byte(`{"x":"` + strings.Repeat("é<", 10) + `"}`)
			raw, err := assembleBundle(payload, sig, p)
			if err != nil {
				t.Fatal(err)
			}
			var got protobundle.Bundle
			if err := protojson.Unmarshal(raw, &got); err != nil {
				t.Fatalf("%v\n%s", err, raw)
			}
			mediaType, _ := bundle.MediaTypeString("0.3")
			want := &protobundle.Bundle{
				MediaType: mediaType,
				VerificationMaterial: &protobundle.VerificationMaterial{
					Content:                   &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: sig.Certificate}},
					TimestampVerificationData: &protobundle.TimestampVerificationData{},
				},
				Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
					Payload: payload, PayloadType: PayloadType, Signatures: []*protodsse.Signature{{Sig: sig.DER}},
				}},
			}
			for _, s := range p.stamps {
				want.VerificationMaterial.TimestampVerificationData.Rfc3161Timestamps = append(want.VerificationMaterial.TimestampVerificationData.Rfc3161Timestamps,
					&protocommon.RFC3161SignedTimestamp{SignedTimestamp: s})
			}
			if p.entry != nil {
				want.VerificationMaterial.TlogEntries = []*protorekor.TransparencyLogEntry{p.entry}
			}
			if !proto.Equal(&got, want) {
				t.Errorf("got  %v\nwant %v", &got, want)
			}
			again, err := assembleBundle(payload, sig, p)
			if err != nil || string(again) != string(raw) {
				t.Error("the same parts give other bytes")
			}
		})
	}
}

// A log that answers with anything but a proof of our very entry is not
// believed.
func TestCheckLogged(t *testing.T) {
	e := LogEntry{Digest: sha256.Sum256([]byte("m")), Signature: []byte("s"), Certificate: []byte("c")}
	good := func() *protorekor.TransparencyLogEntry {
		// One entry: its leaf hash is the root.
		root := sha256.Sum256(append([]byte{0}, e.Body()...))
		return &protorekor.TransparencyLogEntry{
			LogId: &protocommon.LogId{KeyId: []byte{1}}, KindVersion: &protorekor.KindVersion{Kind: LogKind, Version: LogVersion},
			CanonicalizedBody: e.Body(),
			InclusionProof: &protorekor.InclusionProof{TreeSize: 1, RootHash: root[:],
				Checkpoint: &protorekor.Checkpoint{Envelope: "origin\n1\n" + base64.StdEncoding.EncodeToString(root[:]) + "\n\n"}},
		}
	}
	if err := checkLogged(e, good()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*protorekor.TransparencyLogEntry){
		"another body":           func(l *protorekor.TransparencyLogEntry) { l.CanonicalizedBody = append(l.CanonicalizedBody, ' ') },
		"another kind":           func(l *protorekor.TransparencyLogEntry) { l.KindVersion.Kind = "dsse" },
		"another version":        func(l *protorekor.TransparencyLogEntry) { l.KindVersion.Version = "0.0.1" },
		"another index":          func(l *protorekor.TransparencyLogEntry) { l.LogIndex = 1 },
		"both indexes":           func(l *protorekor.TransparencyLogEntry) { l.LogIndex, l.InclusionProof.LogIndex = 1, 1 },
		"a negative index":       func(l *protorekor.TransparencyLogEntry) { l.LogIndex, l.InclusionProof.LogIndex = -1, -1 },
		"another size":           func(l *protorekor.TransparencyLogEntry) { l.InclusionProof.TreeSize = 2 },
		"another root":           func(l *protorekor.TransparencyLogEntry) { l.InclusionProof.RootHash[0] ^= 1 },
		"a hash too many":        func(l *protorekor.TransparencyLogEntry) { l.InclusionProof.Hashes = [][]byte{make([]byte, 32)} },
		"no checkpoint":          func(l *protorekor.TransparencyLogEntry) { l.InclusionProof.Checkpoint = nil },
		"no proof":               func(l *protorekor.TransparencyLogEntry) { l.InclusionProof = nil },
		"a checkpoint of others": func(l *protorekor.TransparencyLogEntry) { l.InclusionProof.Checkpoint.Envelope = "origin\n1\nAAAA\n\n" },
	} {
		l := good()
		change(l)
		if err := checkLogged(e, l); err == nil {
			t.Errorf("%s: believed", name)
		}
	}
	if err := checkLogged(e, nil); err == nil {
		t.Error("nothing: believed")
	}
}
