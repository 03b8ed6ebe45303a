// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"

	"provost/attest"
	"provost/verify"
)

// maxForeign bounds the foreign roots of a configuration.
const maxForeign = 64

// Foreign is another's Sigstore: bundles that were signed under its trusted
// root can be imported (provost import). They are kept as they are, and never
// signed again as ours.
type Foreign struct {
	// Name is what it is called here: 1 to 63 lower-case letters, digits and
	// '-'. Imported bundles keep it, so it should not change.
	Name string `yaml:"name"`

	// TrustedRootFile is its trusted_root.json (gh attestation trusted-root,
	// cosign trusted-root). The file is read again at each use, so replace it
	// by renaming another to its name. While it cannot be read nothing under it
	// is imported, and nothing decided about an artifact that has such a bundle.
	TrustedRootFile string `yaml:"trusted_root_file"`

	// Identities are who is believed under it.
	Identities []ForeignIdentity `yaml:"identities"`

	// PredicateTypes are what is believed of them, compared exactly.
	PredicateTypes []string `yaml:"predicate_types"`
}

// ForeignIdentity is somebody who is believed: the issuer in the certificate,
// compared exactly, and its subject alternative name, by exactly one of two
// ways.
type ForeignIdentity struct {
	Issuer string `yaml:"issuer"`
	SAN    string `yaml:"san"` // compared exactly
	// SANPattern is a regular expression (RE2) that has to match the whole name,
	// and begins with literal text. Write dots as \.
	SANPattern string `yaml:"san_pattern"`
}

// root is the root as package verify knows it.
func (f Foreign) root() verify.ForeignRoot {
	r := verify.ForeignRoot{Name: f.Name, PredicateTypes: f.PredicateTypes}
	for _, i := range f.Identities {
		r.Identities = append(r.Identities, verify.ForeignIdentity{Issuer: i.Issuer, SAN: i.SAN, SANPattern: i.SANPattern})
	}
	return r
}

// validateForeign checks everything but the files.
func validateForeign(all []Foreign, service string) error {
	if len(all) > maxForeign {
		return fmt.Errorf("foreign: %d roots: want at most %d", len(all), maxForeign)
	}
	names := map[string]bool{}
	for _, f := range all {
		if err := f.root().Validate(service); err != nil {
			return fmt.Errorf("foreign: %w", err)
		}
		if f.TrustedRootFile == "" {
			return fmt.Errorf("foreign: root %s: trusted_root_file is required", f.Name)
		}
		if names[f.Name] {
			return fmt.Errorf("foreign: two roots are called %s", f.Name)
		}
		names[f.Name] = true
	}
	return nil
}

// foreignRoots are the foreign roots of a service, as their files are now.
type foreignRoots map[string]*foreignRoot

type foreignRoot struct {
	config  Foreign
	service string

	mu    sync.Mutex
	raw   []byte // what trust was read from
	trust *verify.ForeignTrust
}

// openForeign reads every root once, so that a service with a broken one does
// not start.
func openForeign(c Config) (foreignRoots, error) {
	roots := foreignRoots{}
	for _, f := range c.Foreign {
		r := &foreignRoot{config: f, service: c.Service}
		if _, err := r.current(); err != nil {
			return nil, err
		}
		roots[f.Name] = r
	}
	return roots, nil
}

// trust is the root of a name as it is now, or an [attest.ErrNotFound].
func (r foreignRoots) trust(name string) (*verify.ForeignTrust, error) {
	root, ok := r[name]
	if !ok {
		return nil, fmt.Errorf("%w: no foreign root is called %.80q", attest.ErrNotFound, name)
	}
	return root.current()
}

// current parses the file again only when it changed. Closed: what was read
// before is not used when the file cannot be; it may have been taken away.
func (r *foreignRoot) current() (*verify.ForeignTrust, error) {
	raw, err := readTrustedRoot(r.config.TrustedRootFile)
	if err != nil {
		return nil, fmt.Errorf("%w: foreign root %s: %v", attest.ErrUnavailable, r.config.Name, err) // its kind ends here
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trust != nil && bytes.Equal(raw, r.raw) {
		return r.trust, nil
	}
	trust, err := verify.ParseForeign(r.config.root(), r.service, raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %v", attest.ErrUnavailable, r.config.TrustedRootFile, err) // no caller made this file
	}
	r.raw, r.trust = raw, trust
	return trust, nil
}

func readTrustedRoot(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, verify.MaxTrustedRoot+1))
	if err == nil && len(raw) > verify.MaxTrustedRoot {
		err = &attest.LimitError{What: "trusted root", Limit: verify.MaxTrustedRoot, Unit: "bytes"}
	}
	return raw, err
}
