// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"provost/attest"
)

func keysCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "keys", Short: "The life of signing keys"}
	c.AddCommand(keysListCommand(o), keysRotateCommand(o), keysRevokeCommand(o), keysImpactCommand(o))
	return c
}

func keysListCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the signers and every version of their keys",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			service, err := o.service()
			if err != nil {
				return err
			}
			keys, err := service.Keys(c.Context())
			if err != nil {
				return fmt.Errorf("list keys: %w", err)
			}
			p := o.printer()
			return p.answer(keys, func() {
				rows := []string{"SIGNER\tVERSION\tSTATE\tNOT BEFORE\tNOT AFTER\tIDENTITY"}
				for _, k := range keys.Keys {
					for _, v := range k.Versions {
						rows = append(rows, fmt.Sprintf("%s\t%d\t%s\t%s\t%s\t%s", k.Signer, v.Version, v.State,
							v.NotBefore.Format(time.RFC3339), v.NotAfter.Format(time.RFC3339), safe(k.Identity)))
					}
				}
				p.table(rows...)
			})
		},
	}
}

func keysRotateCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "rotate SIGNER",
		Short: "Make a new version of a signer's key, and sign with it from now on",
		Long: `Make a new version of a signer's key, and sign with it from now on. Whatever
older versions signed keeps verifying. The signers are provenance, evidence
and verdict.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			signer, err := attest.ParsePower(args[0])
			if err != nil {
				return usageError{hint(err, "provost keys list")}
			}
			service, err := o.service()
			if err != nil {
				return err
			}
			r, err := service.Rotate(c.Context(), signer)
			if err != nil {
				return fmt.Errorf("rotate %s: %w", signer, err)
			}
			p := o.printer()
			return p.answer(r, func() {
				p.printf("%s signs with key version %d until %s\n", r.Signer, r.Version, r.NotAfter.Format(time.RFC3339))
			})
		},
	}
}
