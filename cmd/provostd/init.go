// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/transparency-dev/tessera"

	"provost/attest"
	"provost/keys"
	"provost/keys/tuf"
	"provost/store"
)

func initCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "init --config FILE",
		Short: "First start: make the CA hierarchy and the signer keys",
		Long: `First start: make the signer keys in the key backend, the root CA, the issuing
CA, the timestamp authority and a first certificate for each signer.

It may be run again: what is there stays, what is missing is made. The key of
the root CA is written once, encrypted, into keys.offline_root. Take it away:
the service never needs it.`,
	}
	path := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, err := requireConfig(*path)
		if err != nil {
			return err
		}
		if err := initialise(c.Context(), config); err != nil {
			return err
		}
		fmt.Println("initialised " + config.Service)
		fmt.Println("the root CA's certificate is in " + config.Keys.RootCertificate + ", and pinned from now on")
		fmt.Println("now take the root-….age file away from " + config.Keys.OfflineRoot + ", and run: provostd serve --config " + *path)
		return nil
	}
	return c
}

// initialise makes what is missing of the hierarchy.
func initialise(ctx context.Context, c Config) error {
	if c.Keys.OfflineRoot == "" || c.Keys.OfflineRootRecipient == "" {
		return hint(errors.New("keys.offline_root and keys.offline_root_recipient are required to initialise"), "age-keygen makes an identity and prints its recipient, age1…")
	}
	if f := c.Keys.File; f != nil {
		if err := os.MkdirAll(f.Directory, 0o700); err != nil {
			return err
		}
	}
	db, err := store.OpenSQLite(ctx, c.Database)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer db.Close()
	b, err := openBackend(ctx, c.Keys, nil)
	if err != nil {
		return fmt.Errorf("open keys: %w", err)
	}
	defer closeBackend(b)
	keep, err := keys.KeepRootIn(c.Keys.OfflineRoot, c.Keys.OfflineRootRecipient)
	if err != nil {
		return err
	}
	pinned, err := pinnedRoot(c)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	trusted, err := authorityConfig(c, b, db, pinned)
	if err != nil {
		return err
	}
	if err := keys.Init(ctx, trusted, keep); err != nil {
		return fmt.Errorf("initialise: %w", err)
	}
	if !pinned.IsZero() {
		return nil
	}
	return pinRoot(ctx, c, db)
}

// pinnedRoot is the digest of the root certificate that the configuration
// names. Without the file there is no trust, so its absence is an error.
func pinnedRoot(c Config) (attest.Digest, error) {
	raw, err := os.ReadFile(c.Keys.RootCertificate)
	if err != nil {
		return attest.Digest{}, hint(fmt.Errorf("root certificate: %w", err), "provostd init writes it")
	}
	block, rest := pem.Decode(raw)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return attest.Digest{}, fmt.Errorf("root certificate %s: want one certificate, PEM", c.Keys.RootCertificate)
	}
	return attest.SHA256(block.Bytes), nil
}

// pinRoot writes the root certificate that was just made.
func pinRoot(ctx context.Context, c Config, db *store.SQLite) error {
	made, err := keys.Root(ctx, db)
	if err != nil {
		return err
	}
	certificates, err := db.Certificates(ctx)
	if err != nil {
		return err
	}
	for _, cert := range certificates {
		if attest.SHA256(cert.DER) == made {
			return writeFile(c.Keys.RootCertificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.DER}))
		}
	}
	return fmt.Errorf("the root certificate %s is not in the database", made)
}

// authorityConfig is what the authority stands on.
func authorityConfig(c Config, b keys.Backend, db *store.SQLite, root attest.Digest) (keys.Config, error) {
	k := keys.Config{
		Backend: b, Archive: db, Leases: db, Root: root, Identity: c.Service, Organization: c.Keys.Organization,
		SigningWindow: c.Keys.SigningWindow, MaxSignatures: c.Keys.MaxSignatures, Signatures: db.Signatures,
		RetireAfter: c.Keys.RetireAfter, Now: time.Now,
	}
	if t := c.TUF; t != nil {
		k.Lead = t.Lead
		k.Published = func(context.Context) ([]byte, error) {
			published, ok, err := tuf.Published(t.Directory)
			if err != nil || !ok { // closed with an error; nothing published yet binds nobody
				return nil, err
			}
			return published, nil
		}
		k.Restrict = func(published, trustedRoot []byte, now time.Time) ([]byte, []string, error) {
			return tuf.Restrict(published, trustedRoot, now, tuf.KeepPublished)
		}
	}
	if c.Log != nil {
		log, err := logConfig(*c.Log)
		if err != nil {
			return k, err
		}
		k.Log = log
	}
	if t := c.Timestamps; t != nil {
		k.Timestamps = keys.Timestamps{NotOwn: t.NotOwn, Threshold: t.Threshold}
		for _, a := range t.Authorities {
			chain, err := readChain(a.ChainFile)
			if err != nil {
				return k, fmt.Errorf("timestamp authority %s: %w", a.URL, err)
			}
			k.Timestamps.Outside = append(k.Timestamps.Outside, &keys.OutsideAuthority{URL: a.URL, Chain: chain})
		}
	}
	return k, nil
}

// logConfig is what the log stands on.
func logConfig(l Log) (*keys.LogConfig, error) {
	k := &keys.LogConfig{Directory: l.Directory, URL: l.URL}
	if l.WitnessPolicyFile != "" {
		policy, err := os.ReadFile(l.WitnessPolicyFile)
		if err != nil {
			return nil, fmt.Errorf("log.witness_policy_file: %w", err)
		}
		group, err := tessera.NewWitnessGroupFromPolicy(policy)
		if err != nil {
			return nil, fmt.Errorf("log.witness_policy_file %s: %w", l.WitnessPolicyFile, err)
		}
		k.Witnesses = &group
	}
	r := l.Rekor
	if r == nil {
		return k, nil
	}
	raw, err := os.ReadFile(r.PublicKeyFile)
	if err != nil {
		return nil, fmt.Errorf("log.rekor: %w", err)
	}
	block, rest := pem.Decode(raw)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("log.rekor: public key %s: want one public key, PEM", r.PublicKeyFile)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("log.rekor: public key %s: %w", r.PublicKeyFile, err)
	}
	k.OutsideFrom = r.From
	k.Outside, err = keys.OpenRekor(keys.RekorConfig{URL: r.URL, PublicKey: public})
	return k, err
}

// readChain reads certificates, PEM, leaf first.
func readChain(path string) ([]*x509.Certificate, error) {
	rest, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if n := len(chain); n > 0 && chain[n-1].CheckSignatureFrom(cert) != nil {
			return nil, fmt.Errorf("%s: certificate %d did not sign the one before it: want the leaf first, the root last", path, n+1)
		}
		chain = append(chain, cert)
	}
	if len(chain) == 0 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%s: want certificates, PEM", path)
	}
	return chain, nil
}
