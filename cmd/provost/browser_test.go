// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// A visitor is a person with a browser.
type visitor struct {
	// fill is what the person types into a form, by the names of its fields.
	fill map[string]string
	// origin is what the browser says of the page that sends the form; "" for
	// the truth.
	origin string
	// answer is what is changed in the address that leads back to the program.
	answer map[string]string
}

var (
	formTag  = regexp.MustCompile(`<form method="post">`)
	inputTag = regexp.MustCompile(`<input name="([^"]*)" value="([^"]*)"`)
	openTag  = regexp.MustCompile(`(?m)^  (https?://\S+)$`)
)

// visit opens an address, sends the form that is there, follows where it
// leads, and returns the last page.
func (v visitor) visit(address string) (status int, page string, err error) {
	client := &http.Client{Timeout: patience, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		q := r.URL.Query()
		for name, value := range v.answer {
			q.Set(name, value)
		}
		r.URL.RawQuery = q.Encode()
		return nil
	}}
	read := func(resp *http.Response, err error) error {
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		status, page = resp.StatusCode, string(raw)
		return err
	}
	if err := read(client.Get(address)); err != nil || !formTag.MatchString(page) {
		return status, page, err
	}
	form := url.Values{}
	for _, input := range inputTag.FindAllStringSubmatch(page, -1) {
		form.Set(input[1], html.UnescapeString(input[2]))
	}
	for name, value := range v.fill {
		form.Set(name, value)
	}
	req, err := http.NewRequest(http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", v.origin)
	if v.origin == "" {
		req.Header.Set("Origin", req.URL.Scheme+"://"+req.URL.Host)
		req.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	return status, page, read(client.Do(req))
}

// browse is a program that scripts name by BROWSER: it opens the address that
// it is given, as the person in PERSON with the password in PASSWORD_FILE.
func browse() {
	password, _ := os.ReadFile(os.Getenv("PASSWORD_FILE"))
	v := visitor{fill: map[string]string{"person": os.Getenv("PERSON"), "password": strings.TrimSpace(string(password)), "answer": "yes"}}
	status, page, err := v.visit(os.Args[len(os.Args)-1])
	if err != nil || status != http.StatusOK {
		fmt.Fprintln(os.Stderr, "browse:", status, page, err)
		os.Exit(1)
	}
}

// visit STATUS FILE [NAME=VALUE...]: a person opens the address in what
// provost login prints into FILE, as soon as it is there. The last page, which
// must come with that status, is in page.txt. A person, password, answer or
// user_code is typed into the form; the origin is that of the page that sends
// the form; any other name is changed in the way back.
func visit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: visit STATUS FILE [NAME=VALUE...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	password := strings.TrimSpace(ts.ReadFile(ts.Getenv("PASSWORD_FILE")))
	v := visitor{fill: map[string]string{"person": ts.Getenv("PERSON"), "password": password, "answer": "yes"}, answer: map[string]string{}}
	for _, arg := range args[2:] {
		name, value, _ := strings.Cut(arg, "=")
		switch name {
		case "person", "password", "answer", "user_code":
			v.fill[name] = value
		case "origin":
			v.origin = value
		default:
			v.answer[name] = value
		}
	}
	address := ""
	for end := time.Now().Add(patience); address == ""; {
		if raw, err := os.ReadFile(ts.MkAbs(args[1])); err == nil {
			if found := openTag.FindSubmatch(raw); found != nil {
				address = string(found[1])
				continue
			}
		}
		if time.Now().After(end) {
			ts.Fatalf("%s has no address to open", args[1])
		}
		time.Sleep(5 * time.Millisecond) // the program writes it when it can
	}
	status, page, err := v.visit(address)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("page.txt"), []byte(page), 0o600))
	if status != want {
		ts.Fatalf("%d, want %d:\n%s", status, want, page)
	}
}

// expire FILE [REFRESHTOKEN]: lets every login in a credentials file have
// ended, and gives it that refresh token; "" takes it away.
func expire(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: expire FILE [REFRESHTOKEN]")
	}
	var kept map[string]map[string]map[string]any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &kept))
	if len(kept["sessions"]) == 0 {
		ts.Fatalf("%s has no login", args[0])
	}
	for _, s := range kept["sessions"] {
		s["expires"] = time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
		if len(args) == 2 {
			s["refreshToken"] = args[1]
		}
	}
	raw, err := json.Marshal(kept)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), raw, 0o600))
}

// mode OCTAL FILE: what the file system allows is that very thing.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode OCTAL FILE")
	}
	info, err := os.Stat(ts.MkAbs(filepath.FromSlash(args[1])))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}
