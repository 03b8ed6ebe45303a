// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"provost/keys/keystest"
)

// signedBy names the policy whose power a key is.
var signedBy = map[string]string{
	"provenance": keystest.PolicySignProvenance, "evidence": keystest.PolicySignEvidence, "verdict": keystest.PolicySignVerdict,
	"issuing-provenance": keystest.PolicyCA, "issuing-evidence": keystest.PolicyCA, "issuing-verdict": keystest.PolicyCA,
	"timestamp": keystest.PolicyTimestamp, "log": keystest.PolicyLog, "ctlog": keystest.PolicyLog, "tuf": keystest.PolicyTUF,
}

// An operation is something that can be done to Vault, and the policies that
// are for it.
type operation struct {
	name   string
	method string // "" is PUT
	path   string
	body   map[string]any
	may    []string
}

// TestPolicies tries what could be done with a token of each shipped policy
// alone. What a policy is not for is 403, whatever else Vault would say.
func TestPolicies(t *testing.T) {
	server := vaultWithKeys(t)
	operations := generalOperations()
	for _, key := range keystest.Keys() {
		operations = append(operations, keyOperations(key)...)
	}
	for _, policy := range keystest.Policies() {
		t.Run(policy, func(t *testing.T) {
			client := server.Client(server.Token(time.Hour, policy))
			can := 0
			for _, op := range operations {
				status := call(t, client, op.method, op.path, op.body)
				switch may := slices.Contains(op.may, policy); {
				case may && status >= 300:
					t.Errorf("may not %s: %d", op.name, status)
				case !may && status != http.StatusForbidden:
					t.Errorf("may %s: %d", op.name, status)
				case may:
					can++
				}
			}
			if can == 0 {
				t.Error("may nothing that is tried here")
			}
		})
	}

	// Versions that pass as text which begins with a digit, and are none.
	client := server.Client(server.Token(time.Hour, keystest.PolicySignProvenance))
	for _, version := range []any{[]string{}, []string{"1"}, []string{"1", "0"}, map[string]any{}, "1x", "1.5", "1e-9", "18446744073709551616", "99"} {
		body := map[string]any{"input": base64.StdEncoding.EncodeToString(make([]byte, 32)), "prehashed": true, "key_version": version}
		if status := call(t, client, "", "transit/sign/provost-provenance", body); status < 400 {
			t.Errorf("signs with version %v: %d", version, status)
		}
	}

	// All at once they are no more than each for itself.
	t.Run("all that serve", func(t *testing.T) {
		client := server.Client(server.Token(time.Hour, keystest.ServePolicies()...))
		for _, op := range operations {
			status := call(t, client, op.method, op.path, op.body)
			may := slices.ContainsFunc(op.may, func(policy string) bool { return slices.Contains(keystest.ServePolicies(), policy) })
			if may != (status < 300) || !may && status != http.StatusForbidden {
				t.Errorf("%s: %d", op.name, status)
			}
		}
	})
	for _, key := range keystest.Keys() {
		secret, err := server.Root().Logical().Read("transit/keys/provost-" + key)
		check(t, err)
		for name, want := range map[string]any{"exportable": false, "allow_plaintext_backup": false, "deletion_allowed": false,
			"min_decryption_version": json.Number("1"), "auto_rotate_period": json.Number("0"), "type": "ecdsa-p256"} {
			if secret.Data[name] != want {
				t.Errorf("afterwards %s of %s is %v", name, key, secret.Data[name])
			}
		}
	}
}

