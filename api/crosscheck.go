// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"provost/api/identity"
	"provost/attest"
)

// How a CI's API is asked. It is asked when a token is exchanged, never by a
// sign request.
const (
	checkedTimeout    = 5 * time.Second // default, for all requests of one check together
	checkedMaxTimeout = 30 * time.Second
	checkedMaxAnswer  = 1 << 20 // bytes
	checkedAtOnce     = 8       // checks of one issuer; others wait, inside their timeout
)

// A CrossCheck says which API is asked about the runs that an issuer's tokens
// speak of. For builders whose row asks for it, the API confirms what the token
// says, or the level is lower.
type CrossCheck struct {
	// URL is the root of the API, without a slash at the end:
	// https://api.github.com, https://HOST/api/v3 of GitHub Enterprise Server,
	// https://api.NAME.ghe.com, or https://HOST/api/v4 of GitLab.
	URL string `yaml:"url"`
	// TokenFile holds a token for that API, which needs to read alone. It is
	// read at each check, so that a new one counts at once. GitHub: a
	// fine-grained token with Actions and Contents read. GitLab: an access token
	// with the scope read_api; the role Reporter sees everything but the
	// variables of pipelines, which GitLab shows to Maintainers.
	TokenFile string `yaml:"token_file"`
	// Timeout is how long all requests of one check may take together. Default
	// 5s, at most 30s.
	Timeout time.Duration `yaml:"timeout"`
}

// validate checks the configuration for a provider, and sets its defaults.
func (c *CrossCheck) validate(provider string) error {
	if provider != identity.GitHub && provider != identity.GitLab {
		return fmt.Errorf("cross_check goes with providers github and gitlab")
	}
	u, err := url.Parse(c.URL)
	if err := errors.Join(err, checkURL(c.URL)); err != nil {
		return fmt.Errorf("cross_check.url: %w", err)
	}
	if provider == identity.GitLab && !strings.HasSuffix(u.Path, "/api/v4") {
		return fmt.Errorf("cross_check.url %q: want one that ends in /api/v4", c.URL)
	}
	if provider == identity.GitHub && u.Path != "" && u.Path != "/api/v3" {
		return fmt.Errorf("cross_check.url %q: want https://api.github.com, https://HOST/api/v3 or https://api.NAME.ghe.com", c.URL)
	}
	if c.TokenFile == "" {
		return fmt.Errorf("cross_check.token_file is empty")
	}
	c.Timeout = cmp.Or(c.Timeout, checkedTimeout)
	if c.Timeout < 0 || c.Timeout > checkedMaxTimeout {
		return fmt.Errorf("cross_check.timeout %s: want at most %s", c.Timeout, checkedMaxTimeout)
	}
	return nil
}

// A checkedAPI is a configured [CrossCheck] with what it needs of the outside.
type checkedAPI struct {
	CrossCheck
	host   string
	ask    func(context.Context, *checkedRun) error // of the provider
	header func(h http.Header, secret string)       // of the provider
	client *http.Client
	secret func(file string) (string, error)
	now    func() time.Time
	places chan struct{}
}

// newCheckedAPI is the API of a validated issuer; nil when it has none.
func newCheckedAPI(i Issuer, opts AuthOptions) *checkedAPI {
	if i.CrossCheck == nil {
		return nil
	}
	api := &checkedAPI{CrossCheck: *i.CrossCheck, secret: opts.Secret, now: opts.Now, places: make(chan struct{}, checkedAtOnce)}
	if u, err := url.Parse(api.URL); err == nil {
		api.host = u.Host
	}
	api.ask, api.header = checkGitHub, checkedGitHubHeader
	if i.Provider == identity.GitLab {
		api.ask, api.header = checkGitLab, checkedGitLabHeader
	}
	c := http.Client{}
	if opts.HTTPClient != nil {
		c = *opts.HTTPClient
	}
	// It goes only where it is sent: with a redirect the token would go along.
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	api.client = &c
	return api
}

