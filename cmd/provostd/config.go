// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"provost/api"
	"provost/api/client"
	"provost/api/identity"
	"provost/keys/tuf"
	"provost/verify/policy"
)

// Config is the whole configuration of `provostd serve`: one YAML file. Keys
// that are not listed here are refused. Secrets never stand in it; it names the
// file or the environment variable that holds them. Durations are Go's, such
// as 168h. Relative paths are relative to the file.
type Config struct {
	// Service is the service's own URL, such as https://provost.example.com.
	// It is the identity under which everything is signed (the signers are
	// SERVICE/signers/NAME, the OIDC issuer in their certificates is SERVICE)
	// and the verifier.id of verdicts. It must never change.
	Service string `yaml:"service"`

	// Listen is the address to listen on, such as 127.0.0.1:8080.
	Listen string `yaml:"listen"`

	// TLS is the server's certificate. Without it Listen must be a loopback
	// address, where a proxy that terminates TLS is.
	TLS *TLS `yaml:"tls"`

	// Database is the SQLite file. Its directory must exist.
	Database string `yaml:"database"`

	// ShutdownGrace is how long requests in flight may take to finish when
	// the service is told to stop. Default 30s.
	ShutdownGrace time.Duration `yaml:"shutdown_grace"`

	// RequestTimeout is how long a request may take once it is read. A
	// signature that Vault cannot make by then is answered with 503. It should
	// outlive a failover of Vault. Default 30s, at least 1s.
	RequestTimeout time.Duration `yaml:"request_timeout"`

	// Keys says where the keys are.
	Keys Keys `yaml:"keys"`

	// Log is the transparency log that every signature goes into, and the log of
	// the certificates. Without it bundles carry no log entry and leaves no SCT,
	// and other clients need flags to believe them.
	Log *Log `yaml:"log"`

	// Timestamps says whose timestamps a signature gets. Default: those of the
	// service's own authority.
	Timestamps *Timestamps `yaml:"timestamps"`

	// TUF is the repository by which clients learn the trust root; without it
	// none is served.
	TUF *TUF `yaml:"tuf"`

	// Audit is about the log of every decision about authority.
	Audit Audit `yaml:"audit"`

	// Issuers are those whose tokens or certificates are accepted: OIDC issuers,
	// SPIFFE trust domains, CAs of client certificates.
	Issuers []api.Issuer `yaml:"issuers"`

	// Access is the table of who may do what: each row names an issuer,
	// claims that must match exactly or a condition, and what is granted.
	Access []api.Rule `yaml:"access"`

	// Login is how people log in with the command line (provost login); without
	// it they bring a token.
	Login *api.Login `yaml:"login"`

	// Foreign are other people's Sigstores, whose bundles can be imported.
	Foreign []Foreign `yaml:"foreign"`

	// Environments are the places to deploy to, and what each asks for.
	Environments map[string]policy.Environment `yaml:"environments"`
}

// TLS names a certificate chain and its key, both PEM.
type TLS struct {
	CertificateFile string `yaml:"certificate_file"`
	KeyFile         string `yaml:"key_file"`
	// ClientAuth asks clients for a certificate, which machines may have
	// instead of a token: issuers of provider spiffe and mtls say whose are
	// believed. Nobody has to have one. Certificates are those of the
	// connection alone, so a proxy that terminates TLS leaves none.
	ClientAuth bool `yaml:"client_auth"`
}

// Keys configures the key backend and the certificates. Exactly one of Vault
// and File is set.
type Keys struct {
	// Organization is the O of the certificate authorities. Default Provost.
	Organization string `yaml:"organization"`

	// SigningWindow is how long a key version signs before the service rotates
	// it. Its leaf certificate lives a quarter of an hour longer. Default 168h,
	// at least 1h.
	SigningWindow time.Duration `yaml:"signing_window"`

	// MaxSignatures is how many signatures a key version makes before the
	// service rotates it; it may be passed by what is signed in half a minute.
	// Default 0, no limit.
	MaxSignatures int64 `yaml:"max_signatures"`

	// RetireAfter is how long after a rotation the older versions are taken out
	// of use in the key backend (Vault: min_encryption_version). Default 2m; a
	// negative value never does.
	RetireAfter time.Duration `yaml:"retire_after"`

	// OfflineRoot is the directory into which `provostd init` writes the key
	// of the root CA, encrypted to OfflineRootRecipient, as root-….age. Take it
	// away afterwards: the service never needs it.
	OfflineRoot string `yaml:"offline_root"`

	// OfflineRootRecipient is the age recipient (age1…) to encrypt it to.
	OfflineRootRecipient string `yaml:"offline_root_recipient"`

	// RootCertificate is the file with the root CA's certificate, PEM. provostd
	// init writes it; afterwards it pins the root: a database that has another
	// one is refused. Keep it where whoever can write the database cannot.
	RootCertificate string `yaml:"root_certificate"`

	Vault *VaultKeys `yaml:"vault"`
	File  *FileKeys  `yaml:"file"`
}

