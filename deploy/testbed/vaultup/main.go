// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Command vaultup starts a new Vault in a directory and sets it up as an
// operator would for Provost: initialised, unsealed, the transit engine
// mounted, the shipped policies written, and a token that has these policies
// and nothing else. It writes VAULT_ADDR and VAULT_TOKEN to DIR/vault.env and
// keeps Vault running until it is told to stop. It is for demonstrations and
// tests: the unseal key does not outlive it.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/vault/api"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: vaultup VAULT_BINARY POLICY_DIR DIR")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "vaultup:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary, policies, dir string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := listener.Addr().String()
	listener.Close()
	config := fmt.Sprintf("storage \"file\" { path = %q }\nlistener \"tcp\" {\n  address = %q\n  tls_disable = true\n}\napi_addr = %q\ndisable_mlock = true\n",
		filepath.Join(dir, "storage"), address, "http://"+address)
	file := filepath.Join(dir, "vault.hcl")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	vault := exec.CommandContext(ctx, binary, "server", "-config="+file)
	vault.Cancel = func() error { return vault.Process.Signal(syscall.SIGTERM) }
	vault.WaitDelay = 10 * time.Second
	vault.Stdout, vault.Stderr = os.Stderr, os.Stderr
	if err := vault.Start(); err != nil {
		return err
	}
	if err := setUp(ctx, "http://"+address, policies, dir); err != nil {
		_ = vault.Cancel()
		_ = vault.Wait()
		return err
	}
	if err := vault.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("vault ended: %w", err)
	}
	return nil
}

func setUp(ctx context.Context, address, policies, dir string) error {
	c, err := api.NewClient(&api.Config{Address: address})
	if err != nil {
		return err
	}
	c.ClearToken()
	if err := initialise(ctx, c); err != nil {
		return fmt.Errorf("initialise: %w", err)
	}
	if err := c.Sys().MountWithContext(ctx, "transit", &api.MountInput{Type: "transit"}); err != nil {
		return err
	}
	names, err := writePolicies(ctx, c, policies)
	if err != nil {
		return err
	}
	secret, err := c.Auth().Token().CreateOrphanWithContext(ctx, &api.TokenCreateRequest{
		Policies: names, NoDefaultPolicy: true, Period: "1h", DisplayName: "provost",
	})
	if err != nil {
		return err
	}
	if err := c.Auth().Token().RevokeSelfWithContext(ctx, ""); err != nil { // the root token has done its work
		return err
	}
	env := fmt.Sprintf("VAULT_ADDR=%s\nVAULT_TOKEN=%s\nexport VAULT_ADDR VAULT_TOKEN\n", address, secret.Auth.ClientToken)
	tmp := filepath.Join(dir, "vault.env.tmp")
	if err := os.WriteFile(tmp, []byte(env), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, "vault.env"))
}

// initialise waits until Vault answers, initialises it with one key and
// unseals it.
func initialise(ctx context.Context, c *api.Client) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var keys *api.InitResponse
	for {
		var err error
		if keys, err = c.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 1, SecretThreshold: 1}); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	if _, err := c.Sys().UnsealWithContext(ctx, keys.KeysB64[0]); err != nil {
		return err
	}
	c.SetToken(keys.RootToken)
	for { // unsealed, but not yet active
		h, err := c.Sys().HealthWithContext(ctx)
		if err == nil && h.Initialized && !h.Sealed && !h.Standby {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func writePolicies(ctx context.Context, c *api.Client, dir string) (names []string, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.hcl"))
	if err != nil || len(files) == 0 {
		return nil, errors.Join(err, fmt.Errorf("no policies in %s", dir))
	}
	for _, file := range files {
		rules, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(filepath.Base(file), ".hcl")
		if err := c.Sys().PutPolicyWithContext(ctx, name, string(rules)); err != nil {
			return nil, fmt.Errorf("policy %s: %w", name, err)
		}
		names = append(names, name)
	}
	return names, nil
}
