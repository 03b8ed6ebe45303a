// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"crypto/subtle"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/oauth2"
)

const grantDeviceCode = "urn:ietf:params:oauth:grant-type:device_code"

// token is the token endpoint. A code, a device code that was answered and a
// refresh token are each good once, and for one attempt.
func (d *devLogin) token(w http.ResponseWriter, r *http.Request) {
	if !d.form(w, r) {
		return
	}
	f := r.PostForm
	var g devGrant
	ok := false
	switch f.Get("grant_type") {
	case "authorization_code":
		if g, ok = d.take(d.codes, f.Get("code")); ok {
			challenge := oauth2.S256ChallengeFromVerifier(f.Get("code_verifier"))
			ok = subtle.ConstantTimeCompare([]byte(challenge), []byte(g.challenge)) == 1 && f.Get("redirect_uri") == g.redirect
		}
	case "refresh_token":
		g, ok = d.take(d.refresh, f.Get("refresh_token"))
	case grantDeviceCode:
		var problem string
		if g, problem = d.poll(f.Get("device_code")); problem != "" {
			devError(w, http.StatusBadRequest, problem)
			return
		}
		ok = true
	default:
		devError(w, http.StatusBadRequest, "unsupported_grant_type")
		return
	}
	if !ok {
		devError(w, http.StatusBadRequest, "invalid_grant")
		return
	}
	d.tokens(w, g)
}

// form reads a form that a program sent, of the one client. Browsers have no
// business here, so one that says whose page it is is refused.
func (d *devLogin) form(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "":
		devError(w, http.StatusForbidden, "invalid_request")
	case r.ParseForm() != nil:
		devError(w, http.StatusBadRequest, "invalid_request")
	case r.PostForm.Get("client_id") != d.issuer.Audience:
		devError(w, http.StatusUnauthorized, "invalid_client")
	default:
		return true
	}
	return false
}

// deviceAuthorization begins a device flow (RFC 8628, section 3.1).
func (d *devLogin) deviceAuthorization(w http.ResponseWriter, r *http.Request) {
	if !d.form(w, r) {
		return
	}
	scopes := strings.Fields(r.PostForm.Get("scope"))
	if !slices.Contains(scopes, "openid") {
		devError(w, http.StatusBadRequest, "invalid_scope")
		return
	}
	now := d.now()
	device := &devDevice{userCode: newUserCode(), grant: devGrant{offline: slices.Contains(scopes, "offline_access"), expires: now.Add(devDeviceLifetime)}}
	code := rand.Text()
	d.mu.Lock()
	for name, old := range d.devices {
		if now.After(old.grant.expires) {
			delete(d.devices, name)
		}
	}
	full := len(d.devices) >= maxDevLogins
	if !full {
		d.devices[code] = device
	}
	d.mu.Unlock()
	if full {
		devError(w, http.StatusServiceUnavailable, "temporarily_unavailable")
		return
	}
	page := d.issuer.URL(devPeople) + "/device"
	devJSON(w, http.StatusOK, map[string]any{
		"device_code": code, "user_code": device.userCode,
		"verification_uri": page, "verification_uri_complete": page + "?user_code=" + device.userCode,
		"expires_in": int(devDeviceLifetime.Seconds()), "interval": int(devDeviceInterval.Seconds()),
	})
}

// poll returns what a device was granted, or the error of RFC 8628, section
// 3.5.
func (d *devLogin) poll(code string) (devGrant, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	device, ok := d.devices[code]
	switch {
	case !ok:
		return devGrant{}, "invalid_grant"
	case now.After(device.grant.expires):
		delete(d.devices, code)
		return devGrant{}, "expired_token"
	case device.refused:
		delete(d.devices, code)
		return devGrant{}, "access_denied"
	case device.grant.person != "":
		delete(d.devices, code)
		return device.grant, ""
	}
	early := now.Sub(device.polled) < devDeviceInterval/2 // a ticker is not that exact
	device.polled = now
	if early {
		return devGrant{}, "slow_down"
	}
	return devGrant{}, "authorization_pending"
}

