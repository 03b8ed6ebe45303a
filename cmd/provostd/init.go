// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"provost/keys"
	"provost/store"
)

func initCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "init --config FILE",
		Short: "First start: make the CA hierarchy and the signer keys",
		Long: `First start: make the signer keys in the key backend, the root CA, the issuing
CA, the timestamp authority and a first certificate for each signer.

It may be run again: what is there stays, what is missing is made. The key of
the root CA is written once, encrypted, into keys.offline_root. Take it away:
the service never needs it.`,
	}
	path := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, err := requireConfig(*path)
		if err != nil {
			return err
		}
		if err := initialise(c.Context(), config); err != nil {
			return err
		}
		fmt.Println("initialised " + config.Service)
		fmt.Println("now take the root-….age file away from " + config.Keys.OfflineRoot + ", and run: provostd serve --config " + *path)
		return nil
	}
	return c
}

// initialise makes what is missing of the hierarchy.
func initialise(ctx context.Context, c Config) error {
	if c.Keys.OfflineRoot == "" || c.Keys.OfflineRootRecipient == "" {
		return hint(errors.New("keys.offline_root and keys.offline_root_recipient are required to initialise"), "age-keygen makes an identity and prints its recipient, age1…")
	}
	if f := c.Keys.File; f != nil {
		if err := os.MkdirAll(f.Directory, 0o700); err != nil {
			return err
		}
	}
	db, err := store.OpenSQLite(ctx, c.Database)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer db.Close()
	b, err := openBackend(ctx, c.Keys, nil)
	if err != nil {
		return fmt.Errorf("open keys: %w", err)
	}
	defer closeBackend(b)
	keep, err := keys.KeepRootIn(c.Keys.OfflineRoot, c.Keys.OfflineRootRecipient)
	if err != nil {
		return err
	}
	if err := keys.Init(ctx, authorityConfig(c, b, db), keep); err != nil {
		return fmt.Errorf("initialise: %w", err)
	}
	return nil
}

// authorityConfig is what the authority stands on.
func authorityConfig(c Config, b keys.Backend, archive keys.Archive) keys.Config {
	return keys.Config{
		Backend: b, Archive: archive, Identity: c.Service, Organization: c.Keys.Organization,
		SigningWindow: c.Keys.SigningWindow, Now: time.Now,
	}
}
