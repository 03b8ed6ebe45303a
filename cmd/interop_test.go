// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"provost/attest"
)

var update = flag.Bool("update", false, "write docs/INTEROP.md anew")

// A sample is a bundle, and what it is about and who signed it.
type sample struct {
	bundle        []byte
	artifact      attest.Digest
	identity      string // SAN
	issuer        string
	predicateType string
	version       int       // of the key; 0 for not known
	signedAt      time.Time // zero for not known
}

// A trusted is what clients are given to believe: a file, and the same as a
// TUF repository.
type trusted struct {
	file         string // trusted_root.json
	mirror, root string // the repository's URL, and the file with its first root
}

// A question is put to every client.
type question struct {
	name  string
	good  bool // a client that is right accepts
	given sample
	// pattern has clients that read the identity as a pattern get it as it
	// is; otherwise they get a pattern that matches it alone.
	pattern bool
}

// An answer is what a client made of a question.
type answer struct {
	OK    bool   `json:"ok"`
	Error string `json:"error"`
}

// A judge is a client.
type judge struct {
	name   string
	family family
	// ask puts all questions and returns an answer to each.
	ask func(t *testing.T, to trusted, questions []question) []answer
}

// A family of clients speaks with the same words.
type family int

const (
	sigstoreGo family = iota // sigstore-go, and cosign, which is made of it
	sigstoreJS
	provost
)

// judges are the clients, in the order of the matrix.
var judges = []judge{
	{"cosign, offline", sigstoreGo, cosignOffline},
	{"cosign, by TUF", sigstoreGo, cosignByTUF},
	{"sigstore-go", sigstoreGo, library},
	{"@sigstore/verify", sigstoreJS, nodeOffline},
	{"sigstore (npm), by TUF", sigstoreJS, nodeByTUF},
	{"provost verify", provost, provostVerify},
}

// TestInterop has clients that this project did not write judge what the
// service signs, and what others make of it. What each accepts and refuses,
// and with which words, is expectations; docs/INTEROP.md shows them to people.
func TestInterop(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED by -short: TestInterop runs foreign clients, see make testbed")
	}
	if out, err := exec.Command("unshare", "-rn", "true").CombinedOutput(); err != nil {
		t.Logf("NOT OFFLINE: this machine allows no network namespace: %v %s", err, out)
	}
	i := fromService(t)
	var m matrix
	m.run(t, "issued", i.trust, i.questions(t))
	m.verdicts(t, i)
	m.run(t, "distrusted", i.distrusting(t), []question{{name: "unknown CA", given: i.samples[0][2]}})
	to, asked := misissued(t)
	m.run(t, "misissued", to, asked)
	i.revoke()
	m.run(t, "revoked", i.trust, i.afterRevocation())
	m.document(t)
}

// issued is everything that a service signed for the matrix.
type issued struct {
	samples [3][3]sample // of each kind, by the first, the previous and the current key version
	foreign sample       // by another service that calls itself the same
	root    []byte       // that service's trusted root
	trust   trusted
	revoke  func() // takes back what the previous version signed of the first kind, and tells trust
}

var (
	kinds    = []string{"provenance", "SBOM", "VSA"}
	versions = []string{"first", "previous", "current"}
)

// questions are put before anything is revoked.
func (i *issued) questions(t *testing.T) (all []question) {
	t.Helper()
	for k, kind := range kinds {
		for v, version := range versions {
			all = append(all, question{name: kind + ", " + version + " key version", good: true, given: i.samples[k][v]})
		}
	}
	s := i.samples[0][2]
	with := func(name string, change func(*question)) {
		q := question{name: name, given: s}
		change(&q)
		all = append(all, q)
	}
	with("other artifact", func(q *question) { q.given.artifact = attest.SHA256([]byte("another artifact")) })
	with("other identity", func(q *question) { q.given.identity = i.samples[1][2].identity })
	with("other issuer", func(q *question) { q.given.issuer = "https://other.example" })
	with("beginning of the identity", func(q *question) { q.given.identity, q.pattern = strings.TrimSuffix(s.identity, "nance"), true })
	with("another service of the same name", func(q *question) { q.given = i.foreign })
	for _, m := range mutations {
		with(m.name, func(q *question) { q.given.bundle = mutate(t, m, s.bundle, i.samples[0][0].bundle) })
	}
	return all
}

// afterRevocation are the questions when the previous version's signatures are
// revoked.
func (i *issued) afterRevocation() []question {
	return []question{
		{name: "revoked interval", given: i.samples[0][1]},
		{name: "before a revoked interval", good: true, given: i.samples[0][0]},
		{name: "after a revoked interval", good: true, given: i.samples[0][2]},
		{name: "another signer in a revoked interval", good: true, given: i.samples[1][1]},
	}
}

