// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"provost/attest"
	"provost/keys/keystest"
	"provost/store"
	"provost/verify"
)

// A stage is a moment in the making of an attestation, named by the call to
// Vault that comes before or after it.
type stage struct {
	name string
	key  string // which key's signature is asked for
	made bool   // Vault has made it, and the service does not know yet
	// stored keeps the service from its own commit after that, until the log
	// has what it asked for.
	stored bool
}

// kill -9 in each stage of signing, with 200 callers who are in all of them:
// what was acknowledged is stored and verifies, what was not released is an
// open intent, and the log has no entry that the database does not know.
func TestKillInEachStage(t *testing.T) {
	const host = "provost.example.com"
	p := &stageProxy{}
	d := startAsked(t, asked{tokenTTL: time.Hour, timeout: time.Minute, between: func(vault string) string { return p.start(t, vault) }})
	var got []received
	recorded := 0
	for _, s := range []stage{
		{name: "announced, not signed", key: "evidence"},
		{name: "signed, not known", key: "evidence", made: true},
		{name: "known, not timestamped", key: "timestamp"},
		{name: "timestamped, not known", key: "timestamp", made: true},
		{name: "in the log's journal, no checkpoint", key: "log"},
		{name: "checkpoint signed, not known", key: "log", made: true},
		{name: "logged, not stored", key: "log", made: true, stored: true},
	} {
		// Not subtests: what each leaves behind is where the next begins.
		l := newLoad()
		l.client.Timeout = crashWithin
		a := &armed{stage: s, ready: func() bool { return l.count() >= acksToKill/2 }, act: d.kill}
		var lock *sql.DB
		if s.stored {
			before := int64(0)
			a.reached = func() (err error) {
				if before, err = checkpointSize(d.data, host); err == nil {
					lock, err = lockDatabase(t.Context(), d.data)
				}
				return err
			}
			a.act = func() {
				if err := keystest.Poll(30*time.Second, func() bool {
					size, err := checkpointSize(d.data, host)
					return err == nil && size > before
				}); err != nil {
					t.Errorf("the log does not grow: %v", err)
				}
				d.kill()
			}
		}
		p.armed.Store(a)
		var signing sync.WaitGroup
		for range callers {
			signing.Go(func() {
				for !d.ended() {
					l.sign(t.Context(), d)
				}
			})
		}
		signing.Wait()
		p.armed.Store(nil)
		if err := a.err; err != nil || !a.acted {
			t.Errorf("%s: reached %t, %v", s.name, a.acted, err)
		}
		for _, err := range l.errs { // each from being killed
			var answered net.Error
			if (!errors.As(err, &answered) || answered.Timeout()) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s: an error before the end: %v", s.name, err)
				break
			}
		}
		if lock != nil {
			ok(t, lock.Close())
		}
		got = append(got, l.got...)
		open := openIntents(t, d.data)
		if len(open) == 0 {
			t.Errorf("%s: no intent is open: nothing was under way", s.name)
		}
		d = d.another(t)
		mustKnow(t, d, l.got, open)
		told, all := checkLog(t, d.daemon, d.data, host)
		t.Logf("%s: %d acknowledged, %d intents open, %d entries logged for nobody", s.name, len(l.got), len(open), told)
		if recorded += told; all != recorded {
			t.Errorf("%s: %d orphans are recorded, %d were told", s.name, all, recorded)
		}
		if s.key == "log" && told == 0 { // the journal has them
			t.Errorf("%s: no entry was logged for nobody", s.name)
		}
	}
	mustKnow(t, d, got, nil)
	checkLogged(t, d.daemon, d.data, host, got)
	d.mustRecover(t)
	d.stop()
}

// mustKnow: each bundle that was acknowledged is stored and verifies, and is no
// open intent; each open intent has no bundle.
func mustKnow(t *testing.T, d *vaultDaemon, got []received, open []attest.Intent) {
	t.Helper()
	db, err := store.OpenSQLite(t.Context(), filepath.Join(d.data, "provost.db"))
	ok(t, err)
	defer db.Close()
	text, err := d.client("").TrustedRoot(t.Context())
	ok(t, err)
	trust, err := verify.ParseTrust(text)
	ok(t, err)
	acknowledged := map[string]bool{}
	for _, r := range got {
		acknowledged[r.ID] = true
		kept, err := db.Attestation(t.Context(), r.ID)
		if err != nil || !bytes.Equal(kept.Bundle, r.Bundle) {
			t.Fatalf("acknowledged %s: now %v", r.ID, err)
		}
		if _, err := trust.Verify(kept.Bundle, verify.Expect{Artifact: r.artifact, PredicateType: "https://cyclonedx.org/bom"}); err != nil {
			t.Fatalf("acknowledged %s does not verify: %v", r.ID, err)
		}
	}
	for _, in := range open {
		if acknowledged[in.ID] {
			t.Errorf("intent %s was acknowledged and is open", in.ID)
		}
	}
}

// lockDatabase keeps everybody from writing to the database until it is closed.
func lockDatabase(ctx context.Context, data string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(data, "provost.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// A stageProxy stands before Vault and acts in one stage.
type stageProxy struct {
	armed atomic.Pointer[armed]
}

// An armed stage is acted upon once, when it is ready.
type armed struct {
	stage
	ready   func() bool
	reached func() error // called before Vault is asked; nil for nothing
	act     func()
	once    sync.Once
	acted   bool
	err     error // of reached, and of Vault
}

func (p *stageProxy) start(t *testing.T, vault string) string {
	t.Helper()
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: vault})
	forward.ErrorLog = log.New(io.Discard, "", 0) // of those who were killed
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		acted := false
		if a := p.armed.Load(); a != nil && strings.HasSuffix(r.URL.Path, "/sign/provost-"+a.key) && a.ready() {
			a.once.Do(func() {
				acted = true
				a.do(w, r, forward)
			})
		}
		if !acted {
			forward.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func (a *armed) do(w http.ResponseWriter, r *http.Request, vault http.Handler) {
	a.acted = true
	switch {
	case a.stored:
		a.err = a.reached()
		vault.ServeHTTP(w, r)
		a.err = errors.Join(a.err, http.NewResponseController(w).Flush())
	case a.made: // and nobody is told
		answer := httptest.NewRecorder()
		if vault.ServeHTTP(answer, r); answer.Code != http.StatusOK {
			a.err = fmt.Errorf("vault answers %d", answer.Code)
		}
	}
	a.act()
}
