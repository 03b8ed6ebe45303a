// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// loginPatience is how long a person may take to log in.
const loginPatience = 10 * time.Minute

// byBrowser is the authorization code flow with PKCE, answered to a port of
// this machine (RFC 8252). show is given the URL to open.
func (rp *relyingParty) byBrowser(ctx context.Context, port int, show func(string)) (session, error) {
	ctx, cancel := context.WithTimeout(ctx, loginPatience)
	defer cancel()
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return session{}, hint(fmt.Errorf("wait for the browser: %w", err), "--port takes another one; --device needs none")
	}
	state, nonce, verifier := rand.Text(), rand.Text(), oauth2.GenerateVerifier()
	callback := &callback{host: listener.Addr().String(), state: state, answers: make(chan url.Values, 1)}
	server := &http.Server{Handler: callback, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10}
	go func() { _ = server.Serve(listener) }() // ends with Shutdown
	defer func() {                             // lets the browser have its page
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if server.Shutdown(ending) != nil {
			_ = server.Close()
		}
	}()
	config := rp.config
	config.RedirectURL = "http://" + callback.host + "/callback"
	parameters := []oauth2.AuthCodeOption{oidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier)}
	if slices.Contains(config.Scopes, oidc.ScopeOfflineAccess) { // ignored otherwise: OIDC Core, section 11
		parameters = append(parameters, oauth2.SetAuthURLParam("prompt", "consent"))
	}
	address := config.AuthCodeURL(state, parameters...)
	if err := checkConfidential(address); err != nil {
		return session{}, fmt.Errorf("the issuer's page: %w", err)
	}
	show(address)
	var answer url.Values
	select {
	case <-ctx.Done():
		return session{}, errors.New("nobody logged in")
	case answer = <-callback.answers:
	}
	code, err := rp.code(answer)
	if err != nil {
		return session{}, err
	}
	t, err := config.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	if err != nil {
		return session{}, issuerError(err)
	}
	return rp.accept(ctx, t, nonce)
}

// code reads the answer of a login whose state was right. Another issuer's is
// refused before its code goes anywhere (RFC 9207).
func (rp *relyingParty) code(answer url.Values) (string, error) {
	for name, values := range answer {
		if len(values) != 1 {
			return "", fmt.Errorf("the answer has %.40q %d times", name, len(values))
		}
	}
	iss := answer.Get("iss")
	switch {
	case answer.Has("iss") && iss != rp.login.Issuer:
		return "", fmt.Errorf("the answer is of another issuer, %.200q", iss)
	case !answer.Has("iss") && rp.namesIss:
		return "", errors.New("the answer does not say of which issuer it is, and this issuer's do")
	case answer.Has("error"):
		return "", oauthRefusal(answer.Get("error"), answer.Get("error_description"))
	case answer.Get("code") == "":
		return "", errors.New("the answer has no code")
	}
	return answer.Get("code"), nil
}

// A callback waits for the one answer that has the state of this login.
// Anything else that finds the port is turned away, and ends nothing.
type callback struct {
	host, state string
	answers     chan url.Values
}

func (c *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // the address has the code
	if r.Method != http.MethodGet || r.URL.Path != "/callback" || r.Host != c.host {
		http.NotFound(w, r)
		return
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(c.state)) != 1 {
		http.Error(w, "This answers no login that waits here.", http.StatusBadRequest)
		return
	}
	select {
	case c.answers <- q:
		fmt.Fprintln(w, "provost has the answer. Go back to the terminal; this page can be closed.")
	default:
		http.Error(w, "This login was answered already.", http.StatusBadRequest)
	}
}

// byDevice is the device flow (RFC 8628). show is given the URL to open,
// anywhere, and the code to check or to type there.
func (rp *relyingParty) byDevice(ctx context.Context, show func(address, code string)) (session, error) {
	if rp.config.Endpoint.DeviceAuthURL == "" {
		return session{}, hint(fmt.Errorf("the issuer %s offers no device flow", rp.login.Issuer), "provost login --no-browser, and open the address on this machine or through a forwarded port (--port)")
	}
	ctx, cancel := context.WithTimeout(ctx, loginPatience)
	defer cancel()
	device, err := rp.config.DeviceAuth(ctx)
	if err != nil {
		return session{}, issuerError(err)
	}
	device.Interval = min(max(device.Interval, 0), 60) // 0 is 5
	address := device.VerificationURIComplete
	if address == "" {
		address = device.VerificationURI
	}
	if err := checkConfidential(address); err != nil {
		return session{}, fmt.Errorf("the issuer's page: %w", err)
	}
	show(address, device.UserCode)
	t, err := rp.config.DeviceAccessToken(ctx, device)
	if errors.Is(err, context.DeadlineExceeded) {
		return session{}, errors.New("nobody logged in")
	}
	if err != nil {
		return session{}, issuerError(err)
	}
	return rp.accept(ctx, t, "") // the flow has no nonce
}

// browserCommand is the program that shows a URL here, without the URL; nil
// where there is none.
func browserCommand() []string {
	if first, _, _ := strings.Cut(os.Getenv("BROWSER"), string(os.PathListSeparator)); strings.TrimSpace(first) != "" {
		return strings.Fields(first)
	}
	switch runtime.GOOS {
	case "darwin":
		return []string{"open"}
	case "windows":
		return []string{"rundll32", "url.dll,FileProtocolHandler"}
	}
	if os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != "" {
		return []string{"xdg-open"}
	}
	return nil
}

// openBrowser shows a URL. If it cannot, the person has the URL in the
// terminal.
func openBrowser(program []string, address string) {
	placed := false
	var args []string
	for _, arg := range program[1:] {
		placed = placed || strings.Contains(arg, "%s")
		args = append(args, strings.ReplaceAll(arg, "%s", address))
	}
	if !placed {
		args = append(args, address)
	}
	c := exec.Command(program[0], args...)
	if c.Start() == nil {
		go func() { _ = c.Wait() }()
	}
}
