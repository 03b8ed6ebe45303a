// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"provost/attest"
)

const (
	defaultDeadline = 20 * time.Second
	attemptTimeout  = 5 * time.Second // of one HTTP request
	maxAnswer       = 4 << 20         // bytes; a key of 10 000 versions
)

// complete checks the configuration and fills in defaults.
func (c *VaultConfig) complete() error {
	u, err := url.Parse(c.Address)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return fmt.Errorf("%w: vault address %q: want https://host:port", attest.ErrInvalid, c.Address)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%w: vault address: want https://host:port and nothing more", attest.ErrInvalid)
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) {
		return fmt.Errorf("%w: vault address %q: want https: anyone on the way could read the token", attest.ErrInvalid, c.Address)
	}
	credentials := 0
	for _, given := range []bool{c.Token != "", c.TokenFile != "", c.AppRole != nil, c.JWT != nil} {
		if given {
			credentials++
		}
	}
	if credentials != 1 {
		return fmt.Errorf("%w: vault: want exactly one of token, token file, AppRole and JWT", attest.ErrInvalid)
	}
	if c.AppRole != nil && (c.AppRole.RoleID == "" || c.AppRole.SecretIDFile == "") {
		return fmt.Errorf("%w: vault AppRole: want a role ID and a secret ID file", attest.ErrInvalid)
	}
	if c.JWT != nil && (c.JWT.Role == "" || c.JWT.TokenFile == "") {
		return fmt.Errorf("%w: vault JWT: want a role and a token file", attest.ErrInvalid)
	}
	for _, d := range []struct {
		field *string
		value string
	}{{&c.Mount, "transit"}, {&c.KeyPrefix, "provost-"}} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	c.Mount = strings.Trim(c.Mount, "/")
	if c.Deadline <= 0 {
		c.Deadline = defaultDeadline
	}
	return nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// newVaultClient builds the client by hand: api.DefaultConfig obeys
// VAULT_AGENT_ADDR over the address given, VAULT_SKIP_VERIFY, proxies and
// more. Retries are ours (vault_call.go): the library's own retry version
// errors, and lose the real error at a deadline. The client holds no token;
// each request is given one.
func newVaultClient(c VaultConfig) (*api.Client, error) {
	var pool *x509.CertPool // nil: the system's
	if c.CACertFile != "" {
		pem, err := os.ReadFile(c.CACertFile)
		if err != nil {
			return nil, fmt.Errorf("vault CA certificate: %w", err)
		}
		pool = x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: vault CA certificate %s: no PEM certificate in it", attest.ErrInvalid, c.CACertFile)
		}
	}
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool},
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     90 * time.Second,
		DialContext:         (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
	}
	client, err := api.NewClient(&api.Config{
		Address: c.Address,
		HttpClient: &http.Client{
			Transport:     boundedTransport{transport},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		MaxRetries: 0,
		// A redirect would carry the token to an address nobody configured. A
		// standby forwards; one that cannot is worth another attempt.
		DisableRedirects: true,
	})
	if err != nil {
		return nil, fmt.Errorf("vault client: %w", err)
	}
	// NewClient still read these three from the environment.
	client.ClearToken()
	client.ClearNamespace()
	client.SetHeaders(http.Header{api.RequestHeaderName: {"true"}})
	return client, nil
}

// boundedTransport bounds the answers, which the library reads whole.
type boundedTransport struct{ http.RoundTripper }

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = &boundedBody{resp.Body, maxAnswer}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int
}

var errAnswerTooLong = errors.New("answer too long")

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errAnswerTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
