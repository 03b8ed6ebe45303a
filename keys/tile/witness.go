// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package tile

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/transparency-dev/tessera"
	"golang.org/x/mod/sumdb/note"

	"provost/attest"
)

// maxWitnessAnswer bounds the answer of a witness, in bytes.
const maxWitnessAnswer = 1 << 12

// cosign returns a checkpoint with the cosignatures that the witnesses'
// threshold asks for. Tessera speaks with them (c2sp.org/tlog-witness); it
// wants to sign, and gets the signature that we have. Anything less is an
// [attest.ErrUnavailable], and the checkpoint is not released.
func (l *Log) cosign(cp checkpoint) ([]byte, error) {
	opened, err := note.Open(cp.note, note.VerifierList(l.config.Verifier))
	if err != nil {
		return nil, fmt.Errorf("%w: checkpoint of size %d: %w", attest.ErrSelfCheck, cp.size, err)
	}
	options := tessera.NewAppendOptions().
		WithCheckpointSigner(signedAlready{l.config.Verifier, opened}).
		WithWitnesses(*l.config.Witnesses, &tessera.WitnessOptions{Timeout: l.config.Timeout})
	n, err := options.CheckpointPublisher(reader{fetcher{&l.config, &l.released}}, l.config.WitnessClient)(context.Background(), cp.size, cp.root)
	if err != nil {
		return nil, fmt.Errorf("%w: witnesses of checkpoint of size %d: %w", attest.ErrUnavailable, cp.size, err)
	}
	cosigned, err := l.config.open(n)
	if err != nil || cosigned.size != cp.size || string(cosigned.root) != string(cp.root) || !l.config.Witnesses.Satisfied(n) {
		return nil, fmt.Errorf("%w: the cosigned checkpoint of size %d is not ours: %w", attest.ErrSelfCheck, cp.size, errors.Join(err, errUnsigned))
	}
	return n, nil
}

// signedAlready is a note.Signer for the one note that it has.
type signedAlready struct {
	note.Verifier
	signed *note.Note
}

func (s signedAlready) Sign(msg []byte) ([]byte, error) {
	if string(msg) != s.signed.Text {
		return nil, errors.New("another checkpoint was signed")
	}
	return signatureBytes(s.signed.Sigs[0])
}

// reader is a tessera.LogReader of what CheckpointPublisher reads.
type reader struct{ fetcher }

var errNotAsked = errors.New("not asked for")

func (reader) NextIndex(context.Context) (uint64, error)      { return 0, errNotAsked }
func (reader) IntegratedSize(context.Context) (uint64, error) { return 0, errNotAsked }

// newWitnessClient follows no redirects and reads short answers.
func newWitnessClient() *http.Client {
	return &http.Client{
		Transport:     shortAnswers{http.DefaultTransport.(*http.Transport).Clone()},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type shortAnswers struct{ http.RoundTripper }

func (s shortAnswers) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := s.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxWitnessAnswer), resp.Body}
	}
	return resp, err
}

// signatureBytes is a note's signature without the key hash before it.
func signatureBytes(s note.Signature) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(s.Base64)
	if err != nil || len(b) <= 4 {
		return nil, errors.New("not the signature of a note")
	}
	return b[4:], nil
}
