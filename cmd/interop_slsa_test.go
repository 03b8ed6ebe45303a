// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"provost/attest"
)

// A slsaCase is a question put to slsa-verifier, which takes the bare envelope
// of a verdict and a public key, as provost export writes them.
type slsaCase struct {
	name    string
	change  func(*slsaQuestion)
	refusal string // its words; "" when it accepts
}

type slsaQuestion struct {
	version, key              int // whose envelope, and whose key
	artifact                  attest.Digest
	verifier, resource, level string
	tamper                    func(payload []byte) []byte
}

var slsaCases = []slsaCase{
	{"VSA, first key version", func(q *slsaQuestion) { q.version, q.key = 0, 0 }, ""},
	{"VSA, previous key version", func(q *slsaQuestion) { q.version, q.key = 1, 1 }, ""},
	{"VSA, current key version", func(*slsaQuestion) {}, ""},
	{"key of another version", func(q *slsaQuestion) { q.key = 0 }, "accepted signatures do not match threshold"},
	{"other artifact", func(q *slsaQuestion) { q.artifact = attest.SHA256([]byte("another artifact")) }, "expected digest not found"},
	{"other verifier", func(q *slsaQuestion) { q.verifier = "https://other.example" }, "verifier ID mismatch"},
	{"other resource", func(q *slsaQuestion) { q.resource += "/other" }, "resource URI mismatch"},
	{"higher level", func(q *slsaQuestion) { q.level = "SLSA_BUILD_LEVEL_4" }, "expected SLSA level BUILD to be at least 4"},
	{"tampered payload", func(q *slsaQuestion) {
		q.tamper = func(p []byte) []byte {
			return bytes.Replace(p, []byte(`"predicate":{`), []byte(`"predicate":{"x":1,`), 1)
		}
	}, "accepted signatures do not match threshold"},
}

// verdicts has slsa-verifier judge the verdicts.
func (m *matrix) verdicts(t *testing.T, i *issued) {
	t.Run("slsa-verifier", func(t *testing.T) {
		defer func() {
			if t.Skipped() {
				m.missing = append(m.missing, "slsa-verifier")
			}
		}()
		binary := testbed(t, "slsa-verifier")
		envelopes, keys := exportVerdicts(t, i)
		for _, c := range slsaCases {
			q := whole(t, envelopes[2], i.samples[2][2].artifact)
			c.change(&q)
			var envelope any
			ok(t, json.Unmarshal(envelopes[q.version], &envelope))
			if q.tamper != nil {
				edit(envelope, "payload", q.tamper)
			}
			raw, err := json.Marshal(envelope)
			ok(t, err)
			file := filepath.Join(t.TempDir(), "vsa.json")
			ok(t, os.WriteFile(file, raw, 0o644))
			_, a := command(t, t.TempDir(), append(offline(), binary, "verify-vsa", "--attestation-path", file, "--public-key-path", keys[q.key],
				"--subject-digest", q.artifact.String(), "--verifier-id", q.verifier, "--resource-uri", q.resource, "--verified-level", q.level)...)
			if a.OK != (c.refusal == "") || !strings.Contains(a.Error, c.refusal) {
				t.Errorf("%s: accepted: %t, saying %q; expected words: %q", c.name, a.OK, a.Error, c.refusal)
			}
		}
	})
}

// whole is the question that the current verdict answers with yes.
func whole(t *testing.T, envelope []byte, artifact attest.Digest) slsaQuestion {
	t.Helper()
	var e struct{ Payload []byte }
	var said struct {
		Predicate struct {
			Verifier       struct{ ID string }
			ResourceURI    string
			VerifiedLevels []string
		}
	}
	ok(t, json.Unmarshal(envelope, &e))
	ok(t, json.Unmarshal(e.Payload, &said))
	p := said.Predicate
	return slsaQuestion{version: 2, key: 2, artifact: artifact, verifier: p.Verifier.ID, resource: p.ResourceURI, level: p.VerifiedLevels[0]}
}

// exportVerdicts is provost export, offline, of every verdict.
func exportVerdicts(t *testing.T, i *issued) (envelopes [3][]byte, keys [3]string) {
	t.Helper()
	dir, err := programs()
	ok(t, err)
	home := t.TempDir()
	for v := range versions {
		file := filepath.Join(home, fmt.Sprintf("vsa%d.json", v))
		keys[v] = filepath.Join(home, fmt.Sprintf("vsa%d.pem", v))
		ok(t, os.WriteFile(file, i.samples[2][v].bundle, 0o644))
		export := func(format, to string) []byte {
			out, a := command(t, home, append(offline(), filepath.Join(dir, "provost"), "export", "--bundle", file,
				"--trusted-root", i.trust.file, "--format", format, "--file", to)...)
			if !a.OK {
				t.Fatalf("export %s: %s", format, a.Error)
			}
			return out
		}
		envelopes[v] = export("dsse", "-")
		export("pem", keys[v])
	}
	return envelopes, keys
}

// slsaMarkdown is what slsa-verifier makes of verdicts.
func slsaMarkdown(b *strings.Builder) {
	b.WriteString("\n### slsa-verifier, of a verdict's bare envelope and a key\n\n| case | | in its words |\n|---|---|---|\n")
	for _, c := range slsaCases {
		if c.refusal == "" {
			fmt.Fprintf(b, "| %s | accepts | |\n", c.name)
		} else {
			fmt.Fprintf(b, "| %s | refuses | `%s` |\n", c.name, c.refusal)
		}
	}
}
