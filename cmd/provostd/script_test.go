// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
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

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tuf"
)

func TestMain(m *testing.M) {
	testscript.Main(cleaned{m}, map[string]func(){"provostd": main})
}

// TestScripts runs testdata/script: each script is what a user could type, on
// the real programs.
func TestScripts(t *testing.T) { testscript.Run(t, scripts(t, "testdata/script")) }

// scripts are the scripts of a directory.
func scripts(t *testing.T, dir string) testscript.Params {
	client, err := provost()
	if err != nil {
		t.Fatal(err)
	}
	return testscript.Params{
		Dir:                dir,
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(client)+string(os.PathListSeparator)+e.Getenv("PATH"))
			foreign, err := filepath.Abs("../../verify/testdata/foreign")
			if err != nil {
				return err
			}
			e.Setenv("FOREIGN", foreign)
			e.Values[services{}] = &running{env: slices.Clone(e.Vars), processes: map[string]*process{}}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start":       start,
			"terminate":   terminate,
			"source":      source,
			"exits":       exits,
			"fill":        fill,
			"age-keygen":  ageKeygen,
			"self-signed": selfSigned,
			"certify":     certify,
			"http2":       http2,
			"claim":       claim,
			"same":        same,
			"follow":      follow,
		},
	}
}

// provost builds the command line once, and returns where.
var provost = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "provost-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "provost")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", path, "../provost").CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return "", fmt.Errorf("build provost: %w\n%s", err, out)
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

// start NAME [VARIABLE=VALUE...] provostd ARGS...: starts a service and waits
// until it serves, as its log says, and if it is provostd dev until it says
// "ready" on standard output. Its output is in NAME.out, its log in NAME.log,
// and its address in the variable NAME_address. The end of the script ends it.
func start(ts *testscript.TestScript, neg bool, args []string) {
	program := slices.Index(args, "provostd")
	if neg || program < 1 || program+1 == len(args) {
		ts.Fatalf("usage: start NAME [VARIABLE=VALUE...] provostd ARGS...")
	}
	name, args, variables := args[0], args[program+1:], args[1:program]
	path, err := exec.LookPath("provostd")
	ts.Check(err)
	services := ts.Value(services{}).(*running)
	p := &process{cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = ts.MkAbs("."), append(slices.Clone(services.env), variables...)
	out, err := p.cmd.StdoutPipe()
	ts.Check(err)
	log, err := p.cmd.StderrPipe()
	ts.Check(err)
	outFile, err := os.Create(ts.MkAbs(name + ".out"))
	ts.Check(err)
	logFile, err := os.Create(ts.MkAbs(name + ".log"))
	ts.Check(err)
	ts.Check(p.cmd.Start())
	ts.Defer(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})

	ready, serving := make(chan string, 1), make(chan string, 1)
	var readers sync.WaitGroup
	readers.Go(func() { tee(out, outFile, ready, readyLine) })
	readers.Go(func() { tee(log, logFile, serving, servingLine) })
	go func() {
		defer close(p.done)
		readers.Wait()
		p.err = p.cmd.Wait()
	}()
	wait := func(c <-chan string) string {
		select {
		case said := <-c:
			return said
		case <-p.done:
			ts.Fatalf("it ended before it was ready: %v\n%s", p.err, ts.ReadFile(name+".log"))
		case <-time.After(patience):
			ts.Fatalf("it does not become ready\n%s", ts.ReadFile(name+".log"))
		}
		return ""
	}
	address := wait(serving)
	if args[0] == "dev" {
		if url := wait(ready); url != "http://"+address {
			ts.Fatalf("ready %s, but it serves at %s", url, address)
		}
	}
	ts.Setenv(name+"_address", address)
	services.processes[name] = p
}

