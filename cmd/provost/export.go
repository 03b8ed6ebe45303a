// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"provost/attest"
	"provost/verify"
)

type exportFlags struct {
	id, bundle, trustedRoot, predicateType, format, file string
	force                                                bool
}

func exportCommand(o *options) *cobra.Command {
	f := new(exportFlags)
	c := &cobra.Command{
		Use:   "export [ARTIFACT | FILE.sigstore.json]",
		Short: "Write attestations for clients that take no bundle",
		Long: `Write attestations for clients that take no bundle, or only a key.

  jsonl  every bundle of the artifact, one a line, verdicts included
  dsse   the bare DSSE envelope of one bundle, as slsa-verifier wants it
  pem    the public key that signed one bundle; another after each rotation

dsse and pem leave out the certificate, the timestamp and the log entry, so
nobody can check these afterwards: the bundle must verify here first. Whom to
trust comes from --trusted-root, or is asked of the service. A bundle from a
file, with --trusted-root, opens no socket. jsonl is copied as it is.`,
		Example: `  provost export app --format jsonl --file app.sigstore.jsonl
  provost export app.sigstore.json --trusted-root trusted_root.json --format dsse --file app.dsse.json
  provost export --id 01J… --format pem --file - | openssl pkey -pubin -text`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return f.run(c.Context(), o, args) },
	}
	flags := c.Flags()
	flags.StringVar(&f.format, "format", "", "what to write: `dsse|pem|jsonl`")
	flags.StringVar(&f.file, "file", "", "`FILE` to write; - for standard output")
	flags.BoolVar(&f.force, "force", false, "replace the file that --file names")
	flags.StringVar(&f.id, "id", "", "the attestation with this `ID`")
	flags.StringVar(&f.bundle, "bundle", "", "`FILE` with the bundle, or one bundle a line, whatever it is called")
	flags.StringVar(&f.trustedRoot, "trusted-root", "", "`FILE` with the trusted root (trusted_root.json)")
	flags.StringVar(&f.predicateType, "type", "", "only this predicate type: a `URI`, slsaprovenance1, cyclonedx or spdxjson")
	return c
}

func (f *exportFlags) run(ctx context.Context, o *options, args []string) error {
	want, err := f.validate(args)
	if err != nil {
		return err
	}
	if f.file != "-" && !f.force { // before anything is asked; the writing asks again
		if _, err := os.Lstat(f.file); err == nil {
			return hint(fmt.Errorf("%s exists", f.file), "pass --force to replace it, or another --file")
		}
	}
	var a artifact
	if len(args) == 1 && f.bundle != args[0] {
		if a, err = resolveArtifact(args[0]); err != nil {
			return err
		}
	}
	found, err := f.find(ctx, o, a, want)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		fmt.Fprintln(os.Stderr, "provost: no attestation was found")
		return exit(exitNoEvidence)
	}
	var out []byte
	if f.format == "jsonl" {
		for _, e := range found {
			out = append(append(out, e.line...), '\n')
		}
	} else if out, err = f.one(ctx, o, a, found); err != nil {
		return err
	}
	return f.write(out)
}

// validate returns the predicate type to look for. A bundle's file in place of
// an artifact is known by its name, so that no artifact is ever taken for one
// because of what is in it.
func (f *exportFlags) validate(args []string) (want string, err error) {
	switch {
	case f.format != "dsse" && f.format != "pem" && f.format != "jsonl":
		return "", usageError{hint(fmt.Errorf("--format %q: want dsse, pem or jsonl", f.format), "--format dsse for slsa-verifier, jsonl to carry bundles elsewhere")}
	case f.file == "":
		return "", usageError{hint(errors.New("--file FILE is required"), "--file - writes to standard output")}
	case f.id != "" && (f.bundle != "" || len(args) > 0):
		return "", usageError{errors.New("--id names the attestation; there is no place for an artifact or a bundle beside it")}
	case f.id != "":
	case len(args) == 1 && f.bundle == "" && isBundleName(args[0]):
		f.bundle = args[0]
	case len(args) == 0 && f.bundle == "":
		return "", usageError{hint(errors.New("which attestation?"), "name an artifact, a bundle's file, or --id ID")}
	}
	return predicateType(f.predicateType)
}

func isBundleName(path string) bool {
	return strings.HasSuffix(path, ".sigstore.json") || strings.HasSuffix(path, ".jsonl")
}

// An exported is a bundle that is well formed, and not yet believed.
type exported struct {
	raw       []byte
	line      []byte // raw without white space
	envelope  json.RawMessage
	leaf      []byte // DER
	statement attest.Statement
}

