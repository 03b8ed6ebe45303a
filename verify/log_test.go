// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	rekorpb "github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	rekornote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/rekor-tiles/v2/pkg/types/hashedrekord"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	engine "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
	checkpoint "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"provost/attest"
	"provost/verify"
)

// A tlog is a transparency log as Rekor v2 writes it: an RFC 6962 tree of
// hashedrekord 0.0.2 entries, under checkpoints signed by an ECDSA P-256 key.
type tlog struct {
	t      testing.TB
	host   string
	key    *ecdsa.PrivateKey
	id     []byte
	tree   *testonly.Tree
	bodies [][]byte
	rest   string // of the checkpoint's text
}

func newLog(t testing.TB, host string) *tlog {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	_, id, err := rekornote.KeyHash(host, key.Public())
	check(t, err)
	return &tlog{t: t, host: host, key: key, id: id, tree: testonly.New(rfc6962.DefaultHasher)}
}

// add logs a bundle's signature as Rekor does, after verifying it, and returns
// its index.
func (l *tlog) add(raw []byte) int {
	l.t.Helper()
	b := decodeBundle(l.t, raw)
	algorithm := protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256
	digest := sha256.Sum256(dsse.PAE(attest.PayloadType, b.GetDsseEnvelope().GetPayload()))
	entry, err := hashedrekord.ToLogEntry(&rekorpb.HashedRekordRequestV002{
		Digest: digest[:],
		Signature: &rekorpb.Signature{Content: signatureOf(b), Verifier: &rekorpb.Verifier{
			KeyDetails: algorithm,
			Verifier:   &rekorpb.Verifier_X509Certificate{X509Certificate: b.GetVerificationMaterial().GetCertificate()},
		}},
	}, must(signature.NewAlgorithmRegistryConfig([]protocommon.PublicKeyDetails{algorithm})))
	check(l.t, err)
	body := jsontext.Value(must(protojson.Marshal(entry)))
	check(l.t, body.Canonicalize()) // RFC 8785
	mine := attest.LogEntry{Digest: digest, Signature: signatureOf(b), Certificate: leafOf(b)}.Body()
	if !bytes.Equal(mine, body) {
		l.t.Fatalf("we would log %s; Rekor logs %s", mine, body)
	}
	l.bodies = append(l.bodies, body)
	l.tree.AppendData(body)
	return len(l.bodies) - 1
}

// fill logs n signatures that nobody asks about.
func (l *tlog) fill(n int) {
	for range n {
		l.add(ours().provenance(l.t))
	}
}

func (l *tlog) checkpoint() string { return l.checkpointAs(l.host) }

// checkpointAs is a checkpoint that is signed under a name.
func (l *tlog) checkpointAs(name string) string {
	signer := must(signature.LoadECDSASigner(l.key, crypto.SHA256))
	noteSigner := must(rekornote.NewNoteSigner(l.t.Context(), name, signer))
	cp := checkpoint.Checkpoint{Origin: l.host, Size: l.tree.Size(), Hash: l.tree.Hash()}
	return string(must(note.Sign(&note.Note{Text: string(cp.Marshal()) + l.rest}, noteSigner)))
}

// signatures are the lines below a checkpoint's text.
func signatures(envelope string) string {
	_, lines, _ := strings.Cut(envelope, "\n\n")
	return lines
}

func (l *tlog) entry(i int) *protorekor.TransparencyLogEntry {
	proof := must(l.tree.InclusionProof(uint64(i), l.tree.Size()))
	return &protorekor.TransparencyLogEntry{
		LogIndex: int64(i), LogId: &protocommon.LogId{KeyId: l.id},
		KindVersion:       &protorekor.KindVersion{Kind: "hashedrekord", Version: "0.0.2"},
		CanonicalizedBody: l.bodies[i],
		InclusionProof: &protorekor.InclusionProof{
			LogIndex: int64(i), TreeSize: int64(l.tree.Size()), RootHash: l.tree.Hash(), Hashes: proof,
			Checkpoint: &protorekor.Checkpoint{Envelope: l.checkpoint()},
		},
	}
}

