// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"provost/api/client"
	"provost/attest"
	"provost/verify"
)

// The bounds on one request. Those on content stand in attest/limits.go.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 2 * time.Minute // the largest body at 150 kB/s
	sendTimeout       = 2 * time.Minute // the largest page at 300 kB/s
	idleTimeout       = 2 * time.Minute
	maxHeader         = 64 << 10 // bytes
	maxToken          = 16 << 10 // bytes

	// maxSubjectsJSON holds attest.MaxSubjects subjects with both digests and
	// the longest names, every character escaped.
	maxSubjectsJSON = attest.MaxSubjects*(6*attest.MaxSubjectName+320) + 4096
	maxQuestionJSON = 16 << 10
	// maxProvenanceJSON holds that, and attest.MaxDependencies dependencies.
	maxProvenanceJSON = maxSubjectsJSON + attest.MaxDependencies*3072

	defaultPage = 100  // attestations
	maxPage     = 1000 // attestations
	// firstGuess is how large a bundle is taken to be before one is seen.
	firstGuess = 4 << 20
)

// identifier is the shape of every id that [attest.NewID] makes.
var identifier = regexp.MustCompile(`^[a-z0-9]{1,64}$`)

//go:embed openapi.yaml
var openapiYAML []byte

// Records are what was stored. A read is complete or an error.
type Records interface {
	// Attestation and Decision return an [attest.ErrNotFound] for an id that
	// names nothing.
	Attestation(ctx context.Context, id string) (attest.Attestation, error)
	Decision(ctx context.Context, id string) (attest.Decision, error)
	// Attestations returns what q selects, in ascending Seq.
	Attestations(ctx context.Context, q attest.Query) ([]attest.Attestation, error)
	// OpenIntents returns the oldest intents without an attestation.
	OpenIntents(ctx context.Context, limit int) ([]attest.Intent, error)
	// SignedBy returns what q selects, in ascending Seq, without bundles.
	SignedBy(ctx context.Context, q attest.SignedQuery) ([]attest.Attestation, error)
	// Decisions returns the newest decisions about an artifact.
	Decisions(ctx context.Context, artifact attest.Digest, environment string, limit int) ([]attest.Decision, error)
}

// Keys are the signing keys.
type Keys interface {
	Keys(ctx context.Context) ([]attest.Key, error)
	// Rotate makes a new version, and returns it when it signs.
	Rotate(ctx context.Context, signer attest.Power) (attest.KeyVersion, error)
	// TrustedRoot returns the trusted_root.json as it is now.
	TrustedRoot() ([]byte, error)
	// PlanRevocation completes a revocation without recording it, and returns
	// the key versions whose signatures would be refused in that interval.
	PlanRevocation(ctx context.Context, r attest.KeyRevocation) (attest.KeyRevocation, []int, error)
	// Revoke records a completed revocation. Its error may say that it is
	// recorded nevertheless, with a method Recorded() bool.
	Revoke(ctx context.Context, r attest.KeyRevocation) error
	// TimestampQuery answers an RFC 3161 request (DER) with a response.
	TimestampQuery(ctx context.Context, query []byte) ([]byte, error)
}

// Config is what a Server stands on. All fields but Login are required.
type Config struct {
	Issuer  *attest.Issuer
	Gate    *verify.Gate
	Records Records
	Keys    Keys
	Audit   Audit
	Auth    *Authenticator
	// Builders is the registry that Auth reads.
	Builders BuilderStore
	// APIKeys are those that Auth reads.
	APIKeys APIKeyStore
	// Imports keeps what others signed, and Foreign returns the foreign root of
	// a name as it is now, or an [attest.ErrNotFound].
	Imports ImportStore
	Foreign func(name string) (*verify.ForeignTrust, error)
	// Ready checks what the service needs, by name; nil for what is well. It
	// must return when its context ends. Names are public, errors are not.
	Ready   func(context.Context) map[string]error
	Log     *slog.Logger
	Metrics *prometheus.Registry // the server registers its own and serves all
	Now     func() time.Time
	// CallTimeout is how long a call may take once its request is read: what
	// cannot be done by then, such as a signature while Vault is away, is
	// answered with 503. Default 30 s.
	CallTimeout time.Duration
	// Login says how people log in; nil where they do not.
	Login *Login
}