// distrusting is the service's trust with another service's CAs in place of its
// own; the timestamp authority and the logs stay.
func (i *issued) distrusting(t *testing.T) trusted {
	t.Helper()
	raw, err := os.ReadFile(i.trust.file)
	ok(t, err)
	var ours, theirs map[string]json.RawMessage
	ok(t, json.Unmarshal(raw, &ours))
	ok(t, json.Unmarshal(i.root, &theirs))
	ours["certificateAuthorities"] = theirs["certificateAuthorities"]
	raw, err = json.Marshal(ours)
	ok(t, err)
	return newTrusted(t)(raw)
}

// newTrusted returns what puts a trusted root into a file and a TUF repository,
// always the same.
func newTrusted(t *testing.T) func(raw []byte) trusted {
	t.Helper()
	repository := newTUF(t)
	to := trusted{file: filepath.Join(t.TempDir(), "trusted_root.json"), mirror: repository.url, root: repository.root()}
	return func(raw []byte) trusted {
		ok(t, os.WriteFile(to.file, raw, 0o644))
		repository.publish(map[string][]byte{"trusted_root.json": raw})
		return to
	}
}

// A matrix collects what was asked, and which clients were not there.
type matrix struct {
	questions []question
	missing   []string
}

// run puts questions to all clients, and fails the test for every answer that
// is not the one expected.
func (m *matrix) run(t *testing.T, name string, to trusted, questions []question) {
	m.questions = append(m.questions, questions...)
	for _, j := range judges {
		t.Run(name+"/"+j.name, func(t *testing.T) {
			defer func() {
				if t.Skipped() {
					m.missing = append(m.missing, j.name)
				}
			}()
			answers := j.ask(t, to, questions)
			if len(answers) != len(questions) {
				t.Fatalf("%d answers to %d questions", len(answers), len(questions))
			}
			for i, q := range questions {
				want := expected(t, j, q)
				switch got := answers[i]; {
				case got.OK && !want.accepts():
					t.Errorf("%s: it accepts; expected a refusal with %q", q.name, want.refusal)
				case !got.OK && want.accepts():
					t.Errorf("%s: it refuses, which was not expected (%s): %s", q.name, cmp.Or(want.cannot, "the bundle is good"), got.Error)
				case !got.OK && !strings.Contains(got.Error, want.refusal):
					t.Errorf("%s: it refuses with %q; expected %q", q.name, got.Error, want.refusal)
				}
			}
		})
	}
}

// questionFiles writes each question's bundle to a file.
func questionFiles(t *testing.T, questions []question) []string {
	t.Helper()
	dir := t.TempDir()
	files := make([]string, len(questions))
	for i, q := range questions {
		files[i] = filepath.Join(dir, fmt.Sprintf("%d.sigstore.json", i))
		ok(t, os.WriteFile(files[i], q.given.bundle, 0o644))
	}
	return files
}

// missing skips a test, loudly; where everything must be there, it fails.
func missing(t *testing.T, what, next string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing: %s", what, next)
	}
	t.Skipf("SKIPPED: %s is missing: %s", what, next)
}

// testbed is the path of what make testbed builds.
func testbed(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "bin", "testbed", name))
	ok(t, err)
	if _, err := os.Stat(path); err != nil {
		missing(t, name, "run make testbed")
	}
	return path
}

// command runs a client in a home of its own and returns its standard output;
// without the network, not even loopback, where the machine can do that.
var offline = sync.OnceValue(func() []string {
	if exec.Command("unshare", "-rn", "true").Run() != nil {
		return nil
	}
	return []string{"unshare", "-rn"}
})

func command(t *testing.T, home string, args ...string) (stdout []byte, _ answer) {
	t.Helper()
	c := exec.CommandContext(t.Context(), args[0], args[1:]...)
	c.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	if err == nil {
		return out.Bytes(), answer{OK: true}
	}
	if _, ran := err.(*exec.ExitError); !ran {
		t.Fatal(err)
	}
	return out.Bytes(), answer{Error: strings.TrimSpace(errs.String() + out.String())}
}

// cosignArgs are the flags that every user needs.
func cosignArgs(binary, file string, s sample) []string {
	return []string{binary, "verify-blob-attestation", "--bundle", file, "--type", s.predicateType,
		"--certificate-identity", s.identity, "--certificate-oidc-issuer", s.issuer,
		"--digest", s.artifact.Hex(), "--digestAlg", s.artifact.Algorithm()}
}

func cosignOffline(t *testing.T, to trusted, questions []question) (answers []answer) {
	binary, home := testbed(t, "cosign"), t.TempDir()
	for i, file := range questionFiles(t, questions) {
		args := append(cosignArgs(binary, file, questions[i].given), "--trusted-root", to.file)
		_, a := command(t, home, append(offline(), args...)...)
		answers = append(answers, a)
	}
	return answers
}

func cosignByTUF(t *testing.T, to trusted, questions []question) (answers []answer) {
	binary, home := testbed(t, "cosign"), t.TempDir()
	if _, a := command(t, home, binary, "initialize", "--mirror", to.mirror, "--root", to.root); !a.OK {
		t.Fatalf("cosign initialize: %s", a.Error)
	}
	for i, file := range questionFiles(t, questions) {
		_, a := command(t, home, cosignArgs(binary, file, questions[i].given)...)
		answers = append(answers, a)
	}
	return answers
}

