// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	sigdsse "github.com/sigstore/sigstore/pkg/signature/dsse"
)

func TestMain(m *testing.M) {
	testscript.Main(cleaned{m}, map[string]func(){"provost": main, "browse": browse})
}

// TestScripts runs testdata/script: each script is what a user could type, on
// the real programs, with a service of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, scripts(t, "testdata/script"))
}

// scripts are the parameters of a directory of scripts.
func scripts(t *testing.T, dir string) testscript.Params {
	daemon, err := provostd()
	if err != nil {
		t.Fatal(err)
	}
	return testscript.Params{
		Dir:                dir,
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(daemon)+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("XDG_CACHE_HOME", filepath.Join(e.WorkDir, ".cache"))
			e.Values[services{}] = &running{env: slices.Clone(e.Vars), processes: map[string]*process{}}
			return nil
		},
		Condition: func(condition string) (bool, error) {
			if condition == "netns" {
				return networkNamespace() == nil, nil
			}
			return false, fmt.Errorf("no condition is called %q", condition)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"provostd":  provostdCommand,
			"start":     start,
			"terminate": terminate,
			"source":    source,
			"exits":     exits,
			"offline":   offline,
			"github":    github,
			"workloads": workloadAPI,
			"jsonget":   jsonGet,
			"jsonkeys":  jsonKeys,
			"payload":   payload,
			"tamper":    tamper,
			"graft":     graft,
			"liar":      liar,
			"signedby":  signedBy,
			"byid":      byID,
			"sql":       sqlCommand,
			"visit":     visit,
			"expire":    expire,
			"mode":      mode,
		},
	}
}

// provostd builds the service once, and returns where.
var provostd = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "provostd-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "provostd")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", path, "../provostd").CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return "", fmt.Errorf("build provostd: %w\n%s", err, out)
	}
	built = dir
	return path, nil
})

var built string // the directory to remove when the tests have ended

// cleaned removes after the tests what they built.
type cleaned struct{ *testing.M }

func (c cleaned) Run() int {
	defer func() {
		if built != "" {
			_ = os.RemoveAll(built)
		}
	}()
	return c.M.Run()
}

// networkNamespace says why a process cannot be run without any network here.
var networkNamespace = sync.OnceValue(func() error {
	if out, err := exec.Command("unshare", "-rn", "true").CombinedOutput(); err != nil {
		return fmt.Errorf("unshare -rn: %w %s", err, out)
	}
	return nil
})

// provostd ARGS: runs the service's program; with ! it must fail.
func provostdCommand(ts *testscript.TestScript, neg bool, args []string) {
	must(ts, neg, append([]string{"provostd"}, args...))
}

// exits CODE COMMAND...: runs a command, which must exit with that very code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exited, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exited.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// offline COMMAND...: runs a command where there is no network at all, not
// even a loopback address. Where the machine does not allow that it runs with
// the network, and the log says so.
func offline(ts *testscript.TestScript, neg bool, args []string) {
	if err := networkNamespace(); err != nil {
		ts.Logf("NOT OFFLINE, this machine allows no network namespace: %v", err)
	} else {
		args = append([]string{"unshare", "-rn"}, args...)
	}
	must(ts, neg, args)
}

func must(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(args[0], args[1:]...)
	if err != nil && !neg {
		ts.Fatalf("%v", err)
	}
	if err == nil && neg {
		ts.Fatalf("it must fail")
	}
}

// services is the key of what a script has running.
type services struct{}

type running struct {
	env       []string
	processes map[string]*process // by the names that the script gave them
}

type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of Wait, after done
}

// patience is how long anything may take that is waited for.
const patience = time.Minute

// start NAME COMMAND...: starts a service and waits until it says "ready" on
// standard output. Its log is in NAME.log. The end of the script ends it.
func start(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME COMMAND...")
	}
	if args[1] != "provostd" {
		ts.Fatalf("start knows provostd only")
	}
	path, err := provostd()
	ts.Check(err)
	services := ts.Value(services{}).(*running)
	log, err := os.Create(ts.MkAbs(args[0] + ".log"))
	ts.Check(err)
	defer log.Close()
	p := &process{cmd: exec.Command(path, args[2:]...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env, p.cmd.Stderr = ts.MkAbs("."), services.env, log
	out, err := p.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(p.cmd.Start())
	ready := make(chan bool, 1)
	go func() {
		defer close(p.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "ready ") {
				ready <- true
			}
		}
		p.err = p.cmd.Wait()
	}()
	ts.Defer(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	select {
	case <-ready:
	case <-p.done:
		ts.Fatalf("it ended before it was ready: %v\n%s", p.err, ts.ReadFile(args[0]+".log"))
	case <-time.After(patience):
		ts.Fatalf("it does not become ready\n%s", ts.ReadFile(args[0]+".log"))
	}
	services.processes[args[0]] = p
}

// terminate NAME: asks a service to stop, which it must do well.
func terminate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: terminate NAME")
	}
	p := ts.Value(services{}).(*running).processes[args[0]]
	if p == nil {
		ts.Fatalf("nothing that is called %s was started", args[0])
	}
	ts.Check(p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.done:
	case <-time.After(patience):
		ts.Fatalf("%s does not stop", args[0])
	}
	if p.err != nil {
		ts.Fatalf("%s stopped with %v\n%s", args[0], p.err, ts.ReadFile(args[0]+".log"))
	}
}