// find gathers the bundles, of one predicate type or all.
func (f *exportFlags) find(ctx context.Context, o *options, a artifact, want string) (found []exported, err error) {
	raws, err := f.bundles(ctx, o, a, want)
	if err != nil {
		return nil, err
	}
	for _, raw := range raws {
		e, err := parseExported(raw)
		if err != nil {
			return nil, err
		}
		if want != "" && e.statement.PredicateType != want {
			continue
		}
		if _, about := e.statement.About(a.Digest); !a.Digest.IsZero() && !about {
			return nil, hint(fmt.Errorf("a bundle of %s is not about %s", orNone(f.bundle), a.Digest), "name the artifact that it is about, or none")
		}
		found = append(found, e)
	}
	return found, nil
}

func (f *exportFlags) bundles(ctx context.Context, o *options, a artifact, want string) ([][]byte, error) {
	switch {
	case f.bundle != "":
		raw, err := readBounded(f.bundle, maxBundleFile)
		if err != nil {
			return nil, hint(fmt.Errorf("read bundle: %w", err), "provost attest keeps bundles as ARTIFACT.sigstore.json and ARTIFACT.intoto.jsonl")
		}
		return splitBundles(raw)
	case f.id != "":
		service, err := o.service()
		if err != nil {
			return nil, err
		}
		one, err := service.Attestation(ctx, f.id)
		if err != nil {
			return nil, fmt.Errorf("fetch attestation: %w", err)
		}
		return [][]byte{one.Bundle}, nil
	}
	return o.fetchBundles(ctx, a.Digest, func(t string) bool { return want == "" || t == want })
}

func parseExported(raw []byte) (e exported, err error) {
	var b struct {
		MediaType            string
		DSSEEnvelope         json.RawMessage `json:"dsseEnvelope"`
		VerificationMaterial struct {
			Certificate struct{ RawBytes []byte }
		}
	}
	var envelope struct{ Payload []byte }
	fail := func(err error) (exported, error) {
		return exported{}, hint(fmt.Errorf("read bundle: %w", err), "a bundle is what provost attest keeps; one JSON document, or one a line")
	}
	if err := attest.CheckJSON(raw); err != nil {
		return fail(err)
	}
	if err := json.Unmarshal(raw, &b); err != nil {
		return fail(err)
	}
	if !strings.HasPrefix(b.MediaType, "application/vnd.dev.sigstore.bundle") || len(b.DSSEEnvelope) == 0 {
		return fail(errors.New("not a Sigstore bundle with a DSSE envelope"))
	}
	if err := json.Unmarshal(b.DSSEEnvelope, &envelope); err != nil {
		return fail(err)
	}
	if e.statement, err = attest.ParseStatement(envelope.Payload); err != nil {
		return fail(err)
	}
	var line, bare bytes.Buffer
	if err := errors.Join(json.Compact(&line, raw), json.Compact(&bare, b.DSSEEnvelope)); err != nil {
		return fail(err)
	}
	e.raw, e.line, e.envelope, e.leaf = raw, line.Bytes(), bare.Bytes(), b.VerificationMaterial.Certificate.RawBytes
	return e, nil
}

// one writes the envelope or the key of one bundle that verifies. A bundle
// that does not is refused with exit code 3, and nothing is written: what
// would be left of it could be checked by nobody.
func (f *exportFlags) one(ctx context.Context, o *options, a artifact, found []exported) ([]byte, error) {
	if len(found) > 1 {
		next := "provost export --id ID, or --type URI to narrow them"
		if f.bundle != "" {
			next = "a file with that one alone, or --type URI to narrow them"
		}
		return nil, usageError{hint(fmt.Errorf("there are %d attestations, and --format %s is for one", len(found), f.format), next)}
	}
	trust, err := o.trust(ctx, f.trustedRoot)
	if err != nil {
		return nil, err
	}
	e := found[0]
	artifact := a.Digest
	if artifact.IsZero() {
		artifact = e.statement.Subjects[0].SHA256 // whatever it is about: only who signed it is asked
	}
	if _, err := trust.Verify(e.raw, verify.Expect{Artifact: artifact}); err != nil {
		fmt.Fprintln(os.Stderr, "provost: the bundle does not verify: "+safe(err.Error()))
		return nil, exit(exitDeny)
	}
	if f.format == "dsse" {
		return append(e.envelope, '\n'), nil
	}
	leaf, err := x509.ParseCertificate(e.leaf)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(leaf.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), nil
}

func (f *exportFlags) write(out []byte) error {
	if f.file == "-" {
		_, err := os.Stdout.Write(out)
		return err
	}
	if err := canKeep(f.file); err != nil {
		return err
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if f.force {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	if err := writeTo(f.file, flags, bytes.TrimSuffix(out, []byte("\n"))); err != nil {
		return fmt.Errorf("write %s: %w", f.file, err)
	}
	return nil
}
