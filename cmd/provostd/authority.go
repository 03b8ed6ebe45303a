// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"provost/attest"
	"provost/keys"
	"provost/store"
)

func authorityCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "authority",
		Short: "Certify later authorities with the offline root",
		Long: `Certify later authorities with the offline root: the next epoch of a signer's
issuing CA (issuing-provenance, issuing-evidence, issuing-verdict), the next
timestamp authority (timestamp), or the next shard of the log (log).

	provostd authority request --config FILE NAME --out request.json
	provostd authority certify --root-certificate root.pem --root-key root-….age --identity age.key --out certificate.json request.json
	provostd authority import --config FILE certificate.json
	provostd tuf stage …, sign, publish

certify needs no configuration and no network: run it where the root key is. The
service uses a new authority once its time has come (tuf.lead after the request,
48h without TUF, and a day for the ceremony) and it is published.`,
	}
	c.AddCommand(authorityRequestCommand(), authorityCertifyCommand(), authorityImportCommand())
	return c
}

func authorityRequestCommand() *cobra.Command {
	var host, out string
	c := &cobra.Command{
		Use:   "request --config FILE NAME [--host HOST] [--out FILE]",
		Short: "Make a key version, and describe it for the offline root",
	}
	path := configFlag(c)
	c.Args = cobra.ExactArgs(1)
	c.Flags().StringVar(&host, "host", "", "the `HOST` of a log's shard, which no other shard has")
	c.Flags().StringVar(&out, "out", "-", "`FILE` to write, - for standard output")
	c.RunE = func(c *cobra.Command, args []string) error {
		return withAuthority(c, *path, func(config keys.Config) error {
			r, err := keys.RequestAuthority(c.Context(), config, args[0], host)
			if err != nil {
				return err
			}
			return writeJSON(out, r)
		})
	}
	return c
}

func authorityCertifyCommand() *cobra.Command {
	var rootFile, keyFile, identityFile, out string
	c := &cobra.Command{
		Use:   "certify --root-certificate FILE --root-key FILE --identity FILE [--out FILE] REQUEST",
		Short: "Certify a request with the offline root; needs no network",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if rootFile == "" || keyFile == "" || identityFile == "" {
				return usageError{hint(errors.New("--root-certificate, --root-key and --identity are required"), "provostd authority certify --help")}
			}
			var r keys.AuthorityRequest
			if err := readJSON(args[0], &r); err != nil {
				return err
			}
			root, err := readRoot(rootFile)
			if err != nil {
				return err
			}
			key, err := os.ReadFile(keyFile)
			if err != nil {
				return err
			}
			identity, err := os.ReadFile(identityFile)
			if err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "certifying %s version %d, key sha256:%s, host %q, from %s\n",
				r.Name, r.Version, attest.SHA256(r.PublicKey).Hex(), r.Host, r.NotBefore.Format(time.RFC3339))
			made, err := keys.CertifyAuthority(r, root, key, string(identity))
			if err != nil {
				return err
			}
			return writeJSON(out, certificateFile{made.Name, made.Version, made.DER})
		},
	}
	f := c.Flags()
	f.StringVar(&rootFile, "root-certificate", "", "the root CA's certificate, PEM `FILE`")
	f.StringVar(&keyFile, "root-key", "", "the root CA's key: the root-….age `FILE` that provostd init wrote")
	f.StringVar(&identityFile, "identity", "", "the age identity `FILE` that it is encrypted to")
	f.StringVar(&out, "out", "-", "`FILE` to write, - for standard output")
	return c
}

func authorityImportCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "import --config FILE CERTIFICATE",
		Short: "Archive what the offline root certified; publish the trusted root then",
	}
	path := configFlag(c)
	c.Args = cobra.ExactArgs(1)
	c.RunE = func(c *cobra.Command, args []string) error {
		var made certificateFile
		if err := readJSON(args[0], &made); err != nil {
			return err
		}
		return withAuthority(c, *path, func(config keys.Config) error {
			if err := keys.ImportAuthority(c.Context(), config, attest.Certificate{Name: made.Name, Version: made.Version, DER: made.DER}); err != nil {
				return err
			}
			fmt.Printf("imported %s version %d; now publish the trusted root: provostd tuf stage --config %s\n", made.Name, made.Version, *path)
			return nil
		})
	}
	return c
}

// A certificateFile is what certify writes and import reads.
type certificateFile struct {
	Name    string `json:"name"`
	Version int    `json:"version"`
	DER     []byte `json:"certificate"`
}

// withAuthority opens what an authority stands on.
func withAuthority(c *cobra.Command, path string, do func(keys.Config) error) error {
	config, err := requireConfig(path)
	if err != nil {
		return err
	}
	db, err := store.OpenSQLite(c.Context(), config.Database)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer db.Close()
	b, err := openBackend(c.Context(), config.Keys, nil)
	if err != nil {
		return fmt.Errorf("open keys: %w", err)
	}
	defer closeBackend(b)
	root, err := pinnedRoot(config)
	if err != nil {
		return err
	}
	trusted, err := authorityConfig(config, b, db, root)
	if err != nil {
		return err
	}
	return do(trusted)
}

// readRoot reads the root CA's certificate.
func readRoot(path string) (*x509.Certificate, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s: want a certificate, PEM", path)
	}
	return x509.ParseCertificate(block.Bytes)
}

// maxCeremonyFile bounds what is carried between the service and the offline
// root, in bytes.
const maxCeremonyFile = 64 << 10

func readJSON(path string, v any) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > maxCeremonyFile {
		return fmt.Errorf("%s: more than %d bytes", path, maxCeremonyFile)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := attest.DecodeJSON(raw, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func writeJSON(path string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	raw = append(raw, '\n')
	if path == "-" {
		_, err = os.Stdout.Write(raw)
		return err
	}
	return writeFile(path, raw)
}
