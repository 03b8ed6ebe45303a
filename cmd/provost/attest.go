// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"provost/api/client"
	"provost/attest"
)

func attestCommand(o *options) *cobra.Command {
	c := &cobra.Command{Use: "attest", Short: "Ask for signed attestations"}
	c.AddCommand(attestProvenanceCommand(o), attestSBOMCommand(o), attestStatementCommand(o))
	return c
}

// A keeper says where the bundle that comes back is kept.
type keeper struct {
	path    string
	force   bool
	explain bool // print the fields of provenance and their origins, too
	bind    bool // ask the CI for a token that is good for the artifacts alone
}

func (k *keeper) register(c *cobra.Command) {
	c.Flags().StringVar(&k.path, "bundle", "", "`FILE` to keep the bundle in (default ARTIFACT.sigstore.json, and from the second on a line of ARTIFACT.intoto.jsonl)")
	c.Flags().BoolVar(&k.force, "force", false, "replace the file that --bundle names")
	c.Flags().BoolVar(&k.bind, "bind", false, "ask the CI for a token that is good for these artifacts alone (not on GitLab or Kubernetes, where the definition of the job or pod says the audience)")
}

// service is a client that attests artifacts.
func (k *keeper) service(o *options, artifacts []artifact) (*client.Client, error) {
	if k.bind {
		if o.tokenFile != "" || os.Getenv("PROVOST_TOKEN") != "" || os.Getenv("GITLAB_CI") == "true" || o.certificate != "" {
			return nil, usageError{hint(errors.New("--bind asks the CI for a token of its own"), "it goes without --token-file, PROVOST_TOKEN and --client-certificate, and not on GitLab")}
		}
		o.bound = artifacts
	}
	return o.service()
}

func attestProvenanceCommand(o *options) *cobra.Command {
	var keep keeper
	var dependencies []string
	c := &cobra.Command{
		Use:   "provenance ARTIFACT...",
		Short: "Ask for SLSA provenance of the running build",
		Long: `Ask for SLSA provenance v1 of the running build. What it says comes from the
CI's own token; the command adds nothing but the digests of the artifacts, and
dependencies that the provenance marks as tenant-supplied.

--explain prints every field of it, and whose word it is: of the token (and which
claims), of the CI's API, of the builder registry, or of the tenant.`,
		Example: `  provost attest provenance dist/app dist/app.sha256
  provost attest provenance --explain --dependency pkg:oci/golang=sha256:9f86d0… dist/app`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			artifacts, err := resolveAll(args)
			if err != nil {
				return err
			}
			service, err := keep.service(o, artifacts)
			if err != nil {
				return err
			}
			var req client.ProvenanceRequest
			for _, d := range dependencies {
				made, err := dependency(d)
				if err != nil {
					return err
				}
				req.ResolvedDependencies = append(req.ResolvedDependencies, made)
			}
			for _, a := range artifacts {
				req.Subjects = append(req.Subjects, client.Subject{Name: a.Name, Digest: map[string]string{a.Digest.Algorithm(): a.Digest.Hex()}})
			}
			return keep.around(o, artifacts, func() (client.Attestation, error) {
				return service.AttestProvenance(c.Context(), req, "")
			})
		},
	}
	keep.register(c)
	c.Flags().BoolVar(&keep.explain, "explain", false, "print every field of the provenance and where it comes from")
	c.Flags().StringArrayVar(&dependencies, "dependency", nil, "`URI=ALGORITHM:HEX` of something that went into the build; may be repeated")
	return c
}

// dependency reads URI=ALGORITHM:HEX.
func dependency(s string) (client.Resource, error) {
	i := strings.LastIndexByte(s, '=')
	if i > 0 {
		if alg, value, ok := strings.Cut(s[i+1:], ":"); ok && alg != "" && value != "" {
			return client.Resource{URI: s[:i], Digest: map[string]string{alg: value}}, nil
		}
	}
	return client.Resource{}, usageError{hint(fmt.Errorf("--dependency %q: want URI=ALGORITHM:HEX", s), "such as --dependency git+https://github.com/acme/lib@v1=gitCommit:3f2a…")}
}

