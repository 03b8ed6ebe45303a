// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"provost/attest"
)

// TestJudge is the table of what Vault says and what that means. The words are
// those of Vault 1.14 to 1.21 and of OpenBao.
func TestJudge(t *testing.T) {
	for _, test := range []struct {
		status int
		words  string
		want   faultKind
	}{
		{403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n", faultToken},
		{403, "1 error occurred:\n\t* permission denied\n\n", faultDenied},
		{403, "", faultDenied},
		{400, "signing key not found", faultMissing},
		{400, "key not found", faultMissing},
		{404, "", faultMissing},
		{404, `no handler for route "transit/sign/x". route entry not found.`, faultRefused},
		{404, "1 error occurred:\n\t* unsupported path\n\n", faultRefused},
		{500, "1 error occurred:\n\t* requested version for signing is less than the minimum encryption key version\n\n", faultVersion},
		{500, "requested version for signing is higher than the latest key version", faultVersion},
		{500, "no such key version", faultVersion},
		{400, "requested version for signing is negative", faultVersion},
		{500, "local node not active but active cluster node not found", faultRetry},
		{500, "internal error", faultRetry},
		{503, "Vault is sealed", faultRetry},
		{429, "rate limit quota exceeded", faultRetry},
		{412, "required index state not present", faultRetry},
		{307, "", faultRetry},
		{502, "", faultRetry},
		{504, "", faultRetry},
		{501, "", faultRefused},
		{400, "invalid role or secret ID", faultRefused},
		{418, "", faultRefused},
		{206, "", faultRefused},
	} {
		if got := judge(test.status, test.words, 0).kind; got != test.want {
			t.Errorf("%d %q: got %d, want %d", test.status, test.words, got, test.want)
		}
	}
}

func TestPrintableAndRedacted(t *testing.T) {
	words := printable("a\n\tb\x00c " + strings.Repeat("x", 1000) + "\xff")
	if strings.ContainsAny(words, "\n\t\x00") || len(words) > 310 || !strings.HasPrefix(words, "a b c x") {
		t.Errorf("%q", words)
	}
	cause := errors.New("cause")
	if err := redacted(cause, "hvs.x"); err != cause {
		t.Errorf("changed an innocent error: %v", err)
	}
	if err := redacted(errors.Join(cause, errors.New("with hvs.x")), "hvs.x"); strings.Contains(err.Error(), "hvs.x") || errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
}

// FuzzKeyDocument: whatever Vault says of a key, the versions are ascending,
// whole, and end with the latest.
func FuzzKeyDocument(f *testing.F) {
	f.Add([]byte(`{"type":"ecdsa-p256","latest_version":2,"keys":{"1":{"public_key":"x","creation_time":"2026-11-23T00:00:00Z"},"2":1}}`))
	f.Add([]byte(`{"type":"ecdsa-p256","latest_version":1,"keys":{"1":{"public_key":"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9\nq9UU8I5mEovUf86QZ7kOBIjJwqnzD1omageEHWwHdBO6B+dFabmdT9POxg==\n-----END PUBLIC KEY-----\n","creation_time":"2026-11-23T00:00:00Z"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var doc keyDocument
		if attest.DecodeOpenJSON(data, &doc) != nil {
			return
		}
		versions, err := doc.versions()
		if err != nil {
			return
		}
		for i, v := range versions {
			if v.Number < 1 || v.Public == nil || i > 0 && v.Number <= versions[i-1].Number {
				t.Errorf("version %d: %+v", i, v)
			}
		}
		if versions[len(versions)-1].Number != doc.LatestVersion {
			t.Errorf("ends with %d, latest is %d", versions[len(versions)-1].Number, doc.LatestVersion)
		}
	})
}

// FuzzAnswer: an answer decodes only if it is one JSON object with the data
// that was asked for.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"data":{"signature":"vault:v1:` + base64.StdEncoding.EncodeToString([]byte("der")) + `","key_version":1}}`))
	f.Add([]byte(`{"data":null}`))
	f.Add([]byte(`<html>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var got struct {
			Signature string `json:"signature"`
		}
		a := answer{status: 200, body: data}
		if a.decode(request{answer: &got}) == nil && (!jsontext.Value(data).IsValid() || !bytes.Contains(data, []byte("data"))) {
			t.Errorf("took %q", data)
		}
	})
}
