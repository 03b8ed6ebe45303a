// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An expectation is what a client makes of a question: it accepts a good
// bundle; it refuses another with these words, so that nothing counts as
// refused for a reason that has nothing to do with it; or it cannot see what
// is wrong, for this reason, and accepts.
type expectation struct{ refusal, cannot string }

func (e expectation) accepts() bool { return e.refusal == "" }

// What clients cannot see, and why.
const (
	noSubject  = "cannot: it does not compare the statement's subject with an artifact; the caller has to"
	sanPattern = "cannot: it takes the identity for a pattern that may match anywhere; write `^…$` and escape the dots"
	rebuilds   = "harmless: it computes the entry from the bundle and proves that one; the one written there is not read"
	fromCheck  = "harmless: it takes the root hash from the signed checkpoint; the one written beside it is not read"
	oneIndex   = "harmless: it proves with the other of the two indexes, which is right"
	noTime     = "harmless: an entry of Rekor v2 has no time of its own, and none is taken from it; the timestamp counts"
)

// expectations are, for each question about a bundle that is not good, what
// the families of clients make of it.
var expectations = map[string]map[family]expectation{
	"other artifact": {
		sigstoreGo: {refusal: "provided artifact digest does not match any digest in statement"},
		sigstoreJS: {cannot: noSubject},
		provost:    {refusal: "subject: failed to verify signature: provided artifact digest does not match"},
	},
	"other identity": {
		sigstoreGo: {refusal: "expected SAN value"},
		sigstoreJS: {refusal: "certificate identity error"},
		provost:    {refusal: "identity: signed by"},
	},
	"other issuer": {
		sigstoreGo: {refusal: "expected issuer value"},
		sigstoreJS: {refusal: "invalid certificate extension"},
		provost:    {refusal: "identity: signed by"},
	},
	"beginning of the identity": {
		sigstoreGo: {refusal: "expected SAN value"},
		sigstoreJS: {cannot: sanPattern},
		provost:    {refusal: "identity: signed by"},
	},
	"another service of the same name": {
		sigstoreGo: {refusal: "not enough verified log entries from transparency log: 0 < 1"},
		sigstoreJS: {refusal: "timestamp could not be verified"},
		provost:    {refusal: "is not in the trust root"},
	},
	"unknown CA": {
		sigstoreGo: {refusal: "leaf certificate verification failed"},
		sigstoreJS: {refusal: "no valid certificate path found"},
		provost:    {refusal: "certificate: "},
	},
	"tampered payload": {
		sigstoreGo: {refusal: "failed to verify log inclusion: verifying log entry: verifying inclusion: "},
		sigstoreJS: {refusal: "TLOG_BODY_ERROR: digest mismatch"},
		provost:    {refusal: "the entry's body is not this bundle's"},
	},
	"tampered signature": {
		sigstoreGo: {refusal: "failed to verify log inclusion: verifying log entry: verifying inclusion: "},
		sigstoreJS: {refusal: "timestamp could not be verified"},
		provost:    {refusal: "the entry's body is not this bundle's"},
	},
	"missing log entry": {
		sigstoreGo: {refusal: "not enough verified log entries from transparency log: 0 < 1"},
		sigstoreJS: {refusal: "expected 1 tlog entries, got 0"},
		provost:    {refusal: "log: "},
	},
	"missing timestamp": {
		sigstoreGo: {refusal: "threshold not met for verified signed timestamps: 0 < 1"},
		sigstoreJS: {refusal: "expected 1 timestamps, got 0"},
		provost:    {refusal: "time: "},
	},
	"missing inclusion proof": {
		sigstoreGo: {refusal: "inclusion proof missing in bundle"},
		sigstoreJS: {refusal: "invalid bundle"},
		provost:    {refusal: "inclusion proof missing in bundle"},
	},
	"tampered timestamp": {
		sigstoreGo: {refusal: "threshold not met for verified signed timestamps: 0 < 1"},
		sigstoreJS: {refusal: "timestamp could not be verified"},
		provost:    {refusal: "time: "},
	},
	"timestamp of another bundle": {
		sigstoreGo: {refusal: "hashed messages don't match"},
		sigstoreJS: {refusal: "timestamp could not be verified"},
		provost:    {refusal: "time: "},
	},
	"certificate of another version": {
		sigstoreGo: {refusal: "failed to verify log inclusion: verifying log entry: verifying inclusion: "},
		sigstoreJS: {refusal: "signature verification failed"},
		provost:    {refusal: "the entry's body is not this bundle's"},
	},
	"log entry of another bundle": {
		sigstoreGo: {refusal: "failed to verify log inclusion: verifying log entry: verifying inclusion: "},
		sigstoreJS: {refusal: "TLOG_BODY_ERROR: signature mismatch"},
		provost:    {refusal: "the entry's body is not this bundle's"},
	},
	"log entry: tampered body": {
		sigstoreGo: {cannot: rebuilds},
		sigstoreJS: {refusal: "calculated root hash does not match inclusion proof"},
		provost:    {refusal: "the entry's body is not this bundle's"},
	},
	"log entry: a hash of the proof removed": {
		sigstoreGo: {refusal: "wrong proof size"},
		sigstoreJS: {refusal: "invalid hash count"},
		provost:    {refusal: "wrong proof size"},
	},
	"log entry: tampered root hash": {
		sigstoreGo: {cannot: fromCheck},
		sigstoreJS: {cannot: fromCheck},
		provost:    {refusal: "the proof's root hash is not the checkpoint's"},
	},
	"log entry: other index in the proof": {
		sigstoreGo: {cannot: oneIndex},
		sigstoreJS: {refusal: "TLOG_INCLUSION_PROOF_ERROR: "},
		provost:    {refusal: "log: entry 0: the proof is for index "},
	},
	"log entry: other index": {
		sigstoreGo: {refusal: "failed to verify log inclusion: verifying log entry: verifying inclusion: "},
		sigstoreJS: {cannot: oneIndex},
		provost:    {refusal: "log: entry 0: the proof is for index "},
	},
	"log entry: tampered checkpoint": {
		sigstoreGo: {refusal: "failed to verify signatures on checkpoint"},
		sigstoreJS: {refusal: "invalid checkpoint signature"},
		provost:    {refusal: "log: entry 0: the proof's tree has "},
	},
	"log entry: integrated time made up": {
		sigstoreGo: {refusal: "integrated time outside certificate validity"},
		sigstoreJS: {cannot: noTime},
		provost:    {refusal: "a Rekor v2 entry has no integrated time and no promise"},
	},
	"certificate without an SCT": {
		sigstoreGo: {refusal: "only able to verify 0 SCT entries"},
		sigstoreJS: {refusal: "expected 1 SCTs, got 0"},
		provost:    {refusal: "certificate: 0 SCTs in the certificate"},
	},
	"signed after the certificate's end": {
		sigstoreGo: {refusal: "leaf certificate verification failed"},
		sigstoreJS: {refusal: "no valid certificate path found"},
		provost:    {refusal: "certificate: "},
	},
	"signed before the certificate's begin": {
		sigstoreGo: {refusal: "leaf certificate verification failed"},
		sigstoreJS: {refusal: "no valid certificate path found"},
		provost:    {refusal: "certificate: "},
	},
	"revoked interval": {
		sigstoreGo: {refusal: "leaf certificate verification failed"},
		sigstoreJS: {refusal: "no valid certificate path found"},
		provost:    {refusal: "revoked: signed at "},
	},
}