// logged puts the entry into its bundle.
func (l *tlog) logged(raw []byte, i int) []byte {
	b := decodeBundle(l.t, raw)
	b.VerificationMaterial.TlogEntries = append(b.VerificationMaterial.TlogEntries, l.entry(i))
	return encode(l.t, b)
}

// known adds the log to a trusted root.
func (l *tlog) known(trustedRoot []byte) []byte {
	return editRoot(l.t, trustedRoot, func(p *prototrustroot.TrustedRoot) {
		p.Tlogs = append(p.Tlogs, &prototrustroot.TransparencyLogInstance{
			BaseUrl: "https://" + l.host, HashAlgorithm: protocommon.HashAlgorithm_SHA2_256,
			LogId: &protocommon.LogId{KeyId: l.id},
			PublicKey: &protocommon.PublicKey{
				RawBytes:   must(x509.MarshalPKIXPublicKey(l.key.Public())),
				KeyDetails: protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256,
				ValidFor:   &protocommon.TimeRange{Start: timestamppb.New(ours().clock.Now().Add(-time.Hour))},
			},
		})
	})
}

func signatureOf(b *protobundle.Bundle) []byte {
	return b.GetDsseEnvelope().GetSignatures()[0].GetSig()
}

// foreign verifies as a program would that uses sigstore-go and none of our
// code, with every threshold that the root allows at one.
func foreign(trustedRoot, raw []byte, artifact attest.Digest, id verify.Identity) error {
	material, err := root.NewTrustedRootFromJSON(trustedRoot)
	if err != nil {
		return err
	}
	options := []engine.VerifierOption{engine.WithSignedTimestamps(1)}
	if len(material.RekorLogs()) > 0 {
		options = append(options, engine.WithTransparencyLog(1))
	}
	if len(material.CTLogs()) > 0 {
		options = append(options, engine.WithSignedCertificateTimestamps(1))
	}
	verifier, err := engine.NewVerifier(material, options...)
	if err != nil {
		return err
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(raw); err != nil {
		return err
	}
	want, err := engine.NewShortCertificateIdentity(id.Issuer, "", id.SAN, "")
	if err != nil {
		return err
	}
	_, err = verifier.Verify(&b, engine.NewPolicy(
		engine.WithArtifactDigest(artifact.Algorithm(), artifact.Bytes()), engine.WithCertificateIdentity(want)))
	return err
}

var provenanceSigner = verify.SignerIdentity(service, attest.PowerProvenance)

func TestVerifyLogged(t *testing.T) {
	r := ours()
	for _, size := range []int{1, 2, 5, 8} {
		for index := range size {
			l := newLog(t, "log.provost.example")
			trustedRoot := l.known(r.root)
			raw := r.provenance(t)
			l.fill(index)
			l.add(raw)
			l.fill(size - 1 - index)
			raw = l.logged(raw, index)
			if _, err := must(verify.ParseTrust(trustedRoot)).Verify(raw, verify.Expect{Artifact: app}); err != nil {
				t.Errorf("entry %d of %d: %v", index, size, err)
			}
			if err := foreign(trustedRoot, raw, app, provenanceSigner); err != nil {
				t.Errorf("entry %d of %d, sigstore-go: %v", index, size, err)
			}
		}
	}
}

// What others signed may stand under a checkpoint too, and lines after the
// root hash.
func TestVerifyPassesOverCosignatures(t *testing.T) {
	r := ours()
	l, witness := newLog(t, "log.provost.example"), newLog(t, "witness.example")
	trustedRoot := l.known(r.root)
	trust := must(verify.ParseTrust(trustedRoot))
	raw := r.provenance(t)
	raw = l.logged(raw, l.add(raw))
	witness.add(r.provenance(t))
	for name, change := range map[string]func(string) string{
		"a witness's, after the log's": func(e string) string { return e + signatures(witness.checkpoint()) },
		"a witness's, before the log's": func(e string) string {
			text, lines, _ := strings.Cut(e, "\n\n")
			return text + "\n\n" + signatures(witness.checkpoint()) + lines
		},
		"another key's, by the log's name": func(e string) string { return e + signatures(witness.checkpointAs(l.host)) },
		"a line of more":                   func(string) string { more := *l; more.rest = "more\n"; return more.checkpoint() },
	} {
		raw := edit(t, raw, func(b *protobundle.Bundle) {
			c := entryOf(b).InclusionProof.Checkpoint
			c.Envelope = change(c.Envelope)
		})
		if _, err := trust.Verify(raw, verify.Expect{Artifact: app}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := foreign(trustedRoot, raw, app, provenanceSigner); err != nil {
			t.Errorf("%s, sigstore-go: %v", name, err)
		}
	}
}

// Entries of two logs may both be there, and one of two is enough.
func TestVerifyLoggedTwice(t *testing.T) {
	r := ours()
	a, b := newLog(t, "a.log.provost.example"), newLog(t, "b.log.provost.example")
	trustedRoot := b.known(a.known(r.root))
	trust := must(verify.ParseTrust(trustedRoot))
	raw := r.provenance(t)
	a.fill(2)
	inA := a.logged(raw, a.add(raw))
	inBoth := b.logged(inA, b.add(raw))
	for name, raw := range map[string][]byte{"one": inA, "both": inBoth} {
		if _, err := trust.Verify(raw, verify.Expect{Artifact: app}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := len(trust.Authorities()); got != 9 {
		t.Errorf("%d authorities; want two logs beside the others", got)
	}
	twice := a.logged(inA, 2)
	v, err := trust.Verify(twice, verify.Expect{Artifact: app})
	wantRefused(t, v, err, verify.StepLog)
}

// A bundle may prove more than is needed, but not without end.
func TestVerifyLoggedOften(t *testing.T) {
	r := ours()
	trustedRoot, raw := r.root, r.provenance(t)
	for n := 1; n <= 9; n++ {
		l := newLog(t, fmt.Sprintf("%d.log.provost.example", n))
		trustedRoot = l.known(trustedRoot)
		raw = l.logged(raw, l.add(raw))
		v, err := must(verify.ParseTrust(trustedRoot)).Verify(raw, verify.Expect{Artifact: app})
		if n > 8 {
			wantRefused(t, v, err, verify.StepLog)
		} else if err != nil {
			t.Errorf("%d entries: %v", n, err)
		}
	}
}

// By name, what makes a logged bundle bad. Each is refused here; accepts says
// that sigstore-go, which rebuilds what it needs and passes over the rest, does
// not mind, and is why it is looked at here.
func TestVerifyRefusesLogEntries(t *testing.T) {
	r := ours()
	l, unknown := newLog(t, "log.provost.example"), newLog(t, "unknown.example")
	trustedRoot := l.known(r.root)
	trust := must(verify.ParseTrust(trustedRoot))
	plain, otherPlain := r.provenance(t), r.provenance(t)
	l.fill(1)
	index, otherIndex := l.add(plain), l.add(otherPlain)
	early := l.logged(plain, index) // under a checkpoint of three entries
	l.fill(2)
	good := l.logged(plain, index)
	for _, raw := range [][]byte{good, early} {
		if _, err := trust.Verify(raw, verify.Expect{Artifact: app}); err != nil {
			t.Fatalf("the good one: %v", err)
		}
	}
	earlyEntry := entryOf(decodeBundle(t, early))
	unknown.add(plain)

	for _, c := range []struct {
		name    string
		change  func(*protobundle.Bundle, *protorekor.TransparencyLogEntry)
		accepts bool
	}{
		{"the entry is missing", func(b *protobundle.Bundle, _ *protorekor.TransparencyLogEntry) {
			b.VerificationMaterial.TlogEntries = nil
		}, false},
		{"the entry of another bundle", func(b *protobundle.Bundle, _ *protorekor.TransparencyLogEntry) {
			b.VerificationMaterial.TlogEntries[0] = l.entry(otherIndex)
		}, false},
		{"the body of another bundle's entry", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			e.CanonicalizedBody = l.bodies[otherIndex]
		}, true},
		{"the body tampered with", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			e.CanonicalizedBody = bytes.Replace(e.CanonicalizedBody, []byte(`"digest":"`), []byte(`"digest":"AAAA`), 1)
		}, true},
		{"the body not canonical", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			e.CanonicalizedBody = append(e.CanonicalizedBody, '\n')
		}, true},
		{"no body", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) { e.CanonicalizedBody = nil }, false},
		{"the proof's root hash flipped", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) { e.InclusionProof.RootHash[0] ^= 1 }, true},
		{"no root hash in the proof", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) { e.InclusionProof.RootHash = nil }, true},
		{"the proof's index changed", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) { e.InclusionProof.LogIndex++ }, true},
		{"the entry's index changed", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) { e.LogIndex++ }, false},
		{"both indices changed", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			e.LogIndex++
			e.InclusionProof.LogIndex++
		}, false},
		{"both indices negative", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			e.LogIndex, e.InclusionProof.LogIndex = -1, -1
		}, false},
		{"the proof's tree size changed", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) { e.InclusionProof.TreeSize++ }, true},
		{"the last hash of the proof removed", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			e.InclusionProof.Hashes = e.InclusionProof.Hashes[:len(e.InclusionProof.Hashes)-1]
		}, false},
		{"a hash of the proof flipped", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) { e.InclusionProof.Hashes[0][0] ^= 1 }, false},
		{"a hash too many", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			e.InclusionProof.Hashes = append(e.InclusionProof.Hashes, e.InclusionProof.Hashes[0])
		}, false},
		{"an integrated time inside the leaf's window", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			e.IntegratedTime = r.clock.Now().Unix()
		}, true},
		{"an integrated time outside the leaf's window", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) { e.IntegratedTime = 1 }, false},
		{"an inclusion promise", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			e.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: []byte("x")}
		}, false},
		{"an empty inclusion promise", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			e.InclusionPromise = &protorekor.InclusionPromise{}
		}, true},
		{"no proof", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) { e.InclusionProof = nil }, false},
		{"a proof without a checkpoint", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) { e.InclusionProof.Checkpoint = nil }, false},
		{"an empty checkpoint", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			e.InclusionProof.Checkpoint.Envelope = ""
		}, false},
		{"an earlier checkpoint", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			e.InclusionProof.Checkpoint = earlyEntry.InclusionProof.Checkpoint
		}, false},
		{"an earlier checkpoint, size and root hash", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			hashes := e.InclusionProof.Hashes
			e.InclusionProof = earlyEntry.InclusionProof
			e.InclusionProof.Hashes = hashes
		}, false},
		{"a checkpoint that another key signed", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			forger := *l
			forger.key = unknown.key
			e.InclusionProof.Checkpoint.Envelope = forger.checkpoint()
		}, false},
		{"a checkpoint of another origin", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			moved := *l
			moved.host = "other.example"
			e.InclusionProof.Checkpoint.Envelope = moved.checkpoint()
		}, false},
		{"a checkpoint of an origin that is a log of Rekor v1", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			old := *l
			old.host = "log.provost.example - 1234567890"
			e.InclusionProof.Checkpoint.Envelope = old.checkpointAs("log.provost.example")
		}, true},
		{"a checkpoint of another origin, under the log's name", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			moved := *l
			moved.host = "other.example"
			e.InclusionProof.Checkpoint.Envelope = moved.checkpointAs("log.provost.example")
		}, false},
		{"a checkpoint that the log signed twice", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			e.InclusionProof.Checkpoint.Envelope += signatures(l.checkpoint())
		}, true},
		{"a checkpoint that the log signed, and a signature by the log that is none", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			forger := *l
			forger.key = unknown.key
			line := signatures(forger.checkpoint())
			value := must(base64.StdEncoding.DecodeString(strings.TrimSpace(line[strings.LastIndex(line, " "):])))
			copy(value, l.id[:4])
			e.InclusionProof.Checkpoint.Envelope += "— " + l.host + " " + base64.StdEncoding.EncodeToString(value) + "\n"
		}, true},
		{"a checkpoint with a blank line in its text", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			cut := *l
			cut.rest = "\nmore\n"
			e.InclusionProof.Checkpoint.Envelope = cut.checkpoint()
		}, true},
		{"a checkpoint with a line among the signatures that is none", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			e.InclusionProof.Checkpoint.Envelope += "more\n"
		}, false},
		{"a checkpoint without its signature", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			text, _, _ := strings.Cut(e.InclusionProof.Checkpoint.Envelope, "\n\n")
			e.InclusionProof.Checkpoint.Envelope = text + "\n\n"
		}, false},
		{"a checkpoint whose size is no number", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			e.InclusionProof.Checkpoint.Envelope = strings.Replace(e.InclusionProof.Checkpoint.Envelope, "\n5\n", "\nfive\n", 1)
		}, false},
		{"the log's ID unknown", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) { e.LogId.KeyId[0] ^= 1 }, false},
		{"no log ID", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) { e.LogId = nil }, false},
		{"a second entry, of a log outside the root", func(b *protobundle.Bundle, _ *protorekor.TransparencyLogEntry) {
			b.VerificationMaterial.TlogEntries = append(b.VerificationMaterial.TlogEntries, unknown.entry(0))
		}, true},
		{"a second entry, of a log outside the root, before the good one", func(b *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			b.VerificationMaterial.TlogEntries = []*protorekor.TransparencyLogEntry{unknown.entry(0), e}
		}, true},
		{"the entry twice", func(b *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			b.VerificationMaterial.TlogEntries = append(b.VerificationMaterial.TlogEntries, e)
		}, false},
		{"more entries than anybody needs", func(b *protobundle.Bundle, e *protorekor.TransparencyLogEntry) {
			b.VerificationMaterial.TlogEntries = slices.Repeat([]*protorekor.TransparencyLogEntry{e}, 9)
		}, false},
		{"another kind", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) { e.KindVersion.Kind = "dsse" }, true},
		{"another version", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) { e.KindVersion.Version = "0.0.1" }, true},
		{"no kind", func(_ *protobundle.Bundle, e *protorekor.TransparencyLogEntry) { e.KindVersion = nil }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := edit(t, good, func(b *protobundle.Bundle) { c.change(b, entryOf(b)) })
			v, err := trust.Verify(raw, verify.Expect{Artifact: app})
			if v != nil || err == nil {
				t.Fatal("believed")
			}
			var at *verify.Error
			if !errors.As(err, &at) || at.Step != verify.StepLog && at.Step != verify.StepBundle {
				t.Errorf("refused for something else: %v", err)
			}
			if err := foreign(trustedRoot, raw, app, provenanceSigner); (err == nil) != c.accepts {
				t.Errorf("sigstore-go: %v; accepting it was expected to be %t", err, c.accepts)
			}
		})
	}
}

