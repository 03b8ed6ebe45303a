// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"provost/api/client"
	"provost/attest"
	"provost/verify"
)

// options are the flags that every verb has.
type options struct {
	output, url, tokenFile string
	bound                  []artifact // that the CI's token is asked for; nil for any
	connection
}

func (o *options) register(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&o.output, "output", "text", "how to answer: `text|json`")
	f.StringVar(&o.url, "url", os.Getenv("PROVOST_URL"), "the service's `URL` (PROVOST_URL)")
	f.StringVar(&o.tokenFile, "token-file", "", "`FILE` with the token; otherwise PROVOST_TOKEN, the login, the CI's own")
	o.connection.register(root)
}

func (o *options) validate() error {
	if o.output != "text" && o.output != "json" {
		return usageError{fmt.Errorf("--output %q: want text or json", o.output)}
	}
	return nil
}

func (o *options) printer() printer { return newPrinter(os.Stdout, o.output) }

// service is a client of the service, or a usage error that says how to name
// it.
func (o *options) service() (*client.Client, error) {
	if o.url == "" {
		return nil, usageError{hint(errors.New("which service?"), "set PROVOST_URL, or pass --url https://provost.example.com")}
	}
	if u, err := url.Parse(o.url); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, usageError{hint(fmt.Errorf("service %q is not a URL", o.url), "set PROVOST_URL, or pass --url https://provost.example.com")}
	}
	c := &client.Client{URL: strings.TrimRight(o.url, "/"), Token: o.token, Version: version, Sessions: openSessions()}
	for _, a := range o.bound {
		c.Bound = append(c.Bound, client.Subject{Digest: map[string]string{a.Digest.Algorithm(): a.Digest.Hex()}})
	}
	return c, o.connection.apply(c, o.tokenFile)
}

// audience is what the CI's token is asked for: the service, and, with bound
// artifacts, the digest of their set.
func (o *options) audience() string {
	service := strings.TrimRight(o.url, "/")
	if len(o.bound) == 0 {
		return service
	}
	var digests []attest.Digest
	for _, a := range o.bound {
		digests = append(digests, a.Digest)
	}
	return service + "/?d=" + attest.SubjectSet(digests).Hex()
}

// maxToken is the largest token read, in bytes.
const maxToken = 16 << 10

// token finds the caller's token: the file, the environment, the login at this
// service, or the CI.
func (o *options) token(ctx context.Context) (string, error) {
	if o.tokenFile != "" {
		raw, err := readBounded(o.tokenFile, maxToken)
		if err != nil {
			return "", hint(fmt.Errorf("read token: %w", err), "--token-file FILE holds one token; without it PROVOST_TOKEN, or the CI's own, is used")
		}
		token := strings.TrimSpace(string(raw))
		if token == "" {
			return "", hint(fmt.Errorf("%s holds no token", o.tokenFile), "without --token-file PROVOST_TOKEN, or the CI's own, is used")
		}
		return token, nil
	}
	if t := strings.TrimSpace(os.Getenv("PROVOST_TOKEN")); t != "" {
		return t, nil
	}
	if len(o.bound) == 0 { // a login is bound to nothing: not what was asked for
		if t, ok, err := sessionToken(ctx, strings.TrimRight(o.url, "/")); ok || err != nil {
			return t, err
		}
	}
	return ciToken(ctx, o.audience())
}

// trust reads the trusted root from a file, or asks the service for it.
func (o *options) trust(ctx context.Context, file string) (*verify.Trust, error) {
	raw, err := o.trustedRoot(ctx, file)
	if err != nil {
		return nil, err
	}
	t, err := verify.ParseTrust(raw)
	if err != nil && file != "" {
		err = hint(fmt.Errorf("%s: %w", file, err), "fetch it again, over a connection that you trust: provost trust root --trusted-root "+file)
	}
	return t, err
}

func (o *options) trustedRoot(ctx context.Context, file string) ([]byte, error) {
	if file != "" {
		raw, err := readBounded(file, verify.MaxTrustedRoot)
		if err != nil {
			return nil, hint(fmt.Errorf("read trusted root: %w", err), "fetch it once, over a connection that you trust: provost trust root --trusted-root "+file)
		}
		return raw, nil
	}
	if o.url == "" {
		return nil, usageError{hint(errors.New("whom to trust?"), "pass --trusted-root FILE, or name the service with --url")}
	}
	service, err := o.service()
	if err != nil {
		return nil, err
	}
	raw, err := service.TrustedRoot(ctx)
	if err != nil {
		return nil, fmt.Errorf("fetch trusted root: %w", err)
	}
	return raw, nil
}

// fetchBundles asks the service for all attestations about an artifact of the
// predicate types to keep.
func (o *options) fetchBundles(ctx context.Context, d attest.Digest, keep func(predicateType string) bool) ([][]byte, error) {
	if o.url == "" {
		return nil, usageError{hint(errors.New("which bundle?"), "pass --bundle FILE, or name the service with --url")}
	}
	service, err := o.service()
	if err != nil {
		return nil, err
	}
	var bundles [][]byte
	for after := ""; ; {
		page, err := service.Attestations(ctx, d, "", after, 0)
		if err != nil {
			return nil, fmt.Errorf("fetch attestations: %w", err)
		}
		for _, a := range page.Attestations {
			if keep(a.PredicateType) {
				bundles = append(bundles, a.Bundle)
			}
		}
		if page.Next == "" {
			return bundles, nil
		}
		if page.Next == after || len(bundles) > maxBundles {
			return nil, fmt.Errorf("fetch attestations: %w", &attest.LimitError{What: "attestations", Limit: maxBundles, Unit: "bundles"})
		}
		after = page.Next
	}
}
