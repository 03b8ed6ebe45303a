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
	"provost/attest"
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

// unknownBuilders are the builders that an environment accepts and that no
// registered one can be: most likely they are misspelt, or not registered yet.
func unknownBuilders(c Config, registered []attest.Builder) (warnings []string) {
	known := map[string]bool{}
	for _, b := range registered {
		for level := 1; b.State == attest.BuilderActive && level <= b.Level; level++ {
			known[b.BuilderID(c.Service, level)] = true
		}
	}
	for name, e := range c.Environments {
		for _, b := range e.Builders {
			if !known[b.ID] {
				warnings = append(warnings, fmt.Sprintf("environment %s accepts builder %s, which is not registered", name, b.ID))
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

// checkBuilders asks whether every active row of the registry fits the
// configuration, and warns of builders that are waited for in vain.
func checkBuilders(ctx context.Context, c Config, auth *api.Authenticator, db *store.SQLite) error {
	rows, _, err := db.Builders(ctx)
	if err != nil {
		return err
	}
	for _, b := range rows {
		if b.State == attest.BuilderActive {
			err = errors.Join(err, auth.CheckBuilder(b))
		}
	}
	for _, warning := range unknownBuilders(c, rows) {
		fmt.Printf("??  %s\n", warning)
	}
	return err
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
	auth, err := api.NewAuthenticator(c.Issuers, c.Access, api.AuthOptions{Now: time.Now, Service: c.Service})
	haveAuth := check("issuers and access", err)
	for _, i := range c.Issuers {
		if i.CrossCheck == nil {
			continue
		}
		token, err := apiToken(i.CrossCheck.TokenFile)
		if err == nil && token == "" {
			err = fmt.Errorf("%s is empty", i.CrossCheck.TokenFile)
		}
		check("token for the API of "+i.URL, err)
	}
	if haveAuth && c.Login != nil {
		_, err := auth.CheckLogin(*c.Login)
		check("login", err)
	}

	if len(c.Foreign) > 0 {
		_, err := openForeign(c)
		check("foreign roots", err)
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
	if haveStore && haveAuth {
		check("builders", checkBuilders(ctx, c, auth, db))
	}

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
