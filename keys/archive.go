// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"provost/attest"
)

// Root returns the SHA-256 of the archived root certificate, which [Init] made:
// what to pin as [Config.Root]. Without one it is an [attest.ErrNotFound]. It
// believes the archive, so ask right after Init, and never to repair a pin.
func Root(ctx context.Context, archive Archive) (attest.Digest, error) {
	certs, err := parseArchive(ctx, archive)
	if err != nil {
		return attest.Digest{}, err
	}
	root, err := onlyRoot(certs)
	if err != nil {
		return attest.Digest{}, err
	}
	return attest.SHA256(root.cert.Raw), nil
}

// archived is the archive, believed: the pinned root; the issuing CAs and the
// timestamp authorities that it certified; and the signers' leaves, which are
// parsed but not believed before [signer.leaves] checked them. All ascending.
type archived struct {
	root  certified
	certs map[string][]certified
}

// readArchive reads the archive under the pinned root. It refuses an archive
// in which the root is another, or in which is anything that neither the root
// nor an interrupted Init explains.
func readArchive(ctx context.Context, config Config) (archived, error) {
	certs, err := parseArchive(ctx, config.Archive)
	if err != nil {
		return archived{}, err
	}
	root, err := onlyRoot(certs)
	if err != nil {
		return archived{}, err
	}
	if attest.SHA256(root.cert.Raw) != config.Root {
		return archived{}, errors.New("the archived root is not the pinned one: the database was changed, or belongs to another service")
	}
	if err := root.cert.CheckSignatureFrom(root.cert); err != nil {
		return archived{}, fmt.Errorf("archived root certificate: %w", err)
	}
	for _, name := range authorityKeys() {
		fit := fitness(name)
		var ours, others []certified
		for _, c := range certs[name] {
			switch {
			case !issuedBy(c.cert, root.cert):
				others = append(others, c)
			case !fit(c.cert):
				return archived{}, fmt.Errorf("archived certificate %s version %d is not made for what that key is for", name, c.version)
			default:
				ours = append(ours, c)
			}
		}
		if err := abandoned(ctx, config.Backend, name, others); err != nil {
			return archived{}, err
		}
		certs[name] = ours
	}
	return archived{root, certs}, nil
}

// abandoned refuses certificates that the root did not sign, unless an Init
// that was interrupted can have left them: those are of the backend's own keys.
// A backend may hide old versions, so one can pass that is not; but nobody ever
// believes an abandoned certificate.
func abandoned(ctx context.Context, backend Backend, key string, certs []certified) error {
	if len(certs) == 0 {
		return nil
	}
	versions, err := backend.Versions(ctx, key)
	if err != nil {
		return outward(err)
	}
	if _, err := newestAgreeing(key, certs, versions); err != nil {
		return fmt.Errorf("archived certificate that the pinned root did not sign: %w", err)
	}
	return nil
}

// onlyRoot returns the root certificate, of which there is one.
func onlyRoot(certs map[string][]certified) (certified, error) {
	switch roots := certs[keyRoot]; len(roots) {
	case 0:
		return certified{}, fmt.Errorf("%w: no root certificate: the service is not initialised (run provostd init), "+
			"or this is not its database", attest.ErrNotFound)
	case 1:
		return roots[0], nil
	default:
		return certified{}, fmt.Errorf("archived root certificate: there are %d: the database was changed", len(roots))
	}
}

// parseArchive reads and parses every certificate, ascending under each name,
// and believes none. It refuses what nobody here archives: an unknown name, a
// version below 1 or twice.
func parseArchive(ctx context.Context, archive Archive) (map[string][]certified, error) {
	all, err := archive.Certificates(ctx)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	names := append(allKeys(), keyRoot)
	certs := make(map[string][]certified)
	for _, c := range all {
		if !slices.Contains(names, c.Name) {
			return nil, fmt.Errorf("archived certificate %.80q version %d: there is no such key", c.Name, c.Version)
		}
		parsed, err := parseCertified(c)
		if err != nil {
			return nil, err
		}
		certs[c.Name] = append(certs[c.Name], parsed)
	}
	for name, of := range certs {
		slices.SortFunc(of, func(a, b certified) int { return cmp.Compare(a.version, b.version) })
		for i, c := range of[1:] {
			if c.version == of[i].version {
				return nil, fmt.Errorf("archived certificate %s version %d: there are two", name, c.version)
			}
		}
	}
	return certs, nil
}

func parseCertified(c attest.Certificate) (certified, error) {
	if c.Version < 1 { // no backend has one, so nothing would vouch for its key
		return certified{}, fmt.Errorf("archived certificate %s version %d: versions begin at 1", c.Name, c.Version)
	}
	cert, err := x509.ParseCertificate(c.DER)
	if err != nil {
		return certified{}, fmt.Errorf("archived certificate %s version %d: %v", c.Name, c.Version, err)
	}
	if _, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok {
		return certified{}, fmt.Errorf("archived certificate %s version %d: its key is not ECDSA", c.Name, c.Version)
	}
	return certified{c.Version, cert}, nil
}

// issuedBy reports whether the CA signed the certificate and is named in it.
func issuedBy(c, ca *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, ca.RawSubject) && c.CheckSignatureFrom(ca) == nil
}

// fitness is what a certificate of that key must be made for.
func fitness(key string) func(*x509.Certificate) bool {
	switch key {
	case keyTimestamp:
		return func(c *x509.Certificate) bool { return isEnd(c, x509.ExtKeyUsageTimeStamping) }
	case keyLog, keyCTLog:
		return isLog
	default:
		return isIssuing
	}
}

// isLog reports whether it is for a log's key alone, as newLog makes it.
func isLog(c *x509.Certificate) bool {
	return !c.IsCA && c.KeyUsage == x509.KeyUsageDigitalSignature && len(c.ExtKeyUsage) == 0 &&
		len(c.UnknownExtKeyUsage) == 1 && c.UnknownExtKeyUsage[0].Equal(oidDocumentSigning) && len(c.DNSNames) == 1
}

// isIssuing reports whether it is a CA's that may only issue leaves for code
// signing, as newIssuing makes it.
func isIssuing(c *x509.Certificate) bool {
	return c.BasicConstraintsValid && c.IsCA && c.MaxPathLen == 0 && c.MaxPathLenZero &&
		c.KeyUsage == x509.KeyUsageCertSign|x509.KeyUsageCRLSign && onlyFor(c, x509.ExtKeyUsageCodeSigning)
}

// isEnd reports whether it is no CA's and only signs, only for that use, as
// newTimestamp and newLeaf make it.
func isEnd(c *x509.Certificate, use x509.ExtKeyUsage) bool {
	return !c.IsCA && c.KeyUsage == x509.KeyUsageDigitalSignature && onlyFor(c, use)
}

func onlyFor(c *x509.Certificate, use x509.ExtKeyUsage) bool {
	return slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{use}) && len(c.UnknownExtKeyUsage) == 0
}