// keyOperations are what can be done with a key.
func keyOperations(key string) []operation {
	path := "transit/keys/provost-" + key
	sign := "transit/sign/provost-" + key
	input := base64.StdEncoding.EncodeToString(make([]byte, 32))
	with := func(changes ...any) map[string]any {
		body := map[string]any{"input": input, "prehashed": true, "key_version": "1", "hash_algorithm": "sha2-256", "marshaling_algorithm": "asn1"}
		for i := 0; i < len(changes); i += 2 {
			body[changes[i].(string)] = changes[i+1]
		}
		return body
	}
	without := func(name string, changes ...any) map[string]any {
		body := with(changes...)
		delete(body, name)
		return body
	}
	items := []map[string]any{{"input": input, "reference": "a"}, {"input": input, "reference": "b"}}
	config := func(name string, value any, may ...string) operation {
		return operation{"set " + name + " of", "", path + "/config", map[string]any{name: value}, may}
	}
	signer, batch := []string{signedBy[key]}, []string{signedBy[key]}
	var rotate, retire, see, init []string
	see = []string{signedBy[key], keystest.PolicyRead, keystest.PolicyInit}
	init = []string{keystest.PolicyInit}
	switch {
	case signedBy[key] == keystest.PolicyCA: // a certificate at a time
		batch, rotate = nil, init
	case slices.Contains([]string{"timestamp", "log", "ctlog"}, key):
		rotate = init
	case key == "tuf": // its keys are changed by a new root
	default:
		rotate = []string{keystest.PolicyRotate}
		retire = rotate
		see = append(see, keystest.PolicyRotate)
	}
	all := []operation{
		{"sign with", "", sign, with(), signer},
		{"sign a batch with", "", sign, without("input", "batch_input", items), batch},
		{"sign a batch and no version with", "", sign, map[string]any{"batch_input": items, "prehashed": true}, nil},
		{"sign a batch that names versions inside with", "", sign, map[string]any{"batch_input": []map[string]any{{"input": input, "key_version": "1"}}, "prehashed": true}, nil},
		{"sign and no version with", "", sign, without("key_version"), nil},
		{"sign and an empty version with", "", sign, with("key_version", ""), nil},
		{"sign and version 0 with", "", sign, with("key_version", "0"), nil},
		{"sign and version 00 with", "", sign, with("key_version", "00"), nil},
		{"sign and version -1 with", "", sign, with("key_version", "-1"), nil},
		{"sign and version 0, a number, with", "", sign, with("key_version", 0), nil},
		{"sign and version 1, a number, with", "", sign, with("key_version", 1), nil},
		{"sign and version null with", "", sign, with("key_version", nil), nil},
		{"sign and version false with", "", sign, with("key_version", false), nil},
		{"sign what is not hashed with", "", sign, with("prehashed", false), nil},
		{"sign what may not be hashed with", "", sign, without("prehashed"), nil},
		{"sign what is perhaps hashed with", "", sign, with("prehashed", ""), nil},
		{"sign another hash with", "", sign, with("hash_algorithm", "sha1"), nil},
		{"sign another hash, by its old name, with", "", sign, with("algorithm", "sha1"), nil},
		{"sign in another form with", "", sign, with("marshaling_algorithm", "jws"), nil},
		{"sign in a context with", "", sign, with("context", "AAAA"), nil},
		{"sign by the other path with", "", sign + "/sha2-256", with(), nil},
		{"sign a CSR with", "", path + "/csr", map[string]any{}, nil},
		{"make an HMAC with", "", "transit/hmac/provost-" + key, map[string]any{"input": input}, nil},
		{"verify with", "", "transit/verify/provost-" + key, with("signature", "vault:v1:AAAA"), nil},
		{"see", http.MethodGet, path, nil, see},
		{"rotate", "", path + "/rotate", map[string]any{}, rotate},
		{"rotate, with a parameter,", "", path + "/rotate", map[string]any{"managed_key_name": "x"}, nil},
		config("min_encryption_version", 1, retire...),
		config("min_decryption_version", 1),
		config("exportable", true),
		config("exportable", false),
		config("allow_plaintext_backup", true),
		config("deletion_allowed", true),
		config("auto_rotate_period", "1h"),
		{"retire and make exportable", "", path + "/config", map[string]any{"min_encryption_version": 1, "exportable": true}, nil},
		{"configure nothing of", "", path + "/config", map[string]any{}, nil},
		{"trim", "", path + "/trim", map[string]any{"min_available_version": 1}, nil},
		{"delete", http.MethodDelete, path, nil, nil},
		{"create", "", path, map[string]any{"type": "ecdsa-p256"}, init},
		{"create, exportable,", "", path, map[string]any{"type": "ecdsa-p256", "exportable": true}, nil},
		{"create, of another type,", "", path, map[string]any{"type": "ed25519"}, nil},
		{"create, rotating by itself,", "", path, map[string]any{"type": "ecdsa-p256", "auto_rotate_period": "1h"}, nil},
		{"import", "", path + "/import", map[string]any{"type": "ecdsa-p256", "ciphertext": "x"}, nil},
		{"import a version of", "", path + "/import_version", map[string]any{"ciphertext": "x"}, nil},
		{"set a certificate of", "", path + "/set-certificate", map[string]any{"certificate_chain": "x"}, nil},
		{"wrap", http.MethodGet, "transit/byok-export/provost-timestamp/provost-" + key, nil, nil},
		{"back up", http.MethodGet, "transit/backup/provost-" + key, nil, nil},
		{"restore", "", "transit/restore/provost-" + key, map[string]any{"backup": "x"}, nil},
		{"restore over", "", "transit/restore/provost-" + key, map[string]any{"backup": "x", "force": true}, nil},
	}
	for _, kind := range []string{"signing-key", "encryption-key", "hmac-key", "public-key", "certificate-chain"} {
		all = append(all, operation{"export the " + kind + " of", http.MethodGet, "transit/export/" + kind + "/provost-" + key, nil, nil},
			operation{"export the " + kind + " of version 1 of", http.MethodGet, "transit/export/" + kind + "/provost-" + key + "/1", nil, nil})
	}
	for i := range all {
		all[i].name += " " + key
	}
	return all
}

