// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"provost/api/client"
	"provost/attest"
)

func apiKeysCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "apikeys", Short: "API keys, for systems that have no identity of their own"}
	c.AddCommand(apiKeysCreateCommand(o), apiKeysListCommand(o), apiKeysRevokeCommand(o))
	return c
}

func apiKeysCreateCommand(o *options) *cobra.Command {
	var tenant, expires string
	var grants []string
	c := &cobra.Command{
		Use:   "create NAME --grant GRANT --tenant TENANT --expires TIME",
		Short: "Make an API key, and print its secret once",
		Long: `Make an API key, and print its secret, once: on standard output, and nothing
else there. The system that gets it sets it as PROVOST_TOKEN, or sends it as its
bearer token.

A key is for systems that can log in by nothing else: no OpenID Connect, no
SPIFFE, no certificate. It holds no more than you do, in that tenant, and never
attest:provenance, builders:write, builders:approve, apikeys:write or
keys:revoke. It goes on when you may no longer do what it may, until it expires
or is revoked.`,
		Example: `  provost apikeys create old-jenkins --grant attest:sbom --grant read --tenant acme --expires 30d >jenkins.token`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r := client.APIKeyRequest{Name: args[0], Tenant: tenant}
			for _, g := range grants {
				r.Grants = append(r.Grants, attest.Grant(g))
			}
			if len(r.Grants) == 0 || expires == "" {
				return usageError{hint(errors.New("--grant and --expires are required"), "provost apikeys create --help")}
			}
			var err error
			if r.ExpiresIn, r.ExpiresAt, err = parseExpires(expires); err != nil {
				return err
			}
			service, err := o.service()
			if err != nil {
				return err
			}
			k, err := service.CreateAPIKey(c.Context(), r)
			if errors.Is(err, attest.ErrDenied) {
				err = hint(err, "an API key is made by a person and holds no more than they do: provost whoami")
			}
			if err != nil {
				return fmt.Errorf("create API key: %w", err)
			}
			return o.printer().answer(k, func() {
				fmt.Fprintf(os.Stderr, "API key %s (%s) may %s, in %s, until %s; its secret is not told again\n",
					k.ID, k.Name, words(k.Grants), tenantWords(k.Tenant), k.ExpiresAt.Format(time.RFC3339))
				o.printer().printf("%s\n", safe(k.Secret))
			})
		},
	}
	f := c.Flags()
	f.StringArrayVar(&grants, "grant", nil, "a `GRANT` that it holds, such as attest:sbom, decide or read; may be repeated")
	f.StringVar(&tenant, "tenant", "", "the `TENANT` in which it holds them, * for every one (default: the only one in which you may make keys)")
	f.StringVar(&expires, "expires", "", "when it ends: a `TIME` (RFC 3339), or in how long, such as 30d or 12h; 90 days at most")
	return c
}

// parseExpires reads a time, or a number of days, hours or minutes, in seconds.
func parseExpires(s string) (in int64, at time.Time, err error) {
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return 0, at, nil
	}
	days, isDays := strings.CutSuffix(s, "d")
	if n, err := strconv.ParseUint(days, 10, 16); isDays && err == nil && n > 0 {
		return int64(n) * 24 * 3600, time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= time.Second {
		return int64(d / time.Second), time.Time{}, nil
	}
	return 0, time.Time{}, usageError{hint(fmt.Errorf("--expires %q: want a duration or an RFC 3339 time", s), "--expires 30d")}
}

func tenantWords(tenant string) string {
	if tenant == "*" {
		return "every tenant"
	}
	return safe(tenant)
}

// maxListedKeys bounds what is kept of a list.
const maxListedKeys = 100_000

func apiKeysListCommand(o *options) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the API keys of those tenants in which you may make some",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			service, err := o.service()
			if err != nil {
				return err
			}
			listed := client.APIKeys{APIKeys: []client.APIKey{}}
			for after := ""; ; {
				page, err := service.APIKeys(c.Context(), after, 0)
				if err != nil {
					return fmt.Errorf("list API keys: %w", err)
				}
				listed.APIKeys = append(listed.APIKeys, slices.DeleteFunc(page.APIKeys, func(k client.APIKey) bool {
					return !all && k.State != attest.APIKeyActive
				})...)
				if page.Next == "" {
					break
				}
				if page.Next == after || len(listed.APIKeys) > maxListedKeys {
					return fmt.Errorf("list API keys: %w", &attest.LimitError{What: "API keys", Limit: maxListedKeys, Unit: "keys"})
				}
				after = page.Next
			}
			p := o.printer()
			return p.answer(listed, func() {
				rows := []string{"ID\tNAME\tSTATE\tTENANT\tGRANTS\tEXPIRES\tOWNER"}
				for _, k := range listed.APIKeys {
					rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s", safe(k.ID), safe(k.Name), safe(k.State), safe(k.Tenant),
						words(k.Grants), k.ExpiresAt.Format(time.RFC3339), safe(k.Owner.Subject)))
				}
				p.table(rows...)
			})
		},
	}
	c.Flags().BoolVar(&all, "all", false, "those that have expired or were revoked, too")
	return c
}

func apiKeysRevokeCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Revoke an API key, for good",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if !attest.IsAPIKeyID(args[0]) { // neither sent nor quoted: it may be a secret
				return usageError{hint(errors.New("revoke API key: that is no ID of one; its secret is never named to revoke it"), "provost apikeys list")}
			}
			service, err := o.service()
			if err != nil {
				return err
			}
			k, err := service.RevokeAPIKey(c.Context(), args[0])
			if err != nil {
				return fmt.Errorf("revoke API key %s: %w", args[0], err)
			}
			return o.printer().answer(k, func() {
				o.printer().printf("API key %s (%s) was revoked at %s\n", safe(k.ID), safe(k.Name), k.RevokedAt.Format(time.RFC3339))
			})
		},
	}
}
