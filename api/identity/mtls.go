// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"net/url"

	"provost/attest"
)

// mtls is a CA of machines, which have client certificates and no tokens.
type mtls struct{}

func (mtls) Rules() Rules { return Rules{} }

func (mtls) CheckIssuer(u *url.URL) error {
	if u.Scheme != "mtls" {
		return errors.New("want mtls:// and a name")
	}
	return nil
}

// Tenant is nobody's: what machines may do, rules say.
func (mtls) Tenant(Claims) (string, error) { return "", nil }

func (mtls) Build(Claims, Registered) (*attest.Build, error) {
	return nil, notABuild("certificates of provider mtls are of machines")
}
