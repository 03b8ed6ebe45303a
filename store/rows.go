// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"provost/attest"
)

// The column types below stand in statements and in scans alike, so that what
// a column holds is said once. What they scan they check; a value that this
// package cannot have written is corruption, and its error wraps none of the
// sentinels, least of all the caller's ErrInvalid.

// timeLayout keeps what SQL types lose: nanoseconds (a PostgreSQL timestamp
// has microseconds) and the years outside 1678 to 2262 (which nanoseconds in
// an INTEGER cannot count), the zero time among them. People can read it, and
// its order is the order of time.
const timeLayout = "2006-01-02T15:04:05.000000000Z"

// A timeColumn is a time in UTC as TEXT.
type timeColumn struct{ t *time.Time }

// Value refuses, as ErrInvalid, years that RFC 3339 cannot spell.
func (c timeColumn) Value() (driver.Value, error) {
	t := c.t.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		return nil, fmt.Errorf("%w: time in the year %d", attest.ErrInvalid, y)
	}
	return t.Format(timeLayout), nil
}

func (c timeColumn) Scan(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("stored time is a %T", v)
	}
	t, err := time.Parse(timeLayout, s)
	*c.t = t.UTC()
	return err
}

// A digestColumn is a digest as BLOB. Its length says the algorithm; NULL is
// the zero digest.
type digestColumn struct{ d *attest.Digest }

func (c digestColumn) Value() (driver.Value, error) {
	if c.d.IsZero() {
		return nil, nil
	}
	return c.d.Bytes(), nil
}

func (c digestColumn) Scan(v any) error {
	if v == nil {
		*c.d = attest.Digest{}
		return nil
	}
	b, _ := v.([]byte)
	alg := attest.AlgSHA256
	if len(b) == 64 {
		alg = attest.AlgSHA512
	}
	d, err := attest.NewDigest(alg, hex.EncodeToString(b))
	if err != nil {
		return fmt.Errorf("stored digest: %v", err)
	}
	*c.d = d
	return nil
}

// A verdictColumn is a verdict's name as TEXT.
type verdictColumn struct{ v *attest.Verdict }

func (c verdictColumn) Value() (driver.Value, error) { return c.v.String(), nil }

func (c verdictColumn) Scan(v any) error {
	s, _ := v.(string)
	if err := c.v.UnmarshalText([]byte(s)); err != nil {
		return fmt.Errorf("stored verdict: %v", err)
	}
	return nil
}

// A reasonsColumn is the reasons of a decision as JSON in TEXT. They are read
// with their decision and never searched.
type reasonsColumn struct{ r *[]attest.Reason }

func (c reasonsColumn) Value() (driver.Value, error) {
	for _, r := range *c.r {
		// JSON would replace what is not UTF-8 without a word.
		if err := checkText(r.Rule, r.Severity, r.Message); err != nil {
			return nil, err
		}
	}
	b, err := json.Marshal(*c.r)
	return string(b), err
}

func (c reasonsColumn) Scan(v any) error {
	s, _ := v.(string)
	return json.Unmarshal([]byte(s), c.r)
}

// checkText refuses text that not every database gives back as it was.
func checkText(texts ...string) error {
	for _, s := range texts {
		if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
			return fmt.Errorf("%w: text %.40q has a NUL or is not UTF-8", attest.ErrInvalid, s)
		}
	}
	return nil
}

func checkLimit(limit int) error {
	if limit < 1 {
		return fmt.Errorf("%w: limit %d: want at least 1", attest.ErrInvalid, limit)
	}
	return nil
}

// Value refuses what JSON would replace without a word.
func (c builderColumn) Value() (driver.Value, error) {
	b := *c.b
	if err := checkText(append([]string{
		b.Name, b.ID, b.Issuer, b.Condition, b.BuildType, b.Repository, b.Description,
		b.ProposedBy.Issuer, b.ProposedBy.Subject, b.ProposedBy.Key, b.ApprovedBy.Issuer, b.ApprovedBy.Subject, b.ApprovedBy.Key,
	}, b.PredicateTypes...)...); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(b)
	return string(raw), err
}

func (c builderColumn) Scan(v any) error {
	s, _ := v.(string)
	if err := json.Unmarshal([]byte(s), c.b); err != nil {
		return fmt.Errorf("stored builder: %v", err)
	}
	return nil
}
