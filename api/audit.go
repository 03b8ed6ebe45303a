// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"provost/api/client"
	"provost/attest"
	"provost/verify"
)

// Audit is where decisions about authority are recorded.
type Audit interface {
	// AppendAudit chains and stores a record. What it has returned nil for
	// survives the process being killed.
	AppendAudit(ctx context.Context, r attest.AuditRecord) (attest.AuditRecord, error)
	// AuditRecords returns at most limit records after that seq, in their
	// order.
	AuditRecords(ctx context.Context, after int64, limit int) ([]attest.AuditRecord, error)
	// SignedAuditHead returns the attestation of the head that was signed
	// last, or an [attest.ErrNotFound].
	SignedAuditHead(ctx context.Context) (attest.Attestation, error)
}

// strangersSingly is how many refusals of strangers in a minute get a record
// each. The others are counted into one: anybody who reaches the service could
// fill its disk otherwise. A stranger is who has no token that is accepted, or
// one to which no rule gives anything.
const strangersSingly = 60

// An auditor writes the records of one server.
type auditor struct {
	store Audit
	now   func() time.Time

	mu       sync.Mutex
	minute   time.Time // which one is counted
	singly   int       // refusals of strangers in it that got a record
	more     int       // refusals that have none, and no record of their number yet
	from, to time.Time // of those
}

// audited is an act that is recorded before it is done. It says in the route
// table which acts are; signatures are recorded with their intents, and reads
// are not. Object says in a few words what the act is done to.
//
// Closed: when the record cannot be stored, the act is not done.
func audited[In any](s *Server, action string, object func(In) string, act func(context.Context, attest.Caller, In) (reply, error),
) func(context.Context, attest.Caller, In) (reply, error) {
	return func(ctx context.Context, caller attest.Caller, in In) (reply, error) {
		if err := s.audit.append(ctx, caller.Allowed(action, object(in), s.now())); err != nil {
			return reply{}, err
		}
		return act(ctx, caller, in)
	}
}

// refused records a refusal that is about authority, and returns what to
// answer: err, or that it could not be recorded. Either way it stays refused.
func (s *Server) refused(c echo.Context, grant attest.Grant, caller attest.Caller, err error) error {
	said := problem(err)
	if errors.Is(err, errSessionRequired) { // nothing was decided: how the token is exchanged is what is recorded
		return err
	}
	if said.Status != http.StatusUnauthorized && said.Status != http.StatusForbidden {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Request().Context()), s.timeout)
	defer cancel()
	caller.Request, caller.Remote = whence(c)
	action := strings.ReplaceAll(string(grant), ":", ".")
	r := caller.Refused(action, c.Request().Method+" "+redacted(c.Request().URL.Path), said.Detail, s.now())
	stranger := len(caller.Grants) == 0 && len(caller.Tenants) == 0
	if auditErr := s.audit.refusal(ctx, r, stranger); auditErr != nil {
		return fmt.Errorf("%w; and refused: %v", auditErr, err) // its kind ends here
	}
	return err
}

// whence is the id of a request, and the address that it came from. Behind a
// proxy that is the proxy's: what else a request says of its origin anybody can
// say.
func whence(c echo.Context) (request, remote string) {
	remote, _, err := net.SplitHostPort(c.Request().RemoteAddr)
	if err != nil {
		remote = c.Request().RemoteAddr
	}
	return traceOf(c).id, remote
}

func (a *auditor) append(ctx context.Context, r attest.AuditRecord) error {
	if err := a.flush(ctx, false); err != nil {
		return err
	}
	if _, err := a.store.AppendAudit(ctx, r); err != nil { // unavailable, whatever it is called below: nobody asked wrongly
		return fmt.Errorf("append audit record: %w: %w", attest.ErrUnavailable, err)
	}
	return nil
}

// refusal writes a refusal, or counts it. What is counted is lost when the
// process is killed before the minute's end; the service's log has it.
func (a *auditor) refusal(ctx context.Context, r attest.AuditRecord, stranger bool) error {
	if !stranger || a.admit() {
		return a.append(ctx, r)
	}
	return nil
}

// admit reports whether a stranger's refusal gets a record of its own, and
// counts it if not.
func (a *auditor) admit() bool {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if minute := now.Truncate(time.Minute); !minute.Equal(a.minute) {
		a.minute, a.singly = minute, 0
	}
	if a.singly < strangersSingly {
		a.singly++
		return true
	}
	if a.more == 0 {
		a.from = now
	}
	a.more, a.to = a.more+1, now
	return false
}

