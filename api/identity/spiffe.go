// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"net/url"
	"strings"
	"time"

	"provost/attest"
)

// spiffe is a trust domain: its JWT-SVIDs, and its X509-SVIDs by mTLS. The
// claims spiffe_id, trust_domain and path are what sub was verified to be.
type spiffe struct{}

func (spiffe) Rules() Rules {
	return Rules{MaxAge: 10 * time.Minute, Workload: true, Immutable: []string{"sub", "spiffe_id", "path"}}
}

func (spiffe) CheckIssuer(u *url.URL) error {
	if u.Scheme != "spiffe" || u.Host == "" || u.Path != "" {
		return errors.New("want spiffe:// and a trust domain")
	}
	return nil
}

// Tenant is the path of the SPIFFE ID.
func (spiffe) Tenant(c Claims) (string, error) {
	path, ok := c.Text("path")
	if !ok || !strings.HasPrefix(path, "/") {
		return "", notABuild("claim path is missing or malformed")
	}
	return path[1:], nil
}

// Build is none: an SVID says who a workload is, and nothing of a build.
func (spiffe) Build(Claims, Registered) (*attest.Build, error) {
	return nil, notABuild("SVIDs say nothing of a build")
}
