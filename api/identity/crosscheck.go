// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"provost/attest"
)

// A Checked is what a CI's own API said of one run, beside the token. What the
// API contradicts is never a Checked: it is an [attest.ErrDenied] of whoever
// asked. The zero Checked, as the nil one, confirms nothing.
type Checked struct {
	At time.Time `json:"at"` // UTC
	By string    `json:"by"` // the host that was asked
	// Confirmed are the claims that the API says, too; sorted.
	Confirmed []string `json:"confirmed,omitempty"`
	// Facts are what only the API says, by the name of the member of its answer.
	Facts map[string]string `json:"facts,omitempty"`
	// Problem says what of it the API did not confirm, in our own words; "" when
	// it confirmed everything that it was asked.
	Problem string `json:"problem,omitempty"`
	// Level is the highest SLSA build level that it leaves to a builder whose
	// row asks for the check: 3 when everything was confirmed.
	Level int `json:"level"`
}

// The levels that a check leaves.
const (
	// LevelUnconfirmed is for what the API did not say, or was not asked: the
	// provenance is as authentic as its token, and not more.
	LevelUnconfirmed = 2
	// LevelRefuted is for a run that the API calls failed or cancelled, and for
	// a commit that is not on the ref it is claimed of.
	LevelRefuted = 1
)

// Apply returns the build with what was checked: a field made of claims that
// are all confirmed is marked so, and what only the API says stands in the
// internal parameter api. For a row that asks for the check, the level becomes
// what the check leaves, with the reason; nil is a check that was not made. The
// build that is given stays as it is.
func (c *Checked) Apply(build *attest.Build, row attest.Builder) *attest.Build {
	out := *build
	if c != nil {
		c.mark(&out)
	}
	level, why := LevelUnconfirmed, "the CI's API was not asked"
	if c != nil {
		// Closed: a Checked that somebody made by leaving things out is refuted.
		level, why = max(c.Level, LevelRefuted), cmp.Or(c.Problem, "the CI's API confirmed nothing")
	}
	if row.CrossCheck && level < 3 { // said, also where the builder claims no more anyway
		out.Level = min(out.Level, level)
		if out.LevelReason != "" {
			why = out.LevelReason + "; " + why
		}
		out.LevelReason = why
	}
	return &out
}

// mark writes what was confirmed and what was learnt into maps of its own.
func (c *Checked) mark(build *attest.Build) {
	origins, internal := attest.Origins{}, map[string]any{}
	maps.Copy(internal, build.InternalParameters)
	for pointer, o := range build.Origins {
		unconfirmed := func(claim string) bool { return !slices.Contains(c.Confirmed, claim) }
		if o.From == attest.SourceToken && len(o.Names) > 0 && !slices.ContainsFunc(o.Names, unconfirmed) {
			o.VerifiedBy = attest.SourceAPI
		}
		origins[pointer] = o
	}
	said := map[string]any{"host": c.By, "asked_at": c.At.UTC().Format(time.RFC3339)}
	if c.Problem != "" {
		said["problem"] = c.Problem
	}
	for name, value := range c.Facts {
		said[name] = value
	}
	internal["api"] = said
	origins["/buildDefinition/internalParameters/api"] = attest.Origin{From: attest.SourceAPI, Names: slices.Sorted(maps.Keys(c.Facts))}
	build.Origins, build.InternalParameters = origins, internal
}
