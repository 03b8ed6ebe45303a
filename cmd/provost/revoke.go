// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func revokeCommand(o *options) *cobra.Command {
	var reason string
	var keep keeper
	c := &cobra.Command{
		Use:   "revoke ATTESTATION --reason TEXT",
		Short: "Take back a single attestation",
		Long: `Take back a single attestation, by its id. The service signs a statement that
says so; the gate obeys it from then on, and provost verify --revocations does
where it is given the bundle that --bundle keeps. Other clients do not know such statements. The key that
signed, and all else that it signed, stay good: to take back an interval of a
key, see provost keys revoke.

There is no way back.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := keep.ready(); err != nil {
				return err
			}
			service, err := o.service()
			if err != nil {
				return err
			}
			a, err := service.RevokeAttestation(c.Context(), args[0], reason)
			if err != nil {
				return fmt.Errorf("revoke attestation %.80q: %w", args[0], err)
			}
			if keep.path != "" {
				if _, err := keep.write(nil, a.Bundle); err != nil {
					return hint(fmt.Errorf("%s is revoked, and the bundle that says so could not be kept here: %w", args[0], err),
						"the service has it: GET /v1/attestations/"+a.ID)
				}
			}
			p := o.printer()
			return p.answer(a, func() { p.printf("revoked %s, by attestation %s\n", safe(args[0]), safe(a.ID)) })
		},
	}
	c.Flags().StringVar(&keep.path, "bundle", "", "`FILE` to keep the signed statement in")
	c.Flags().BoolVar(&keep.force, "force", false, "replace the file that --bundle names")
	c.Flags().StringVar(&reason, "reason", "", "`TEXT` that is signed with it")
	return c
}
