// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"provost/attest"
	"provost/attest/gather"
)

// Life of a signature:
//
//	Sign       checks the digest, and waits in the queue of its key version
//	queue      a lone call is a plain request; calls that came together, at
//	           most 64, are one batch of one key version
//	call       retries and logs in again: see vault_call.go. A batch is tried
//	           again as a whole, and fails as a whole when Vault refuses it
//	answer     each item is checked for itself: whose it is, which version made
//	           it. One that fails, fails alone
//
// Vault ignores a version inside an item, without a word, and signs with the
// newest. So there is one version for the whole request, and it is checked in
// every item of the answer.

// How calls become batches. 64 is where Vault's gain is nearly all there, and
// small enough that a rotation is not held up behind it.
//
// Whoever is alone does not wait at all.
var batches = gather.Limits{Most: 64, Runs: 2, Waiting: 4096, Linger: 8 * time.Millisecond}

// maxQueues bounds the queues kept, one for each key version in use.
const maxQueues = 256

// caKeys begin the names of keys that sign certificates: rare, and alone, so
// that their policy can do without batches.
const caKeys = "issuing"

// A queue is what waits for one key version.
type queue struct {
	*gather.Gatherer[signing, []byte]
	// fault is why the last attempt failed; nil after one that did not. Callers
	// whose time is up while they wait are told.
	fault atomic.Pointer[fault]
}

type queues struct {
	mu sync.Mutex
	of map[fileKey]*queue
}

// A signing is one call of Sign.
type signing struct {
	input    string    // the digest, in base64
	intent   string    // what it is for; "" for nothing in particular
	deadline time.Time // of the caller
}

// Sign implements [Backend]. The version is pinned in the request, as a string
// because Vault's policies cannot match numbers, and checked twice in the
// answer.
func (v *Vault) Sign(ctx context.Context, key string, version int, digest []byte) ([]byte, error) {
	if err := errors.Join(checkKey(key), checkDigest(digest)); err != nil {
		return nil, err
	}
	if version < 1 { // to Vault, 0 means "latest"
		return nil, fmt.Errorf("%w: %s version %d", ErrVersion, key, version)
	}
	ctx, cancel := v.bounded(ctx)
	defer cancel()
	deadline, _ := ctx.Deadline()
	s := signing{base64.StdEncoding.EncodeToString(digest), intentOf(ctx), deadline}
	q := v.queue(fileKey{key, version})
	var signature []byte
	var err error
	if strings.HasPrefix(key, caKeys) {
		alone := v.sign(ctx, fileKey{key, version}, q, []signing{s})[0]
		signature, err = alone.Out, alone.Err
	} else {
		signature, err = q.Call(ctx, s)
	}
	if err == nil {
		return signature, nil
	}
	// A caller whose time was up did not wait to hear why.
	if f, told := q.fault.Load(), (*UnavailableError)(nil); ctx.Err() != nil && f != nil && f.passes() && !errors.As(err, &told) {
		err = &UnavailableError{f.retryAfter, errors.Join(ctx.Err(), f.err)}
	}
	return nil, fmt.Errorf("sign with %s version %d: %w", key, version, err)
}

// queue returns the queue of a key version. When there are too many all are
// forgotten; those who wait in them are served nevertheless.
func (v *Vault) queue(name fileKey) *queue {
	v.queues.mu.Lock()
	defer v.queues.mu.Unlock()
	if q, ok := v.queues.of[name]; ok {
		return q
	}
	if v.queues.of == nil || len(v.queues.of) >= maxQueues {
		v.queues.of = make(map[fileKey]*queue)
	}
	q := &queue{}
	q.Gatherer = gather.New("vault", batches, func(ctx context.Context, all []signing) []gather.Result[[]byte] {
		return v.sign(ctx, name, q, all)
	})
	v.queues.of[name] = q
	return q
}

// A signRequest is the body of a request to sign. Everything but the digests
// stands beside the batch and holds for all of it.
type signRequest struct {
	Input      string      `json:"input,omitempty"`
	Batch      []batchItem `json:"batch_input,omitempty"`
	Prehashed  bool        `json:"prehashed"`
	KeyVersion string      `json:"key_version"`
	Hash       string      `json:"hash_algorithm"`
	Marshaling string      `json:"marshaling_algorithm"`
}

