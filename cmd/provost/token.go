// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"
)

// githubToken asks GitHub Actions for the job's OIDC token, for the service as
// audience. It reports false where there is no GitHub Actions.
func githubToken(ctx context.Context, audience string) (token string, found bool, err error) {
	address, bearer := os.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), os.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
	if address == "" || bearer == "" {
		return "", false, nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", false, noGitHubToken(errors.New("ACTIONS_ID_TOKEN_REQUEST_URL is not a URL"))
	}
	q := u.Query()
	q.Set("audience", audience)
	u.RawQuery = q.Encode()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", false, err
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", false, noGitHubToken(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Value string `json:"value"`
	}
	if resp.StatusCode != http.StatusOK {
		return "", false, noGitHubToken(errors.New(resp.Status))
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 2*maxToken)).Decode(&answer); err != nil || answer.Value == "" {
		return "", false, noGitHubToken(errors.New("no token in the answer"))
	}
	return answer.Value, true, nil
}

func noGitHubToken(err error) error {
	return hint(fmt.Errorf("ask GitHub Actions for a token: %w", err), "the job needs permissions: id-token: write; elsewhere set PROVOST_TOKEN or pass --token-file")
}
