// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"provost/verify"
)

func trustCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "trust", Short: "The trusted root: whom to believe"}
	c.AddCommand(trustRootCommand(o), trustShowCommand(o))
	return c
}

func trustRootCommand(o *options) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "root",
		Short: "Write the service's trusted root",
		Long: `Write the service's trusted root (trusted_root.json), to standard output or
to a file. cosign and other Sigstore clients read it as it is. Fetch it once,
over a connection that you trust, and keep it: it does not change when signing
keys rotate.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			service, err := o.service()
			if err != nil {
				return err
			}
			raw, err := service.TrustedRoot(c.Context())
			if err != nil {
				return fmt.Errorf("fetch trusted root: %w", err)
			}
			if _, err := verify.ParseTrust(raw); err != nil {
				return fmt.Errorf("the service's answer: %w", err)
			}
			if file == "" {
				_, err = os.Stdout.Write(raw)
				return err
			}
			if err := os.WriteFile(file, raw, 0o644); err != nil {
				return fmt.Errorf("keep trusted root: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&file, "trusted-root", "", "`FILE` to write to; replaced if it exists")
	return c
}

func trustShowCommand(o *options) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "show",
		Short: "Explain a trusted root",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			trust, err := o.trust(c.Context(), file)
			if err != nil {
				return err
			}
			authorities := trust.Authorities()
			p := o.printer()
			return p.answer(map[string]any{"authorities": authorities}, func() {
				for _, a := range authorities {
					p.printf("%s %s\n", a.Kind, safe(a.URI))
					p.table("  trusted\t"+span(a.ValidFrom, a.ValidTo), "  subject\t"+safe(a.Subject),
						"  certificate\t"+span(a.NotBefore, a.NotAfter), "  sha256\t"+a.Fingerprint)
				}
			})
		},
	}
	c.Flags().StringVar(&file, "trusted-root", "", "`FILE` with the trusted root (default the service's)")
	return c
}

func span(from, to time.Time) string {
	until := "with no end"
	if !to.IsZero() {
		until = "until " + to.UTC().Format(time.RFC3339)
	}
	if from.IsZero() {
		return until
	}
	return "from " + from.UTC().Format(time.RFC3339) + " " + until
}
