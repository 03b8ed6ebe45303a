// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"provost/api/client"
	"provost/attest"
)

func buildersCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "builders", Short: "The builder registry: which tokens speak for which builder"}
	c.AddCommand(buildersListCommand(o), buildersShowCommand(o), buildersSetCommand(o), buildersApproveCommand(o), buildersRetireCommand(o))
	return c
}

func buildersListCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the builders, and what waits for a second person",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			service, err := o.service()
			if err != nil {
				return err
			}
			all, err := service.Builders(c.Context())
			if err != nil {
				return fmt.Errorf("list builders: %w", err)
			}
			p := o.printer()
			return p.answer(all, func() {
				rows := []string{"NAME\tSTATE\tLEVEL\tMODE\tREVISION\tISSUER\tCONDITION"}
				for _, b := range all.Builders {
					rows = append(rows, fmt.Sprintf("%s\t%s\t%d\t%s\t%d\t%s\t%s", b.Name, b.State, b.Level, b.Mode, b.Revision, safe(b.Issuer), short(safe(b.Condition))))
				}
				p.table(rows...)
			})
		},
	}
}

func buildersShowCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show every change of a builder, and who made it",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			service, err := o.service()
			if err != nil {
				return err
			}
			h, err := service.BuilderHistory(c.Context(), args[0])
			if err != nil {
				return hint(fmt.Errorf("show builder: %w", err), "provost builders list")
			}
			p := o.printer()
			return p.answer(h, func() {
				for i, b := range h.Rows {
					if i > 0 {
						p.printf("\n")
					}
					printBuilder(p, b)
				}
			})
		},
	}
}

func buildersSetCommand(o *options) *cobra.Command {
	var r client.BuilderRequest
	var signer, mode string
	c := &cobra.Command{
		Use:   "set NAME --issuer URL --condition CEL --level N",
		Short: "Register a builder, or change it",
		Long: `Register a builder, or change it. Tokens of the issuer that fulfil the condition
speak for it from now on. The condition is a CEL expression over claims, which
compares exactly: ==, !=, in, &&, ||, !, has. It must say whose tokens are
meant, by an immutable id where the issuer has one.

The builder.id of its provenance is SERVICE/builders/NAME, where the service
tells what it stands for. Level 3 is a proposal until another person approves it:
provost builders approve.`,
		Example: `  provost builders set acme-hosted --issuer https://token.actions.githubusercontent.com --level 2 \
    --condition 'claims.repository_owner_id == "65" && claims.runner_environment == "github-hosted"'`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if r.Issuer == "" || r.Condition == "" || r.Level == 0 {
				return usageError{hint(errors.New("--issuer, --condition and --level are required"), "provost builders set --help")}
			}
			r.Signer, r.Mode = attest.Power(signer), attest.Mode(mode)
			service, err := o.service()
			if err != nil {
				return err
			}
			b, err := service.PutBuilder(c.Context(), args[0], r)
			if err != nil {
				return fmt.Errorf("set builder %s: %w", args[0], err)
			}
			return o.printer().answer(b, func() {
				printBuilder(o.printer(), b)
				if b.State == attest.BuilderProposed {
					o.printer().printf("another person has to approve it: provost builders approve %s --revision %d\n", b.Name, b.Revision)
				}
			})
		},
	}
	f := c.Flags()
	f.StringVar(&r.Issuer, "issuer", "", "the token issuer's `URL`, exactly")
	f.StringVar(&r.Condition, "condition", "", "the `CEL` expression over claims that its tokens fulfil")
	f.IntVar(&r.Level, "level", 0, "the highest SLSA build `LEVEL` of its provenance, 1 to 3")
	f.StringVar(&r.BuildType, "build-type", "", "the `URI` of its build type (default: the one that the issuer's tokens give)")
	f.StringVar(&r.ID, "id", "", "the `URL` of the workflow that the condition pins, as builder.id (default: SERVICE/builders/NAME)")
	f.StringArrayVar(&r.PredicateTypes, "predicate-type", nil, "a predicate type `URI` that its tokens may have signed; may be repeated (default: SLSA provenance, CycloneDX, SPDX)")
	f.StringVar(&signer, "signer", "", "who signs its provenance: `SIGNER` (default provenance)")
	f.StringVar(&mode, "mode", "", "`MODE`: token, or control-plane for a builder that submits whole predicates (default token)")
	f.StringVar(&r.Repository, "repository", "", "the `URL` of the one repository that it builds, for issuers whose tokens name none")
	f.BoolVar(&r.CrossCheck, "cross-check", false, "claim the level only for runs that the CI's own API confirms")
	f.StringVar(&r.Description, "description", "", "how its builds are isolated and who answers for it: `TEXT` of its page")
	f.Int64Var(&r.Revision, "if-revision", 0, "only if the registry is at revision `N`")
	return c
}

func buildersApproveCommand(o *options) *cobra.Command {
	var a client.Approval
	c := &cobra.Command{
		Use:   "approve NAME --revision N",
		Short: "Approve what another person has proposed",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if a.Revision == 0 {
				return usageError{hint(errors.New("--revision N is required: approve what you have read"), "provost builders show "+args[0])}
			}
			service, err := o.service()
			if err != nil {
				return err
			}
			b, err := service.ApproveBuilder(c.Context(), args[0], a)
			if err != nil {
				return fmt.Errorf("approve builder %s: %w", args[0], err)
			}
			return o.printer().answer(b, func() { printBuilder(o.printer(), b) })
		},
	}
	c.Flags().Int64Var(&a.Revision, "revision", 0, "the proposal's revision `N`")
	return c
}

func buildersRetireCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "retire NAME",
		Short: "Take a builder out of the registry; its page stays",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			service, err := o.service()
			if err != nil {
				return err
			}
			b, err := service.RetireBuilder(c.Context(), args[0])
			if err != nil {
				return fmt.Errorf("retire builder %s: %w", args[0], err)
			}
			return o.printer().answer(b, func() { printBuilder(o.printer(), b) })
		},
	}
}

func printBuilder(p printer, b attest.Builder) {
	rows := []string{
		fmt.Sprintf("builder %s\t%s, revision %d", b.Name, b.State, b.Revision),
		"  issuer\t" + safe(b.Issuer), "  condition\t" + safe(b.Condition), fmt.Sprintf("  level\t%d", b.Level),
		"  build type\t" + safe(b.BuildType), "  predicate types\t" + safe(strings.Join(b.PredicateTypes, ", ")),
		"  signer\t" + string(b.Signer), "  mode\t" + string(b.Mode),
	}
	for _, more := range [][2]string{{"id", b.ID}, {"repository", b.Repository}, {"description", b.Description}} {
		if more[1] != "" {
			rows = append(rows, "  "+more[0]+"\t"+safe(more[1]))
		}
	}
	if b.CrossCheck {
		rows = append(rows, "  cross-check\trequired")
	}
	rows = append(rows, fmt.Sprintf("  by\t%s at %s", safe(b.ProposedBy.String()), b.ProposedAt.Format(time.RFC3339)))
	if b.ApprovedBy != (attest.Person{}) {
		rows = append(rows, fmt.Sprintf("  approved by\t%s at %s", safe(b.ApprovedBy.String()), b.ApprovedAt.Format(time.RFC3339)))
	}
	p.table(rows...)
}