// generalOperations are what can be done beside the keys.
func generalOperations() []operation {
	input := base64.StdEncoding.EncodeToString(make([]byte, 32))
	return []operation{
		{"create another key", "", "transit/keys/other", map[string]any{"type": "ecdsa-p256"}, nil},
		{"sign with another key", "", "transit/sign/other", map[string]any{"input": input, "prehashed": true, "key_version": "1"}, nil},
		{"list keys", "LIST", "transit/keys", nil, nil},
		{"get random bytes", "", "transit/random/32", map[string]any{}, nil},
		{"hash", "", "transit/hash", map[string]any{"input": input}, nil},
		{"restore a key", "", "transit/restore", map[string]any{"backup": "x"}, nil},
		{"configure the keys", "", "transit/config/keys", map[string]any{"disable_upsert": true}, nil},
		{"see the wrapping key", http.MethodGet, "transit/wrapping_key", nil, nil},
		{"configure the cache", "", "transit/cache-config", map[string]any{"size": 500}, nil},
		{"read another mount", http.MethodGet, "secret/data/x", nil, nil},
		{"see the mounts", http.MethodGet, "sys/mounts", nil, nil},
		{"mount an engine", "", "sys/mounts/other", map[string]any{"type": "transit"}, nil},
		{"tune the mount", "", "sys/mounts/transit/tune", map[string]any{"description": "x"}, nil},
		{"unmount", http.MethodDelete, "sys/mounts/transit", nil, nil},
		{"move the mount", "", "sys/remount", map[string]any{"from": "transit", "to": "x"}, nil},
		{"read a policy", http.MethodGet, "sys/policies/acl/provost-token", nil, nil},
		{"write a policy", "", "sys/policies/acl/x", map[string]any{"policy": ""}, nil},
		{"write its policy", "", "sys/policies/acl/provost-token", map[string]any{"policy": ""}, nil},
		{"turn auditing off", http.MethodDelete, "sys/audit/file", nil, nil},
		{"turn auditing on", "", "sys/audit/file", map[string]any{"type": "file", "options": map[string]any{"file_path": "discard"}}, nil},
		{"seal", "", "sys/seal", map[string]any{}, nil},
		{"see auth methods", http.MethodGet, "sys/auth", nil, nil},
		{"enable an auth method", "", "sys/auth/x", map[string]any{"type": "userpass"}, nil},
		{"make a role", "", "auth/approle/role/x", map[string]any{"token_policies": "root"}, nil},
		{"make a token", "", "auth/token/create", map[string]any{}, nil},
		{"make an orphan token", "", "auth/token/create-orphan", map[string]any{}, nil},
		{"look at another token", "", "auth/token/lookup", map[string]any{"token": "x"}, nil},
		{"revoke another token", "", "auth/token/revoke", map[string]any{"token": "x"}, nil},
		{"see quotas", http.MethodGet, "sys/quotas/config", nil, nil},
		{"keep something in its cubbyhole", "", "cubbyhole/x", map[string]any{"a": "b"}, nil},
		{"look at its token", http.MethodGet, "auth/token/lookup-self", nil, []string{keystest.PolicyToken}},
		{"renew its token", "", "auth/token/renew-self", map[string]any{}, []string{keystest.PolicyToken}},
		{"ask what it may", "", "sys/capabilities-self", map[string]any{"paths": []string{"x"}}, []string{keystest.PolicyToken}},
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
