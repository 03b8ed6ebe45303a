// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"testing"

	"provost/keys"
	"provost/keys/keystest"
)

func openVault(t testing.TB, config keys.VaultConfig) *keys.Vault {
	t.Helper()
	v, err := keys.OpenVault(t.Context(), config)
	check(t, err)
	t.Cleanup(func() { v.Close() })
	return v
}

func TestVault(t *testing.T) {
	server := keystest.StartVault(t)
	v := openVault(t, server.Config(keystest.PolicySign, keystest.PolicyRotate, keystest.PolicyInit))
	keystest.Backend(t, func(t *testing.T) keystest.Full {
		for _, key := range []string{"provenance", "verdict"} {
			path := "transit/keys/provost-" + key
			if secret, err := server.Root().Logical().Read(path); err != nil || secret == nil {
				check(t, err)
				continue
			}
			server.Write(path+"/config", map[string]any{"deletion_allowed": true})
			_, err := server.Root().Logical().Delete(path)
			check(t, err)
		}
		return v
	})
}
