// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"provost/attest"
)

// SelfAudit lists where our token is not what the service needs, ascending, one
// line for each finding. It finds out in two ways: it asks Vault for our
// capabilities, and where we may do something to a key it tries what the
// parameter rules of the shipped policies refuse. What it tries changes nothing
// if Vault lets it: see keyProbes.
//
//   - "path: capabilities" is what our token may do beyond what it is for: ways
//     to get a private key out, to make it exportable, to lose it, to sign past
//     the pinned version, or to get more power.
//   - "path: may …" is what Vault did, or would have done, and should refuse.
//   - "path: lacks capability" is what an [Authority] needs and it may not.
//
// Empty is good. The policies that serve, in deploy/vault, make it empty
// together.
func (v *Vault) SelfAudit(ctx context.Context) ([]string, error) {
	rules := v.rules()
	capabilities, err := v.capabilities(ctx, rules)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, rule := range rules {
		may := capabilities[rule.path]
		all := slices.Contains(may, "root")
		if rule.needs != "" && !all && !slices.Contains(may, rule.needs) {
			found = append(found, rule.path+": lacks "+rule.needs)
		}
		if slices.ContainsFunc(may, func(c string) bool { return c != "deny" && c != rule.needs }) {
			found = append(found, rule.path+": "+strings.Join(may, " "))
		}
		if !all && !slices.Contains(may, "update") {
			continue // Vault said itself that it refuses
		}
		for _, p := range rule.probes {
			switch err := v.call(ctx, request{op: "audit", path: rule.path, body: p.body}); {
			case errors.Is(err, ErrBackendDenied): // as it should be
			case errors.Is(err, attest.ErrUnavailable): // closed: not refused is not proven
				return nil, fmt.Errorf("try what must be refused at %s: %w", rule.path, err)
			default: // Vault did it, or looked at it, which it should not
				found = append(found, rule.path+": may "+p.what)
			}
		}
	}
	slices.Sort(found)
	return found, nil
}

// A rule is what our token should be able to do at a path: needs, "" for
// nothing at all, and none of the probes.
type rule struct {
	path   string
	needs  string
	probes []probing
}

// A probing is a request that must be refused.
type probing struct {
	what string
	body map[string]any
}

func (v *Vault) rules() []rule {
	mount := v.config.Mount + "/"
	rules := []rule{
		{path: mount + "restore"}, {path: mount + "config/keys"}, {path: "sys/mounts/" + v.config.Mount},
		{path: "sys/mounts/" + v.config.Mount + "/tune"}, {path: "sys/remount"}, // keys of others in our place
		{path: "sys/policies/acl/provost-token"}, {path: "sys/policy/provost-token"}, {path: "auth/token/create"}, // more power
	}
	for _, key := range allKeys() {
		name := v.config.KeyPrefix + key
		for _, path := range []string{
			"export/signing-key/" + name, "export/encryption-key/" + name, "export/hmac-key/" + name,
			"byok-export/any/" + name, "backup/" + name, "restore/" + name, // the private key leaves, or is replaced
			"keys/" + name + "/trim", "keys/" + name + "/import", "keys/" + name + "/import_version", "keys/" + name + "/set-certificate",
			"keys/" + name + "/csr", "hmac/" + name, "sign/" + name + "/sha2-256", // other oracles of the same key
		} {
			rules = append(rules, rule{path: mount + path})
		}
		rotate, config := rule{path: mount + "keys/" + name + "/rotate"}, rule{path: mount + "keys/" + name + "/config"}
		if slices.Contains(attest.Powers, attest.Power(key)) { // rotated and retired by the service itself
			rotate.needs = "update"
			config.needs = "update"
			config.probes = configProbes()
		}
		rules = append(rules, rotate, config,
			rule{path: mount + "keys/" + name, needs: "read"},
			rule{path: mount + "sign/" + name, needs: "update", probes: signProbes(!strings.HasPrefix(key, caKeys))})
	}
	return rules
}

// configProbes would change a key, if they were allowed and made sense. They
// make none: Vault ignores an attempt to take back what is for good, and
// refuses what is no number, time or truth before it looks at the key.
func configProbes() []probing {
	const nonsense = "provost-probe"
	return []probing{
		{"set exportable", map[string]any{"exportable": false}},
		{"set allow_plaintext_backup", map[string]any{"allow_plaintext_backup": false}},
		{"set deletion_allowed", map[string]any{"deletion_allowed": nonsense}},
		{"set min_decryption_version", map[string]any{"min_decryption_version": nonsense}},
		{"set auto_rotate_period", map[string]any{"auto_rotate_period": nonsense}},
		{"set exportable while it retires", map[string]any{"min_encryption_version": nonsense, "exportable": false}},
	}
}

// signProbes sign a constant that is no statement's digest, which nobody keeps.
func signProbes(batches bool) []probing {
	digest := sha256.Sum256([]byte("provost: what the policy must refuse"))
	input := base64.StdEncoding.EncodeToString(digest[:])
	with := func(change func(map[string]any)) map[string]any {
		body := map[string]any{"input": input, "prehashed": true, "key_version": "1", "hash_algorithm": "sha2-256", "marshaling_algorithm": "asn1"}
		change(body)
		return body
	}
	probes := []probing{
		{"sign without key_version", with(func(b map[string]any) { delete(b, "key_version") })},
		{`sign with key_version ""`, with(func(b map[string]any) { b["key_version"] = "" })},
		{`sign with key_version "0"`, with(func(b map[string]any) { b["key_version"] = "0" })},
		{"sign with key_version 0", with(func(b map[string]any) { b["key_version"] = 0 })},
		{"sign with key_version null", with(func(b map[string]any) { b["key_version"] = nil })},
		{"sign what is not hashed", with(func(b map[string]any) { b["prehashed"] = false })},
		{"sign without prehashed", with(func(b map[string]any) { delete(b, "prehashed") })},
		{`sign with prehashed ""`, with(func(b map[string]any) { b["prehashed"] = "" })},
		{"sign with another hash", with(func(b map[string]any) { b["hash_algorithm"] = "sha2-512" })},
		{"sign in another form", with(func(b map[string]any) { b["marshaling_algorithm"] = "jws" })},
	}
	batch := []map[string]any{{"input": input}}
	if !batches {
		probes = append(probes, probing{"sign a batch", with(func(b map[string]any) { delete(b, "input"); b["batch_input"] = batch })})
	}
	return append(probes, probing{"sign a batch without key_version", with(func(b map[string]any) {
		delete(b, "input")
		delete(b, "key_version")
		b["batch_input"] = batch
	})})
}

// capabilities asks Vault what our token may do at the paths of the rules.
func (v *Vault) capabilities(ctx context.Context, rules []rule) (map[string][]string, error) {
	var asked []string
	for _, r := range rules {
		asked = append(asked, r.path)
	}
	var answer map[string]any
	if err := v.call(ctx, request{op: "audit", path: "sys/capabilities-self", answer: &answer, body: map[string]any{"paths": asked}}); err != nil {
		return nil, fmt.Errorf("ask for our capabilities: %w", err)
	}
	capabilities := make(map[string][]string)
	for _, path := range asked {
		words, ok := answer[path].([]any)
		if !ok || len(words) == 0 { // closed: not said is not denied
			return nil, fmt.Errorf("ask for our capabilities: no answer for %s", path)
		}
		for _, word := range words {
			capabilities[path] = append(capabilities[path], fmt.Sprint(word))
		}
	}
	return capabilities, nil
}
