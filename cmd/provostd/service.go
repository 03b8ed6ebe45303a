// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"provost/api"
	"provost/attest"
	"provost/keys"
	"provost/keys/tuf"
	"provost/store"
	"provost/verify"
	"provost/verify/policy"
)

// maintainEvery is how often the authority looks whether a signer is due for
// rotation, or was rotated by somebody else.
const maintainEvery = 30 * time.Second

// sessionsKept is how long sessions, and tokens that are too old by themselves,
// stay in the store: longer than clocks differ.
const sessionsKept = time.Hour

// A service is the whole daemon, opened.
type service struct {
	config    Config
	log       *slog.Logger
	store     *store.SQLite
	backend   backend
	authority *keys.Authority
	tuf       *tuf.Repository // nil without one
	issuer    *attest.Issuer
	builders  *api.Registrar
	server    *api.Server
	mux       *http.ServeMux
	parsed    atomic.Pointer[parsedTrust]
	ends      func(what string, at time.Time)
	warned    time.Time // when what ends soon was last told
}

// openService opens what the configuration names, in the order in which things
// depend on one another. Nothing is served before all of it is there.
func openService(ctx context.Context, c Config) (s *service, err error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	opened := &service{config: c, log: slog.New(slog.NewJSONHandler(os.Stderr, nil)), mux: http.NewServeMux()}
	s = opened
	opened.ends = api.ExpiryObserver(registry)
	defer func() {
		if err != nil { // s is what is returned then: nil
			opened.close()
		}
	}()
	if s.store, err = store.OpenSQLite(ctx, c.Database); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if s.backend, err = openBackend(ctx, c.Keys, api.VaultObserver(registry)); err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	root, err := pinnedRoot(c)
	if err != nil {
		return nil, err
	}
	trusted, err := authorityConfig(c, s.backend, s.store, root)
	if err != nil {
		return nil, err
	}
	trusted.Warn = s.log.Warn
	if s.authority, err = keys.Open(ctx, trusted); err != nil {
		return nil, err
	}
	if err := s.reconcile(ctx); err != nil {
		return nil, err
	}
	judge, err := policy.New(c.Environments)
	if err != nil {
		return nil, err
	}
	issuer := &attest.Issuer{Signers: map[attest.Power]attest.Signer{}, Timestamper: s.authority, Log: s.authority.Log(), Ledger: s.store, Now: time.Now}
	s.issuer = issuer
	for _, p := range attest.Powers {
		issuer.Signers[p] = s.authority.Signer(p)
	}
	s.builders = &api.Registrar{Service: c.Service, Store: s.store, Records: s.store, Issuer: issuer, Trust: s.trust}
	auth, err := api.NewAuthenticator(c.Issuers, c.Access, api.AuthOptions{
		Now: time.Now, Service: c.Service, Registry: s.builders, Sessions: s.store, APIKeys: s.store, Secret: apiToken,
	})
	if err != nil {
		return nil, err
	}
	foreign, err := openForeign(c)
	if err != nil {
		return nil, err
	}
	s.server, err = api.New(api.Config{
		Issuer: issuer,
		Gate: &verify.Gate{
			Trust: s.trust, Service: c.Service, Version: version, Evidence: s.store, Policy: judge,
			Issuer: issuer, Decisions: s.store, Now: time.Now, Imports: s.store, Foreign: foreign.trust,
		},
		Imports: s.store, Foreign: foreign.trust,
		Records: s.store, Keys: s.authority, Audit: s.store, Ready: s.ready, Auth: auth, Builders: s.builders, APIKeys: s.store, Log: s.log, Metrics: registry, Now: time.Now,
		CallTimeout: c.RequestTimeout, Login: c.Login,
	})
	if err != nil {
		return nil, err
	}
	s.mux.Handle("/", s.server.Handler())
	for path, h := range s.authority.LogHandlers() {
		s.mux.Handle(path, h)
	}
	if c.TUF != nil {
		if s.tuf, err = openTUF(c, s.backend, tufAllowed{}); err != nil {
			return nil, err
		}
		s.mux.Handle(tuf.Prefix, s.tuf.Handler())
	}
	if _, err := s.checkAudit(ctx); err != nil {
		return nil, err
	}
	return s, s.reportOpenIntents(ctx)
}

// trust is the trust root as it is now, parsed again only when it changed.
func (s *service) trust() (*verify.Trust, error) {
	raw, err := s.authority.TrustedRoot()
	if err != nil {
		return nil, err
	}
	if p := s.parsed.Load(); p != nil && bytes.Equal(p.raw, raw) {
		return p.trust, nil
	}
	trust, err := verify.ParseTrust(raw)
	if err != nil {
		// Ours, whatever a parser calls it: no caller made this root.
		return nil, fmt.Errorf("own trusted root: %s", err)
	}
	s.parsed.Store(&parsedTrust{raw, trust})
	return trust, nil
}

// A parsedTrust is a trusted root and what was read from it.
type parsedTrust struct {
	raw   []byte
	trust *verify.Trust
}

// handle adds a handler beside the API's.
func (s *service) handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// ready names what must work for the service to do its work.
func (s *service) ready(ctx context.Context) map[string]error {
	return map[string]error{"store": s.store.Ready(ctx), "keys": s.authority.Ready(ctx)}
}

// openIntentsLogged bounds how many open intents are logged one by one.
const openIntentsLogged = 1000

