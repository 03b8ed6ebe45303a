// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"provost/attest"
	"provost/keys/keystest"
)

// A capturing is a ledger and signer that only keeps the context it is given.
type capturing struct {
	attest.Ledger
	id  string
	ctx context.Context
}

var errCaptured = errors.New("captured")

func (c *capturing) AppendIntent(context.Context, attest.Intent) (string, *attest.Attestation, error) {
	return c.id, nil, nil
}

func (c *capturing) Sign(ctx context.Context, _ []byte) (attest.Signature, error) {
	c.ctx = ctx
	return attest.Signature{}, errCaptured
}

// intentContext is a context as the issuer gives it to a signer.
func intentContext(t testing.TB, id string) context.Context {
	t.Helper()
	c := &capturing{id: id}
	issuer := attest.Issuer{Signers: map[attest.Power]attest.Signer{attest.PowerEvidence: c}, Ledger: c, Now: time.Now}
	_, err := issuer.Issue(t.Context(), attest.Caller{Grants: []attest.Grant{attest.GrantSBOM}}, attest.Request{
		Subjects:  []attest.Subject{{Name: "x", SHA256: attest.SHA256([]byte(id))}},
		Predicate: attest.SBOM{Document: []byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","version":1}`)},
	})
	if !errors.Is(err, errCaptured) {
		t.Fatal(err)
	}
	return c.ctx
}

// auditLine is one line of Vault's audit log.
type auditLine struct {
	Type    string `json:"type"`
	Request struct {
		Path    string              `json:"path"`
		Headers map[string][]string `json:"headers"`
	} `json:"request"`
	Response struct {
		Data map[string]any `json:"data"`
	} `json:"response"`
}

// TestVaultAuditLog: each signature that Vault's audit log has can be matched
// with what it was made for, by the attestation's ID, and with the signature
// itself, by its hash.
func TestVaultAuditLog(t *testing.T) {
	server, m, v := openMiddle(t)
	file := filepath.Join(t.TempDir(), "audit.log")
	server.Write("sys/audit/file", map[string]any{"type": "file", "options": map[string]any{"file_path": file, "mode": "0600"}})

	alone := attest.NewID()
	signature, err := v.Sign(intentContext(t, alone), "provenance", 1, make([]byte, 32))
	check(t, err)
	hashOf := func(signature []byte) any {
		input := "vault:v1:" + base64.StdEncoding.EncodeToString(signature)
		return server.Write("sys/audit-hash/file", map[string]any{"input": input}).Data["hash"]
	}
	hash := hashOf(signature)

	var ids []string
	var contexts []context.Context
	for range 5 {
		ids = append(ids, attest.NewID())
		contexts = append(contexts, intentContext(t, ids[len(ids)-1]))
	}
	c := newCompany(t, m, v, 1)
	check(t, errors.Join(c.sign(5, func(i int) context.Context { return contexts[i] }, nil)...))
	hashes := make(map[any]string) // of a signature → the ID it was made for
	for i, signature := range c.made {
		hashes[hashOf(signature)] = ids[i]
	}

	server.WritePolicy(keystest.PolicySignVerdict, `path "x" { capabilities = ["read"] }`)
	denied := attest.NewID()
	_, err = v.Sign(intentContext(t, denied), "verdict", 1, make([]byte, 32))
	wantDenied(t, err)

	data, err := os.ReadFile(file)
	check(t, err)
	found := make(map[string][]string) // type and path → correlation IDs
	for text := range strings.Lines(string(data)) {
		var line auditLine
		check(t, json.Unmarshal([]byte(text), &line))
		if strings.HasPrefix(line.Request.Path, "transit/sign/") {
			id := strings.Join(line.Request.Headers["x-correlation-id"], " ")
			kind := line.Type + " " + line.Request.Path
			found[kind] = append(found[kind], id)
			if line.Type == "response" && id == alone && (line.Response.Data["signature"] != hash || line.Response.Data["key_version"] != 1.0) {
				t.Errorf("%v is not the hash %v of our signature, or not of version 1", line.Response.Data, hash)
			}
			results, _ := line.Response.Data["batch_results"].([]any)
			for i, item := range results { // each at the place of its ID
				if got, _ := item.(map[string]any); hashes[got["signature"]] != strings.Split(id, ",")[i] {
					t.Errorf("item %d of %s is %v", i, id, got)
				}
			}
		}
	}
	for _, kind := range []string{"request", "response"} {
		all := found[kind+" transit/sign/provost-provenance"]
		if !slices.Contains(all, alone) {
			t.Errorf("%s: %s not in %q", kind, alone, all)
		}
		together := slices.IndexFunc(all, func(line string) bool { return strings.Count(line, ",") == 4 })
		if together < 0 {
			t.Fatalf("%s: no batch in %q", kind, all)
		}
		got := strings.Split(all[together], ",")
		slices.Sort(got)
		slices.Sort(ids)
		if !slices.Equal(got, ids) {
			t.Errorf("%s: %q, want %q", kind, got, ids)
		}
		if refused := found[kind+" transit/sign/provost-verdict"]; !slices.Equal(refused, []string{denied}) {
			t.Errorf("%s: %q, want %s", kind, refused, denied)
		}
	}
}
