// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"

	"provost/api/client"
	"provost/attest"
)

// BuilderStore keeps the builder registry.
type BuilderStore interface {
	Registry
	// AppendBuilder stores a row if the registry is still at that revision;
	// otherwise it is an [attest.ErrConflict].
	AppendBuilder(ctx context.Context, b attest.Builder, revision int64) (attest.Builder, error)
	// BuilderHistory returns every row that there ever was of a name.
	BuilderHistory(ctx context.Context, name string) ([]attest.Builder, error)
}

// maxBuilderJSON bounds a builder, in bytes.
const maxBuilderJSON = 64 << 10

// A builderChange is a request about one builder.
type builderChange struct {
	name string
	client.BuilderRequest
	approval client.Approval
}

func (s *Server) listBuilders(ctx context.Context, _ attest.Caller, _ struct{}) (reply, error) {
	rows, revision, err := s.builders.Builders(ctx)
	if err != nil {
		return reply{}, err
	}
	out := client.Builders{Revision: revision, Builders: []attest.Builder{}}
	for _, b := range rows {
		out.Builders = append(out.Builders, public(b))
	}
	return reply{status: http.StatusOK, body: out}, nil
}

func (s *Server) builderHistory(ctx context.Context, _ attest.Caller, in builderChange) (reply, error) {
	rows, err := s.builders.BuilderHistory(ctx, in.name)
	if err == nil && len(rows) == 0 {
		err = fmt.Errorf("%w: no builder is called %.80q", attest.ErrNotFound, in.name)
	}
	if err != nil {
		return reply{}, err
	}
	out := client.BuilderHistory{}
	for _, b := range rows {
		out.Rows = append(out.Rows, public(b))
	}
	return reply{status: http.StatusOK, body: out}, nil
}

func (s *Server) putBuilder(ctx context.Context, caller attest.Caller, in builderChange) (reply, error) {
	return s.changeBuilder(ctx, caller, in, "builders.put", func(holds, _ *attest.Builder) (attest.Builder, error) {
		b := attest.Builder{
			Name: in.name, ID: in.ID, Issuer: in.Issuer, Condition: in.Condition, Level: in.Level,
			BuildType:      cmp.Or(in.BuildType, s.auth.buildType(in.Issuer)),
			PredicateTypes: in.PredicateTypes, Signer: cmp.Or(in.Signer, attest.PowerProvenance), Mode: cmp.Or(in.Mode, attest.ModeToken),
			Repository: in.Repository, CrossCheck: in.CrossCheck, Description: in.Description,
		}
		if len(b.PredicateTypes) == 0 {
			b.PredicateTypes = attest.UsualPredicateTypes()
		}
		if err := s.auth.CheckBuilder(b); err != nil {
			return attest.Builder{}, err
		}
		return b.Propose(holds, caller, s.now())
	})
}

func (s *Server) approveBuilder(ctx context.Context, caller attest.Caller, in builderChange) (reply, error) {
	return s.changeBuilder(ctx, caller, in, "builders.approve", func(_, proposed *attest.Builder) (attest.Builder, error) {
		if proposed == nil || proposed.Revision != in.approval.Revision { // closed: what was read is not what would be approved
			return attest.Builder{}, fmt.Errorf("%w: builder %s: no proposal of revision %d waits", attest.ErrConflict, in.name, in.approval.Revision)
		}
		if err := s.auth.CheckBuilder(*proposed); err != nil { // the configuration may have changed since
			return attest.Builder{}, err
		}
		return proposed.Approve(caller, s.now())
	})
}

func (s *Server) retireBuilder(ctx context.Context, caller attest.Caller, in builderChange) (reply, error) {
	return s.changeBuilder(ctx, caller, in, "builders.retire", func(holds, proposed *attest.Builder) (attest.Builder, error) {
		if proposed == nil && (holds == nil || holds.State == attest.BuilderRetired) {
			return attest.Builder{}, fmt.Errorf("%w: no builder is called %.80q", attest.ErrNotFound, in.name)
		}
		return cmp.Or(holds, proposed).Retire(caller, s.now()) // what held, if anything did: see snapshot
	})
}

// builderObject is what a change makes of a builder, for the audit log.
func builderObject(b attest.Builder) string {
	return fmt.Sprintf("%s %s level %d of %s, condition %s: %s", b.Name, b.State, b.Level, b.Issuer, attest.SHA256([]byte(b.Condition)), b.Condition)
}

// changeBuilder reads the registry, has it decided what becomes of one builder,
// records that, and stores it unless the registry has changed meanwhile. What
// is refused is recorded as that, and never as allowed.
func (s *Server) changeBuilder(ctx context.Context, caller attest.Caller, in builderChange, action string, decide func(holds, proposed *attest.Builder) (attest.Builder, error)) (reply, error) {
	rows, revision, err := s.builders.Builders(ctx)
	if err != nil {
		return reply{}, err
	}
	if in.Revision != 0 && in.Revision != revision {
		return reply{}, fmt.Errorf("%w: the registry is at revision %d, not %d", attest.ErrConflict, revision, in.Revision)
	}
	var holds, proposed *attest.Builder
	for i := range rows {
		switch {
		case rows[i].Name != in.name:
		case rows[i].State == attest.BuilderProposed:
			proposed = &rows[i]
		case rows[i].State == attest.BuilderUnbelieved && holds != nil: // what is believed stays what holds
		default:
			holds = &rows[i]
		}
	}
	b, err := decide(holds, proposed)
	if err != nil {
		return reply{}, err
	}
	for _, other := range rows { // closed: a verifier could not tell the two apart; what is retired claims nothing
		if b.State != attest.BuilderRetired && b.ID != "" && other.ID == b.ID && other.Name != b.Name && other.Stands() {
			return reply{}, fmt.Errorf("%w: id %.200s is that of builder %s", attest.ErrConflict, b.ID, other.Name)
		}
	}
	if err := s.audit.append(ctx, caller.Allowed(action, builderObject(b), s.now())); err != nil { // closed: no record, no change
		return reply{}, err
	}
	if b, err = s.builders.AppendBuilder(ctx, b, revision); err != nil {
		return reply{}, fmt.Errorf("append builder %s: %w", in.name, err)
	}
	s.auth.forget()
	return reply{status: http.StatusOK, body: public(b)}, nil
}

// public is a row without what tells people apart: that may be a number that
// is nobody's business.
func public(b attest.Builder) attest.Builder {
	b.ProposedBy.Key, b.ApprovedBy.Key = "", ""
	return b
}

func decodeBuilder(c echo.Context) (builderChange, error) {
	in, err := decodeBuilderName(c)
	if err == nil {
		err = readJSON(c, maxBuilderJSON, &in.BuilderRequest)
	}
	return in, err
}

func decodeApproval(c echo.Context) (builderChange, error) {
	in, err := decodeBuilderName(c)
	if err == nil {
		err = readJSON(c, maxBuilderJSON, &in.approval)
	}
	return in, err
}

func decodeNamedBuilder(c echo.Context) (builderChange, error) {
	in, err := decodeBuilderName(c)
	if err == nil {
		_, err = none(c)
	}
	return in, err
}

func decodeBuilderName(c echo.Context) (in builderChange, err error) {
	in.name, err = param(c, "name")
	return in, err
}
