// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"testing"
)

// FuzzParseBundle holds that a bundle that is accepted has something to
// believe, and nothing that may not be a root or sign a token.
func FuzzParseBundle(f *testing.F) {
	f.Add([]byte(`{"keys":[]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","use":"jwt-svid","kid":"a","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}],"spiffe_refresh_hint":1e400}`))
	f.Add([]byte(`{"keys":[{"kty":"oct","use":"jwt-svid","kid":"a","k":"AAAA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","use":"x509-svid","crv":"P-256","x5c":["AAAA"]}]}`))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := parseBundle(acme, raw)
		if err != nil {
			return
		}
		if len(got.keys)+len(got.roots) == 0 || got.fresh < bundleSoonest || got.fresh > bundleLatest {
			t.Errorf("accepted: %+v", got)
		}
		for _, root := range got.roots {
			if !root.IsCA {
				t.Error("a root that is no CA")
			}
		}
		for _, key := range got.keys {
			if key.KeyID == "" || !usableKey(key.Key) {
				t.Errorf("a key that is of no use: %+v", key)
			}
		}
	})
}
