// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"provost/api/client"
	"provost/attest"
)

// An interval names what is taken back, or looked at.
type interval struct {
	version  int
	from, to string
}

func (i *interval) flags(c *cobra.Command) {
	f := c.Flags()
	f.IntVar(&i.version, "version", 0, "the `NUMBER` of the key version")
	f.StringVar(&i.from, "from", "", "the `TIME` (RFC 3339) since when it is compromised")
	f.StringVar(&i.to, "to", "", "the `TIME` (RFC 3339) until when, inclusive; default the end of its certificate")
}

// parse reads the times; an empty one is the zero time.
func (i *interval) parse() (from, to time.Time, err error) {
	if i.version < 1 {
		return from, to, usageError{hint(fmt.Errorf("--version %d: versions begin at 1", i.version), "provost keys list")}
	}
	if i.from == "" {
		return from, to, usageError{hint(errors.New("--from TIME is required: since when it is compromised"), "--from 2026-01-31T12:00:00Z")}
	}
	for _, t := range []struct {
		flag, text string
		at         *time.Time
	}{{"--from", i.from, &from}, {"--to", i.to, &to}} {
		if t.text == "" {
			continue
		}
		if *t.at, err = time.Parse(time.RFC3339, t.text); err != nil {
			return from, to, usageError{hint(fmt.Errorf("%s %q: want an RFC 3339 time", t.flag, t.text), t.flag+" 2026-01-31T12:00:00Z")}
		}
	}
	return from, to, nil
}

func keysRevokeCommand(o *options) *cobra.Command {
	var i interval
	var reason string
	var dryRun bool
	c := &cobra.Command{
		Use:   "revoke SIGNER --version N --from TIME [--to TIME] [--dry-run]",
		Short: "Take back what a key version signed in an interval",
		Long: `Take back what a key version signed in an interval. What it signed before stays
good. The trusted root gets a hole, which every client obeys that has the new
one; a signer that would still sign inside it goes on with a new key version
under its next CA.

Clients know CAs, not key versions, so the hole covers all versions that the
same CA certified: --dry-run says which, and what they signed in the interval.
Publish the new trusted root afterwards (provostd tuf stage), and hand it to
those who verify offline.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			signer, err := attest.ParsePower(args[0])
			if err != nil {
				return usageError{hint(err, "provost keys list")}
			}
			from, to, err := i.parse()
			if err != nil {
				return err
			}
			service, err := o.service()
			if err != nil {
				return err
			}
			r, err := service.Revoke(c.Context(), signer, client.RevocationRequest{Version: i.version, From: from, To: to, Reason: reason, DryRun: dryRun})
			if err != nil {
				return fmt.Errorf("revoke %s version %d: %w", signer, i.version, err)
			}
			p := o.printer()
			err = p.answer(r, func() {
				what := "revoked"
				if dryRun {
					what = "would revoke"
				}
				p.printf("%s %s version %d from %s to %s\n", what, r.Signer, r.Version, r.From.Format(time.RFC3339), r.To.Format(time.RFC3339))
				p.impact(r)
				if !dryRun {
					p.printf("now publish the trusted root (provostd tuf stage), and hand it to those who verify offline (provost trust root)\n")
				}
			})
			if err == nil && r.Warning != "" {
				return fmt.Errorf("revoke %s version %d: %s", signer, i.version, r.Warning)
			}
			return err
		},
	}
	i.flags(c)
	c.Flags().StringVar(&reason, "reason", "", "`TEXT` to record with it")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what it would touch, and record nothing")
	return c
}

func keysImpactCommand(o *options) *cobra.Command {
	var i interval
	c := &cobra.Command{
		Use:   "impact SIGNER --version N --from TIME [--to TIME]",
		Short: "Say what a compromise of a key version would touch",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			signer, err := attest.ParsePower(args[0])
			if err != nil {
				return usageError{hint(err, "provost keys list")}
			}
			from, to, err := i.parse()
			if err != nil {
				return err
			}
			service, err := o.service()
			if err != nil {
				return err
			}
			r, err := service.Impact(c.Context(), signer, i.version, from, to)
			if err != nil {
				return fmt.Errorf("impact of %s version %d: %w", signer, i.version, err)
			}
			p := o.printer()
			return p.answer(r, func() {
				p.printf("%s version %d from %s to %s\n", r.Signer, r.Version, r.From.Format(time.RFC3339), r.To.Format(time.RFC3339))
				p.impact(r)
			})
		},
	}
	i.flags(c)
	return c
}

// impact prints what a revocation touches.
func (p printer) impact(r client.Revocation) {
	im := r.Impact
	p.printf("key versions under the same CA, which are refused in that interval too: %s\n", list(im.Versions))
	total := 0
	for _, t := range slices.Sorted(maps.Keys(im.Total)) {
		total += im.Total[t]
	}
	p.printf("%d attestations\n", total)
	rows := make([]string, 0, len(im.Attestations))
	for _, a := range im.Attestations {
		rows = append(rows, fmt.Sprintf("  %s\tversion %d\t%s\t%s", a.ID, a.KeyVersion, a.SignedAt.Format(time.RFC3339), safe(a.PredicateType)))
	}
	p.table(rows...)
	p.printf("%d artifacts\n", len(im.Artifacts))
	rows = rows[:0]
	for _, a := range im.Artifacts {
		rows = append(rows, fmt.Sprintf("  sha256:%s\t%s", safe(a.Digest["sha256"]), safe(a.Name)))
	}
	p.table(rows...)
	p.printf("%d times let into an environment\n", len(im.Environments))
	rows = rows[:0]
	for _, e := range im.Environments {
		rows = append(rows, fmt.Sprintf("  %s\t%s\tdecision %s of %s", safe(e.Environment), e.Artifact, safe(e.Decision), e.DecidedAt.Format(time.RFC3339)))
	}
	p.table(rows...)
	if im.Truncated {
		p.printf("%s\n", p.paint(red, "there is more than is listed: narrow the interval"))
	}
}

func list(numbers []int) string {
	text := ""
	for i, n := range numbers {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprint(n)
	}
	return text
}
