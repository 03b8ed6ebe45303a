// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"provost/api/identity"
	"provost/attest"
)

// BenchmarkAuthorise prints what authorisation adds to a request, beside one
// raw RS256 verification in the same run: in a session, as sign requests are;
// and of a token that was never seen, as at its exchange, without the store.
// There are a hundred builders and a hundred rules of that issuer, of which the
// last are those that match. Nothing is asked over the network: the issuer is
// stopped once its keys are here.
func BenchmarkAuthorise(b *testing.B) {
	const rounds = 2000
	p := newIDP(b)
	var all []attest.Builder
	var rules []Rule
	for i := range 99 {
		all = append(all, builderRow(p.URL, fmt.Sprint("other-", i), fmt.Sprintf(`claims.repository_id == "%d" && claims.runner_environment == "github-hosted"`, 1000+i)))
		rules = append(rules, Rule{Issuer: p.URL, Claims: map[string]string{"repository_id": fmt.Sprint(1000 + i)}, Roles: []attest.Role{attest.RoleSigner}})
	}
	all = append(all, builderRow(p.URL, "acme", `claims.repository_id == "74" && claims.runner_environment == "github-hosted"`))
	rules = append(rules, Rule{Issuer: p.URL, Claims: map[string]string{"repository_id": "74"}, Roles: []attest.Role{attest.RoleSigner}})
	a, err := NewAuthenticator(
		[]Issuer{{URL: p.URL, Audience: audience, Algorithms: []string{"RS256"}, MaxAge: 10 * time.Minute, Provider: identity.GitHub}},
		rules, AuthOptions{Service: service, Registry: &rows{all: all}, Sessions: &sessionsInMemory{}})
	if err != nil {
		b.Fatal(err)
	}
	tokens := make([]string, rounds)
	for i := range tokens {
		tokens[i] = p.tokenBy("RS256", "rsa", map[string]any{"run_id": fmt.Sprint(1 + i)})
	}
	secret, _, _, err := a.Exchange(b.Context(), exchange{token: tokens[0]})
	if err != nil {
		b.Fatal(err)
	}
	p.Close()
	key := rsaKey().PublicKey
	for b.Loop() {
		raw := medianOf(rounds, func(i int) error {
			jws, err := jose.ParseSignedCompact(tokens[i], []jose.SignatureAlgorithm{jose.RS256})
			if err == nil {
				_, err = jws.Verify(&key)
			}
			return err
		})
		session := medianOf(rounds, func(int) error { return authorise(b.Context(), a.Authenticate, secret) })
		fresh := medianOf(rounds-1, func(i int) error {
			return authorise(b.Context(), func(ctx context.Context, token string) (attest.Caller, error) {
				ad, err := a.admit(ctx, token)
				return ad.caller, err
			}, tokens[i+1])
		})
		a.memory = tokenMemory{}
		b.ReportMetric(float64(raw.Nanoseconds())/1e3, "µs/rs256")
		b.ReportMetric(float64(session.Nanoseconds())/1e3, "µs/session")
		b.ReportMetric(float64(fresh.Nanoseconds())/1e3, "µs/token")
		b.ReportMetric(float64(session)/float64(raw), "session/rs256")
		b.ReportMetric(float64(fresh)/float64(raw), "token/rs256")
	}
}

func authorise(ctx context.Context, authenticate func(context.Context, string) (attest.Caller, error), token string) error {
	caller, err := authenticate(ctx, token)
	if err != nil {
		return err
	}
	if caller.Build == nil {
		return fmt.Errorf("no build")
	}
	return caller.Require(attest.GrantProvenance)
}

// medianOf is the median time of do.
func medianOf(rounds int, do func(i int) error) time.Duration {
	times := make([]time.Duration, rounds)
	for i := range times {
		start := time.Now()
		if err := do(i); err != nil {
			panic(err)
		}
		times[i] = time.Since(start)
	}
	slices.Sort(times)
	return times[rounds/2]
}