func entryOf(b *protobundle.Bundle) *protorekor.TransparencyLogEntry {
	return b.GetVerificationMaterial().GetTlogEntries()[0]
}

// A root without a log believes no entry, though a client may pass it over.
func TestVerifyRefusesEntriesOfNoLog(t *testing.T) {
	r := ours()
	l := newLog(t, "log.provost.example")
	raw := r.provenance(t)
	raw = l.logged(raw, l.add(raw))
	v, err := r.trust.Verify(raw, verify.Expect{Artifact: app})
	wantRefused(t, v, err, verify.StepLog)
	if err := foreign(r.root, raw, app, provenanceSigner); err != nil {
		t.Errorf("sigstore-go: %v", err)
	}
}

// A log is believed inside its window and nowhere else, both ends included. No
// client looks at it.
func TestLogWindow(t *testing.T) {
	r := ours()
	l := newLog(t, "log.provost.example")
	raw := r.provenance(t)
	raw = l.logged(raw, l.add(raw))
	signed := r.clock.Now()
	for _, c := range []struct {
		name     string
		from, to time.Duration // from the time of signing; to 0 is open
		want     verify.Step   // "" believes it
	}{
		{"open", -time.Hour, 0, ""},
		{"begins when it is signed", 0, 0, ""},
		{"ends when it is signed", -time.Hour, time.Nanosecond, ""},
		{"begins a second later", time.Second, 0, verify.StepLog},
		{"ended a second before", -time.Hour, -time.Second, verify.StepLog},
	} {
		t.Run(c.name, func(t *testing.T) {
			trustedRoot := editRoot(t, l.known(r.root), func(p *prototrustroot.TrustedRoot) {
				p.Tlogs[0].PublicKey.ValidFor = &protocommon.TimeRange{Start: timestamppb.New(signed.Add(c.from))}
				if c.to != 0 {
					p.Tlogs[0].PublicKey.ValidFor.End = timestamppb.New(signed.Add(c.to).Truncate(time.Second))
				}
			})
			v, err := must(verify.ParseTrust(trustedRoot)).Verify(raw, verify.Expect{Artifact: app})
			if c.want != "" {
				wantRefused(t, v, err, c.want)
			} else if err != nil {
				t.Errorf("refused: %v", err)
			}
			if err := foreign(trustedRoot, raw, app, provenanceSigner); err != nil {
				t.Errorf("sigstore-go: %v", err)
			}
		})
	}
}

