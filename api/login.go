// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"provost/api/client"
	"provost/api/identity"
	"provost/attest"
)

// A Login says how people log in with the command line: as a public client
// (RFC 8252) of an issuer whose tokens are accepted.
type Login struct {
	// Issuer is the URL of a configured issuer with provider oidc.
	Issuer string `yaml:"issuer"`
	// ClientID is what the command line is registered as there: a native
	// application without a secret, with PKCE, the redirect URI
	// http://127.0.0.1/callback on any port, and the device flow if wanted.
	ClientID string `yaml:"client_id"`
	// Scopes are asked for; openid is always among them. With offline_access
	// most issuers give a refresh token. Default [openid].
	Scopes []string `yaml:"scopes"`
	// Token is which of the issuer's tokens the service is sent: id_token, or
	// access_token of issuers whose access tokens are JWTs for the issuer's
	// configured audience. Default id_token.
	Token string `yaml:"token"`
}

// Bounds on what a login asks for.
const (
	maxClientID = 512 // bytes
	maxScopes   = 32
	maxScope    = 256 // bytes
)

// scopeToken is RFC 6749, section 3.3.
var scopeToken = regexp.MustCompile(`^[!#-\[\]-~]+$`)

// CheckLogin returns what the command line is told, or an [attest.ErrInvalid]
// unless the tokens it would get are ones that are accepted.
func (a *Authenticator) CheckLogin(l Login) (client.Login, error) {
	invalid := func(format string, args ...any) (client.Login, error) {
		return client.Login{}, fmt.Errorf("%w: login: "+format, append([]any{attest.ErrInvalid}, args...)...)
	}
	out := client.Login{Issuer: l.Issuer, ClientID: l.ClientID, Scopes: slices.Clone(l.Scopes), Token: l.Token}
	if out.Token == "" {
		out.Token = client.LoginIDToken
	}
	if len(out.Scopes) == 0 {
		out.Scopes = []string{"openid"}
	}
	i, ok := a.issuers[l.Issuer]
	switch {
	case !ok:
		return invalid("issuer %q is not configured", l.Issuer)
	case i.Provider != identity.OIDC || i.Mapping != nil:
		return invalid("issuer %q: want one of provider %s without a mapping: others' tokens are not of people", l.Issuer, identity.OIDC)
	case l.ClientID == "" || len(l.ClientID) > maxClientID:
		return invalid("client_id: want 1 to %d bytes", maxClientID)
	case out.Token != client.LoginIDToken && out.Token != client.LoginAccessToken:
		return invalid("token %q: want %s or %s", l.Token, client.LoginIDToken, client.LoginAccessToken)
	case out.Token == client.LoginIDToken && i.Audience != l.ClientID:
		return invalid("client_id %q is not the issuer's audience %q: an ID token's audience is its client, so none would be accepted", l.ClientID, i.Audience)
	case !slices.Contains(out.Scopes, "openid"):
		return invalid("scopes: openid is missing")
	case len(out.Scopes) > maxScopes:
		return invalid("scopes: want %d at most", maxScopes)
	}
	for _, scope := range out.Scopes {
		if len(scope) > maxScope || !scopeToken.MatchString(scope) {
			return invalid("scope %.80q is none", scope)
		}
	}
	out.MaxAge = int64(i.MaxAge / time.Second)
	return out, nil
}

// loginSettings is public: whoever logs in has no token yet.
func (s *Server) loginSettings(c echo.Context) error {
	if _, err := none(c); err != nil {
		return err
	}
	if s.login == nil {
		return fmt.Errorf("%w: this service has no login for people", attest.ErrNotFound)
	}
	return reply{status: http.StatusOK, body: *s.login}.write(c)
}

// whoami tells a caller what is known of it. It needs no grant: who may do
// nothing is told that.
func (s *Server) whoami(c echo.Context) error {
	caller, err := s.authenticate(c)
	if err != nil {
		return s.refused(c, "whoami", caller, err)
	}
	if _, err := none(c); err != nil {
		return err
	}
	return reply{status: http.StatusOK, body: whoamiWire(caller)}.write(c)
}

func whoamiWire(caller attest.Caller) client.Whoami {
	w := client.Whoami{
		Issuer: caller.Issuer, Subject: caller.Subject, Tenant: caller.Tenant, Person: caller.Person != "",
		Grants: append([]attest.Grant{}, caller.Grants...), Tenants: map[string][]attest.Grant{},
	}
	for tenant, grants := range caller.Tenants {
		w.Tenants[tenant] = append([]attest.Grant{}, grants...)
	}
	if caller.Build != nil {
		w.Builder = caller.Build.BuilderID
	}
	return w
}