const defaultCallTimeout = 30 * time.Second

func (c Config) validate() error {
	for _, f := range []struct {
		name    string
		missing bool
	}{
		{"Issuer", c.Issuer == nil}, {"Gate", c.Gate == nil}, {"Records", c.Records == nil},
		{"Keys", c.Keys == nil}, {"Audit", c.Audit == nil}, {"Auth", c.Auth == nil}, {"Builders", c.Builders == nil}, {"APIKeys", c.APIKeys == nil}, {"Ready", c.Ready == nil},
		{"Imports", c.Imports == nil}, {"Foreign", c.Foreign == nil},
		{"Log", c.Log == nil}, {"Metrics", c.Metrics == nil}, {"Now", c.Now == nil},
	} {
		if f.missing {
			return fmt.Errorf("%w: api server without %s", attest.ErrInvalid, f.name)
		}
	}
	return nil
}

// A Server answers HTTP. It keeps no connection and starts nothing of its own,
// so that [http.Server.Shutdown] ends it cleanly: what is under way completes.
type Server struct {
	issuer   *attest.Issuer
	gate     *verify.Gate
	records  Records
	keys     Keys
	audit    *auditor
	auth     *Authenticator
	builders BuilderStore
	apiKeys  APIKeyStore
	imports  ImportStore
	foreign  func(name string) (*verify.ForeignTrust, error)
	log      *slog.Logger
	now      func() time.Time
	metrics  *metrics
	ready    *readiness
	echo     *echo.Echo
	routes   map[string]bool // every path pattern
	timeout  time.Duration   // of a call
	login    *client.Login   // nil without one
	pages    pageCache
}

// New makes a server of its parts. It registers its metrics, so one registry
// carries one server.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	s := &Server{
		issuer: cfg.Issuer, gate: cfg.Gate, records: cfg.Records, keys: cfg.Keys,
		audit: &auditor{store: cfg.Audit, now: cfg.Now},
		auth:  cfg.Auth, builders: cfg.Builders, apiKeys: cfg.APIKeys, log: cfg.Log, now: cfg.Now, metrics: m,
		imports: cfg.Imports, foreign: cfg.Foreign,
		ready:  &readiness{check: cfg.Ready, log: cfg.Log, now: cfg.Now},
		echo:   echo.New(),
		routes: map[string]bool{}, timeout: cfg.CallTimeout,
	}
	if s.timeout <= 0 {
		s.timeout = defaultCallTimeout
	}
	if cfg.Login != nil {
		login, err := cfg.Auth.CheckLogin(*cfg.Login)
		if err != nil {
			return nil, err
		}
		s.login = &login
	}
	s.route(cfg.Metrics)
	return s, nil
}

