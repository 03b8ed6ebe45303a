// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"provost/attest"
)

// SelfAudit lists where our token is not what the service needs, ascending, one
// line for each path. "path: capabilities" is what it may do to the keys beyond
// what they are for: ways to get a private key out, to make it exportable, to
// lose it, or to sign past the pinned version. "path: lacks capability" is what
// an [Authority] needs and it may not. Empty is good. The policies in
// deploy/vault make it empty.
func (v *Vault) SelfAudit(ctx context.Context) ([]string, error) {
	var paths []string
	for _, key := range allKeys() {
		name := v.config.KeyPrefix + key
		for _, path := range []string{
			"export/signing-key/" + name, "export/encryption-key/" + name, "export/hmac-key/" + name,
			"byok-export/any/" + name, "backup/" + name, "restore/" + name, // the private key leaves, or is replaced
			"keys/" + name + "/config", "keys/" + name + "/trim", "keys/" + name + "/import",
			"keys/" + name + "/import_version", "keys/" + name + "/set-certificate",
			"keys/" + name + "/csr", "hmac/" + name, "sign/" + name + "/sha2-256", // other oracles of the same key
		} {
			paths = append(paths, v.config.Mount+"/"+path)
		}
	}
	paths = append(paths, v.config.Mount+"/restore", v.config.Mount+"/config/keys", "sys/mounts/"+v.config.Mount)

	type need struct{ path, capability string }
	var needs []need
	for _, key := range allKeys() {
		name := v.config.KeyPrefix + key
		needs = append(needs, need{v.config.Mount + "/sign/" + name, "update"}, need{v.config.Mount + "/keys/" + name, "read"})
	}
	for _, p := range attest.Powers {
		needs = append(needs, need{v.config.Mount + "/keys/" + v.config.KeyPrefix + string(p) + "/rotate", "update"})
	}
	asked := slices.Clone(paths)
	for _, n := range needs {
		asked = append(asked, n.path)
	}

	var answer map[string]any
	if err := v.call(ctx, request{op: "audit", path: "sys/capabilities-self", answer: &answer, body: map[string]any{"paths": asked}}); err != nil {
		return nil, fmt.Errorf("ask for our capabilities: %w", err)
	}
	capabilities := make(map[string][]string)
	for _, path := range asked {
		words, ok := answer[path].([]any)
		if !ok {
			return nil, fmt.Errorf("ask for our capabilities: no answer for %s", path)
		}
		capabilities[path] = strings.Fields(strings.Trim(fmt.Sprint(words), "[]"))
	}
	var found []string
	for _, path := range paths {
		if may := capabilities[path]; !slices.Equal(may, []string{"deny"}) {
			found = append(found, path+": "+strings.Join(may, " "))
		}
	}
	for _, n := range needs {
		if may := capabilities[n.path]; !slices.Contains(may, n.capability) && !slices.Contains(may, "root") {
			found = append(found, n.path+": lacks "+n.capability)
		}
	}
	slices.Sort(found)
	return found, nil
}
