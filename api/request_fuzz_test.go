// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/labstack/echo/v4"

	"provost/api/client"
	"provost/attest"
)

// FuzzProvenanceRequest holds that what is decoded is what was written, and
// that nothing else than an invalid request is the answer to the rest.
func FuzzProvenanceRequest(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `null`, `{"subjects":[]}`, `{"subjects":[{"name":"a","digest":{"sha256":"` + artifact.Hex() + `"}}]}`,
		`{"subjects":[{"digest":{"sha256":"` + artifact.Hex() + `","sha512":"` + strings.Repeat("a", 128) + `"}}]}`,
		`{"subjects":[{"digest":{"SHA256":"` + artifact.Hex() + `"}}]}`, `{"subjects":[[[[]]]]}`, `{"subjects":1e999}`, "\xff", `{"subjects":[{"name":"\ud800"}]}`,
	} {
		f.Add([]byte(seed))
	}
	e := echo.New()
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := http.NewRequest(http.MethodPost, "/v1/attestations/provenance", bytes.NewReader(body))
		if err != nil {
			t.Skip()
		}
		got, err := decodeProvenance(e.NewContext(req, echo.NewResponse(nil, e)))
		if err != nil {
			if p := problem(err); p.Status != 400 && p.Status != 413 {
				t.Fatalf("%v is a %d", err, p.Status)
			}
			return
		}
		for _, s := range got.Subjects {
			if s.SHA256.Algorithm() != attest.AlgSHA256 || !bytes.Contains(body, []byte(s.SHA256.Hex())) && !bytes.Contains(body, []byte(`\u`)) {
				t.Errorf("subject %+v of %q", s, body)
			}
		}
	})
}

// FuzzPeek holds that a token is taken apart only in the one way it can be
// read, and that what is not is a token that is not accepted.
func FuzzPeek(f *testing.F) {
	encode := base64.RawURLEncoding.EncodeToString
	for _, seed := range [][2]string{
		{`{"alg":"ES256","kid":"ec","typ":"JWT"}`, `{"iss":"https://ci.example","aud":["a"],"iat":1.5}`},
		{`{"alg":"none","kid":"ec"}`, `{}`}, {`{"alg":"HS256","kid":"ec"}`, `{}`}, {`{"alg":256,"kid":"ec"}`, `{}`},
		{`{"alg":"RS256","kid":""}`, `{}`}, {`{"alg":"RS256","kid":7}`, `{}`}, {`{"alg":"RS256","kid":"` + strings.Repeat("k", maxKeyID+1) + `"}`, `{}`},
		{`{"alg":"RS256","kid":"rsa","jwk":null}`, `{}`}, {`{"alg":"RS256","kid":"rsa","crit":["b64"],"b64":false}`, `{}`},
		{`{"alg":"ES256","kid":"ec","alg":"none"}`, `{}`}, {`{"alg":"ES256","kid":"ec","typ":"at+jwt"}`, `{}`},
		{`{"alg":"ES256","kid":"ec"}`, `null`}, {`null`, `[]`}, {"\xff", `"`}, {`{"alg":"ES256","kid":"ec"}`, strings.Repeat("[", attest.MaxDepth+1)},
	} {
		f.Add(encode([]byte(seed[0])) + "." + encode([]byte(seed[1])) + ".AAAA")
	}
	f.Add("")
	f.Add("..")
	f.Add("e30.e30.")
	f.Add("e30=.e30.AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		h, claims, err := peek(token)
		if err != nil {
			if !errors.Is(err, client.ErrUnauthenticated) || h != (header{}) || claims != nil {
				t.Fatalf("%+v, %v, %v; want nothing of a token that is not accepted", h, claims, err)
			}
			return
		}
		if len(token) > maxToken || !slices.Contains(algorithms, h.alg) || h.kid == "" || len(h.kid) > maxKeyID {
			t.Errorf("%q is accepted with %+v", token, h)
		}
		parts := strings.Split(token, ".")
		if len(parts) != 3 {
			t.Fatalf("%q is accepted", token)
		}
		// Who reads it by the standard library sees the same.
		var std struct{ Alg, Kid string }
		raw, err := base64.RawURLEncoding.DecodeString(parts[0])
		if err != nil || encode(raw) != parts[0] {
			t.Errorf("header %q: %v; want it in its one encoding", parts[0], err)
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(raw, &members); err != nil || json.Unmarshal(members["alg"], &std.Alg) != nil ||
			json.Unmarshal(members["kid"], &std.Kid) != nil || (header{std.Alg, std.Kid}) != h {
			t.Errorf("header %s: %+v, %v; want %+v", raw, std, err, h)
		}
		for _, name := range refusedHeaders {
			if _, ok := members[name]; ok {
				t.Errorf("header %s is accepted with %s", raw, name)
			}
		}
	})
}

// FuzzJWKS holds that whatever an issuer answers, only public keys that are
// fit for checking signatures come of it, and that using them is safe.
func FuzzJWKS(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	for _, k := range []jose.JSONWebKey{
		{Key: key.Public(), KeyID: "ec", Algorithm: "ES256", Use: "sig"}, {Key: rsaKey().Public(), KeyID: "rsa"},
		{Key: key, KeyID: "private"}, {Key: key.Public(), KeyID: "enc", Use: "enc"}, {Key: key.Public()}, {Key: []byte("secret"), KeyID: "hmac"},
	} {
		raw, err := k.MarshalJSON()
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(`{"keys":[` + string(raw) + `]}`))
		f.Add([]byte(`{"keys":[{},` + string(raw) + `,7],"x":1}`))
	}
	for _, seed := range []string{``, `{}`, `null`, `{"keys":null}`, `{"keys":[null]}`, `{"keys":[],"keys":[]}`,
		`{"keys":[{"kty":"RSA","kid":"a","n":"AQ","e":"AQAB"}]}`, `{"keys":[{"kty":"EC","kid":"a","crv":"P-256","x":"AA","y":"AA"}]}`,
		`{"keys":[{"kty":"OKP","kid":"a","crv":"Ed25519","x":"AA"}]}`} {
		f.Add([]byte(seed))
	}
	encode := base64.RawURLEncoding.EncodeToString
	var tokens []string
	for _, alg := range algorithms {
		tokens = append(tokens, encode([]byte(`{"alg":"`+alg+`","kid":"a"}`))+".e30."+encode(bytes.Repeat([]byte{1}, 64)))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		keys, err := parseKeys(raw)
		if (err == nil) != (len(keys) > 0) {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		for _, k := range keys {
			if k.KeyID == "" || k.Use != "" && k.Use != "sig" || !k.Valid() || !k.IsPublic() {
				t.Errorf("key %+v is accepted", k)
			}
			switch public := k.Key.(type) {
			case *rsa.PublicKey:
				if public.N.BitLen() <= 2048-8 {
					t.Errorf("an RSA key of %d bits is accepted", public.N.BitLen())
				}
			case *ecdsa.PublicKey:
			default:
				t.Errorf("a %T is accepted", public)
			}
			for _, token := range tokens {
				if _, err := (tokenKeys{keys: []jose.JSONWebKey{k}}).VerifySignature(t.Context(), token); err == nil {
					t.Errorf("%s verifies", token)
				}
			}
		}
	})
}
