// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// A tokenSource asks a CI or platform for the job's own token, for the service
// as audience. It reports false where the job does not run there.
type tokenSource func(ctx context.Context, audience string) (token string, found bool, err error)

// tokenSources are in the order in which they are asked. The last is a file
// that may be in many pods.
var tokenSources = []tokenSource{githubToken, gitlabToken, buildkiteToken, circleciToken, spiffeToken, kubernetesToken}

// ciToken is the token of the first source that there is. One that is there
// and fails is an error: another identity than the one meant is never tried.
func ciToken(ctx context.Context, audience string) (string, error) {
	for _, source := range tokenSources {
		token, found, err := source(ctx, audience)
		switch {
		case err != nil:
			return "", err
		case found:
			return token, nil
		}
	}
	return "", hint(errors.New("no token"), "log in (provost login), set PROVOST_TOKEN, pass --token-file or --client-certificate, or run in GitHub Actions with permission id-token: write, in a GitLab job with id_tokens: PROVOST_ID_TOKEN, in Buildkite, CircleCI, Kubernetes or SPIFFE")
}

// gitlabToken is the ID token that the job's definition names
//
//	id_tokens: {PROVOST_ID_TOKEN: {aud: https://provost.example.com}}
//
// GitLab makes it when the job starts, for the audience that stands there.
func gitlabToken(context.Context, string) (string, bool, error) {
	if os.Getenv("GITLAB_CI") != "true" {
		return "", false, nil
	}
	token, err := oneToken([]byte(os.Getenv("PROVOST_ID_TOKEN")))
	if err != nil {
		return "", false, hint(fmt.Errorf("read the GitLab token in PROVOST_ID_TOKEN: %w", err), "the job needs id_tokens: {PROVOST_ID_TOKEN: {aud: URL-OF-THE-SERVICE}}")
	}
	return token, true, nil
}

// buildkiteToken asks the agent, with the ids that are never given again.
func buildkiteToken(ctx context.Context, audience string) (string, bool, error) {
	if os.Getenv("BUILDKITE") != "true" {
		return "", false, nil
	}
	token, err := tokenOf(ctx, "buildkite-agent", "oidc", "request-token", "--audience", audience, "--claim", "organization_id", "--claim", "pipeline_id")
	return token, err == nil, err
}

// circleciToken asks CircleCI's own command line, which is in every job.
func circleciToken(ctx context.Context, audience string) (string, bool, error) {
	if os.Getenv("CIRCLECI") != "true" {
		return "", false, nil
	}
	claims, err := json.Marshal(map[string]string{"aud": audience})
	if err != nil {
		return "", false, err
	}
	token, err := tokenOf(ctx, "circleci", "run", "oidc", "get", "--claims", string(claims))
	return token, err == nil, err
}

// spiffeToken asks the Workload API for a JWT-SVID.
func spiffeToken(ctx context.Context, audience string) (string, bool, error) {
	if os.Getenv(workloadapi.SocketEnv) == "" {
		return "", false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	svid, err := workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return "", false, hint(fmt.Errorf("ask the SPIFFE Workload API for a token: %w", err), "is the agent there, at SPIFFE_ENDPOINT_SOCKET, and the workload registered?")
	}
	token, err := oneToken([]byte(svid.Marshal()))
	return token, err == nil, err
}

// kubernetesToken is the projected service account token. Without the variable
// the file need not be there.
func kubernetesToken(context.Context, string) (string, bool, error) {
	name, named := os.LookupEnv("PROVOST_KUBERNETES_TOKEN_FILE")
	if !named {
		name = "/var/run/secrets/tokens/provost"
	}
	raw, err := readBounded(name, maxToken)
	if !named && errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	var token string
	if err == nil {
		token, err = oneToken(raw)
	}
	if err != nil {
		return "", false, hint(fmt.Errorf("read the Kubernetes token %s: %w", name, err), "the pod needs a projected volume with a serviceAccountToken, path provost, whose audience is the service's URL")
	}
	return token, true, nil
}

// tokenTimeout is how long a source may take.
const tokenTimeout = 30 * time.Second

// tokenOf is what a CI's command prints.
func tokenOf(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second // a child of its own may keep the pipe open
	out, said := bounded{limit: 2 * maxToken}, bounded{limit: 300}
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	var token string
	if err == nil {
		token, err = oneToken(out.kept.Bytes())
	} else if words := strings.TrimSpace(said.kept.String()); words != "" {
		err = fmt.Errorf("%w: %s", err, words)
	}
	if err != nil {
		return "", hint(fmt.Errorf("ask %s for a token: %w", name, err), "elsewhere set PROVOST_TOKEN or pass --token-file")
	}
	return token, nil
}

// oneToken is the only word of what a source said. The error does not quote it.
func oneToken(raw []byte) (string, error) {
	token := string(bytes.TrimSpace(raw))
	switch {
	case token == "":
		return "", errors.New("there is none")
	case len(token) > maxToken:
		return "", fmt.Errorf("it has more than %d bytes", maxToken)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New("it is more than a token")
	}
	return token, nil
}

// A bounded buffer keeps the first bytes and drops the rest.
type bounded struct {
	kept  bytes.Buffer
	limit int
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := b.limit - b.kept.Len(); room > 0 {
		b.kept.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