// unlike are the expectations of one client that differ from its family's.
var unlike = map[string]map[string]expectation{
	"cosign, offline": {"missing inclusion proof": {refusal: legacy}},
	"cosign, by TUF":  {"missing inclusion proof": {refusal: legacyTUF}},
}

// What cosign says about a file that it cannot read as a bundle: it takes it
// for one of an older kind.
const (
	legacy    = "--trusted-root only supported with --new-bundle-format"
	legacyTUF = "bundle does not contain cert for verification"
)

func expected(t *testing.T, j judge, q question) expectation {
	t.Helper()
	if q.good {
		return expectation{}
	}
	e, found := unlike[j.name][q.name]
	if !found {
		e, found = expectations[q.name][j.family]
	}
	if !found || (e.refusal == "") == (e.cannot == "") {
		t.Fatalf("no expectation of %s about %s", j.name, q.name)
	}
	return e
}

// The part of docs/INTEROP.md that is written by this test.
const (
	begin = "<!-- What follows is written by: go test ./cmd -run TestInterop -update -->\n"
	end   = "<!-- end -->\n"
)

// document compares docs/INTEROP.md with what was found, or writes it anew.
func (m *matrix) document(t *testing.T) {
	t.Helper()
	if len(m.missing) > 0 {
		t.Logf("SKIPPED: docs/INTEROP.md was not compared, because clients are missing: %s", strings.Join(m.missing, ", "))
		return
	}
	if t.Failed() {
		return
	}
	path := filepath.Join("..", "docs", "INTEROP.md")
	raw, err := os.ReadFile(path)
	ok(t, err)
	before, rest, found := strings.Cut(string(raw), begin)
	old, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no place for the matrix", path)
	}
	switch now := m.markdown(t); {
	case *update:
		ok(t, os.WriteFile(path, []byte(before+begin+now+end+after), 0o644))
	case now != old:
		t.Errorf("%s is not what was found: run go test ./cmd -run TestInterop -update, and look at what changed", path)
	}
}

// markdown is an overview, and a row for every client and question.
func (m *matrix) markdown(t *testing.T) string {
	var b strings.Builder
	b.WriteString("\n### Overview\n\n| case |")
	for _, j := range judges {
		fmt.Fprintf(&b, " %s |", j.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(judges)) + "\n")
	for _, q := range m.questions {
		fmt.Fprintf(&b, "| %s |", q.name)
		for _, j := range judges {
			e := expected(t, j, q)
			mark := "refuses"
			switch {
			case q.good:
				mark = "accepts"
			case strings.HasPrefix(e.cannot, "cannot"):
				mark = "**cannot**"
			case e.accepts():
				mark = "harmless"
			}
			fmt.Fprintf(&b, " %s |", mark)
		}
		b.WriteByte('\n')
	}
	for _, j := range judges {
		fmt.Fprintf(&b, "\n### %s\n\n| case | | in its words, or why |\n|---|---|---|\n", j.name)
		for _, q := range m.questions {
			switch e := expected(t, j, q); {
			case q.good:
				fmt.Fprintf(&b, "| %s | accepts | |\n", q.name)
			case e.accepts():
				fmt.Fprintf(&b, "| %s | **accepts** | %s |\n", q.name, e.cannot)
			default:
				fmt.Fprintf(&b, "| %s | refuses | `%s` |\n", q.name, strings.TrimSpace(e.refusal))
			}
		}
	}
	slsaMarkdown(&b)
	return b.String() + "\n"
}