// device is the page on which a person lets a device in.
func (d *devLogin) device(w http.ResponseWriter, r *http.Request) {
	page := devPage{Client: d.issuer.Audience, Device: true, UserCode: r.URL.Query().Get("user_code")}
	if r.Method == http.MethodPost && d.sameOrigin(r) && r.ParseForm() == nil {
		page.UserCode = r.PostForm.Get("user_code")
	}
	person, answered := d.person(w, r, page)
	if !answered {
		return
	}
	if !d.answer(page.UserCode, person) {
		page.Problem = "No device waits with that code."
		page.show(w, http.StatusBadRequest)
		return
	}
	page.Done = true
	page.show(w, http.StatusOK)
}

// answer lets the device with that code in as a person, or with "" refuses it.
// A device is answered once.
func (d *devLogin) answer(userCode, person string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, device := range d.devices {
		if !sameUserCode(device.userCode, userCode) || device.refused || device.grant.person != "" || d.now().After(device.grant.expires) {
			continue
		}
		device.grant.person, device.refused, device.grant.at = person, person == "", d.now()
		return true
	}
	return false
}

// newUserCode has no vowels and so no words (RFC 8628, section 6.1).
func newUserCode() string {
	const letters = "BCDFGHJKLMNPQRSTVWXZ"
	var code strings.Builder
	for code.Len() < 9 {
		if code.Len() == 4 {
			code.WriteByte('-')
		}
		var b [1]byte
		_, _ = rand.Read(b[:]) // never fails
		if int(b[0]) < 256/len(letters)*len(letters) {
			code.WriteByte(letters[int(b[0])%len(letters)])
		}
	}
	return code.String()
}

func sameUserCode(a, b string) bool {
	plain := strings.NewReplacer("-", "", " ", "")
	return strings.EqualFold(plain.Replace(a), plain.Replace(b))
}

// revoke takes a refresh token back (RFC 7009): one that there is not is a
// success.
func (d *devLogin) revoke(w http.ResponseWriter, r *http.Request) {
	if d.form(w, r) {
		d.take(d.refresh, r.PostForm.Get("token"))
		w.WriteHeader(http.StatusOK)
	}
}

// A devPage is the form on which a developer says who to be.
type devPage struct {
	Client, Person, UserCode, Problem string
	Device, Done                      bool
}

// People are the choices.
func (devPage) People() (names []string) {
	for _, p := range devPersons {
		names = append(names, p.name)
	}
	return names
}

// PasswordFile is where the password is.
func (devPage) PasswordFile() string { return devPasswordFile }

// show writes the page. No other page may frame it, and it loads nothing.
func (p devPage) show(w http.ResponseWriter, status int) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin") // without a referrer browsers name no Origin
	w.WriteHeader(status)
	_ = devPageTemplate.Execute(w, p)
}

// The form is sent to the address of its page, with the query that it has.
var devPageTemplate = template.Must(template.New("login").Parse(`<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Provost development login</title>
<style>body{font:16px/1.5 sans-serif;max-width:28rem;margin:3rem auto;padding:0 1rem}label,button{display:block;margin:.5rem 0}.problem{color:#b00}</style></head>
<body><h1>Provost development login</h1>
{{if .Done}}<p>Done. Go back to the terminal; this page can be closed.</p>
{{else}}<p>{{.Client}} asks who you are.{{if .Device}} Go on only if you have just begun this login yourself.{{end}}</p>
{{with .Problem}}<p class="problem" role="alert">{{.}}</p>
{{end}}<form method="post">
{{if .Device}}<label>Code in the terminal <input name="user_code" value="{{.UserCode}}" required autocomplete="off"></label>
{{end}}<label>Person <select name="person">{{$chosen := .Person}}{{range .People}}<option{{if eq . $chosen}} selected{{end}}>{{.}}</option>{{end}}</select></label>
<label>Password, in {{.PasswordFile}} of the data directory <input type="password" name="password" autocomplete="current-password" autofocus></label>
<button name="answer" value="yes">Log in</button>
<button name="answer" value="no">Refuse</button>
</form>
{{end}}</body></html>
`))
