// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	rekornote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore/pkg/signature"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/encoding/protojson"

	"provost/attest"
)

// RekorConfig says which external Rekor v2 takes our entries. URL and
// PublicKey are needed.
type RekorConfig struct {
	URL       string           // of the log's root; https, but on loopback
	Origin    string           // the first line of its checkpoints; "" for the host of URL
	PublicKey crypto.PublicKey // that signs its checkpoints
	Timeout   time.Duration    // of one entry; 0 for 20 s. Rekor answers when a checkpoint covers the entry
	Client    *http.Client     // nil for a client of the package's own
}

// maxLogAnswer bounds an answer of a log, in bytes.
const maxLogAnswer = 1 << 20

// Rekor is an [attest.Log] on a Rekor v2 server. It is safe for concurrent use.
type Rekor struct {
	config   RekorConfig
	endpoint string
	verifier note.Verifier
	logID    []byte
}

// OpenRekor checks the configuration. It does not ask the server anything.
func OpenRekor(config RekorConfig) (*Rekor, error) {
	u, err := url.Parse(config.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return nil, fmt.Errorf("%w: log URL %.200q: want https://host, or http on loopback", attest.ErrInvalid, config.URL)
	}
	if config.Origin == "" {
		config.Origin = u.Hostname()
	}
	if config.Timeout <= 0 {
		config.Timeout = defaultDeadline
	}
	if config.Client == nil {
		config.Client = &http.Client{
			Transport: &http.Transport{
				MaxIdleConnsPerHost: 64,
				IdleConnTimeout:     90 * time.Second,
				DialContext:         (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
				TLSHandshakeTimeout: 5 * time.Second,
			},
			// Entries go where was configured, and nowhere else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	v, err := signature.LoadVerifier(config.PublicKey, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("%w: public key of log %s: %w", attest.ErrInvalid, config.Origin, err)
	}
	r := &Rekor{config: config, endpoint: u.JoinPath("/api/v2/log/entries").String()}
	if r.verifier, err = rekornote.NewNoteVerifier(config.Origin, v); err != nil {
		return nil, fmt.Errorf("%w: log %s: %w", attest.ErrInvalid, config.Origin, err)
	}
	if _, r.logID, err = rekornote.KeyHash(config.Origin, config.PublicKey); err != nil {
		return nil, fmt.Errorf("%w: log %s: %w", attest.ErrInvalid, config.Origin, err)
	}
	return r, nil
}

// Append implements [attest.Log]. The answer carries a checkpoint that the
// configured key signed, the configured log's ID and our own body; one that
// does not is an [attest.ErrSelfCheck], because whoever answers there is not
// the log that verifiers will be told of. What the log refuses does not pass
// by itself, but 429 and 5xx do. An entry that the log has already is an
// [attest.ErrConflict].
func (r *Rekor) Append(ctx context.Context, e attest.LogEntry) (*protorekor.TransparencyLogEntry, error) {
	ctx, back := attest.Away(ctx)
	defer back()
	ctx, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	answer, err := r.post(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("log %s: %w", r.config.Origin, err)
	}
	logged := new(protorekor.TransparencyLogEntry)
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(answer, logged); err != nil {
		return nil, fmt.Errorf("%w: log %s: its answer is no log entry", attest.ErrUnavailable, r.config.Origin)
	}
	if err := r.check(e, logged); err != nil {
		return nil, fmt.Errorf("%w: log %s: %w", attest.ErrSelfCheck, r.config.Origin, err)
	}
	return logged, nil
}

// check is what attest cannot: whose log this is. That the body is in the tree
// of the checkpoint, attest checks.
func (r *Rekor) check(e attest.LogEntry, logged *protorekor.TransparencyLogEntry) error {
	if !bytes.Equal(logged.GetLogId().GetKeyId(), r.logID) {
		return fmt.Errorf("it answers as log %x: want %x", logged.GetLogId().GetKeyId(), r.logID)
	}
	if !bytes.Equal(logged.GetCanonicalizedBody(), e.Body()) {
		return errors.New("it logged another body")
	}
	n, err := note.Open([]byte(logged.GetInclusionProof().GetCheckpoint().GetEnvelope()), note.VerifierList(r.verifier))
	if err != nil {
		return fmt.Errorf("its checkpoint: %w", err)
	}
	if origin, _, _ := bytes.Cut([]byte(n.Text), []byte("\n")); string(origin) != r.config.Origin {
		return fmt.Errorf("its checkpoint is of the log %.100q", origin)
	}
	return nil
}

// post sends the request of rekor.v2.CreateEntryRequest and reads the answer.
func (r *Rekor) post(ctx context.Context, e attest.LogEntry) ([]byte, error) {
	type raw struct {
		RawBytes []byte `json:"rawBytes"`
	}
	type verifier struct {
		X509Certificate raw    `json:"x509Certificate"`
		KeyDetails      string `json:"keyDetails"`
	}
	type signature struct {
		Content  []byte   `json:"content"`
		Verifier verifier `json:"verifier"`
	}
	type hashedRekord struct {
		Digest    []byte    `json:"digest"`
		Signature signature `json:"signature"`
	}
	body, err := json.Marshal(struct {
		Request hashedRekord `json:"hashedRekordRequestV002"`
	}{hashedRekord{e.Digest[:], signature{e.Signature, verifier{raw{e.Certificate}, "PKIX_ECDSA_P256_SHA_256"}}}})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.endpoint, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := r.config.Client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", attest.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxLogAnswer+1))
	switch {
	case err != nil: // the entry may be logged; nobody knows where
		return nil, fmt.Errorf("%w: its answer: %w", attest.ErrUnavailable, err)
	case len(answer) > maxLogAnswer:
		return nil, fmt.Errorf("%w: its answer has more than %d bytes", attest.ErrUnavailable, maxLogAnswer)
	case resp.StatusCode == http.StatusCreated, resp.StatusCode == http.StatusOK:
		return answer, nil
	}
	return nil, refusal(resp, answer)
}

// refusal is the error of an answer that is not an entry.
func refusal(resp *http.Response, answer []byte) error {
	err := fmt.Errorf("it answers %d: %s", resp.StatusCode, printable(string(answer)))
	switch status := resp.StatusCode; {
	case status == http.StatusConflict:
		return fmt.Errorf("%w: %w", attest.ErrConflict, err)
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status >= 500:
		wait, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return &logBusyError{err: err, wait: time.Duration(min(max(wait, 0), 3600)) * time.Second}
	}
	return err // also 405: the log is frozen; another one must be configured
}

// A logBusyError is an [attest.ErrUnavailable] of a log.
type logBusyError struct {
	err  error
	wait time.Duration
}

func (e *logBusyError) Error() string             { return "unavailable: " + e.err.Error() }
func (e *logBusyError) Unwrap() error             { return e.err }
func (e *logBusyError) Is(target error) bool      { return target == attest.ErrUnavailable }
func (e *logBusyError) RetryAfter() time.Duration { return e.wait }
