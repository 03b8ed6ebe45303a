// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"provost/attest"
)

// Bounds on a SPIFFE ID, in bytes (SPIFFE-ID, section 2.3).
const (
	maxSPIFFEID    = 2048
	maxTrustDomain = 255
)

// spiffe is a trust domain: its JWT-SVIDs, and its X509-SVIDs by mTLS. It is the
// one provider that reads sub, which is the SPIFFE ID there, as a whole. The
// claims spiffe_id, trust_domain and path are what sub was verified to be.
type spiffe struct{}

func (spiffe) Rules() Rules {
	return Rules{
		MaxLevel: 1,
		MaxAge:   10 * time.Minute, Workload: true,
		Immutable: []string{"sub", "spiffe_id", "path"},
		BuildType: attest.WorkloadJob,
		Fields:    spiffeFields,
	}
}

func (spiffe) CheckIssuer(u *url.URL) error {
	if u.Scheme != "spiffe" || u.Host == "" || u.Path != "" {
		return errors.New("want spiffe:// and a trust domain")
	}
	return nil
}

// Tenant is the path of the SPIFFE ID: its trust domain is its issuer.
func (spiffe) Tenant(c Claims) (string, error) {
	id, err := spiffeID(c)
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(id.Path(), "/"), nil
}

// spiffeID is the workload's. One without a path is a trust domain's, and no
// workload's.
func spiffeID(c Claims) (spiffeid.ID, error) {
	sub, _ := c.Text("sub")
	id, err := spiffeid.FromString(sub)
	switch {
	case err != nil || len(sub) > maxSPIFFEID || len(id.TrustDomain().Name()) > maxTrustDomain:
		return spiffeid.ID{}, notABuild("sub: want a SPIFFE ID")
	case id.Path() == "":
		return spiffeid.ID{}, notABuild("sub: want the SPIFFE ID of a workload, with a path")
	}
	return id, nil
}

// Build is at level 1: who runs is known, and nothing of what is built.
func (spiffe) Build(c Claims, reg Registered) (*attest.Build, error) {
	id, err := spiffeID(c)
	if err != nil {
		return nil, err
	}
	d := workload(reg)
	d.external("workload.spiffeId", id.String(), attest.FromToken("sub"))
	// An SVID need not have an id of its own, and its time tells it from others.
	r, token := reader{Claims: c}, "iat"
	if r.Has("jti") {
		token = "jti"
	}
	d.invocation(id.String()+"#"+r.match(token, shapeToken), "sub", token)
	if r.err != nil {
		return nil, r.err
	}
	return d.Build, nil
}

var spiffeFields = []Field{
	{externalParameters + "source/repository", attest.FromRegistry(), whereRegistered},
	{externalParameters + "workload/spiffeId", attest.FromToken("sub"), ""},
	{invocationID, attest.FromToken("sub", "jti"), ""},
	{invocationID, attest.FromToken("sub", "iat"), "for an SVID without jti"},
}