func TestParseTrustRefusesLogs(t *testing.T) {
	l := newLog(t, "log.provost.example")
	trustedRoot := l.known(ours().root)
	if _, err := verify.ParseTrust(trustedRoot); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for name, change := range map[string]func(*prototrustroot.TrustedRoot, *prototrustroot.TransparencyLogInstance){
		"no window": func(_ *prototrustroot.TrustedRoot, l *prototrustroot.TransparencyLogInstance) {
			l.PublicKey.ValidFor = nil
		},
		"no start": func(_ *prototrustroot.TrustedRoot, l *prototrustroot.TransparencyLogInstance) {
			l.PublicKey.ValidFor.Start = nil
		},
		"ends before it starts": func(_ *prototrustroot.TrustedRoot, l *prototrustroot.TransparencyLogInstance) {
			l.PublicKey.ValidFor.End = &timestamppb.Timestamp{Seconds: 1}
		},
		"no key": func(_ *prototrustroot.TrustedRoot, l *prototrustroot.TransparencyLogInstance) {
			l.PublicKey.RawBytes = nil
		},
		"garbage for a key": func(_ *prototrustroot.TrustedRoot, l *prototrustroot.TransparencyLogInstance) {
			l.PublicKey.RawBytes = []byte("x")
		},
		"no ID": func(_ *prototrustroot.TrustedRoot, l *prototrustroot.TransparencyLogInstance) { l.LogId = nil },
		"an ID that is not the key's": func(_ *prototrustroot.TrustedRoot, l *prototrustroot.TransparencyLogInstance) {
			l.LogId.KeyId[31] ^= 1
		},
		"an ID cut short": func(_ *prototrustroot.TrustedRoot, l *prototrustroot.TransparencyLogInstance) {
			l.LogId.KeyId = l.LogId.KeyId[:4]
		},
		"no URL": func(_ *prototrustroot.TrustedRoot, l *prototrustroot.TransparencyLogInstance) { l.BaseUrl = "" },
		"a URL of no host": func(_ *prototrustroot.TrustedRoot, l *prototrustroot.TransparencyLogInstance) {
			l.BaseUrl = "log.provost.example"
		},
		"a URL that is none": func(_ *prototrustroot.TrustedRoot, l *prototrustroot.TransparencyLogInstance) {
			l.BaseUrl = "https://%zz"
		},
		"another hash": func(_ *prototrustroot.TrustedRoot, l *prototrustroot.TransparencyLogInstance) {
			l.HashAlgorithm = protocommon.HashAlgorithm_SHA2_512
		},
		"two of the same ID": func(p *prototrustroot.TrustedRoot, l *prototrustroot.TransparencyLogInstance) {
			p.Tlogs = append(p.Tlogs, l)
		},
		"two of the same ID, key": func(p *prototrustroot.TrustedRoot, _ *prototrustroot.TransparencyLogInstance) {
			p.Tlogs = append(p.Tlogs, another(t, p))
		},
	} {
		raw := editRoot(t, trustedRoot, func(p *prototrustroot.TrustedRoot) { change(p, p.Tlogs[0]) })
		if trust, err := verify.ParseTrust(raw); !errors.Is(err, attest.ErrInvalid) || trust != nil {
			t.Errorf("%s: ParseTrust = %v, %v; want ErrInvalid", name, trust, err)
		}
	}
}

// another is a log that claims the ID of the first.
func another(t *testing.T, p *prototrustroot.TrustedRoot) *prototrustroot.TransparencyLogInstance {
	other := new(prototrustroot.TrustedRoot)
	check(t, protojson.Unmarshal(newLog(t, "log.provost.example").known(ours().root), other))
	other.Tlogs[0].LogId = p.Tlogs[0].LogId
	return other.Tlogs[0]
}
