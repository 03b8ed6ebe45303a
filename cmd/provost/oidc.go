// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"provost/api/client"
)

// A relyingParty is this program as a public client of an issuer. It talks
// with the issuer over TLS, or on this machine, and reads no answer without a
// bound.
type relyingParty struct {
	login      client.Login
	config     oauth2.Config
	provider   *oidc.Provider
	revocation string // endpoint; "" without one
	namesIss   bool   // the issuer puts iss into its answers (RFC 9207)
}

// discover asks an issuer for its endpoints. The context it returns is the one
// for all later calls to the issuer.
func discover(ctx context.Context, l client.Login) (context.Context, *relyingParty, error) {
	if l.Issuer == "" || l.ClientID == "" || l.Token != client.LoginIDToken && l.Token != client.LoginAccessToken {
		return ctx, nil, errors.New("the service does not say well how people log in")
	}
	if err := checkConfidential(l.Issuer); err != nil {
		return ctx, nil, fmt.Errorf("issuer: %w", err)
	}
	ctx = oidc.ClientContext(ctx, &http.Client{
		Timeout: 30 * time.Second, Transport: confidential{http.DefaultTransport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	})
	provider, err := oidc.NewProvider(ctx, l.Issuer)
	if err != nil {
		return ctx, nil, fmt.Errorf("ask the issuer %s: %w", l.Issuer, err)
	}
	var more struct {
		Revocation string `json:"revocation_endpoint"`
		NamesIss   bool   `json:"authorization_response_iss_parameter_supported"`
	}
	if err := provider.Claims(&more); err != nil {
		return ctx, nil, fmt.Errorf("ask the issuer %s: %w", l.Issuer, err)
	}
	endpoint := provider.Endpoint()
	// Not tried out: a code that is tried twice is spent. There is no secret.
	endpoint.AuthStyle = oauth2.AuthStyleInParams
	return ctx, &relyingParty{
		login: l, provider: provider, revocation: more.Revocation, namesIss: more.NamesIss,
		config: oauth2.Config{ClientID: l.ClientID, Endpoint: endpoint, Scopes: l.Scopes},
	}, nil
}

// accept verifies what the issuer gave on this machine: the ID token's
// signature, issuer, audience, times, and the nonce of this login ("" for a
// flow without one).
func (rp *relyingParty) accept(ctx context.Context, t *oauth2.Token, nonce string) (session, error) {
	raw, _ := t.Extra("id_token").(string)
	if raw == "" {
		return session{}, errors.New("the issuer gave no ID token")
	}
	if len(raw) > maxToken || len(t.AccessToken) > maxToken || len(t.RefreshToken) > maxToken {
		return session{}, fmt.Errorf("the issuer's tokens have more than %d bytes", maxToken)
	}
	id, err := rp.provider.VerifierContext(ctx, &oidc.Config{ClientID: rp.login.ClientID}).Verify(ctx, raw)
	if err != nil {
		return session{}, fmt.Errorf("the issuer's ID token: %w", err)
	}
	switch {
	case len(id.Audience) != 1:
		return session{}, errors.New("the issuer's ID token has another audience, too")
	case nonce != "" && id.Nonce != nonce:
		return session{}, errors.New("the issuer's ID token is of another login: its nonce is not ours")
	case id.Subject == "":
		return session{}, errors.New("the issuer's ID token names nobody")
	}
	if id.AccessTokenHash != "" && t.AccessToken != "" {
		if err := id.VerifyAccessToken(t.AccessToken); err != nil {
			return session{}, fmt.Errorf("the issuer's access token: %w", err)
		}
	}
	s := session{Login: rp.login, Subject: id.Subject, Token: raw, Expires: id.Expiry, RefreshToken: t.RefreshToken}
	issued := id.IssuedAt
	if rp.login.Token == client.LoginAccessToken {
		if t.AccessToken == "" {
			return session{}, errors.New("the issuer gave no access token")
		}
		s.Token, s.Expires, issued = t.AccessToken, t.Expiry, time.Now()
	}
	if age := rp.login.MaxAge; age > 0 {
		if end := issued.Add(time.Duration(age) * time.Second); s.Expires.IsZero() || end.Before(s.Expires) {
			s.Expires = end
		}
	}
	return s, nil
}

// renew gets a new token with the refresh token.
func renew(ctx context.Context, old session) (session, error) {
	ctx, rp, err := discover(ctx, old.Login)
	if err != nil {
		return session{}, err
	}
	t, err := rp.config.TokenSource(ctx, &oauth2.Token{RefreshToken: old.RefreshToken}).Token()
	if err != nil {
		return session{}, issuerError(err)
	}
	s, err := rp.accept(ctx, t, "")
	if err != nil {
		return session{}, err
	}
	if s.Subject != old.Subject { // OIDC Core, section 12.2
		return session{}, errors.New("the issuer's ID token is of somebody else")
	}
	return s, nil
}

// revoke takes a session's refresh token back (RFC 7009). It reports false
// where there is nothing to take back or no way to.
func revoke(ctx context.Context, s session) (bool, error) {
	if s.RefreshToken == "" {
		return false, nil
	}
	ctx, rp, err := discover(ctx, s.Login)
	if err != nil || rp.revocation == "" {
		return false, err
	}
	form := url.Values{"token": {s.RefreshToken}, "token_type_hint": {"refresh_token"}, "client_id": {s.Login.ClientID}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, rp.revocation, strings.NewReader(form.Encode()))
	if err != nil {
		return false, errors.New("the issuer's revocation_endpoint is not a URL")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := ctx.Value(oauth2.HTTPClient).(*http.Client).Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("the issuer answers %s", resp.Status)
	}
	return true, nil
}

// issuerError is what the token endpoint says, without the body, which may
// hold anything.
func issuerError(err error) error {
	refused, ok := errors.AsType[*oauth2.RetrieveError](err)
	switch {
	case !ok:
		return err
	case refused.ErrorCode == "":
		return fmt.Errorf("the issuer answers %s", refused.Response.Status)
	}
	return oauthRefusal(refused.ErrorCode, refused.ErrorDescription)
}

// oauthRefusal words an OAuth error.
func oauthRefusal(code, description string) error {
	words := fmt.Sprintf("the issuer answers %.80s", code)
	if description != "" {
		words += fmt.Sprintf(": %.200s", description)
	}
	return errors.New(words)
}

// maxIssuerAnswer is the most that is read of an issuer's answer, in bytes.
const maxIssuerAnswer = 1 << 20

// confidential sends nothing where others could listen in, and ends each
// answer at maxIssuerAnswer.
type confidential struct{ through http.RoundTripper }

func (c confidential) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := checkConfidential(r.URL.String()); err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	resp, err := c.through.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxIssuerAnswer), resp.Body}
	return resp, nil
}

// checkConfidential asks for https, or http to this machine; a name is not
// resolved.
func checkConfidential(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || !slices.Contains([]string{"https", "http"}, u.Scheme) {
		return fmt.Errorf("%.200q is not an https URL", address)
	}
	if u.Scheme == "http" && !client.Loopback(u.Hostname()) {
		return fmt.Errorf("%.200q: want https; over http others could listen in", address)
	}
	return nil
}
