// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"provost/api/identity"
)

// A devIssuer is the development OIDC issuer. It says whatever it is asked to
// say to whoever can read its key, so only `provostd dev` believes it.
//
// One key, several issuer URLs: one for each provider whose tokens it can
// imitate, and one for people.
type devIssuer struct {
	key *ecdsa.PrivateKey
	// Base is the URL of the service that serves it.
	Base string `json:"base"`
	// Audience is what its tokens are for.
	Audience string `json:"audience"`
}

// devPeople is the issuer of people, by the last part of its URL. The others
// have the names of their providers.
const devPeople = "people"

const devKeyFile, devIssuerFile = "dev-issuer.key", "dev-issuer.json"

// openDevIssuer reads the issuer's key from dir, or makes it, and records
// where the issuer is for `provostd dev-token`.
func openDevIssuer(dir, base string) (*devIssuer, error) {
	d := &devIssuer{Base: base, Audience: base}
	var err error
	if d.key, err = readDevKey(dir); errors.Is(err, fs.ErrNotExist) {
		d.key, err = makeDevKey(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("development issuer: %w", err)
	}
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	return d, writeFile(filepath.Join(dir, devIssuerFile), append(raw, '\n'))
}

// findDevIssuer reads what openDevIssuer recorded.
func findDevIssuer(dir string) (*devIssuer, error) {
	raw, err := os.ReadFile(filepath.Join(dir, devIssuerFile))
	if err != nil {
		return nil, hint(fmt.Errorf("find the development issuer: %w", err), "start it first: provostd dev --data "+dir)
	}
	d := new(devIssuer)
	if err := json.Unmarshal(raw, d); err != nil {
		return nil, fmt.Errorf("%s: %w", devIssuerFile, err)
	}
	d.key, err = readDevKey(dir)
	return d, err
}

func readDevKey(dir string) (*ecdsa.PrivateKey, error) {
	raw, err := os.ReadFile(filepath.Join(dir, devKeyFile))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("%s: not PEM", devKeyFile)
	}
	return x509.ParseECPrivateKey(block.Bytes)
}

func makeDevKey(dir string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writeFile(filepath.Join(dir, devKeyFile), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

// URL is the issuer URL of a provider.
func (d *devIssuer) URL(provider string) string { return d.Base + "/dev/issuer/" + provider }

// mint signs a token.
func (d *devIssuer) mint(claims map[string]any) (string, error) {
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: d.key, KeyID: d.keyID()}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(claims).Serialize()
}

func (d *devIssuer) keyID() string {
	thumb, err := (&jose.JSONWebKey{Key: d.key.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "dev"
	}
	return hex.EncodeToString(thumb[:8])
}

// ServeHTTP serves discovery and keys below /dev/issuer/.
func (d *devIssuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	provider, file, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/dev/issuer/"), "/")
	_, known := devProviders()[provider]
	var answer any
	switch {
	case !known && provider != devPeople:
	case file == ".well-known/openid-configuration":
		answer = map[string]any{
			"issuer":                                d.URL(provider),
			"jwks_uri":                              d.URL(provider) + "/jwks",
			"id_token_signing_alg_values_supported": []string{"ES256"},
			"response_types_supported":              []string{"id_token"},
			"subject_types_supported":               []string{"public"},
		}
	case file == "jwks":
		use := "sig"
		if provider == identity.SPIFFE { // a trust domain's bundle
			use = "jwt-svid"
		}
		answer = jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: d.key.Public(), KeyID: d.keyID(), Algorithm: "ES256", Use: use}}}
	}
	if answer == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// A devToken says what a development token should claim.
type devToken struct {
	Repository string
	Ref        string
	Audience   string
	Lifetime   time.Duration
	Extra      map[string]string // overrides and additions
}

// devWorkflow is the development builder: the reusable workflow in which the
// jobs of development tokens run.
const devWorkflow = "provost-dev/workflows/.github/workflows/build.yml@refs/heads/main"

// github returns the claims of a GitHub Actions token for a push, in GitHub's
// names and types.
func (d *devIssuer) github(t devToken, now time.Time) map[string]any {
	owner, _, _ := strings.Cut(t.Repository, "/")
	sha := t.commit("sha")
	refType, _ := t.short()
	run := strconv.FormatInt(now.UnixMilli(), 10)
	return map[string]any{
		"iss": d.URL(identity.GitHub), "sub": "repo:" + t.Repository + ":ref:" + t.Ref, "jti": rand.Text(),
		"repository": t.Repository, "repository_id": stableID(t.Repository),
		"repository_owner": owner, "repository_owner_id": stableID(owner), "repository_visibility": "private",
		"ref": t.Ref, "ref_type": refType, "ref_protected": "true", "sha": sha,
		"workflow": "release", "workflow_ref": t.Repository + "/.github/workflows/release.yml@" + t.Ref, "workflow_sha": sha,
		"job_workflow_ref": devWorkflow, "job_workflow_sha": standInCommit(devWorkflow),
		"event_name": "push", "run_id": run, "run_number": "1", "run_attempt": "1",
		"runner_environment": "github-hosted",
		"actor":              "developer", "actor_id": stableID("developer"),
	}
}

// people returns the claims of a person's token.
func (d *devIssuer) people(subject string) map[string]any {
	return map[string]any{"iss": d.URL(devPeople), "sub": subject, "jti": rand.Text()}
}

// finish adds the times, the audience and the overrides, and signs.
func (d *devIssuer) finish(claims map[string]any, t devToken, now time.Time) (string, error) {
	claims["aud"] = t.Audience
	claims["iat"], claims["nbf"], claims["exp"] = now.Unix(), now.Unix(), now.Add(t.Lifetime).Unix()
	for name, value := range t.Extra {
		override(claims, name, value)
	}
	return d.mint(claims)
}

// standInCommit is not a real commit, but the same one for the same source.
func standInCommit(source string) string {
	sum := sha1.Sum([]byte(source))
	return hex.EncodeToString(sum[:])
}

// stableID makes a decimal id of a name, the same each time.
func stableID(name string) string {
	sum := sha1.Sum([]byte(name))
	return strconv.Itoa(int(sum[0])<<24 | int(sum[1])<<16 | int(sum[2])<<8 | int(sum[3]))
}
