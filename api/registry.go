// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"provost/api/identity"
	"provost/attest"
)

// registryFresh is how long a change of the registry made by another replica
// may go unnoticed. Our own is noticed at once.
const registryFresh = 2 * time.Second

// builders is the registry as it was last read.
type builders struct {
	registry Registry
	now      func() time.Time

	mu   sync.Mutex
	last *snapshot
	rows []attest.Builder // that last is of
	read time.Time
}

// sameRow reports whether two readings of a row are the same: its revision says
// what it was when it was stored, and its state whether it is believed now.
func sameRow(a, b attest.Builder) bool { return a.Revision == b.Revision && a.State == b.State }

// A snapshot is the registry at one revision, ready to be matched. Nobody
// changes it.
type snapshot struct {
	revision int64
	active   map[string][]registered // by issuer
	// retired are rows that were active. One whose condition cannot be read any
	// more has none.
	retired map[string][]registered
	// broken are the issuers that have an active row which cannot be used.
	// Nothing is said for them: the row might be the one that matched, too.
	broken map[string]error
}

// A registered is a row that is active, or was.
type registered struct {
	attest.Builder
	condition *identity.Condition
}

// forget has the registry read anew.
func (b *builders) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read = time.Time{}
}

// current is the registry, at most registryFresh old. What cannot be read is an
// [attest.ErrUnavailable]: an old one is not used.
func (b *builders) current(ctx context.Context) (*snapshot, error) {
	if b.registry == nil {
		return &snapshot{}, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if b.last != nil && now.Sub(b.read) < registryFresh && !now.Before(b.read) {
		return b.last, nil
	}
	rows, revision, err := b.registry.Builders(ctx)
	if err != nil {
		return nil, fmt.Errorf("builder registry: %w", err)
	}
	if b.last == nil || b.last.revision != revision || !slices.EqualFunc(b.rows, rows, sameRow) {
		b.last, b.rows = newSnapshot(rows, revision), rows
	}
	b.read = now
	return b.last, nil
}

func newSnapshot(rows []attest.Builder, revision int64) *snapshot {
	s := &snapshot{revision: revision, active: map[string][]registered{}, retired: map[string][]registered{}, broken: map[string]error{}}
	for _, row := range rows {
		if row.State == attest.BuilderUnbelieved { // closed: whichever row it stands for might be the one that matched
			s.broken[row.Issuer] = fmt.Errorf("builder %s revision %d is not what was signed", row.Name, row.Revision)
		}
		active := row.State == attest.BuilderActive
		if !row.Stands() || row.State == attest.BuilderProposed { // it never was
			continue
		}
		condition, err := identity.Compile(row.Condition)
		if !active {
			s.retired[row.Issuer] = append(s.retired[row.Issuer], registered{row, condition})
			continue
		}
		if err != nil {
			s.broken[row.Issuer] = fmt.Errorf("builder %s: %v", row.Name, err)
			continue
		}
		s.active[row.Issuer] = append(s.active[row.Issuer], registered{row, condition})
	}
	return s
}

// retiredFor is the name of the retired builder that a token would speak for,
// which speaks for no active one; "" for none.
func (s *snapshot) retiredFor(issuer string, texts identity.Texts) string {
	for _, row := range s.retired[issuer] {
		if row.condition == nil || row.condition.Match(texts) { // closed: it might have matched
			return row.Name
		}
	}
	return ""
}

// build is the build that a token speaks for, or the control plane, and the
// name of its row; nil when no builder's condition holds.
func (i *issuer) build(service string, claims identity.Claims, texts identity.Texts, checked *identity.Checked, s *snapshot) (*attest.Build, *attest.Control, string, error) {
	if err := s.broken[i.URL]; err != nil { // closed
		return nil, nil, "", err
	}
	var row *registered
	for n := range s.active[i.URL] {
		candidate := &s.active[i.URL][n]
		if !candidate.condition.Match(texts) {
			continue
		}
		if row != nil { // closed: which of two builders it was would be a guess
			return nil, nil, "", fmt.Errorf("%w: the token is ambiguous: it matches two builders", attest.ErrDenied)
		}
		row = candidate
	}
	if row == nil {
		return nil, nil, "", nil
	}
	if row.Mode == attest.ModeControlPlane {
		return nil, &attest.Control{
			Registration: attest.Registration{Name: row.Name, Revision: row.Revision, PredicateTypes: row.PredicateTypes},
			BuilderID:    row.BuilderID(service, row.Level), BuildType: row.BuildType, Level: row.Level,
		}, row.Name, nil
	}
	build, err := identity.Register(i.provider, claims, identity.Registered{
		Service: service, ServerURL: i.ServerURL, Builder: row.Builder, Pins: row.condition.Pins(), Mapping: i.Mapping, Checked: checked,
	})
	return build, nil, row.Name, err
}

// CheckBuilder returns an [attest.ErrInvalid] unless the row's issuer, condition
// and build type fit what is configured: that the condition names whose tokens
// are meant, that the build type is the one its provider's tokens give, and
// that a builder.id which others gave is the one that the condition pins.
func (a *Authenticator) CheckBuilder(b attest.Builder) error {
	i, ok := a.issuers[b.Issuer]
	if !ok { // first: without it nothing else can be right
		return fmt.Errorf("%w: builder %.80q: issuer %.200q is not configured", attest.ErrInvalid, b.Name, b.Issuer)
	}
	if err := b.Validate(); err != nil {
		return err
	}
	condition, err := identity.Compile(b.Condition)
	if err != nil {
		return fmt.Errorf("builder %s: %w", b.Name, err)
	}
	if err := i.checkOwner(condition, false); err != nil {
		return fmt.Errorf("%w: builder %s: %w", attest.ErrInvalid, b.Name, err)
	}
	if b.ID != "" {
		jobRef, ok := strings.CutPrefix(b.ID, i.ServerURL+"/")
		pins := condition.Pins()["job_workflow_ref"]
		if i.ServerURL == "" || !ok || len(pins) != 1 || pins[0] != jobRef {
			return fmt.Errorf("%w: builder %s: id: want none, or the URL of the one workflow that the condition pins by job_workflow_ref", attest.ErrInvalid, b.Name)
		}
	}
	if r := i.provider.Rules(); b.Mode != attest.ModeToken && !r.Workload && i.Mapping == nil && i.Provider != identity.MTLS {
		return fmt.Errorf("%w: builder %s: tokens of issuer %s are of people, who are no control plane", attest.ErrInvalid, b.Name, i.URL)
	}
	immutable := slices.Clone(i.immutable())
	if i.Provider == identity.GitHub { // a workflow that is called is a builder, whoever calls it
		immutable = append(immutable, "job_workflow_ref")
	}
	if b.Level > 1 && i.workload() && !identity.Pinned(condition.Pins(), immutable) {
		return fmt.Errorf("%w: builder %s: names can be registered again by others: from level 2 on pin at least one of %s", attest.ErrInvalid, b.Name, strings.Join(immutable, ", "))
	}
	if b.Mode != attest.ModeToken {
		if b.ID != "" {
			return fmt.Errorf("%w: builder %s: id goes with mode %s", attest.ErrInvalid, b.Name, attest.ModeToken)
		}
		if b.CrossCheck || b.Repository != "" {
			return fmt.Errorf("%w: builder %s: crossCheck and repository go with mode %s", attest.ErrInvalid, b.Name, attest.ModeToken)
		}
		return nil
	}
	rules := i.provider.Rules()
	if limit := rules.LevelLimit(b.CrossCheck); b.Level > limit && limit > 0 {
		return fmt.Errorf("%w: builder %s: level %d: tokens of provider %s reach level %d at most, and %d with a cross-check", attest.ErrInvalid, b.Name, b.Level, i.Provider, limit, rules.LevelLimit(true))
	}
	if b.CrossCheck && i.checked == nil {
		return fmt.Errorf("%w: builder %s: crossCheck: issuer %s has no cross_check in the configuration", attest.ErrInvalid, b.Name, i.URL)
	}
	if pin := rules.NoRepository; pin != "" && (b.Repository == "" || len(condition.Pins()[pin]) != 1) {
		return fmt.Errorf("%w: builder %s: repository: tokens of provider %s name none, so it is required, and a condition that pins one %s", attest.ErrInvalid, b.Name, i.Provider, pin)
	}
	want := rules.BuildTypeURI(a.service)
	if i.Provider == identity.OIDC && i.Mapping == nil {
		want = ""
	}
	if want == "" || b.BuildType != want {
		return fmt.Errorf("%w: builder %s: buildType: want %s of provider %s", attest.ErrInvalid, b.Name, orNone(want), i.Provider)
	}
	return nil
}

// buildType is the build type that tokens of an issuer give; "" when they speak
// for no build.
func (a *Authenticator) buildType(issuer string) string {
	i, ok := a.issuers[issuer]
	if !ok {
		return ""
	}
	return i.provider.Rules().BuildTypeURI(a.service)
}

func orNone(s string) string {
	if s == "" {
		return "none: its tokens speak for no build"
	}
	return s
}