// source FILE: what `. FILE` does in a shell, for lines NAME=value.
func source(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: source FILE")
	}
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			ts.Setenv(name, value)
		}
	}
}

// github TOKENFILE: starts what GitHub Actions runs beside a job, and sets the
// variables that a job sees. It gives the token in TOKENFILE, whatever it is
// by then, for the bearer "of-the-job", and writes what it was asked into
// github.log.
func github(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: github TOKENFILE")
	}
	tokenFile, logFile := ts.MkAbs(args[0]), ts.MkAbs("github.log")
	ts.Check(os.WriteFile(logFile, nil, 0o600))
	var lock sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lock.Lock()
		defer lock.Unlock()
		if log, err := os.OpenFile(logFile, os.O_APPEND|os.O_WRONLY, 0); err == nil {
			fmt.Fprintf(log, "%s %s audience=%s\n", r.Method, r.URL.Path, r.URL.Query().Get("audience"))
			log.Close()
		}
		if r.Header.Get("Authorization") != "Bearer of-the-job" || r.URL.Query().Get("api-version") != "2.0" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		token, err := os.ReadFile(tokenFile)
		if err != nil {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"count": 1, "value": strings.TrimSpace(string(token))})
	}))
	ts.Defer(server.Close)
	ts.Setenv("ACTIONS_ID_TOKEN_REQUEST_URL", server.URL+"/idtoken?api-version=2.0")
	ts.Setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of-the-job")
}

// liar request|answer OLD NEW: puts a liar in front of the service and points
// PROVOST_URL at it. It replaces words of what it is asked, or of what it
// answers, and is honest otherwise.
func liar(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 || args[0] != "request" && args[0] != "answer" {
		ts.Fatalf("usage: liar request|answer OLD NEW")
	}
	service, err := url.Parse(ts.Getenv("PROVOST_URL"))
	ts.Check(err)
	replace := func(body io.ReadCloser) (io.ReadCloser, int64) {
		before, _ := io.ReadAll(body)
		after := bytes.ReplaceAll(before, []byte(args[1]), []byte(args[2]))
		return io.NopCloser(bytes.NewReader(after)), int64(len(after))
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(service)
		r.Out.Header.Del("Accept-Encoding")
		if args[0] == "request" && r.Out.Body != nil {
			r.Out.Body, r.Out.ContentLength = replace(r.Out.Body)
		}
	}}
	if args[0] == "answer" {
		proxy.ModifyResponse = func(r *http.Response) error {
			r.Body, r.ContentLength = replace(r.Body)
			r.Header.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
			return nil
		}
	}
	server := httptest.NewServer(proxy)
	ts.Defer(server.Close)
	ts.Setenv("PROVOST_URL", server.URL)
}

// jsonget FILE PATH PATTERN: the value at PATH matches PATTERN, whole. PATH is
// dotted; a number is an index and "length" is that of an array. Text is matched as it is,
// anything else as JSON. "! jsonget FILE PATH" wants nothing there.
func jsonGet(ts *testscript.TestScript, neg bool, args []string) {
	if neg && len(args) != 2 || !neg && len(args) != 3 {
		ts.Fatalf("usage: jsonget FILE PATH PATTERN, or ! jsonget FILE PATH")
	}
	value, found := at(ts, args[0], args[1])
	if neg {
		if found {
			ts.Fatalf("%s: there is %s: %v", args[0], args[1], value)
		}
		return
	}
	if !found {
		ts.Fatalf("%s: there is no %s", args[0], args[1])
	}
	text, ok := value.(string)
	if !ok {
		raw, err := json.Marshal(value)
		ts.Check(err)
		text = string(raw)
	}
	pattern, err := regexp.Compile("^(?:" + args[2] + ")$")
	ts.Check(err)
	if !pattern.MatchString(text) {
		ts.Fatalf("%s: %s is %q, want %q", args[0], args[1], text, args[2])
	}
}

// jsonkeys FILE PATH NAME...: the object at PATH ("." for all) has these
// members, and no other.
func jsonKeys(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: jsonkeys FILE PATH NAME...")
	}
	value, found := at(ts, args[0], args[1])
	object, ok := value.(map[string]any)
	if !found || !ok {
		ts.Fatalf("%s: there is no object %s", args[0], args[1])
	}
	var got []string
	for name := range object {
		got = append(got, name)
	}
	want := slices.Clone(args[2:])
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		ts.Fatalf("%s: %s has %q, want %q", args[0], args[1], got, want)
	}
}