// Log is the embedded transparency log, and the one of certificates.
type Log struct {
	// Directory is where the embedded logs are kept. provostd init makes it. All
	// processes of the service share it.
	Directory string `yaml:"directory"`

	// URL is where clients read the embedded log. Its host is the log's name
	// for ever, and every shard has its own. Default SERVICE/log.
	URL string `yaml:"url"`

	// Rekor is an external Rekor v2 log that takes the entries instead.
	Rekor *Rekor `yaml:"rekor"`

	// WitnessPolicyFile says which witnesses must cosign every checkpoint
	// before it is used, in the form that Tessera reads (witness and group
	// lines, then quorum). Without it there are none.
	WitnessPolicyFile string `yaml:"witness_policy_file"`
}

// Rekor is an external Rekor v2 log.
type Rekor struct {
	URL           string `yaml:"url"`
	PublicKeyFile string `yaml:"public_key_file"` // PEM
	// From is when that log began, RFC 3339: from then on it is believed.
	From time.Time `yaml:"from"`
}

// Timestamps are the timestamp authorities that stamp every signature.
type Timestamps struct {
	// NotOwn leaves out the service's own authority.
	NotOwn bool `yaml:"not_own"`
	// Authorities are RFC 3161 authorities that others run.
	Authorities []TimestampAuthority `yaml:"authorities"`
	// Threshold is how many must answer, the own one included. Default all.
	Threshold int `yaml:"threshold"`
}

// TimestampAuthority is an RFC 3161 timestamp authority that others run.
type TimestampAuthority struct {
	URL string `yaml:"url"`
	// ChainFile has its certificates, PEM: the one that stamps first, the root
	// last.
	ChainFile string `yaml:"chain_file"`
}

// TUF is a TUF repository, served under /tuf/. Its root and targets are signed
// offline (provostd tuf), its snapshot and timestamp by the key tuf of the key
// backend.
type TUF struct {
	// Directory holds it. Every process of the service that signs must see the
	// same one.
	Directory string `yaml:"directory"`

	// Lead is how long a new authority must be published before it may be
	// used, so that every client has heard of it. Default 48h.
	Lead time.Duration `yaml:"lead"`

	// SnapshotExpiry and TimestampExpiry are how long clients believe what the
	// service signed last: no longer than that may it be down. Defaults 504h
	// (21 days) and 168h, at least 1h each.
	SnapshotExpiry  time.Duration `yaml:"snapshot_expiry"`
	TimestampExpiry time.Duration `yaml:"timestamp_expiry"`
}

// VaultKeys is HashiCorp Vault's transit engine, or OpenBao's. Exactly one way
// to log in is set.
type VaultKeys struct {
	Address    string `yaml:"address"`
	CACertFile string `yaml:"ca_cert_file"` // PEM; default the system's
	Mount      string `yaml:"mount"`        // of transit; default transit
	KeyPrefix  string `yaml:"key_prefix"`   // default provost-

	TokenFile string `yaml:"token_file"` // a file that holds a token
	TokenEnv  string `yaml:"token_env"`  // an environment variable that does

	AppRole *AppRole `yaml:"approle"`
	JWT     *JWT     `yaml:"jwt"`
}

// AppRole is a Vault AppRole login.
type AppRole struct {
	Mount        string `yaml:"mount"` // default approle
	RoleID       string `yaml:"role_id"`
	SecretIDFile string `yaml:"secret_id_file"`
}

// JWT is a Vault JWT login, such as with a Kubernetes projected token.
type JWT struct {
	Mount     string `yaml:"mount"` // default jwt
	Role      string `yaml:"role"`
	TokenFile string `yaml:"token_file"` // read again at each login
}

