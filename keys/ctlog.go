// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	"github.com/transparency-dev/tessera/ctonly"

	"provost/keys/tile"
)

// The extensions of certificate transparency (RFC 6962, sections 3.1 and 3.3).
var (
	oidPoison  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 3}
	oidSCTList = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}
)

// A ctLog is the log of leaf certificates: every leaf stands in it before it
// can sign, so that whoever watches it sees each key that the CA vouches for.
type ctLog struct {
	authority *Authority
	key       certified
	tree      *tile.Log
}

// ctTree is the tree of leaf certificates (c2sp.org/static-ct-api). Its origin
// is its URL without the scheme, as that asks.
func (a *Authority) ctTree(key certified) tile.Config {
	u, _ := url.Parse(a.config.Identity) // complete looked
	c := a.treeConfig(filepath.Join(a.config.Log.Directory, "ct"), u.Host+strings.TrimSuffix(u.Path, "/")+ctPath, keyCTLog, key)
	c.Layout = tile.Certificates
	return c
}

// issue makes a leaf that carries an SCT of this log: a precertificate is made,
// logged, and the promise to have logged it is put where its poison was. Here
// the promise is kept before it is made: without a durable entry there is no
// leaf.
func (l *ctLog) issue(ctx context.Context, ca issuer, lf leaf) (*x509.Certificate, error) {
	t, err := leafTemplate(lf)
	if err != nil {
		return nil, err
	}
	plain := t.ExtraExtensions
	t.ExtraExtensions = append(plain[:len(plain):len(plain)], pkix.Extension{Id: oidPoison, Critical: true, Value: asn1.NullBytes})
	pre, err := ca.sign(t, lf.public)
	if err != nil {
		return nil, err
	}
	list, err := l.promise(ctx, ca.cert, pre)
	if err != nil {
		return nil, err
	}
	t.ExtraExtensions = append(plain[:len(plain):len(plain)], pkix.Extension{Id: oidSCTList, Value: list})
	return ca.sign(t, lf.public)
}

// promise logs a precertificate and returns the SCT list extension for it.
func (l *ctLog) promise(ctx context.Context, ca, pre *x509.Certificate) ([]byte, error) {
	tbs, err := ctx509.RemoveCTPoison(pre.RawTBSCertificate)
	if err != nil {
		return nil, fmt.Errorf("precertificate: %w", err)
	}
	issuerKey := sha256.Sum256(ca.RawSubjectPublicKeyInfo)
	entry := ctonly.Entry{
		Timestamp: uint64(l.authority.config.Now().UnixMilli()), IsPrecert: true,
		Certificate: tbs, Precertificate: pre.Raw, IssuerKeyHash: issuerKey[:],
		FingerprintsChain: [][32]byte{sha256.Sum256(ca.Raw), sha256.Sum256(l.authority.now.Load().root.cert.Raw)},
	}
	done, err := l.tree.Append(ctx, entry.LeafData)
	if err != nil { // closed: not logged, not issued
		return nil, fmt.Errorf("log precertificate: %w", err)
	}
	return l.sct(ctx, entry, done.Index)
}

// sct signs the promise, and returns it as the value of an extension.
func (l *ctLog) sct(ctx context.Context, e ctonly.Entry, index uint64) ([]byte, error) {
	promise := ct.SignedCertificateTimestamp{
		SCTVersion: ct.V1, LogID: ct.LogID{KeyID: [sha256.Size]byte(logID(l.key))},
		Timestamp: e.Timestamp, Extensions: leafIndex(index),
	}
	input, err := ct.SerializeSCTSignatureInput(promise, ct.LogEntry{Leaf: ct.MerkleTreeLeaf{
		Version: ct.V1, LeafType: ct.TimestampedEntryLeafType,
		TimestampedEntry: &ct.TimestampedEntry{
			Timestamp: e.Timestamp, EntryType: ct.PrecertLogEntryType, Extensions: promise.Extensions,
			PrecertEntry: &ct.PreCert{IssuerKeyHash: [sha256.Size]byte(e.IssuerKeyHash), TBSCertificate: e.Certificate},
		},
	}})
	if err != nil {
		return nil, fmt.Errorf("SCT: %w", err)
	}
	digest := sha256.Sum256(input)
	signature, err := l.authority.pinned(ctx, keyCTLog, l.key).Sign(rand.Reader, digest[:], nil)
	if err != nil {
		return nil, fmt.Errorf("sign SCT: %w", outward(err))
	}
	promise.Signature = ct.DigitallySigned{
		Algorithm: tls.SignatureAndHashAlgorithm{Hash: tls.SHA256, Signature: tls.ECDSA}, Signature: signature,
	}
	serialized, err := tls.Marshal(promise)
	if err != nil {
		return nil, fmt.Errorf("SCT: %w", err)
	}
	list, err := tls.Marshal(ctx509.SignedCertificateTimestampList{SCTList: []ctx509.SerializedSCT{{Val: serialized}}})
	if err != nil {
		return nil, fmt.Errorf("SCT: %w", err)
	}
	return asn1.Marshal(list)
}

// leafIndex is the extension of an SCT that says where the entry stands
// (c2sp.org/static-ct-api, "SCT Extension"): type 0, length 5, a 40-bit number.
func leafIndex(i uint64) []byte {
	return []byte{0, 0, 5, byte(i >> 32), byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
}
