// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// A mutation changes one thing of a bundle, or puts there what it finds in
// another bundle of the same service. It works on the decoded JSON and knows
// nothing of who made it.
type mutation struct {
	name   string
	change func(bundle, other any)
}

// The parts of a bundle.
const (
	atPayload     = "dsseEnvelope.payload"
	atSignature   = "dsseEnvelope.signatures.0.sig"
	atCertificate = "verificationMaterial.certificate.rawBytes"
	atStamps      = "verificationMaterial.timestampVerificationData"
	atStamp       = atStamps + ".rfc3161Timestamps.0.signedTimestamp"
	atEntries     = "verificationMaterial.tlogEntries"
	atEntry       = atEntries + ".0"
	atProof       = atEntry + ".inclusionProof"
)

// mutations are what is done to bundles. A client that accepts a bundle after
// one of them has not checked that part.
var mutations = []mutation{
	{"tampered payload", func(b, _ any) {
		edit(b, atPayload, func(raw []byte) []byte {
			return bytes.Replace(raw, []byte(`"predicate":{`), []byte(`"predicate":{"x":1,`), 1)
		})
	}},
	{"tampered signature", func(b, _ any) { edit(b, atSignature, flip) }},
	{"missing log entry", func(b, _ any) { remove(b, atEntries) }},
	{"missing timestamp", func(b, _ any) { remove(b, atStamps) }},
	{"missing inclusion proof", func(b, _ any) { remove(b, atProof) }},
	{"tampered timestamp", func(b, _ any) { edit(b, atStamp, flip) }},
	{"timestamp of another bundle", graft(atStamp)},
	{"certificate of another version", graft(atCertificate)},
	{"log entry of another bundle", graft(atEntry)},
	{"log entry: tampered body", func(b, _ any) {
		edit(b, atEntry+".canonicalizedBody", func(raw []byte) []byte {
			var body any
			if json.Unmarshal(raw, &body) != nil {
				return raw
			}
			edit(body, "spec.hashedRekordV002.data.digest", flip)
			raw, _ = json.Marshal(body) // canonical, since Go sorts the keys
			return raw
		})
	}},
	{"log entry: a hash of the proof removed", func(b, _ any) {
		hashes, _ := find(b, atProof+".hashes").([]any)
		put(b, atProof+".hashes", hashes[:max(len(hashes)-1, 0)])
	}},
	{"log entry: tampered root hash", func(b, _ any) { edit(b, atProof+".rootHash", flip) }},
	{"log entry: other index in the proof", func(b, _ any) { decrease(b, atProof+".logIndex") }},
	{"log entry: other index", func(b, _ any) { decrease(b, atEntry+".logIndex") }},
	{"log entry: tampered checkpoint", func(b, _ any) {
		at := atProof + ".checkpoint.envelope"
		lines := strings.SplitN(find(b, at).(string), "\n", 3)
		lines[1] += "0" // the tree's size
		put(b, at, strings.Join(lines, "\n"))
	}},
	{"log entry: integrated time made up", func(b, _ any) { put(b, atEntry+".integratedTime", "1000000000") }},
}

// mutate returns the bundle after the mutation, and fails when that changed
// nothing.
func mutate(t testing.TB, m mutation, bundle, other []byte) []byte {
	t.Helper()
	var before, b, o any
	for _, d := range []struct {
		raw []byte
		v   *any
	}{{bundle, &before}, {bundle, &b}, {other, &o}} {
		if err := json.Unmarshal(d.raw, d.v); err != nil {
			t.Fatal(err)
		}
	}
	m.change(b, o)
	if reflect.DeepEqual(before, b) {
		t.Fatalf("%s: the bundle stays as it was", m.name)
	}
	raw, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// find returns what a dotted path leads to; nil for nothing.
func find(v any, path string) any {
	for part := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(at) {
				return nil
			}
			v = at[i]
		default:
			return nil
		}
	}
	return v
}

// holder returns what holds the last part of a path, and that part.
func holder(v any, path string) (any, string) {
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		return find(v, path[:i]), path[i+1:]
	}
	return v, path
}

func put(v any, path string, value any) {
	h, name := holder(v, path)
	switch h := h.(type) {
	case map[string]any:
		h[name] = value
	case []any:
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(h) {
			h[i] = value
		}
	}
}

func remove(v any, path string) {
	h, name := holder(v, path)
	if h, ok := h.(map[string]any); ok {
		delete(h, name)
	}
}

// edit changes the base64 at a path.
func edit(v any, path string, change func([]byte) []byte) {
	text, _ := find(v, path).(string)
	raw, err := base64.StdEncoding.DecodeString(text)
	if err == nil && len(raw) > 0 {
		put(v, path, base64.StdEncoding.EncodeToString(change(raw)))
	}
}

// flip changes the last bit.
func flip(raw []byte) []byte {
	raw[len(raw)-1] ^= 1
	return raw
}

// decrease changes an int64 as protobuf's JSON has them: as text.
func decrease(v any, path string) {
	text, _ := find(v, path).(string)
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
		put(v, path, strconv.FormatInt(n-1, 10))
	}
}

func graft(path string) func(b, other any) {
	return func(b, other any) { put(b, path, find(other, path)) }
}