// crossCheck asks the API of the issuer's CI about the run that verified claims
// speak of; nil when none is configured. It never fails because the API does:
// then the answer has a Problem, and leaves a lower level. What the API
// contradicts is an [attest.ErrDenied]: either the token or the API is not what
// it seems, and nothing is signed on that.
func (i *issuer) crossCheck(ctx context.Context, claims identity.Claims) (*identity.Checked, error) {
	if i.checked == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, i.checked.Timeout)
	defer cancel()
	run := &checkedRun{api: i.checked, claims: claims}
	run.Checked = identity.Checked{At: i.checked.now().UTC(), By: i.checked.host, Facts: map[string]string{}, Level: 3}
	run.fault(run.ask(ctx))
	if run.denied != nil {
		return nil, run.denied
	}
	slices.Sort(run.Confirmed)
	run.Confirmed = slices.Compact(run.Confirmed)
	return &run.Checked, nil
}

// A checkedRun is one check under way.
type checkedRun struct {
	identity.Checked
	api    *checkedAPI
	claims identity.Claims
	secret string
	denied error // the first contradiction
}

// ask waits for a place, reads the token and asks.
func (r *checkedRun) ask(ctx context.Context) error {
	select {
	case r.api.places <- struct{}{}:
		defer func() { <-r.api.places }()
	case <-ctx.Done():
		return checkedFault("too many checks are under way")
	}
	if r.api.secret == nil {
		return checkedFault("the service has no token for the API")
	}
	var err error
	if r.secret, err = r.api.secret(r.api.TokenFile); err != nil || r.secret == "" { // its words name paths of ours
		return checkedFault("the service's token for the API cannot be read")
	}
	return r.api.ask(ctx, r)
}

// A checkedFault says in our own words why the API did not say something. What
// the API answered is never quoted: it may be anything.
type checkedFault string

func (f checkedFault) Error() string { return string(f) }

const (
	// errCheckedMissing says that the API knows no such thing, or shows it to
	// others alone.
	errCheckedMissing = checkedFault("the API does not show the run to the service's token")
	// errCheckedRefused says that the API does not take the question.
	errCheckedRefused = checkedFault("the API refuses the question")
)

// fault keeps an error of asking, if it is one, as a problem.
func (r *checkedRun) fault(err error) {
	if err != nil {
		r.problem(identity.LevelUnconfirmed, err.Error())
	}
}

// problem keeps what was not confirmed, and the level that it leaves.
func (r *checkedRun) problem(level int, words string) {
	r.Level = min(r.Level, level)
	if r.Problem != "" {
		words = r.Problem + "; " + words
	}
	r.Problem = words
}

// contradict keeps that the API says something else than the token. It is
// closed: neither is believed.
func (r *checkedRun) contradict(words string) {
	if r.denied == nil {
		r.denied = fmt.Errorf("%w: the CI's API contradicts the token: %s", attest.ErrDenied, words)
	}
}

// needs reports whether the token has all these claims, by which a run is found
// and held against it; without them it is refused, closed.
func (r *checkedRun) needs(claims ...string) bool {
	for _, name := range claims {
		if r.claim(name) == "" && r.denied == nil {
			r.denied = fmt.Errorf("%w: the token names no run that the CI's API could be asked about: %s is missing or malformed", attest.ErrDenied, name)
		}
	}
	return r.denied == nil
}

// claim is a claim's text; "" when it is not there.
func (r *checkedRun) claim(name string) string {
	text, _ := r.claims.Text(name)
	return text
}

// same holds what the API says against a claim, which the token need not have.
func (r *checkedRun) same(claim, said string) {
	claimed := r.claim(claim)
	switch {
	case claimed == "":
	case said == "":
		r.problem(identity.LevelUnconfirmed, "the API does not say "+claim)
	case said != claimed:
		r.contradict("another " + claim)
	default:
		r.confirm(claim)
	}
}

// sameID is same for an id, which is 0 where the API says none.
func (r *checkedRun) sameID(claim string, said int64) {
	if said <= 0 {
		r.same(claim, "")
		return
	}
	r.same(claim, strconv.FormatInt(said, 10))
}

func (r *checkedRun) confirm(claims ...string) { r.Confirmed = append(r.Confirmed, claims...) }

