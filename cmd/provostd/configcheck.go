// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"provost/api"
	"provost/keys"
	"provost/store"
	"provost/verify/policy"
)

func configCheckCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Validate a configuration and what it names",
		Long: `Validate a configuration, then check what it names and can be reached: the
database (opened as serve opens it, migrations included), the keys and their
certificates, and, in Vault, that the token can do what the service needs and
nothing that would let a key out.`,
	}
	path := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, err := requireConfig(*path)
		if err != nil {
			return err
		}
		return checkConfig(c.Context(), config)
	}
	return c
}

// unknownBuilders are the builders that an environment accepts and no row of
// the access table can name: most likely they are misspelt.
func unknownBuilders(c Config, known []string) (warnings []string) {
	for name, e := range c.Environments {
		for _, b := range e.Builders {
			if !slices.Contains(known, b.ID) {
				warnings = append(warnings, fmt.Sprintf("environment %s accepts builder %s, which no row of access names", name, b.ID))
			}
		}
	}
	slices.Sort(warnings)
	return warnings
}

// checkSigning opens the authority under the pinned root and signs a constant
// with every key.
func checkSigning(ctx context.Context, c Config, b keys.Backend, db *store.SQLite) error {
	root, err := pinnedRoot(c)
	if err != nil {
		return err
	}
	trusted, err := authorityConfig(c, b, db, root)
	if err != nil {
		return err
	}
	a, err := keys.Open(ctx, trusted)
	if err != nil {
		return err
	}
	defer a.Close()
	return a.Ready(ctx)
}

// checkTimeout bounds all checks together: what does not answer by then is not
// there.
const checkTimeout = 10 * time.Second

// checkConfig runs every check and prints a line for each. It fails if one
// did.
func checkConfig(ctx context.Context, c Config) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	failed := 0
	check := func(what string, err error) bool {
		if err != nil {
			failed++
			fmt.Printf("no  %s: %v\n", what, err)
		} else {
			fmt.Printf("ok  %s\n", what)
		}
		return err == nil
	}
	_, err := policy.New(c.Environments)
	check("environments", err)
	auth, err := api.NewAuthenticator(c.Issuers, c.Access, api.AuthOptions{Now: time.Now})
	if check("issuers and access", err) {
		for _, warning := range unknownBuilders(c, auth.Builders()) {
			fmt.Printf("??  %s\n", warning)
		}
	}

	var db *store.SQLite
	if _, err = os.Stat(c.Database); err == nil { // a check makes no database
		if db, err = store.OpenSQLite(ctx, c.Database); err == nil {
			defer db.Close()
			err = db.Ready(ctx)
		}
	} else {
		err = fmt.Errorf("%w: run provostd init first", err)
	}
	haveStore := check("database", err)

	b, err := openBackend(ctx, c.Keys, nil)
	if !check("key backend", err) {
		return hint(fmt.Errorf("%d checks failed", failed), "the lines above that begin with no say what")
	}
	defer closeBackend(b)
	if v, ok := b.(*keys.Vault); ok {
		dangers, err := v.SelfAudit(ctx)
		if err == nil {
			for _, d := range dangers {
				err = errors.Join(err, errors.New(d))
			}
		}
		check("vault least privilege", err)
	}
	if c.TUF != nil {
		warning, err := checkTUF(ctx, c, b)
		if check("TUF repository", err) && warning != "" {
			fmt.Printf("??  %s\n", warning)
		}
	}
	if haveStore {
		err := checkSigning(ctx, c, b, db)
		check("certificates and signing", err)
	}
	if failed > 0 {
		return hint(fmt.Errorf("%d checks failed", failed), "the lines above that begin with no say what")
	}
	return nil
}
