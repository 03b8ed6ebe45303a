// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"provost/keys/keystest"
)

// TestPolicies tries what could be done to keys with a token of each shipped
// policy. What a policy is not for is 403, whatever else Vault would say.
func TestPolicies(t *testing.T) {
	server := vaultWithKeys(t)
	all := []string{keystest.PolicySign, keystest.PolicyCA, keystest.PolicyTimestamp, keystest.PolicyRotate, keystest.PolicyInit, keystest.PolicyToken}
	tokens := make(map[string]*api.Client)
	for _, policy := range all {
		tokens[policy] = server.Client(server.Token(time.Hour, policy))
	}
	input := base64.StdEncoding.EncodeToString(make([]byte, 32))
	sign := func(changes ...any) map[string]any {
		body := map[string]any{"input": input, "prehashed": true, "key_version": "1", "hash_algorithm": "sha2-256", "marshaling_algorithm": "asn1"}
		for i := 0; i < len(changes); i += 2 {
			body[changes[i].(string)] = changes[i+1]
		}
		return body
	}
	without := func(name string) map[string]any {
		body := sign()
		delete(body, name)
		return body
	}
	const provenance = "transit/keys/provost-provenance"
	for _, op := range []struct {
		name   string
		method string // "" is PUT
		path   string
		body   map[string]any
		may    []string
	}{
		{"sign", "", "transit/sign/provost-provenance", sign(), []string{keystest.PolicySign}},
		{"sign a verdict", "", "transit/sign/provost-verdict", sign(), []string{keystest.PolicySign}},
		{"sign evidence", "", "transit/sign/provost-evidence", sign(), []string{keystest.PolicySign}},
		{"sign as the CA", "", "transit/sign/provost-issuing", sign(), []string{keystest.PolicyCA}},
		{"sign as the TSA", "", "transit/sign/provost-timestamp", sign(), []string{keystest.PolicyTimestamp}},
		{"sign with no version", "", "transit/sign/provost-provenance", without("key_version"), nil},
		{"sign with an empty version", "", "transit/sign/provost-provenance", sign("key_version", ""), nil},
		{"sign with version 0", "", "transit/sign/provost-provenance", sign("key_version", "0"), nil},
		{"sign with version 0, a number", "", "transit/sign/provost-provenance", sign("key_version", 0), nil},
		{"sign with version 1, a number", "", "transit/sign/provost-provenance", sign("key_version", 1), nil},
		{"sign with version null", "", "transit/sign/provost-provenance", sign("key_version", nil), nil},
		{"sign what is not hashed", "", "transit/sign/provost-provenance", sign("prehashed", false), nil},
		{"sign what may not be hashed", "", "transit/sign/provost-provenance", without("prehashed"), nil},
		{"sign with another hash", "", "transit/sign/provost-provenance", sign("hash_algorithm", "sha1"), nil},
		{"sign with another form", "", "transit/sign/provost-provenance", sign("marshaling_algorithm", "jws"), nil},
		{"sign by the other path", "", "transit/sign/provost-provenance/sha2-256", sign(), nil},
		{"sign a CSR", "", provenance + "/csr", map[string]any{}, nil},
		{"hmac", "", "transit/hmac/provost-provenance", map[string]any{"input": input}, nil},
		{"see the public key", http.MethodGet, provenance, nil, []string{keystest.PolicySign, keystest.PolicyRotate, keystest.PolicyInit}},
		{"see the CA's public key", http.MethodGet, "transit/keys/provost-issuing", nil, []string{keystest.PolicyCA, keystest.PolicyInit}},
		{"rotate", "", provenance + "/rotate", map[string]any{}, []string{keystest.PolicyRotate}},
		{"rotate the CA", "", "transit/keys/provost-issuing/rotate", map[string]any{}, []string{keystest.PolicyInit}},
		{"rotate the timestamp authority", "", "transit/keys/provost-timestamp/rotate", map[string]any{}, []string{keystest.PolicyInit}},
		{"create", "", provenance, map[string]any{"type": "ecdsa-p256"}, []string{keystest.PolicyInit}},
		{"create exportable", "", provenance, map[string]any{"type": "ecdsa-p256", "exportable": true}, nil},
		{"create of another type", "", provenance, map[string]any{"type": "ed25519"}, nil},
		{"create another key", "", "transit/keys/other", map[string]any{"type": "ecdsa-p256"}, nil},
		{"import", "", provenance + "/import", map[string]any{"type": "ecdsa-p256", "ciphertext": "x"}, nil},
		{"make exportable", "", provenance + "/config", map[string]any{"exportable": true}, nil},
		{"make deletable", "", provenance + "/config", map[string]any{"deletion_allowed": true}, nil},
		{"retire", "", provenance + "/config", map[string]any{"min_encryption_version": 1}, nil},
		{"trim", "", provenance + "/trim", map[string]any{"min_available_version": 1}, nil},
		{"delete", http.MethodDelete, provenance, nil, nil},
		{"export", http.MethodGet, "transit/export/signing-key/provost-provenance/1", nil, nil},
		{"export wrapped", http.MethodGet, "transit/byok-export/provost-issuing/provost-provenance", nil, nil},
		{"backup", http.MethodGet, "transit/backup/provost-provenance", nil, nil},
		{"restore", "", "transit/restore/provost-provenance", map[string]any{"backup": "x"}, nil},
		{"set a certificate", "", provenance + "/set-certificate", map[string]any{"certificate_chain": "x"}, nil},
		{"list keys", "LIST", "transit/keys", nil, nil},
		{"unmount", http.MethodDelete, "sys/mounts/transit", nil, nil},
		{"write a policy", "", "sys/policies/acl/x", map[string]any{"policy": ""}, nil},
		{"make a token", "", "auth/token/create", map[string]any{}, nil},
		{"look at the token", http.MethodGet, "auth/token/lookup-self", nil, []string{keystest.PolicyToken}},
		{"renew the token", "", "auth/token/renew-self", map[string]any{}, []string{keystest.PolicyToken}},
		{"ask what it may", "", "sys/capabilities-self", map[string]any{"paths": []string{provenance}}, []string{keystest.PolicyToken}},
	} {
		for _, policy := range all {
			status := call(t, tokens[policy], op.method, op.path, op.body)
			switch may := slices.Contains(op.may, policy); {
			case may && status >= 300:
				t.Errorf("%s may not %s: %d", policy, op.name, status)
			case !may && status != http.StatusForbidden:
				t.Errorf("%s may %s: %d", policy, op.name, status)
			}
		}
	}
}

// call makes a request and returns the status.
func call(t *testing.T, c *api.Client, method, path string, body map[string]any) int {
	t.Helper()
	status := 0
	logical := c.WithResponseCallbacks(func(r *api.Response) { status = r.StatusCode }).Logical()
	var err error
	switch method {
	case http.MethodGet:
		_, err = logical.Read(path)
	case http.MethodDelete:
		_, err = logical.Delete(path)
	case "LIST":
		_, err = logical.List(path)
	default:
		_, err = logical.Write(path, body)
	}
	var refused *api.ResponseError
	if err != nil && !errors.As(err, &refused) {
		t.Fatal(err)
	}
	return status
}
