// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"provost/api/identity"
)

func devTokenCommand() *cobra.Command {
	var data, provider, repository, ref, audience string
	var lifetime time.Duration
	var claims []string
	c := &cobra.Command{
		Use:   "dev-token",
		Short: "Print a workload token of the development issuer",
		Long: `Print a workload token of the development issuer, with the claims of a CI
provider. Only the service that provostd dev runs on the same data believes it.

Its builders of buildkite and spiffe are of the repository acme/app alone: tokens
of those providers name no repository. --claim also overrides a member of an
object, by a dotted name such as kubernetes.io.pod.name.`,
		Example: `  provostd dev-token --data ./provost-dev --issuer github --repository acme/app --ref refs/heads/main
  provostd dev-token --repository acme/app --ref refs/heads/main --claim runner_environment=self-hosted
  provostd dev-token --issuer gitlab --repository acme/app --ref refs/tags/v1.2.3`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			t := devToken{Repository: repository, Ref: ref, Audience: audience, Lifetime: lifetime}
			if err := t.validate(provider, claims); err != nil {
				return err
			}
			issuer, err := findDevIssuer(data)
			if err != nil {
				return err
			}
			if t.Audience == "" {
				t.Audience = issuer.Audience
			}
			now := time.Now()
			token, err := issuer.finish(devProviders()[provider].claims(issuer, t, now), t, now)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(os.Stdout, token)
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&data, "data", defaultData, "`DIR` of provostd dev")
	f.StringVar(&provider, "issuer", identity.GitHub, "`PROVIDER` whose claims to make: "+strings.Join(devProviderNames(), ", "))
	f.StringVar(&repository, "repository", "", "`OWNER/NAME` that the build is of")
	f.StringVar(&ref, "ref", "", "`REF` that the build is of, such as refs/heads/main")
	f.StringVar(&audience, "audience", "", "`URL` that the token is for (default the development service)")
	f.DurationVar(&lifetime, "lifetime", 5*time.Minute, "until the token expires")
	f.StringArrayVar(&claims, "claim", nil, "`NAME=VALUE` that overrides or adds a claim; may be repeated")
	return c
}

var repositoryName = regexp.MustCompile(`^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$`)

func (t *devToken) validate(provider string, claims []string) error {
	if _, ok := devProviders()[provider]; !ok {
		return usageError{hint(fmt.Errorf("--issuer %q is not known", provider), "the providers: "+strings.Join(devProviderNames(), ", "))}
	}
	if !repositoryName.MatchString(t.Repository) {
		return usageError{fmt.Errorf("--repository %q: want OWNER/NAME", t.Repository)}
	}
	if !strings.HasPrefix(t.Ref, "refs/") {
		return usageError{hint(fmt.Errorf("--ref %q: want a full ref", t.Ref), "such as --ref refs/heads/main")}
	}
	t.Extra = map[string]string{}
	for _, claim := range claims {
		name, value, ok := strings.Cut(claim, "=")
		if !ok || name == "" {
			return usageError{fmt.Errorf("--claim %q: want NAME=VALUE", claim)}
		}
		t.Extra[name] = value
	}
	if t.Lifetime == 0 {
		return usageError{errors.New("--lifetime 0: want how long the token is valid")}
	}
	return nil
}