// A checkedQuestion is one request.
type checkedQuestion struct {
	what  string   // is asked for, in our own words
	path  []string // its parts, as they are; each is escaped
	query string   // encoded
}

// get asks one question and decodes the answer into v. What is not there is an
// errCheckedMissing, everything else that is not an answer a [checkedFault].
func (r *checkedRun) get(ctx context.Context, v any, q checkedQuestion) error {
	var path strings.Builder
	for _, part := range q.path {
		if part == "" || part == "." || part == ".." { // these lead elsewhere, and have no escape
			return checkedFault("the API cannot be asked for " + q.what)
		}
		path.WriteString("/" + url.PathEscape(part))
	}
	if q.query != "" {
		path.WriteString("?" + q.query)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.api.URL+path.String(), nil)
	if err != nil {
		return checkedFault("the API cannot be asked for " + q.what)
	}
	r.api.header(req.Header, r.secret)
	resp, err := r.api.client.Do(req)
	if err != nil { // its words name addresses
		return checkedUnanswered(ctx, err)
	}
	defer resp.Body.Close()
	if err := checkedStatus(resp, q.what); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, resp.Body, checkedMaxAnswer))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return checkedFault("the API's answer about " + q.what + " is too large")
	}
	if err != nil {
		return checkedUnanswered(ctx, err)
	}
	if err := attest.DecodeOpenJSON(body, v); err != nil { // its words quote the answer
		return checkedUnclear(q.what)
	}
	return nil
}

// checkedUnclear is the fault of an answer that is none.
func checkedUnclear(what string) error {
	return checkedFault("the API's answer about " + what + " is not understood")
}

// checkedUnanswered tells a slow API from one that is not there.
func checkedUnanswered(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		return checkedFault("the API did not answer in time")
	}
	return checkedFault("the API could not be reached")
}

// checkedStatus is what an answer's status means; nil for one with the thing in
// it.
func checkedStatus(resp *http.Response, what string) error {
	limited := resp.Header.Get("X-RateLimit-Remaining") == "0" || resp.Header.Get("Retry-After") != ""
	switch s := resp.StatusCode; {
	case s == http.StatusOK:
		return nil
	case s == http.StatusNotFound:
		return errCheckedMissing
	case s == http.StatusBadRequest:
		return errCheckedRefused
	case s == http.StatusTooManyRequests, s == http.StatusForbidden && limited:
		return checkedFault("the API's rate limit is used up")
	case s == http.StatusUnauthorized:
		return checkedFault("the API refuses the service's token")
	case s == http.StatusForbidden:
		return checkedFault("the API does not show " + what + " to the service's token")
	case s >= 300 && s < 400: // of a repository that was renamed, too
		return checkedFault("the API points elsewhere for " + what)
	case s >= 500:
		return checkedFault("the API fails")
	}
	return checkedUnclear(what)
}

// checkedWord reports whether s can be a word of the API's own, such as a
// status: nothing that a tenant chose gets into provenance by way of it.
func checkedWord(s string) bool {
	return len(s) <= 40 && s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") == ""
}

// learn keeps a word that only the API says.
func (r *checkedRun) learn(name, word string) {
	if checkedWord(word) {
		r.Facts[name] = word
	}
}

// learnTime keeps a time that only the API says.
func (r *checkedRun) learnTime(name, said string) {
	if t, err := time.Parse(time.RFC3339, said); err == nil {
		r.Facts[name] = t.UTC().Format(time.RFC3339)
	}
}

// checkedRef is the name of the branch or tag of a full ref, and which it is.
func checkedRef(ref string) (name string, tag, ok bool) {
	if name, ok = strings.CutPrefix(ref, "refs/tags/"); ok {
		return name, true, name != ""
	}
	name, ok = strings.CutPrefix(ref, "refs/heads/")
	return name, false, ok && name != ""
}

func checkedRefType(tag bool) string {
	if tag {
		return "tag"
	}
	return "branch"
}

// checkedCommit reports whether s is a whole commit id.
func checkedCommit(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}