// tee copies lines to a file and sends the first thing that is found in one.
func tee(from io.Reader, to *os.File, found chan<- string, find func([]byte) string) {
	defer to.Close()
	for lines := bufio.NewReader(from); ; {
		line, err := lines.ReadBytes('\n')
		_, _ = to.Write(line)
		if what := find(bytes.TrimSpace(line)); what != "" {
			select {
			case found <- what:
			default:
			}
		}
		if err != nil {
			return
		}
	}
}

func readyLine(line []byte) string {
	url, ok := bytes.CutPrefix(line, []byte("ready "))
	if !ok {
		return ""
	}
	return string(url)
}

func servingLine(line []byte) string {
	var entry struct{ Msg, Address string }
	if json.Unmarshal(line, &entry) != nil || entry.Msg != "serving" {
		return ""
	}
	return entry.Address
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

// fill TEMPLATE FILE: writes the template with $VARIABLE replaced.
func fill(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fill TEMPLATE FILE")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(os.Expand(ts.ReadFile(args[0]), ts.Getenv)), 0o644))
}

// age-keygen FILE: writes a new identity as the tool of that name does. The
// variables IDENTITY and RECIPIENT hold the two halves.
func ageKeygen(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: age-keygen FILE")
	}
	identity, err := age.GenerateX25519Identity()
	ts.Check(err)
	text := fmt.Sprintf("# created: %s\n# public key: %s\n%s\n", time.Now().Format(time.RFC3339), identity.Recipient(), identity)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
	ts.Setenv("IDENTITY", identity.String())
	ts.Setenv("RECIPIENT", identity.Recipient().String())
}

// self-signed CERTIFICATE KEY: writes a server certificate for 127.0.0.1.
func selfSigned(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: self-signed CERTIFICATE KEY")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ts.Check(err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
}

// claim FILE NAME PATTERN: the token in FILE claims something that matches
// PATTERN, whole. Nothing is verified.
func claim(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: claim FILE NAME PATTERN")
	}
	parts := strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), ".")
	if len(parts) != 3 {
		ts.Fatalf("%s: no token", args[0])
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	ts.Check(err)
	var claims map[string]any
	ts.Check(json.Unmarshal(raw, &claims))
	pattern, err := regexp.Compile("^(?:" + args[2] + ")$")
	ts.Check(err)
	if got, ok := claims[args[1]]; !ok || !pattern.MatchString(fmt.Sprint(got)) {
		ts.Fatalf("%s: it claims %s: %v, want %q", args[0], args[1], got, args[2])
	}
}

// follow URL ROOT FILE: a new client of sigstore-go that has nothing but the
// root follows the TUF repository, and writes the trusted root that it finds.
func follow(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: follow URL ROOT FILE")
	}
	client, err := tuf.New(tuf.DefaultOptions().WithRepositoryBaseURL(args[0]).WithRoot([]byte(ts.ReadFile(args[1]))).WithDisableLocalCache())
	ts.Check(err)
	_, err = root.GetTrustedRoot(client)
	ts.Check(err)
	_, err = root.GetSigningConfig(client)
	ts.Check(err)
	found, err := client.GetTarget("trusted_root.json")
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), found, 0o644))
	pem, err := client.GetTarget("provenance-v1.pem")
	ts.Check(err)
	if !strings.HasPrefix(string(pem), "-----BEGIN PUBLIC KEY-----") {
		ts.Fatalf("provenance-v1.pem: %s", pem)
	}
}

// same DIR FILE: the names, modes and contents of everything in DIR are those
// written into FILE, which is made if it is not there.
func same(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: same DIR FILE")
	}
	now := new(strings.Builder)
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		fmt.Fprintf(now, "%s %s %x\n", filepath.Base(path), info.Mode(), content)
		return err
	}))
	file := ts.MkAbs(args[1])
	before, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		ts.Check(os.WriteFile(file, []byte(now.String()), 0o600))
		return
	}
	ts.Check(err)
	if string(before) != now.String() {
		ts.Fatalf("%s has changed", args[0])
	}
}
