// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"provost/keys"
)

// A backend is either key backend.
type backend interface {
	keys.Backend
	keys.Rotator
}

// closeBackend ends what a backend has running; the keyring in files has
// nothing.
func closeBackend(b backend) {
	if c, ok := b.(io.Closer); ok {
		_ = c.Close()
	}
}

type observer = func(op string, took time.Duration, err error)

// openBackend opens the backend that the configuration names.
func openBackend(ctx context.Context, k Keys, observe observer) (backend, error) {
	if f := k.File; f != nil {
		identity, err := secret(f.IdentityFile, f.IdentityEnv)
		if err != nil {
			return nil, err
		}
		return keys.OpenFile(f.Directory, string(identity))
	}
	v := k.Vault
	c := keys.VaultConfig{
		Address: v.Address, CACertFile: v.CACertFile, Mount: v.Mount, KeyPrefix: v.KeyPrefix,
		TokenFile: v.TokenFile, Observe: observe,
	}
	if v.TokenEnv != "" {
		token, err := secret("", v.TokenEnv)
		if err != nil {
			return nil, err
		}
		c.Token = token
	}
	if r := v.AppRole; r != nil {
		c.AppRole = &keys.AppRole{Mount: r.Mount, RoleID: r.RoleID, SecretIDFile: r.SecretIDFile}
	}
	if j := v.JWT; j != nil {
		c.JWT = &keys.JWT{Mount: j.Mount, Role: j.Role, TokenFile: j.TokenFile}
	}
	return keys.OpenVault(ctx, c)
}

// secret reads a secret from a file or an environment variable. Neither its
// value nor a part of it appears in an error.
func secret(file, env string) (keys.Secret, error) {
	if env != "" {
		value := os.Getenv(env)
		if value == "" {
			return "", fmt.Errorf("environment variable %s is empty", env)
		}
		return keys.Secret(value), nil
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return keys.Secret(trimLine(raw)), nil
}

func trimLine(b []byte) string { return string(bytes.TrimSpace(b)) }

// writeFile writes a file that only its owner can read, whole or not at all.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// apiToken reads the token for a CI's API from its file.
func apiToken(file string) (string, error) {
	token, err := secret(file, "")
	return string(token), err
}