// library is sigstore-go with every threshold at 1.
func library(t *testing.T, to trusted, questions []question) (answers []answer) {
	material, err := root.NewTrustedRootFromPath(to.file)
	ok(t, err)
	verifier, err := verify.NewVerifier(material, verify.WithTransparencyLog(1), verify.WithSignedTimestamps(1), verify.WithSignedCertificateTimestamps(1))
	ok(t, err)
	for _, q := range questions {
		err := func() error {
			var b bundle.Bundle
			if err := b.UnmarshalJSON(q.given.bundle); err != nil {
				return err
			}
			identity, err := verify.NewShortCertificateIdentity(q.given.issuer, "", q.given.identity, "")
			if err != nil {
				return err
			}
			_, err = verifier.Verify(&b, verify.NewPolicy(
				verify.WithArtifactDigest(q.given.artifact.Algorithm(), q.given.artifact.Bytes()), verify.WithCertificateIdentity(identity)))
			return err
		}()
		a := answer{OK: err == nil}
		if err != nil {
			a.Error = err.Error()
		}
		answers = append(answers, a)
	}
	return answers
}

func nodeOffline(t *testing.T, to trusted, questions []question) []answer {
	return node(t, questions, offline(), "trusted-root", to.file)
}

func nodeByTUF(t *testing.T, to trusted, questions []question) []answer {
	return node(t, questions, nil, "tuf", to.mirror, to.root, t.TempDir())
}

// node runs deploy/testbed/node/verify.mjs.
func node(t *testing.T, questions []question, prefix []string, args ...string) (answers []answer) {
	t.Helper()
	script := testbed(t, "node/verify.mjs")
	binary, err := exec.LookPath("node")
	if err != nil {
		missing(t, "node", "install Node.js 20 or later")
	}
	var in, errs bytes.Buffer
	for i, file := range questionFiles(t, questions) {
		pattern := "^" + regexp.QuoteMeta(questions[i].given.identity) + "$"
		if questions[i].pattern {
			pattern = questions[i].given.identity
		}
		ok(t, json.NewEncoder(&in).Encode(map[string]string{"bundle": file, "identity": pattern, "issuer": questions[i].given.issuer}))
	}
	all := append(append(prefix[:len(prefix):len(prefix)], binary, script), args...)
	c := exec.CommandContext(t.Context(), all[0], all[1:]...)
	c.Stdin, c.Stderr = &in, &errs
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	for line := range bytes.Lines(out) {
		var a answer
		ok(t, json.Unmarshal(line, &a))
		answers = append(answers, a)
	}
	return answers
}

func provostVerify(t *testing.T, to trusted, questions []question) (answers []answer) {
	dir, err := programs()
	ok(t, err)
	home := t.TempDir()
	for i, file := range questionFiles(t, questions) {
		s := questions[i].given
		out, a := command(t, home, append(offline(), filepath.Join(dir, "provost"), "verify", s.artifact.String(), "--output", "json",
			"--bundle", file, "--trusted-root", to.file, "--type", s.predicateType,
			"--certificate-identity", s.identity, "--certificate-oidc-issuer", s.issuer)...)
		var report struct {
			Verdict string
			Bundles []struct{ Step, Reason string }
		}
		if err := json.Unmarshal(out, &report); err != nil {
			t.Fatalf("%s: %v: %s", questions[i].name, err, a.Error)
		}
		if !a.OK {
			a.Error = report.Verdict
			for _, b := range report.Bundles {
				a.Error += " " + b.Step + ": " + b.Reason
			}
		}
		answers = append(answers, a)
	}
	return answers
}

// misissued are signatures that a right service never makes, and what clients
// are to trust: the service that made them.
func misissued(t *testing.T) (trusted, []question) {
	v := newVirtual(t, "https://provost.localhost")
	artifact := attest.SHA256([]byte("app"))
	now := time.Now().Truncate(time.Second)
	day := 24 * time.Hour
	said := statement(artifact, attest.ProvenanceType, "")
	sampled := func(k virtualKey, at time.Time) sample {
		return sample{bundle: v.sign(k, said, at), artifact: artifact, identity: v.service + "/signers/provenance", issuer: v.service, predicateType: attest.ProvenanceType}
	}
	key := func(from, to time.Time, withSCT bool) virtualKey {
		return v.newKey(attest.PowerProvenance, from, to, withSCT)
	}
	return newTrusted(t)(v.trustedRoot()), []question{
		{name: "certificate without an SCT", given: sampled(key(now.Add(-day), now.Add(day), false), now)},
		{name: "signed after the certificate's end", given: sampled(key(now.Add(-3*day), now.Add(-2*day), true), now)},
		{name: "signed before the certificate's begin", given: sampled(key(now.Add(-day), now.Add(day), true), now.Add(-2*day))},
	}
}
