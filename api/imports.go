// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"provost/api/client"
	"provost/attest"
	"provost/verify"
)

// ImportStore keeps bundles that others signed.
type ImportStore interface {
	verify.Imports
	// AppendImported stores a bundle; what the tenant imported under that root
	// before is returned as it was then.
	AppendImported(ctx context.Context, i attest.Imported) (attest.Imported, error)
	// Imported returns an [attest.ErrNotFound] for an id that names nothing.
	Imported(ctx context.Context, id string) (attest.Imported, error)
}

// The media types of bundles (Sigstore bundle specification): of version 0.3,
// and of those before.
const (
	mimeBundle    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	mimeOldBundle = "application/vnd.dev.sigstore.bundle+json"
)

// importsAtOnce is how many imported bundles are asked of the store at once:
// the bound on a page counts their bytes.
const importsAtOnce = 8

// A foreignBundle is a bundle to be imported.
type foreignBundle struct {
	root string
	raw  []byte
}

// importObject says what is to be imported, before anything of it is believed.
func importObject(b foreignBundle) string {
	return fmt.Sprintf("root %s bundle %s", b.root, attest.SHA256(b.raw))
}

func decodeImport(c echo.Context) (b foreignBundle, err error) {
	if err := onlyQuery(c, "root"); err != nil {
		return b, err
	}
	if b.root = c.QueryParam("root"); b.root == "" {
		return b, fmt.Errorf("%w: query parameter root: want the name of a foreign root", attest.ErrInvalid)
	}
	if _, err := mediaType(c, echo.MIMEApplicationJSON, mimeBundle, mimeOldBundle); err != nil {
		return b, err
	}
	raw, err := readBody(c, attest.MaxBundle)
	// The white space around a JSON document is no part of it, and would not
	// come back inside an answer.
	b.raw = bytes.Trim(raw, " \t\r\n")
	return b, err
}

// addImport verifies a bundle against the foreign root as it is now, and keeps
// it as it is. Nothing is signed.
func (s *Server) addImport(ctx context.Context, caller attest.Caller, in foreignBundle) (reply, error) {
	home, err := caller.Home(attest.GrantImport)
	if err != nil {
		return reply{}, err
	}
	trust, err := s.foreign(in.root)
	if err != nil {
		return reply{}, fmt.Errorf("foreign root: %w", err)
	}
	f, err := trust.Verify(in.raw)
	if err != nil {
		return reply{}, importRefusal(err)
	}
	statement := f.Statement()
	if !caller.Covers(statement.Subjects) {
		return reply{}, fmt.Errorf("%w: the session is bound to other artifacts than the bundle is about", attest.ErrDenied)
	}
	i, err := s.imports.AppendImported(ctx, attest.Imported{
		ID: attest.NewID(), Root: f.Root(), PredicateType: statement.PredicateType, Subjects: statement.Subjects,
		Issuer: f.Identity().Issuer, SAN: f.Identity().SAN, SignedAt: f.SignedAt(), At: s.now().UTC(), Bundle: in.raw, Tenant: home,
	})
	if err != nil {
		return reply{}, fmt.Errorf("append imported bundle: %w", err)
	}
	return reply{http.StatusCreated, "/v1/imports/" + i.ID, importWire(i)}, nil
}

// importRefusal is what a bundle that does not verify is answered with: that it
// is not what it says, or that nobody who signed it is believed.
func importRefusal(err error) error {
	var at *verify.Error
	if errors.As(err, &at) && at.Step == verify.StepIdentity {
		return fmt.Errorf("%w: bundle: %w", attest.ErrDenied, err)
	}
	return &attest.DocumentError{What: "bundle", Err: err}
}

func (s *Server) imported(ctx context.Context, caller attest.Caller, id string) (reply, error) {
	i, err := s.imports.Imported(ctx, id)
	if err == nil && !caller.Within(attest.GrantRead).Has(i.Tenant) {
		err = fmt.Errorf("%w: imported bundle %.40q", attest.ErrNotFound, id) // what is another's is not there
	}
	if err != nil {
		return reply{}, err
	}
	body, err := importJSON(i)
	return reply{http.StatusOK, "", body}, err
}

// listImports answers with one page: at most q.Limit bundles and
// [client.MaxPage] bytes of them, though always one.
func (s *Server) listImports(ctx context.Context, caller attest.Caller, of attest.Query) (reply, error) {
	q := attest.ImportedQuery{In: caller.Within(attest.GrantRead), Artifact: of.Artifact, After: of.After}
	out, count, size := jsontext.Value(`{"imports":[`), 0, 0
	for {
		q.Limit = min(importsAtOnce, of.Limit+1-count)
		found, err := s.imports.ImportedAbout(ctx, q)
		if err != nil {
			return reply{}, err
		}
		for _, i := range found {
			if size += len(i.Bundle); count == of.Limit || count > 0 && size > client.MaxPage {
				return reply{http.StatusOK, "", append(out, `],"next":`+strconv.Quote(strconv.FormatInt(q.After, 10))+`}`...)}, nil
			}
			item, err := importJSON(i)
			if err != nil {
				return reply{}, err
			}
			if count > 0 {
				out = append(out, ',')
			}
			out, q.After = append(out, item...), i.Seq
			count++
		}
		if len(found) < q.Limit { // the store has no more
			return reply{http.StatusOK, "", append(out, `]}`...)}, nil
		}
	}
}

// decodeImportsQuery is [decodeQuery] without what only our own have.
func decodeImportsQuery(c echo.Context) (attest.Query, error) {
	if err := onlyQuery(c, "after", "limit"); err != nil {
		return attest.Query{}, err
	}
	return decodeQuery(c)
}

// importJSON is a [client.Import] with its bundle, byte for byte.
func importJSON(i attest.Imported) (jsontext.Value, error) {
	return appendWith(make(jsontext.Value, 0, len(i.Bundle)+1024), importWire(i), "bundle", i.Bundle)
}

func importWire(i attest.Imported) client.Import {
	w := client.Import{
		ID: i.ID, Root: i.Root, PredicateType: i.PredicateType, Identity: client.ForeignIdentity{Issuer: i.Issuer, SAN: i.SAN},
		SignedAt: i.SignedAt, ImportedAt: i.At, Digest: attest.SHA256(i.Bundle),
	}
	for _, sub := range i.Subjects {
		digest := map[string]string{}
		for _, d := range []attest.Digest{sub.SHA256, sub.SHA512} {
			if !d.IsZero() {
				digest[d.Algorithm()] = d.Hex()
			}
		}
		w.Subjects = append(w.Subjects, client.Subject{Name: sub.Name, Digest: digest})
	}
	return w
}