type batchItem struct {
	Input     string `json:"input"`
	Reference string `json:"reference"`
}

// A signAnswer is what Vault answers to one input, and to each of a batch.
type signAnswer struct {
	Signature  string `json:"signature"`
	KeyVersion int    `json:"key_version"`
	Reference  string `json:"reference"`
	Error      string `json:"error"`
}

// sign has digests signed by one key version, in one request.
func (v *Vault) sign(ctx context.Context, name fileKey, q *queue, all []signing) []gather.Result[[]byte] {
	// Nobody waits longer than the last of the callers.
	var deadline time.Time
	intents := make([]string, 0, len(all))
	for _, s := range all {
		if s.deadline.After(deadline) {
			deadline = s.deadline
		}
		if s.intent != "" {
			intents = append(intents, s.intent)
		}
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()

	body := signRequest{Prehashed: true, KeyVersion: strconv.Itoa(name.version), Hash: "sha2-256", Marshaling: "asn1"}
	var answer struct {
		signAnswer
		Results []signAnswer `json:"batch_results"`
	}
	run := ""
	if len(all) == 1 {
		body.Input = all[0].input
	} else {
		run = strconv.FormatInt(v.runs.Add(1), 36) + "."
		body.Batch = make([]batchItem, len(all))
		answer.Results = make([]signAnswer, 0, len(all))
		for i, s := range all {
			body.Batch[i] = batchItem{s.input, run + strconv.Itoa(i)}
		}
	}
	err := v.call(ctx, request{
		op: "sign", path: v.path("sign", name.key), body: body, answer: &answer,
		correlation: strings.Join(intents, ","), noted: q.fault.Store,
	})
	results := make([]gather.Result[[]byte], len(all))
	for i := range results {
		r := &results[i]
		switch {
		case err != nil:
			r.Err = err
		case len(all) == 1:
			r.Out, r.Err = answer.signAnswer.signature(name)
		case len(answer.Results) != len(all): // closed for all: whose is whose is anybody's guess
			r.Err = fmt.Errorf("%w: asked for %d signatures, got %d", attest.ErrSelfCheck, len(all), len(answer.Results))
		case answer.Results[i].Reference != body.Batch[i].Reference: // closed, and an alarm: somebody else's signature
			r.Err = fmt.Errorf("%w: asked for signature %s, got %.40q", attest.ErrSelfCheck, body.Batch[i].Reference, answer.Results[i].Reference)
		default:
			r.Out, r.Err = answer.Results[i].signature(name)
		}
	}
	return results
}

// signature is the signature in an answer, if that key version made it.
func (a *signAnswer) signature(name fileKey) ([]byte, error) {
	if a.Error != "" { // an item that failed; alone, since the others did not
		f := judge(500, a.Error, 0)
		if f.passes() {
			return nil, &UnavailableError{0, f.err}
		}
		return nil, f.final()
	}
	encoded, ok := strings.CutPrefix(a.Signature, "vault:v"+strconv.Itoa(name.version)+":")
	if !ok || a.KeyVersion != name.version { // closed, and an alarm: never another version's signature
		return nil, fmt.Errorf("%w: asked %s for version %d, got %.16q and version %d",
			attest.ErrSelfCheck, name.key, name.version, a.Signature, a.KeyVersion)
	}
	signature, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(signature) == 0 {
		return nil, fmt.Errorf("%w: signature of %s version %d is not base64", attest.ErrSelfCheck, name.key, name.version)
	}
	return signature, nil
}

// intentOf is the intent of ctx if it can stand in a header: the first of what
// ties Vault's audit log to attestations. Left out, a signature is made
// nevertheless: it can still be found by its hash.
func intentOf(ctx context.Context) string {
	id := attest.IntentOf(ctx)
	if len(id) > maxIntent || strings.ContainsFunc(id, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
		return ""
	}
	return id
}

// maxIntent is the length of [attest.NewID].
const maxIntent = 26