func attestStatementCommand(o *options) *cobra.Command {
	var keep keeper
	var predicateType, predicate string
	c := &cobra.Command{
		Use:   "statement --type URI --predicate FILE ARTIFACT...",
		Short: "Have another predicate signed, of a type that the builder is registered for",
		Long: `Have another predicate signed, of a type that the builder is registered for. SLSA
provenance is accepted of a registered builder control plane alone, whose
builder.id and buildType must be the registered ones.`,
		Example: "  provost attest statement --type https://in-toto.io/attestation/test-result/v0.1 --predicate result.json dist/app",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if predicateType == "" || predicate == "" {
				return usageError{hint(errors.New("--type URI and --predicate FILE are required"), "provost attest statement --help")}
			}
			artifacts, err := resolveAll(args)
			if err != nil {
				return err
			}
			raw, err := readBounded(predicate, attest.MaxPredicate)
			if err != nil {
				return hint(fmt.Errorf("read predicate: %w", err), "--predicate FILE names a JSON object")
			}
			s := attest.Statement{PredicateType: predicateType, Predicate: raw}
			for _, a := range artifacts {
				s.Subjects = append(s.Subjects, attest.Subject{Name: a.Name, SHA256: a.Digest})
			}
			statement, err := s.Encode()
			if err != nil {
				return usageError{err}
			}
			service, err := keep.service(o, artifacts)
			if err != nil {
				return err
			}
			return keep.around(o, artifacts, func() (client.Attestation, error) {
				return service.AttestStatement(c.Context(), statement, "")
			})
		},
	}
	c.Flags().StringVar(&predicateType, "type", "", "the predicate type's `URI`")
	c.Flags().BoolVar(&keep.explain, "explain", false, "of provenance, print every field and where it comes from")
	c.Flags().StringVar(&predicate, "predicate", "", "`FILE` with the predicate, a JSON object; - for standard input")
	keep.register(c)
	return c
}

func attestSBOMCommand(o *options) *cobra.Command {
	var keep keeper
	var sbom string
	c := &cobra.Command{
		Use:     "sbom --sbom FILE ARTIFACT",
		Short:   "Attest an artifact's bill of materials",
		Long:    "Attest an artifact's bill of materials: CycloneDX 1.2 to 1.7 or SPDX 2.2 to 2.3, JSON, sniffed.",
		Example: "  provost attest sbom --sbom app.cdx.json dist/app",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if sbom == "" {
				return usageError{hint(errors.New("--sbom FILE is required"), "provost attest sbom --sbom app.cdx.json "+args[0])}
			}
			artifacts, err := resolveAll(args)
			if err != nil {
				return err
			}
			document, err := readBounded(sbom, attest.MaxPredicate)
			if err != nil {
				return hint(fmt.Errorf("read SBOM: %w", err), "--sbom FILE names a CycloneDX or SPDX document in JSON")
			}
			service, err := keep.service(o, artifacts)
			if err != nil {
				return err
			}
			a := artifacts[0]
			return keep.around(o, artifacts, func() (client.Attestation, error) {
				return service.AttestSBOM(c.Context(), client.Artifact{Digest: a.Digest, Name: a.Name}, document, "")
			})
		},
	}
	c.Flags().StringVar(&sbom, "sbom", "", "`FILE` with the bill of materials; - for standard input")
	keep.register(c)
	return c
}

func resolveAll(args []string) ([]artifact, error) {
	if len(args) > attest.MaxSubjects {
		return nil, usageError{&attest.LimitError{What: "artifacts", Limit: attest.MaxSubjects, Unit: "artifacts"}}
	}
	var artifacts []artifact
	for _, arg := range args {
		a, err := resolveArtifact(arg)
		if err != nil {
			return nil, err
		}
		artifacts = append(artifacts, a)
	}
	return artifacts, nil
}

