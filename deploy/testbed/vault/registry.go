// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"slices"

	jwt "github.com/hashicorp/vault-plugin-auth-jwt"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/userpass"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// builtins is what can be mounted, by kind and name. It stands in for Vault's
// own registry, which imports every engine and with them every cloud.
// token, identity (with its OIDC provider), cubbyhole and system are in the core.
type builtins map[consts.PluginType]map[string]logical.Factory

var registry = builtins{
	consts.PluginTypeCredential: {
		"approle":  approle.Factory,
		"jwt":      jwt.Factory,
		"oidc":     jwt.Factory,
		"userpass": userpass.Factory,
	},
	consts.PluginTypeSecrets: {
		"kv":      kv.Factory,
		"transit": transit.Factory,
	},
}

func (b builtins) Contains(name string, kind consts.PluginType) bool {
	_, ok := b[kind][name]
	return ok
}

func (b builtins) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	f, ok := b[kind][name]
	return func() (any, error) { return f, nil }, ok
}

func (b builtins) Keys(kind consts.PluginType) []string {
	return slices.Collect(maps.Keys(b[kind]))
}

func (b builtins) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, b.Contains(name, kind)
}

func (b builtins) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