// route is the table of all calls: who may, what is read, whether it is audited
// beyond its refusals, what is done.
func (s *Server) route(reg *prometheus.Registry) {
	e := s.echo
	e.Use(s.observe)
	e.HTTPErrorHandler = func(err error, c echo.Context) { writeProblem(c.Response(), problem(err)) }

	e.POST("/v1/sessions", s.openSession)
	e.POST("/v1/attestations/provenance", handle(s, attest.GrantProvenance, decodeProvenance, s.attest))
	e.POST("/v1/attestations", handleAny(s, []attest.Grant{attest.GrantStatement, attest.GrantProvenance}, s.decodeStatement, s.attest))
	e.POST("/v1/attestations/sbom", handle(s, attest.GrantSBOM, decodeSBOM, s.attest))
	e.GET("/v1/attestations/:id", handle(s, attest.GrantRead, decodeID, s.attestation))
	e.POST("/v1/attestations/:id/revocation", handle(s, attest.GrantRevoke, decodeRevokeAttestation, audited(s, "attestations.revoke", idObject, s.revokeAttestation)))
	e.GET("/v1/artifacts/:digest/attestations", handle(s, attest.GrantRead, decodeQuery, s.attestations))
	e.GET("/v1/intents", handle(s, attest.GrantRead, none, s.intents))
	e.POST("/v1/decisions", handle(s, attest.GrantDecide, decodeQuestion, audited(s, "decide", questionObject, s.decide)))
	e.GET("/v1/decisions/:id", handle(s, attest.GrantRead, decodeID, s.decision))
	e.GET("/v1/keys", handle(s, attest.GrantRead, none, s.listKeys))
	e.POST("/v1/keys/:signer/rotate", handle(s, attest.GrantRotate, decodeSigner, audited(s, "keys.rotate", signerObject, s.rotate)))
	e.POST("/v1/keys/:signer/revocations", handle(s, attest.GrantRevokeKeys, decodeRevocation, audited(s, "keys.revoke", revocationObject, s.revoke)))
	e.GET("/v1/keys/:signer/impact", handle(s, attest.GrantRead, decodeImpact, s.impact))
	e.GET("/v1/builders", handle(s, attest.GrantRead, none, s.listBuilders))
	e.GET("/v1/builders/:name", handle(s, attest.GrantRead, decodeNamedBuilder, s.builderHistory))
	e.PUT("/v1/builders/:name", handle(s, attest.GrantBuilders, decodeBuilder, s.putBuilder))
	e.POST("/v1/builders/:name/approval", handle(s, attest.GrantApprove, decodeApproval, s.approveBuilder))
	e.DELETE("/v1/builders/:name", handle(s, attest.GrantBuilders, decodeNamedBuilder, s.retireBuilder))
	e.GET("/v1/apikeys", handle(s, attest.GrantAPIKeys, decodeAuditQuery, s.listAPIKeys))
	e.POST("/v1/apikeys", handle(s, attest.GrantAPIKeys, decodeAPIKey, s.createAPIKey))
	e.DELETE("/v1/apikeys/:id", handleSelf(s, "apikeys.revoke", decodeAPIKeyID, s.revokeAPIKey)) // its owner, too
	e.POST("/v1/imports", handle(s, attest.GrantImport, decodeImport, audited(s, "imports.add", importObject, s.addImport)))
	e.GET("/v1/imports/:id", handle(s, attest.GrantRead, decodeID, s.imported))
	e.GET("/v1/artifacts/:digest/imports", handle(s, attest.GrantRead, decodeImportsQuery, s.listImports))
	e.POST("/v1/timestamp", handle(s, attest.GrantTimestamp, decodeTimestamp, audited(s, "timestamp", queryObject, s.timestamp)))
	e.GET("/v1/audit", handle(s, attest.GrantAudit, decodeAuditQuery, s.auditLog))

	e.GET("/v1/whoami", s.whoami) // any caller

	// Public: what these say is said to everybody.
	e.GET("/v1/trust/trusted_root.json", s.trustedRoot)
	e.GET("/v1/login", s.loginSettings)
	e.GET("/healthz", s.healthz)
	e.GET("/readyz", s.readyz)
	e.GET("/metrics", echo.WrapHandler(promhttp.HandlerFor(reg, promhttp.HandlerOpts{})))
	e.GET("/openapi.yaml", s.openapi)
	s.routePages(e) // of builders and build types

	for _, r := range e.Routes() {
		s.routes[r.Path] = true
	}
}

// Handler serves all calls. It is safe for concurrent use.
func (s *Server) Handler() http.Handler { return s.echo }

// HTTPServer returns a server for Handler with every timeout and bound set.
// The caller starts it and shuts it down.
func (s *Server) HTTPServer(addr string) *http.Server {
	return &http.Server{
		Addr:              addr,
		Handler:           s.Handler(),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      readTimeout + s.timeout + sendTimeout, // counts from the header
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}