// reportOpenIntents logs what an earlier process had begun to sign and did not
// release. GET /v1/intents lists the same.
func (s *service) reportOpenIntents(ctx context.Context) error {
	open, err := s.store.OpenIntents(ctx, openIntentsLogged)
	if err != nil {
		return fmt.Errorf("list open intents: %w", err)
	}
	for _, in := range open {
		s.log.Warn("open intent: it may have been signed, and was released to nobody",
			"id", in.ID, "at", in.At, "signer", in.Signer, "predicate_type", in.PredicateType, "payload", in.Payload.String())
	}
	return nil
}

// reconcile compares the log with the database, and tells of entries that were
// signed and logged by a process which did not live to release them.
func (s *service) reconcile(ctx context.Context) error {
	orphans, err := s.authority.Reconcile(ctx, s.store)
	if err != nil { // closed: a log that cannot be explained is not continued
		return fmt.Errorf("compare the log with the database: %w", err)
	}
	s.tellOrphans(orphans)
	return nil
}

func (s *service) tellOrphans(orphans []attest.LogOrphan) {
	for _, o := range orphans {
		if o.Intent == "" {
			s.log.Error("log entry that no intent explains: was the key or the log used behind our back?", "log", o.Log, "index", o.Index, "message", o.Message.String())
			continue
		}
		s.log.Warn("log entry of an open intent: it was signed and logged, and released to nobody", "log", o.Log, "index", o.Index, "intent", o.Intent)
	}
}

// serve answers on the listener until ctx ends. Then it stops accepting and
// lets what is in flight finish, so that what was acknowledged is delivered.
func (s *service) serve(ctx context.Context, l net.Listener, ready func()) error {
	s.signAuditHead(ctx, time.Now(), true)
	maintained, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() { defer close(done); s.maintain(maintained) }()
	defer func() { stop(); <-done; s.endAudit() }()

	server := s.server.HTTPServer(l.Addr().String())
	server.Handler = s.mux
	if t := s.config.TLS; t != nil {
		cert, err := tls.LoadX509KeyPair(t.CertificateFile, t.KeyFile)
		if err != nil {
			return fmt.Errorf("tls: %w", err)
		}
		speak := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
		if t.ClientAuth { // that the client has the key is asked here, whose it is with each request: api.Authenticator
			speak.ClientAuth = tls.RequestClientCert
		}
		l = tls.NewListener(l, speak)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	s.log.Info("serving", "address", l.Addr().String(), "service", s.config.Service, "version", version)
	ready()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	s.log.Info("stopping: finishing requests in flight", "grace", s.config.ShutdownGrace.String())
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.ShutdownGrace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		_ = server.Close()
		return fmt.Errorf("stopping: requests in flight did not finish in %s: %w", s.config.ShutdownGrace, err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	s.log.Info("stopped")
	return nil
}

// maintain keeps the signers in their windows until ctx ends. A failure is
// logged and tried again: a signer whose leaf has run out refuses by itself.
func (s *service) maintain(ctx context.Context) {
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	for {
		if err := s.authority.Maintain(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("maintain signing keys", "error", err.Error())
		}
		orphans, err := s.authority.Settle(ctx, s.store)
		s.tellOrphans(orphans)
		if err != nil && ctx.Err() == nil {
			s.log.Error("compare the log with the database", "error", err.Error())
		}
		if err := s.store.PurgeSessions(ctx, time.Now().Add(-sessionsKept)); err != nil && ctx.Err() == nil {
			s.log.Error("remove ended sessions", "error", err.Error())
		}
		if s.tuf != nil {
			if err := s.tuf.Refresh(ctx, time.Now()); err != nil && ctx.Err() == nil {
				s.log.Error("refresh the TUF repository", "error", err.Error())
			}
		}
		s.signAuditHead(ctx, time.Now(), false)
		s.watchExpiries(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// How long before something ends that only people can renew they are told, and
// how often.
const (
	endsSoon  = 30 * 24 * time.Hour
	warnEvery = 6 * time.Hour
)

// watchExpiries sets the metric of everything that ends, and warns of what
// needs an offline key to be renewed.
func (s *service) watchExpiries(now time.Time) {
	ends := s.authority.Expiries()
	offline := func(what string) bool { return !strings.HasPrefix(what, "signer ") }
	if s.tuf != nil {
		status, err := s.tuf.Status()
		if err != nil && !errors.Is(err, attest.ErrNotFound) {
			s.log.Error("read the TUF repository", "error", err.Error())
		}
		for _, r := range status.Roles {
			ends["tuf "+r.Role] = r.Expires
		}
	}
	tell := now.Sub(s.warned) >= warnEvery
	for what, at := range ends {
		s.ends(what, at)
		soon := endsSoon
		if what == "tuf snapshot" || what == "tuf timestamp" { // renewed by the service, at half their life
			soon = s.config.TUF.TimestampExpiry / 4
		}
		if tell && offline(what) && at.Before(now.Add(soon)) {
			s.log.Warn("ends soon and must be renewed", "what", what, "at", at, "in", at.Sub(now).Round(time.Hour).String())
			s.warned = now
		}
	}
}

func (s *service) close() {
	if s.authority != nil {
		_ = s.authority.Close()
	}
	if s.backend != nil {
		closeBackend(s.backend)
	}
	if s.store != nil {
		_ = s.store.Close()
	}
}