// around asks for an attestation and keeps its bundle. Where it will be kept
// is decided before anything is signed, so that no bundle is signed that has
// no place.
func (k *keeper) around(o *options, artifacts []artifact, ask func() (client.Attestation, error)) error {
	if err := k.ready(); err != nil {
		return err
	}
	a, err := ask()
	if err != nil {
		return fmt.Errorf("attest: %w", err)
	}
	path, err := k.write(artifacts, a.Bundle)
	if err != nil {
		return hint(fmt.Errorf("attestation %s is signed and stored, but could not be kept here: %w", a.ID, err),
			"the service has it: GET /v1/attestations/"+a.ID)
	}
	level, fields, err := openBundle(a.Bundle)
	switch {
	case !k.explain: // whoever verifies it says what is wrong with it
		fields = nil
	case err != nil:
		return fmt.Errorf("attestation %s is signed and kept in %s, but cannot be explained: %w", a.ID, path, err)
	}
	p := o.printer()
	return p.answer(kept{a.ID, a.PredicateType, string(a.Signer), a.KeyVersion, a.SignedAt, level, path, fields}, func() {
		for _, a := range artifacts {
			p.printf("attested %s  %s\n", a.Digest, safe(orNone(a.Name)))
		}
		rows := append([]string{"  type\t" + a.PredicateType}, level.rows()...)
		p.table(append(rows, fmt.Sprintf("  signer\t%s, key version %d", a.Signer, a.KeyVersion),
			"  signed\t"+a.SignedAt.Format(time.RFC3339), "  id\t"+a.ID, "  bundle\t"+path)...)
		if k.explain {
			printFields(p, fields)
		}
	})
}

// ready refuses a file that --bundle names and that could not be written.
func (k *keeper) ready() error {
	if k.path == "" && k.force {
		return usageError{hint(errors.New("--force is for --bundle FILE; without it nothing is ever replaced"), "name the file to replace with --bundle")}
	}
	if k.path == "" {
		return nil
	}
	if _, err := os.Lstat(k.path); err == nil && !k.force {
		return hint(fmt.Errorf("%s exists", k.path), "pass --force to replace it, or another --bundle")
	}
	return canKeep(k.path)
}

// kept is an attestation as printed in JSON.
type kept struct {
	ID            string    `json:"id"`
	PredicateType string    `json:"predicateType"`
	Signer        string    `json:"signer"`
	KeyVersion    int       `json:"keyVersion"`
	SignedAt      time.Time `json:"signedAt"`
	claimedLevel
	Bundle string  `json:"bundle"`
	Fields []field `json:"fields,omitempty"` // with --explain
}

// write keeps a bundle and says where. Without --bundle the first bundle of an
// artifact gets a file of its own, and later ones a line each, so that nothing
// is ever replaced that was not named.
func (k *keeper) write(artifacts []artifact, bundle []byte) (string, error) {
	if k.path != "" {
		flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
		if k.force {
			flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
		}
		return k.path, writeTo(k.path, flags, bundle)
	}
	first := artifacts[0]
	base := first.Path
	switch {
	case len(artifacts) > 1:
		base = filepath.Join(filepath.Dir(first.Path), "multiple")
	case base == "":
		base = "sha256-" + first.Digest.Hex()
	}
	if len(artifacts) == 1 {
		path := base + ".sigstore.json"
		err := writeTo(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, bundle)
		if !errors.Is(err, os.ErrExist) {
			return path, err
		}
	}
	path := base + ".intoto.jsonl"
	return path, writeTo(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, bundle)
}

// canKeep refuses a path that a file could not be made at, before anything is
// asked of the service.
func canKeep(path string) error {
	dir := filepath.Dir(path)
	if info, err := os.Stat(dir); err != nil {
		return hint(fmt.Errorf("keep %s: %w", path, err), "mkdir -p "+dir)
	} else if !info.IsDir() {
		return hint(fmt.Errorf("keep %s: %s is no directory", path, dir), "name a file in a directory")
	}
	return nil
}

func writeTo(path string, flags int, bundle []byte) error {
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(bundle[:len(bundle):len(bundle)], '\n'))
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}
