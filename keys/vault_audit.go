// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// SelfAudit lists what our token may do to the keys beyond what they are for,
// one "path: capabilities" each, ascending: ways to get a private key out, to
// make it exportable, to lose it, or to sign past the pinned version. Empty is
// good. The policies in deploy/vault make it empty.
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

	var answer map[string]any
	if err := v.call(ctx, request{op: "audit", path: "sys/capabilities-self", answer: &answer, body: map[string]any{"paths": paths}}); err != nil {
		return nil, fmt.Errorf("ask for our capabilities: %w", err)
	}
	var found []string
	for _, path := range paths {
		capabilities, ok := answer[path].([]any)
		if !ok {
			return nil, fmt.Errorf("ask for our capabilities: no answer for %s", path)
		}
		if words := fmt.Sprint(capabilities...); words != "deny" {
			found = append(found, path+": "+strings.ReplaceAll(words, "\n", " "))
		}
	}
	slices.Sort(found)
	return found, nil
}
