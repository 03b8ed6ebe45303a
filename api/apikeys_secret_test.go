// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"provost/api/client"
	"provost/api/identity"
	"provost/attest"
)

// What only looks like a key, or comes from where keys do not come, is nothing.
func TestAPIKeyLookalikes(t *testing.T) {
	f := newFixture(t)
	k := f.newKey("jenkins", AllTenants, attest.GrantRead)
	if err := f.accepts(k.Secret); err != nil {
		t.Fatal(err)
	}
	random := k.Secret[len(apiKeyPrefix):]
	asked := f.kept.timesAsked()
	for name, token := range map[string]string{
		"without its prefix": random, "a session's prefix": sessionPrefix + random, "a prefix in capitals": "PVK_" + random, "half a prefix": "pvk" + random,
		"in lower case": strings.ToLower(k.Secret), "cut": k.Secret[:55], "longer": k.Secret + "A", "with a newline": k.Secret + "\\n", "the prefix alone": apiKeyPrefix,
		"a long one": apiKeyPrefix + strings.Repeat("A", 5000), "its ID": k.ID, "its ID with the prefix": apiKeyPrefix + strings.ToUpper(k.ID+k.ID),
		"its hash": apiKeyPrefix + attest.SHA256([]byte(k.Secret)).Hex(), "another": newAPIKeySecret(), "as a JWT": k.Secret + ".e30.AA",
	} {
		if caller, err := f.auth.Authenticate(t.Context(), token); !errors.Is(err, client.ErrUnauthenticated) || caller.Subject != "" || len(caller.Grants) != 0 {
			t.Errorf("%s: %+v, %v", name, caller, err)
		}
	}
	if n := f.kept.timesAsked() - asked; n != 2 { // of the two that have the shape
		t.Errorf("the store was asked %d times", n)
	}
	if _, err := (&client.Client{URL: f.url}).OpenSession(t.Context(), k.Secret, client.SessionRequest{}); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("exchanged for a session: %v", err)
	}
	for name, header := range map[string][2]string{
		"as a password": {"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("jenkins:"+k.Secret))},
		"as a scheme":   {"Authorization", k.Secret},
		"X-API-Key":     {"X-API-Key", k.Secret},
		"as a cookie":   {"Cookie", "token=" + k.Secret},
	} {
		if status, _ := f.ask(http.MethodGet, "/v1/keys", nil, "Authorization", "", header[0], header[1]); status != 401 {
			t.Errorf("%s: %d", name, status)
		}
	}
	for _, query := range []string{"?token=", "?access_token=", "?api_key="} {
		if status, _ := f.ask(http.MethodGet, "/v1/keys"+query+k.Secret, nil, "Authorization", ""); status != 401 {
			t.Errorf("%s: %d", query, status)
		}
	}
}

// A key that the store cannot vouch for is no key: it is asked again.
func TestAPIKeysFailClosed(t *testing.T) {
	f := newFixture(t)
	k := f.newKey("jenkins", AllTenants, attest.GrantRead)
	f.kept.set(func(m *apiKeysInMemory) { m.fail = fmt.Errorf("%w: database", attest.ErrUnavailable) })
	if err := f.accepts(k.Secret); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("without the store: %v", err)
	}
	if _, err := f.client(f.idp.person("ada")).RevokeAPIKey(t.Context(), k.ID); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("revoked without the store: %v", err)
	}
	if k, err := f.client(f.idp.person("ada")).CreateAPIKey(t.Context(), client.APIKeyRequest{Name: "x", Tenant: "acme", Grants: []attest.Grant{attest.GrantRead}, ExpiresIn: 60}); !errors.Is(err, attest.ErrUnavailable) || k.Secret != "" {
		t.Errorf("made without the store: %+v, %v", k, err)
	}
	for name, change := range map[string]func(*attest.APIKey){
		"of a grant that no key holds": func(k *attest.APIKey) { k.Grants = []attest.Grant{attest.GrantProvenance} },
		"of a hundred years":           func(k *attest.APIKey) { k.ExpiresAt = k.ExpiresAt.AddDate(100, 0, 0) },
		"of nobody":                    func(k *attest.APIKey) { k.Owner = attest.Person{} },
	} {
		f.kept.set(func(m *apiKeysInMemory) { m.fail = nil; change(&m.all[0]) })
		if caller, err := f.auth.Authenticate(t.Context(), k.Secret); err == nil || errors.Is(err, attest.ErrInvalid) || len(caller.Grants) != 0 {
			t.Errorf("a stored key %s: %+v, %v", name, caller, err)
		}
		f.kept.set(func(m *apiKeysInMemory) {
			m.all[0].Grants, m.all[0].ExpiresAt, m.all[0].Owner = k.Grants, k.ExpiresAt, attest.Person{Key: "ada"}
		})
	}
	if err := f.accepts(k.Secret); err != nil {
		t.Errorf("undamaged: %v", err)
	}
	_, err := NewAuthenticator([]Issuer{{URL: service + "/apikeys", Audience: audience, Algorithms: []string{"ES256"}, MaxAge: time.Minute, Provider: identity.OIDC}},
		nil, AuthOptions{Service: service})
	if !errors.Is(err, attest.ErrInvalid) {
		t.Errorf("an issuer whose subjects are keys: %v", err)
	}
	none, err := NewAuthenticator(nil, nil, AuthOptions{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := none.Authenticate(t.Context(), k.Secret); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("where there are no keys: %v", err)
	}
}

// The secret is in one answer, and in nothing that is kept, whatever is done
// with it.
func TestAPIKeySecretsAreNotKept(t *testing.T) {
	f := newFixture(t)
	k := f.newKey("jenkins", "acme", attest.GrantRead)
	f.accepts(k.Secret)
	_, _ = f.secretClient(k.Secret).Rotate(t.Context(), attest.PowerEvidence)
	for _, authorization := range []string{"Bearer " + k.Secret, "", "Bearer " + k.Secret + "x", "Bearer x" + k.Secret} {
		for _, path := range []string{
			"/v1/apikeys/" + k.Secret, "/v1/attestations/" + k.Secret, "/v1/keys/" + k.Secret + "/impact?version=1", "/" + k.Secret, "/v1/keys?" + k.Secret, "/v1/keys?" + k.Secret + "=1",
			"/v1/builders/" + k.Secret, "/v1/artifacts/" + k.Secret + "/attestations", "/v1/apikeys?after=" + k.Secret, strings.Repeat("/x", 120) + "/" + k.Secret,
		} {
			for _, method := range []string{http.MethodGet, http.MethodDelete, http.MethodPost} {
				f.ask(method, path, nil, "Authorization", authorization)
			}
		}
	}
	if _, err := f.client(f.idp.person("ada")).RevokeAPIKey(t.Context(), k.ID); err != nil {
		t.Fatal(err)
	}
	f.accepts(k.Secret)
	piece := k.Secret[len(apiKeyPrefix) : len(apiKeyPrefix)+12]
	if logs := f.logs.String(); strings.Contains(logs, piece) || !strings.Contains(logs, "pvk_[secret]") || !strings.Contains(logs, k.ID) {
		t.Errorf("logged: %s", logs)
	}
	for _, r := range f.records() {
		if strings.Contains(fmt.Sprintf("%+v", r), piece) {
			t.Errorf("recorded: %+v", r)
		}
	}
	for _, kept := range f.kept.all {
		if said := fmt.Sprintf("%+v", kept); strings.Contains(said, piece) || kept.Hash != attest.SHA256([]byte(k.Secret)) {
			t.Errorf("stored: %s", said)
		}
	}
}
