// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"provost/api/client"
	"provost/api/identity"
	"provost/attest"
)

func TestCheckLogin(t *testing.T) {
	people := Issuer{URL: "https://login.example.com", Audience: "provost-cli", Algorithms: []string{"RS256"}, MaxAge: time.Hour, Provider: identity.OIDC}
	services := people
	services.URL, services.Audience = "https://api.example.com", "https://provost.example.com"
	ci := Issuer{URL: "https://token.actions.githubusercontent.com", Audience: "provost-cli", Algorithms: []string{"RS256"}, MaxAge: time.Minute, Provider: identity.GitHub}
	a, err := NewAuthenticator([]Issuer{people, services, ci}, nil, AuthOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		login Login
		want  string // in the error; "" for none
	}{
		{"the least", Login{Issuer: people.URL, ClientID: "provost-cli"}, ""},
		{"an ID token by name, with scopes", Login{Issuer: people.URL, ClientID: "provost-cli", Token: "id_token", Scopes: []string{"offline_access", "openid"}}, ""},
		{"access tokens for an audience of their own", Login{Issuer: services.URL, ClientID: "provost-cli", Token: "access_token"}, ""},

		{"an issuer that is not configured", Login{Issuer: people.URL + "/", ClientID: "provost-cli"}, "is not configured"},
		{"no issuer", Login{ClientID: "provost-cli"}, "is not configured"},
		{"an issuer of jobs", Login{Issuer: ci.URL, ClientID: "provost-cli"}, "want one of provider oidc"},
		{"no client", Login{Issuer: people.URL}, "client_id: want"},
		{"a client whose ID tokens are not accepted", Login{Issuer: services.URL, ClientID: "provost-cli"}, "not the issuer's audience"},
		{"a token that there is not", Login{Issuer: people.URL, ClientID: "provost-cli", Token: "refresh_token"}, `token "refresh_token"`},
		{"scopes without openid", Login{Issuer: people.URL, ClientID: "provost-cli", Scopes: []string{"profile"}}, "openid is missing"},
		{"two scopes in one", Login{Issuer: people.URL, ClientID: "provost-cli", Scopes: []string{"openid", "a b"}}, `scope "a b"`},
		{"a scope that is empty", Login{Issuer: people.URL, ClientID: "provost-cli", Scopes: []string{"openid", ""}}, `scope ""`},
		{"very many scopes", Login{Issuer: people.URL, ClientID: "provost-cli", Scopes: append(make([]string, 40), "openid")}, "32 at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := a.CheckLogin(tt.login)
			if tt.want == "" {
				if err != nil || out.Token == "" || out.MaxAge != 3600 || len(out.Scopes) == 0 {
					t.Errorf("%+v, %v", out, err)
				}
				return
			}
			if !errors.Is(err, attest.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestLoginIsToldToEverybody(t *testing.T) {
	f := newFixture(t)
	if l, err := (&client.Client{URL: f.url}).Login(t.Context()); !errors.Is(err, attest.ErrNotFound) {
		t.Errorf("a service without one: %+v, %v", l, err)
	}
	people := Issuer{URL: "https://login.example.com", Audience: "provost-cli", Algorithms: []string{"RS256"}, MaxAge: time.Hour, Provider: identity.OIDC}
	auth, err := NewAuthenticator([]Issuer{people}, nil, AuthOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := Config{
		Issuer: f.Server.issuer, Gate: f.gate, Records: f.memory, Keys: f.keys, Audit: f.memory, Builders: f.rows, APIKeys: f.kept, Auth: auth, Now: time.Now, Log: f.log,
		Imports: f.imports, Foreign: f.imports.foreign,
		Ready: func(context.Context) map[string]error { return nil }, Metrics: prometheus.NewRegistry(),
		Login: &Login{Issuer: people.URL, ClientID: "provost-cli"},
	}
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.Handler())
	defer server.Close()
	got, err := (&client.Client{URL: server.URL}).Login(t.Context())
	want := client.Login{Issuer: people.URL, ClientID: "provost-cli", Scopes: []string{"openid"}, Token: client.LoginIDToken, MaxAge: 3600}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, -want +got\n%s", err, diff)
	}
	config.Login, config.Metrics = &Login{Issuer: people.URL, ClientID: "other"}, prometheus.NewRegistry()
	if _, err := New(config); !errors.Is(err, attest.ErrInvalid) {
		t.Errorf("a server whose login gives tokens that it does not accept: %v", err)
	}
}

func TestWhoamiTellsAnyCaller(t *testing.T) {
	f := newFixture(t)
	_, own, _ := strings.Cut(f.idp.URL, "://")
	for _, tt := range []struct {
		name   string
		claims map[string]any
		want   client.Whoami
	}{
		{"a job of a registered builder", nil, client.Whoami{
			Tenant: own + "#65/74", Grants: []attest.Grant{}, Builder: builder,
			Tenants: map[string][]attest.Grant{own + "#65/74": {attest.GrantProvenance, attest.GrantSBOM}},
		}},
		{"a gate", map[string]any{"role": "gate", "repository": "acme/deploy"}, client.Whoami{
			Tenant: own + "#65/74", Grants: []attest.Grant{attest.GrantDecide, attest.GrantRead}, Tenants: map[string][]attest.Grant{},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Issuer, tt.want.Subject = f.idp.URL, "repo:acme/app:ref:refs/heads/main"
			got, err := f.client(tt.claims).Whoami(t.Context())
			if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
				t.Errorf("%v, -want +got\n%s", err, diff)
			}
		})
	}
	if w, err := f.client(map[string]any{"aud": "other"}).Whoami(t.Context()); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("a token for another audience: %+v, %v", w, err)
	}
}

func TestWhoamiNamesAPersonWithoutTheKey(t *testing.T) {
	w := whoamiWire(attest.Caller{Issuer: "https://login.example.com", Subject: "ada", Person: "employee-7", Session: "s", Why: "rule 1"})
	want := client.Whoami{Issuer: "https://login.example.com", Subject: "ada", Person: true, Grants: []attest.Grant{}, Tenants: map[string][]attest.Grant{}}
	if diff := cmp.Diff(want, w); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