// FileKeys is the embedded keyring: keys in files, encrypted to an age
// identity.
type FileKeys struct {
	Directory string `yaml:"directory"`
	// IdentityFile holds the age identity (AGE-SECRET-KEY-1…), IdentityEnv
	// names an environment variable that does. Exactly one is set.
	IdentityFile string `yaml:"identity_file"`
	IdentityEnv  string `yaml:"identity_env"`
}

// maxConfig is the largest configuration file, in bytes.
const maxConfig = 1 << 20

// loadConfig reads and validates a configuration. It opens nothing that the
// configuration names.
func loadConfig(path string) (Config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	c, err := parseConfig(raw)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return Config{}, err
	}
	c.anchor(dir)
	return c, nil
}

func parseConfig(raw []byte) (Config, error) {
	if len(raw) > maxConfig {
		return Config{}, fmt.Errorf("larger than %d bytes", maxConfig)
	}
	var c Config
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, err
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return Config{}, errors.New("more than one document")
	}
	c.defaults()
	return c, c.validate()
}

func (c *Config) defaults() {
	setDefault(&c.ShutdownGrace, 30*time.Second)
	setDefault(&c.RequestTimeout, 30*time.Second)
	setDefault(&c.Keys.SigningWindow, 7*24*time.Hour)
	setDefault(&c.Keys.Organization, "Provost")
	setDefault(&c.Keys.RetireAfter, 2*time.Minute)
	setDefault(&c.Audit.HeadEvery, defaultHeadEvery)
	if c.Log != nil {
		setDefault(&c.Log.URL, c.Service+"/log")
	}
	if t := c.TUF; t != nil {
		setDefault(&t.Lead, tuf.DefaultLead)
		setDefault(&t.SnapshotExpiry, tuf.DefaultSnapshotExpiry)
		setDefault(&t.TimestampExpiry, tuf.DefaultTimestampExpiry)
	}
	if v := c.Keys.Vault; v != nil {
		setDefault(&v.Mount, "transit")
		setDefault(&v.KeyPrefix, "provost-")
		if v.AppRole != nil {
			setDefault(&v.AppRole.Mount, "approle")
		}
		if v.JWT != nil {
			setDefault(&v.JWT.Mount, "jwt")
		}
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Config) validate() error {
	u, err := url.Parse(c.Service)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(c.Service, "/") {
		return fmt.Errorf("service %q: want an https URL without a slash at the end", c.Service)
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if c.TLS == nil && !client.Loopback(host) {
		return fmt.Errorf("listen %s: needs tls; without it only a loopback address is served", c.Listen)
	}
	if c.TLS != nil && (c.TLS.CertificateFile == "" || c.TLS.KeyFile == "") {
		return errors.New("tls: certificate_file and key_file are required")
	}
	if c.TLS != nil && c.TLS.ClientAuth && !slices.ContainsFunc(c.Issuers, func(i api.Issuer) bool { return i.Provider == identity.SPIFFE || i.Provider == identity.MTLS }) {
		return errors.New("tls.client_auth: no issuer of provider spiffe or mtls says whose certificates are believed")
	}
	if c.Database == "" {
		return errors.New("database is required")
	}
	if c.RequestTimeout < time.Second || c.ShutdownGrace < 0 {
		return errors.New("request_timeout: want at least 1s; shutdown_grace: want no less than 0")
	}
	if len(c.Environments) == 0 {
		return errors.New("environments: at least one is required")
	}
	if err := c.Audit.validate(); err != nil {
		return err
	}
	if err := c.Log.validate(); err != nil {
		return err
	}
	if err := c.Timestamps.validate(); err != nil {
		return err
	}
	if t := c.TUF; t != nil {
		if err := t.validate(); err != nil {
			return err
		}
	}
	if err := validateForeign(c.Foreign, c.Service); err != nil {
		return err
	}
	return c.Keys.validate()
}

func (l *Log) validate() error {
	switch {
	case l == nil:
		return nil
	case l.Directory == "":
		return errors.New("log.directory is required")
	case l.Rekor != nil && (l.Rekor.URL == "" || l.Rekor.PublicKeyFile == "" || l.Rekor.From.IsZero()):
		return errors.New("log.rekor: url, public_key_file and from are required")
	}
	return nil
}

func (t *Timestamps) validate() error {
	if t == nil {
		return nil
	}
	asked := len(t.Authorities)
	if !t.NotOwn {
		asked++
	}
	if asked == 0 || t.Threshold < 0 || t.Threshold > asked {
		return fmt.Errorf("timestamps: %d authorities and a threshold of %d", asked, t.Threshold)
	}
	for _, a := range t.Authorities {
		if a.URL == "" || a.ChainFile == "" {
			return errors.New("timestamps.authorities: url and chain_file are required")
		}
	}
	return nil
}

func (t *TUF) validate() error {
	switch {
	case t.Directory == "":
		return errors.New("tuf.directory is required")
	case t.Lead < 0:
		return fmt.Errorf("tuf.lead %s: want no less than 0", t.Lead)
	case t.TimestampExpiry < time.Hour || t.SnapshotExpiry < t.TimestampExpiry:
		return errors.New("tuf: timestamp_expiry: want at least 1h; snapshot_expiry: want no less than that")
	}
	return nil
}

func (k *Keys) validate() error {
	if k.SigningWindow < time.Hour {
		return fmt.Errorf("keys.signing_window %s: want at least 1h", k.SigningWindow)
	}
	if k.MaxSignatures < 0 {
		return errors.New("keys.max_signatures: want 0 or more")
	}
	if k.RootCertificate == "" {
		return errors.New("keys.root_certificate is required")
	}
	if (k.Vault == nil) == (k.File == nil) {
		return errors.New("keys: exactly one of vault and file is required")
	}
	if f := k.File; f != nil {
		if f.Directory == "" || (f.IdentityFile == "") == (f.IdentityEnv == "") {
			return errors.New("keys.file: directory and exactly one of identity_file and identity_env are required")
		}
		return nil
	}
	v := k.Vault
	ways := 0
	for _, set := range []bool{v.TokenFile != "", v.TokenEnv != "", v.AppRole != nil, v.JWT != nil} {
		if set {
			ways++
		}
	}
	switch {
	case v.Address == "":
		return errors.New("keys.vault.address is required")
	case ways != 1:
		return errors.New("keys.vault: exactly one of token_file, token_env, approle and jwt is required")
	case v.AppRole != nil && (v.AppRole.RoleID == "" || v.AppRole.SecretIDFile == ""):
		return errors.New("keys.vault.approle: role_id and secret_id_file are required")
	case v.JWT != nil && (v.JWT.Role == "" || v.JWT.TokenFile == ""):
		return errors.New("keys.vault.jwt: role and token_file are required")
	}
	return nil
}

// anchor makes relative paths relative to dir.
func (c *Config) anchor(dir string) {
	paths := []*string{&c.Database, &c.Keys.OfflineRoot, &c.Keys.RootCertificate}
	if l := c.Log; l != nil {
		paths = append(paths, &l.Directory, &l.WitnessPolicyFile)
		if l.Rekor != nil {
			paths = append(paths, &l.Rekor.PublicKeyFile)
		}
	}
	if t := c.Timestamps; t != nil {
		for i := range t.Authorities {
			paths = append(paths, &t.Authorities[i].ChainFile)
		}
	}
	if c.TLS != nil {
		paths = append(paths, &c.TLS.CertificateFile, &c.TLS.KeyFile)
	}
	if c.TUF != nil {
		paths = append(paths, &c.TUF.Directory)
	}
	if f := c.Keys.File; f != nil {
		paths = append(paths, &f.Directory, &f.IdentityFile)
	}
	if v := c.Keys.Vault; v != nil {
		paths = append(paths, &v.CACertFile, &v.TokenFile)
		if v.AppRole != nil {
			paths = append(paths, &v.AppRole.SecretIDFile)
		}
		if v.JWT != nil {
			paths = append(paths, &v.JWT.TokenFile)
		}
	}
	for i := range c.Foreign {
		paths = append(paths, &c.Foreign[i].TrustedRootFile)
	}
	for i := range c.Issuers {
		if check := c.Issuers[i].CrossCheck; check != nil {
			paths = append(paths, &check.TokenFile)
		}
		paths = append(paths, &c.Issuers[i].BundleFile, &c.Issuers[i].CAFile)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}