func at(ts *testscript.TestScript, file, path string) (value any, found bool) {
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(file)))
	d.UseNumber()
	if err := d.Decode(&value); err != nil {
		ts.Fatalf("%s: %v", file, err)
	}
	if d.More() {
		ts.Fatalf("%s: more than one JSON value", file)
	}
	return dig(value, path)
}

// dig returns what a dotted path leads to in a JSON value.
func dig(value any, path string) (_ any, found bool) {
	if path == "." {
		return value, true
	}
	for part := range strings.SplitSeq(path, ".") {
		switch v := value.(type) {
		case map[string]any:
			if value, found = v[part]; !found {
				return nil, false
			}
		case []any:
			if part == "length" {
				value = len(v)
				continue
			}
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(v) {
				return nil, false
			}
			value = v[i]
		default:
			return nil, false
		}
	}
	return value, true
}

// payload BUNDLE FILE: writes the statement that is signed in a bundle.
func payload(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: payload BUNDLE FILE")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), part(ts, readBundle(ts, args[0]), payloadAt), 0o644))
}

// tamper BUNDLE FILE payload OLD NEW: writes the bundle with other words in
// the signed statement.
// tamper BUNDLE FILE signature, or timestamp: with another byte at its end.
func tamper(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: tamper BUNDLE FILE payload OLD NEW, or tamper BUNDLE FILE signature|timestamp")
	}
	b := readBundle(ts, args[0])
	flip := func(path string) {
		raw := part(ts, b, path)
		raw[len(raw)-1] ^= 1
		setPart(ts, b, path, raw)
	}
	switch what := args[2]; {
	case what == "payload" && len(args) == 5:
		before := string(part(ts, b, payloadAt))
		after := strings.Replace(before, args[3], args[4], 1)
		if before == after {
			ts.Fatalf("%q is not in the statement", args[3])
		}
		setPart(ts, b, payloadAt, []byte(after))
	case what == "signature":
		flip(signatureAt)
	case what == "timestamp":
		flip(timestampAt)
	default:
		ts.Fatalf("tamper with %q?", what)
	}
	writeBundle(ts, args[1], b)
}

// graft BUNDLE FILE OTHER PATH: writes the bundle with the part at PATH taken
// from another.
func graft(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: graft BUNDLE FILE OTHER PATH")
	}
	b := readBundle(ts, args[0])
	setPart(ts, b, args[3], part(ts, readBundle(ts, args[2]), args[3]))
	writeBundle(ts, args[1], b)
}

// The parts of a bundle that are tampered with.
const (
	payloadAt   = "dsseEnvelope.payload"
	signatureAt = "dsseEnvelope.signatures.0.sig"
	timestampAt = "verificationMaterial.timestampVerificationData.rfc3161Timestamps.0.signedTimestamp"
)

func readBundle(ts *testscript.TestScript, file string) (b map[string]any) {
	if err := json.Unmarshal([]byte(ts.ReadFile(file)), &b); err != nil {
		ts.Fatalf("%s: %v", file, err)
	}
	return b
}

func writeBundle(ts *testscript.TestScript, file string, b map[string]any) {
	raw, err := json.Marshal(b)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(file), append(raw, '\n'), 0o644))
}

// part is the base64 at a path of a bundle.
func part(ts *testscript.TestScript, b map[string]any, path string) []byte {
	value, _ := dig(b, path)
	text, ok := value.(string)
	if !ok {
		ts.Fatalf("the bundle has no %s", path)
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	ts.Check(err)
	return raw
}

// setPart replaces the base64 at a path of a bundle.
func setPart(ts *testscript.TestScript, b map[string]any, path string, value []byte) {
	i := strings.LastIndexByte(path, '.')
	holder, _ := dig(b, path[:i])
	object, ok := holder.(map[string]any)
	if !ok {
		ts.Fatalf("the bundle has no %s", path)
	}
	object[path[i+1:]] = base64.StdEncoding.EncodeToString(value)
}

// signedby ENVELOPE PEM: the DSSE envelope verifies with the public key, as
// go-securesystemslib does it; it knows nothing of bundles.
func signedBy(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: signedby ENVELOPE PEM")
	}
	var envelope dsse.Envelope
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &envelope))
	public, err := cryptoutils.UnmarshalPEMToPublicKey([]byte(ts.ReadFile(args[1])))
	ts.Check(err)
	ecdsaVerifier, err := signature.LoadVerifier(public, crypto.SHA256)
	ts.Check(err)
	verifier, err := dsse.NewEnvelopeVerifier(&sigdsse.VerifierAdapter{SignatureVerifier: ecdsaVerifier, Pub: public})
	ts.Check(err)
	_, err = verifier.Verify(context.Background(), &envelope)
	if (err != nil) != neg {
		ts.Fatalf("signed by %s: %v", args[1], err)
	}
}

// byid KEPT ARGS...: provost export --id, with the id in what provost attest
// printed as JSON.
func byID(ts *testscript.TestScript, neg bool, args []string) {
	id, _ := at(ts, args[0], "id")
	must(ts, neg, append([]string{"provost", "export", "--id", fmt.Sprint(id)}, args[1:]...))
}
