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

func importCommand(o *options) *cobra.Command {
	var root string
	c := &cobra.Command{
		Use:   "import --root NAME BUNDLE…",
		Short: "Have bundles kept that others signed",
		Long: `Have Sigstore bundles kept that others signed, such as GitHub, GitLab or npm. The
service verifies each against the foreign root of that name in its configuration,
and keeps it byte for byte; nothing is signed again. What is kept already is not
kept twice.

BUNDLE is a file with a bundle, or with one bundle a line; - is standard input.
The first that is refused ends the command; those before it are kept.`,
		Example: `  gh attestation download app --repo acme/app
  provost import --root github sha256:9f86d0….jsonl`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if root == "" {
				return usageError{hint(errors.New("--root NAME is required"), "the service's configuration names its foreign roots: foreign")}
			}
			service, err := o.service()
			if err != nil {
				return err
			}
			kept := []client.Import{}
			for _, file := range args {
				raw, err := readBounded(file, maxBundleFile)
				if err != nil {
					return hint(fmt.Errorf("read bundle: %w", err), "BUNDLE is a file with a bundle, or with one bundle a line")
				}
				bundles, err := splitBundles(raw)
				if err == nil && len(bundles) == 0 {
					err = fmt.Errorf("read bundle: %s is empty", file)
				}
				if err != nil {
					return err
				}
				for n, bundle := range bundles {
					i, err := service.AddImport(c.Context(), root, bundle)
					if err != nil {
						if len(bundles) > 1 {
							file = fmt.Sprintf("%s, bundle %d", file, n+1)
						}
						return importHint(fmt.Errorf("import %s: %w", file, err), root)
					}
					kept = append(kept, i)
				}
			}
			return o.printer().answer(client.Imports{Imports: kept}, func() { printImports(o.printer(), kept) })
		},
	}
	c.Flags().StringVar(&root, "root", "", "`NAME` of the foreign root to verify against")
	c.AddCommand(importListCommand(o))
	return c
}

// importHint says what to do about a refusal that the general hints know
// nothing of.
func importHint(err error, root string) error {
	var problem *client.Problem
	switch {
	case errors.As(err, &problem) && problem.Grant == "" && errors.Is(err, attest.ErrDenied):
		return hint(err, "foreign."+root+" in the service's configuration lists who is believed: identities")
	case errors.Is(err, attest.ErrNotFound):
		return hint(err, "the service's configuration names its foreign roots: foreign")
	}
	return err
}

func importListCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "list ARTIFACT",
		Short: "List the imported bundles about an artifact",
		Long: `List the imported bundles about an artifact, as they were when they were imported.
Nothing is verified again. ARTIFACT may be sha512:<hex>, too: bundles of npm name
their packages by nothing else.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			digest, err := importedArtifact(args[0])
			if err != nil {
				return err
			}
			service, err := o.service()
			if err != nil {
				return err
			}
			all := []client.Import{}
			for after := ""; ; {
				page, err := service.Imports(c.Context(), digest, after, 0)
				if err != nil {
					return fmt.Errorf("list imports: %w", err)
				}
				all = append(all, page.Imports...)
				if page.Next == "" {
					break
				}
				if page.Next == after || len(all) > maxBundles {
					return fmt.Errorf("list imports: %w", &attest.LimitError{What: "imports", Limit: maxBundles, Unit: "bundles"})
				}
				after = page.Next
			}
			return o.printer().answer(client.Imports{Imports: all}, func() {
				if len(all) == 0 {
					o.printer().printf("nothing was imported about %s\n", digest)
					return
				}
				printImports(o.printer(), all)
			})
		},
	}
}

// importedArtifact is [resolveArtifact], and a sha512 by itself.
func importedArtifact(arg string) (attest.Digest, error) {
	if strings.HasPrefix(arg, attest.AlgSHA512+":") {
		d, err := attest.ParseDigest(arg)
		if err != nil {
			return d, usageError{fmt.Errorf("artifact %s: %w", arg, err)}
		}
		return d, nil
	}
	a, err := resolveArtifact(arg)
	return a.Digest, err
}

func printImports(p printer, all []client.Import) {
	rows := []string{"ID\tROOT\tSIGNED\tPREDICATE TYPE\tSIGNED BY\tABOUT"}
	for _, i := range all {
		about := ""
		if len(i.Subjects) > 0 {
			about = i.Subjects[0].Name
		}
		if more := len(i.Subjects) - 1; more > 0 {
			about += fmt.Sprintf(" and %d more", more)
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s",
			safe(i.ID), safe(i.Root), i.SignedAt.Format(time.RFC3339), safe(i.PredicateType), safe(i.Identity.SAN), safe(about)))
	}
	p.table(rows...)
}
