// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"net/url"
	"time"

	"provost/attest"
)

// generic is an OpenID Connect issuer of people, services and gates; with a
// mapping in the configuration also of builds.
type generic struct{}

func (generic) Rules() Rules { return Rules{MaxAge: 7 * 24 * time.Hour} }

func (generic) CheckIssuer(*url.URL) error { return nil }

// Tenant is nobody's: what people may do, rules say.
func (generic) Tenant(Claims) (string, error) { return "", nil }

func (generic) Build(Claims, Registered) (*attest.Build, error) {
	return nil, notABuild("tokens of provider oidc are of people, unless a mapping is configured")
}