// flush records how many refusals have no record of their own, once their
// minute has ended, or now. When that fails they stay counted.
func (a *auditor) flush(ctx context.Context, now bool) error {
	a.mu.Lock()
	if a.more == 0 || !now && a.now().Truncate(time.Minute).Equal(a.from.Truncate(time.Minute)) {
		a.mu.Unlock()
		return nil
	}
	more, from, to := a.more, a.from, a.to
	a.more = 0
	a.mu.Unlock()
	words := fmt.Sprintf("refused %d more that have no record of their own, from %s to %s", more,
		from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
	if _, err := a.store.AppendAudit(ctx, attest.Caller{}.Refused("refusals", strconv.Itoa(more), words, a.now())); err != nil {
		a.mu.Lock()
		if a.more += more; a.more == more {
			a.to = to
		}
		a.from = from
		a.mu.Unlock()
		return fmt.Errorf("append audit record: %w: %w", attest.ErrUnavailable, err)
	}
	return nil
}

// FlushAudit records how many strangers were refused without a record of their
// own: those of minutes that have ended, and with all those of this one, too.
// Whoever runs the server calls it now and then, and at the end.
func (s *Server) FlushAudit(ctx context.Context, all bool) error { return s.audit.flush(ctx, all) }

// What the acts of the route table are done to, for their records.
func signerObject(p attest.Power) string { return "signer " + string(p) }

func idObject(r revokedAttestation) string { return "attestation " + r.id }

func revocationObject(r revocation) string {
	s := fmt.Sprintf("signer %s version %d from %s to %s", r.Signer, r.Version, stamp(r.From), stamp(r.To))
	if r.dryRun {
		s += ", dry run"
	}
	return s
}

// stamp is a time that may be left out.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func questionObject(q verify.Question) string { return q.Artifact.String() + " to " + q.Environment }

func queryObject(query []byte) string { return "query " + attest.SHA256(query).String() }

// An auditQuery selects records.
type auditQuery struct {
	after int64
	limit int
}

func decodeAuditQuery(c echo.Context) (auditQuery, error) {
	q := auditQuery{limit: defaultPage}
	if err := onlyQuery(c, "after", "limit"); err != nil {
		return q, err
	}
	var err error
	if after := c.QueryParam("after"); after != "" {
		if q.after, err = strconv.ParseInt(after, 10, 64); err != nil || q.after < 0 {
			return q, fmt.Errorf("%w: query parameter after: want the seq of a record", attest.ErrInvalid)
		}
	}
	if limit := c.QueryParam("limit"); limit != "" {
		if q.limit, err = strconv.Atoi(limit); err != nil || q.limit < 1 || q.limit > maxPage {
			return q, fmt.Errorf("%w: query parameter limit: want 1 to %d", attest.ErrInvalid, maxPage)
		}
	}
	return q, nil
}

// auditLog answers with a page of records, and the head that was signed last.
// The head is read first, so that the records reach it if none is missing.
// The log is one chain of all tenants, so it is read by those who may read it
// everywhere.
func (s *Server) auditLog(ctx context.Context, caller attest.Caller, q auditQuery) (reply, error) {
	if _, all := caller.Where(attest.GrantAudit); !all {
		return reply{}, fmt.Errorf("%w: the grant %q is held in single tenants alone", attest.ErrDenied, attest.GrantAudit)
	}
	head, err := s.audit.store.SignedAuditHead(ctx)
	if err != nil && !errors.Is(err, attest.ErrNotFound) {
		return reply{}, err
	}
	signed := err == nil
	records, err := s.audit.store.AuditRecords(ctx, q.after, q.limit)
	if err != nil {
		return reply{}, err
	}
	page := client.AuditPage{Records: records}
	if page.Records == nil {
		page.Records = []attest.AuditRecord{}
	}
	if len(records) == q.limit { // the next may be empty
		page.Next = strconv.FormatInt(records[len(records)-1].Seq, 10)
	}
	raw, err := json.Marshal(page)
	if err != nil {
		return reply{}, fmt.Errorf("encode answer: %w", err)
	}
	body := jsontext.Value(raw)
	if signed {
		one, err := attestationJSON(head)
		if err != nil {
			return reply{}, err
		}
		body = append(append(append(body[:len(body)-1], `,"head":`...), one...), '}')
	}
	return reply{status: http.StatusOK, body: body}, nil
}
