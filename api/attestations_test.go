// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"provost/api/client"
	"provost/attest"
	"provost/verify"
)

var (
	artifact  = attest.SHA256([]byte("artifact"))
	admin     = map[string]any{"role": "admin", "repository": "none"}
	gate      = map[string]any{"role": "gate", "repository": "none"}
	oneDigest = client.ProvenanceRequest{Subjects: []client.Subject{{Name: "app", Digest: map[string]string{"sha256": artifact.Hex()}}}}
	cycloneDX = []byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"components":[]}`)
	spdx      = []byte(`{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT","name":"x","dataLicense":"CC0-1.0","documentNamespace":"https://x.example/1","creationInfo":{"created":"2026-01-01T00:00:00Z","creators":["Tool: t"]},"packages":[]}`)
)

// TestLifeOfAnArtifact signs, reads back, decides and verifies, all over HTTP.
func TestLifeOfAnArtifact(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	build, asker := f.client(nil), f.client(gate)

	provenance, err := build.AttestProvenance(ctx, oneDigest, "key-1")
	if err != nil {
		t.Fatal(err)
	}
	trust, err := f.ca.trust()
	if err != nil {
		t.Fatal(err)
	}
	believed, err := trust.Verify(provenance.Bundle, verify.Expect{Artifact: artifact, PredicateType: attest.ProvenanceType})
	if err != nil {
		t.Fatalf("what was signed is not believed: %v", err)
	}
	if got, _ := attest.ParseProvenance(believed.Statement().Predicate); got == nil || got.BuilderID != builder {
		t.Errorf("provenance of %+v, want builder %s", got, builder)
	}
	if provenance.Signer != attest.PowerProvenance || provenance.KeyVersion != 1 || provenance.SignedAt.IsZero() {
		t.Errorf("answer %+v lacks signer, version or time", provenance)
	}

	d, err := asker.Decide(ctx, client.Question{Artifact: client.Artifact{Digest: artifact}, Environment: "prod"})
	if err != nil || d.Verdict != attest.VerdictDeny {
		t.Fatalf("without an SBOM: %v, %v; want DENY", d.Verdict, err)
	}
	if _, err := build.AttestSBOM(ctx, client.Artifact{Digest: artifact, Name: "app"}, cycloneDX, ""); err != nil {
		t.Fatal(err)
	}
	d, err = asker.Decide(ctx, client.Question{Artifact: client.Artifact{Digest: artifact, Name: "app"}, Environment: "prod"})
	if err != nil || d.Verdict != attest.VerdictPass {
		t.Fatalf("with everything: %v %+v, %v; want PASS", d.Verdict, d.Reasons, err)
	}
	if _, err := trust.Verify(d.VSA, verify.Expect{Artifact: artifact, PredicateType: attest.VSAType}); err != nil {
		t.Errorf("the verdict is not believed: %v", err)
	}
	again, err := asker.Decision(ctx, d.ID)
	if err != nil || again.Verdict != d.Verdict || !bytes.Equal(again.VSA, d.VSA) || again.Artifact != d.Artifact {
		t.Errorf("the decision read back is %+v, %v", again, err)
	}

	one, err := asker.Attestation(ctx, provenance.ID)
	if err != nil || !bytes.Equal(one.Bundle, f.memory.attestations[0].Bundle) {
		t.Errorf("the bundle is not byte for byte what is stored: %v", err)
	}
	page, err := asker.Attestations(ctx, artifact, "", "", 0)
	if err != nil || len(page.Attestations) != 4 || page.Next != "" { // provenance, SBOM, two verdicts
		t.Errorf("page of %d, next %q, %v", len(page.Attestations), page.Next, err)
	}
	for i, a := range page.Attestations {
		if !bytes.Equal(a.Bundle, f.memory.attestations[i].Bundle) {
			t.Errorf("bundle %d is not byte for byte what is stored", i)
		}
	}
}

func TestARetriedSignGetsTheFirstAnswer(t *testing.T) {
	f := newFixture(t)
	c := f.client(nil)
	first, err := c.AttestProvenance(t.Context(), oneDigest, "k")
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.AttestProvenance(t.Context(), oneDigest, "k")
	if err != nil || second.ID != first.ID || !bytes.Equal(second.Bundle, first.Bundle) {
		t.Errorf("the second answer is %s, %v; want %s", second.ID, err, first.ID)
	}
	other := client.ProvenanceRequest{Subjects: []client.Subject{{Digest: map[string]string{"sha256": attest.SHA256(nil).Hex()}}}}
	if _, err = c.AttestProvenance(t.Context(), other, "k"); status(err) != http.StatusConflict {
		t.Errorf("the same key for something else: %v; want 409", err)
	}
}

// status is that of a problem; 0 for none.
func status(err error) int {
	if p, ok := err.(*client.Problem); ok {
		return p.Status
	}
	return 0
}

// post sends a request as it is, with a token that may do everything, and
// returns the status and, unless it is a success, the problem.
func (f *fixture) post(path, body string, header ...string) (int, client.Problem) {
	f.t.Helper()
	return f.ask(http.MethodPost, path, strings.NewReader(body), header...)
}

func (f *fixture) ask(method, path string, body io.Reader, header ...string) (int, client.Problem) {
	f.t.Helper()
	req, err := http.NewRequest(method, f.url+path, body)
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+f.token(map[string]any{"role": "admin"}))
	for i := 0; i < len(header); i += 2 {
		if req.Header.Set(header[i], header[i+1]); header[i+1] == "" {
			req.Header.Del(header[i])
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	var p client.Problem
	if resp.StatusCode >= 400 {
		if err := attest.DecodeJSON(raw, &p); err != nil || resp.Header.Get("Content-Type") != client.ProblemType {
			f.t.Errorf("%s %s: %d with %s, which is no problem: %v", method, path, resp.StatusCode, raw, err)
		}
		if p.Status != resp.StatusCode || p.Title == "" || p.Type == "" || p.RequestID == "" || p.RequestID != resp.Header.Get("X-Request-ID") {
			f.t.Errorf("%s %s: problem %+v of a %d", method, path, p, resp.StatusCode)
		}
	}
	return resp.StatusCode, p
}

func TestProvenanceRequestsThatAreRefused(t *testing.T) {
	f := newFixture(t)
	digest := artifact.Hex()
	subject := `{"name":"a","digest":{"sha256":"` + digest + `"}}`
	var many []string
	for i := range 10_000 {
		many = append(many, fmt.Sprintf(`{"digest":{"sha256":"%064x"}}`, i))
	}
	for _, c := range []struct {
		name, body string
		want       int
		says       string
	}{
		{"an empty body", ``, 400, ""},
		{"a truncated body", `{"subjects":[{"name":"a","digest":{"sha`, 400, ""},
		{"something after the end", `{"subjects":[` + subject + `]} {}`, 400, ""},
		{"a duplicate key", `{"subjects":[],"subjects":[` + subject + `]}`, 400, ""},
		{"a key in another case", `{"Subjects":[` + subject + `]}`, 400, "/Subjects"},
		{"text that is not UTF-8", "{\"subjects\":[{\"name\":\"\xff\",\"digest\":{\"sha256\":\"" + digest + `"}}]}`, 400, ""},
		{"a member of the wrong type", `{"subjects":{"a":1}}`, 400, "/subjects"},
		{"a name that is a number", `{"subjects":[{"name":1,"digest":{"sha256":"` + digest + `"}}]}`, 400, "/subjects/0/name"},
		{"an array", `[]`, 400, ""},
		{"null", `null`, 400, "subject"},
		{"an unknown member", `{"subjects":[` + subject + `],"builder":{"id":"x"}}`, 400, "/builder"},
		{"an unknown member of a subject", `{"subjects":[{"uri":"x","digest":{"sha256":"` + digest + `"}}]}`, 400, "/subjects/0/uri"},
		{"no subject", `{"subjects":[]}`, 400, "subject"},
		{"a subject without a digest", `{"subjects":[{"name":"a"}]}`, 400, "sha256"},
		{"a weak digest alone", `{"subjects":[{"digest":{"sha1":"` + digest[:40] + `"}}]}`, 400, "sha1"},
		{"a digest nobody knows", `{"subjects":[{"digest":{"sha256":"` + digest + `","x":"y"}}]}`, 400, "x"},
		{"upper-case hex", `{"subjects":[{"digest":{"sha256":"` + strings.ToUpper(digest) + `"}}]}`, 400, "lower-case"},
		{"a short digest", `{"subjects":[{"digest":{"sha256":"abc"}}]}`, 400, "64"},
		{"an empty sha512", `{"subjects":[{"digest":{"sha256":"` + digest + `","sha512":""}}]}`, 400, "128"},
		{"one subject twice", `{"subjects":[` + subject + `,` + subject + `]}`, 400, "twice"},
		{"a name with a line break", `{"subjects":[{"name":"a\nb","digest":{"sha256":"` + digest + `"}}]}`, 400, "control"},
		{"a long name", `{"subjects":[{"name":"` + strings.Repeat("a", 2000) + `","digest":{"sha256":"` + digest + `"}}]}`, 413, "1024"},
		{"10,000 subjects", `{"subjects":[` + strings.Join(many, ",") + `]}`, 413, "1024 subjects"},
		{"deep nesting", `{"subjects":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`, 400, "64"},
		{"an oversized body", `{"subjects":"` + strings.Repeat("a", maxProvenanceJSON) + `"}`, 413, "bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, p := f.post("/v1/attestations/provenance", c.body, "Content-Type", "application/json")
			if got != c.want || !strings.Contains(p.Detail, c.says) {
				t.Errorf("%d %q; want %d saying %q", got, p.Detail, c.want, c.says)
			}
			if (p.Limit != 0) != (c.want == 413) || strings.Contains(p.Detail, "Go ") || strings.Contains(p.Detail, "client.") {
				t.Errorf("problem %+v", p)
			}
		})
	}
	if len(f.memory.intents) != 0 {
		t.Errorf("%d intents of refused requests", len(f.memory.intents))
	}
}

func TestHeadersAndQueriesThatAreRefused(t *testing.T) {
	f := newFixture(t)
	body, _ := json.Marshal(oneDigest)
	sbom := "/v1/attestations/sbom?digest=" + artifact.String()
	const provenance, json, key = "/v1/attestations/provenance", "application/json", "Idempotency-Key"
	for _, c := range []struct {
		name, path, body string
		header           []string
		want             int
	}{
		{"a form", provenance, "subjects=1", []string{"Content-Type", "application/x-www-form-urlencoded"}, 400},
		{"another charset", provenance, string(body), []string{"Content-Type", json + "; charset=latin1"}, 415},
		{"a compressed body", provenance, string(body), []string{"Content-Encoding", "gzip"}, 415},
		{"a query where none is", provenance + "?dry-run=1", string(body), nil, 400},
		{"a key with a space", provenance, string(body), []string{key, "a b"}, 400},
		{"a key that is too long", provenance, string(body), []string{key, strings.Repeat("a", 256)}, 400},
		{"an SBOM as text", sbom, string(cycloneDX), []string{"Content-Type", "text/plain"}, 415},
		{"an SBOM of another format than said", sbom, string(cycloneDX), []string{"Content-Type", mimeSPDX}, 422},
		{"an SPDX said to be CycloneDX", sbom, string(spdx), []string{"Content-Type", mimeCycloneDX}, 422},
		{"JSON that is no SBOM", sbom, `{}`, nil, 422},
		{"an SBOM that lies about itself", sbom, `{"bomFormat":"CycloneDX","specVersion":"1.6","components":"none"}`, nil, 422},
		{"an SBOM of an unknown version", sbom, `{"bomFormat":"CycloneDX","specVersion":"9.9"}`, nil, 422},
		{"an SBOM with a duplicate key", sbom, `{"bomFormat":"x","bomFormat":"CycloneDX","specVersion":"1.6"}`, nil, 400},
		{"an SBOM that is not JSON", sbom, `<bom/>`, []string{"Content-Type", mimeCycloneDX}, 400},
		{"an empty SBOM", sbom, ``, nil, 400},
		{"a deep SBOM", sbom, strings.Repeat("[", 100_000), nil, 400},
		{"an oversized SBOM", sbom, `{"a":"` + strings.Repeat("a", attest.MaxPredicate) + `"}`, nil, 413},
		{"an SBOM about nothing", "/v1/attestations/sbom", string(cycloneDX), nil, 400},
		{"an SBOM about a sha512", "/v1/attestations/sbom?digest=sha512:" + strings.Repeat("a", 128), string(cycloneDX), nil, 400},
		{"an SBOM about upper-case hex", "/v1/attestations/sbom?digest=sha256:" + strings.Repeat("A", 64), string(cycloneDX), nil, 400},
		{"two digests", sbom + "&digest=" + artifact.String(), string(cycloneDX), nil, 400},
		{"an unknown parameter", sbom + "&type=x", string(cycloneDX), nil, 400},
		{"a broken query", sbom + "&name=%zz", string(cycloneDX), nil, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, p := f.post(c.path, c.body, c.header...); got != c.want {
				t.Errorf("%d %q; want %d", got, p.Detail, c.want)
			}
		})
	}
	if len(f.memory.intents) != 0 {
		t.Errorf("%d intents of refused requests", len(f.memory.intents))
	}
	for _, media := range []string{"", json, json + "; charset=UTF-8", mimeCycloneDX} {
		if got, p := f.post(sbom, string(cycloneDX), "Content-Type", media); got != 201 {
			t.Errorf("an SBOM as %q: %d %q; want 201", media, got, p.Detail)
		}
	}
	if got, p := f.post(sbom, string(spdx), "Content-Type", mimeSPDX); got != 201 {
		t.Errorf("an SPDX as such: %d %q; want 201", got, p.Detail)
	}
}

// A body of unknown length is bounded while it is read.
func TestABodyOfUnknownLengthIsBounded(t *testing.T) {
	f := newFixture(t)
	body := io.MultiReader(strings.NewReader(`{"a":"`), io.LimitReader(neverending('a'), attest.MaxPredicate+100_000))
	if got, p := f.ask(http.MethodPost, "/v1/attestations/sbom?digest="+artifact.String(), body); got != 413 || p.Limit != attest.MaxPredicate {
		t.Errorf("%d %+v; want 413 with the limit", got, p)
	}
}

type neverending byte

func (n neverending) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(n)
	}
	return len(p), nil
}

func TestPaging(t *testing.T) {
	f := newFixture(t)
	ctx, c := t.Context(), f.client(gate)
	empty, err := c.Attestations(ctx, artifact, "", "", 0)
	if err != nil || empty.Attestations == nil || len(empty.Attestations) != 0 || empty.Next != "" {
		t.Fatalf("of an unknown artifact: %+v, %v; want an empty list", empty, err)
	}
	store := func(n, size int) {
		f.memory.attestations = nil
		for i := range n {
			f.memory.attestations = append(f.memory.attestations, attest.Attestation{
				ID: fmt.Sprint("a", i), Seq: int64(10 * (i + 1)), PredicateType: "https://x.example/" + fmt.Sprint(i%2),
				Subjects: []attest.Subject{{SHA256: artifact}}, Bundle: fmt.Appendf(nil, `{"n": %d, "x":"%s"}`, i, strings.Repeat("x", size)),
			})
		}
	}
	all := func(predicateType string, limit int) (sizes []int, ids []string) {
		for after := ""; ; {
			page, err := c.Attestations(ctx, artifact, predicateType, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, len(page.Attestations))
			for _, a := range page.Attestations {
				ids = append(ids, a.ID)
			}
			if after = page.Next; after == "" {
				return sizes, ids
			}
		}
	}
	store(250, 10)
	if sizes, ids := all("", 0); fmt.Sprint(sizes) != "[100 100 50]" || ids[249] != "a249" {
		t.Errorf("250 by default: pages of %v", sizes)
	}
	if sizes, _ := all("", 125); fmt.Sprint(sizes) != "[125 125]" { // no empty page at the end
		t.Errorf("250 by 125: pages of %v", sizes)
	}
	if sizes, _ := all("https://x.example/1", 1000); fmt.Sprint(sizes) != "[125]" {
		t.Errorf("one type: pages of %v", sizes)
	}
	store(7, 10<<20)
	f.memory.queries = 0
	if sizes, ids := all("", 0); fmt.Sprint(sizes) != "[3 3 1]" || len(ids) != 7 {
		t.Errorf("large bundles: pages of %v with %v", sizes, ids)
	}
	store(2, client.MaxPage+1)
	got, _ := f.ask(http.MethodGet, "/v1/artifacts/"+artifact.String()+"/attestations", nil)
	if got != 200 {
		t.Errorf("a bundle beyond the page: %d; want 200 with it alone", got)
	}
}

func TestReadsThatAreRefused(t *testing.T) {
	f := newFixture(t)
	list := "/v1/artifacts/" + artifact.String() + "/attestations"
	for path, want := range map[string]int{
		"/v1/attestations/nosuchid":                  404,
		"/v1/attestations/NO..SUCH":                  404,
		"/v1/attestations/a%2Fb":                     404,
		"/v1/attestations/nosuchid?x=1":              400,
		"/v1/decisions/nosuchid":                     404,
		"/v1/decisions/" + strings.Repeat("a", 5000): 404,
		"/v1/artifacts/sha256:abc/attestations":      400,
		"/v1/artifacts/md5:abc/attestations":         400,
		strings.Replace(list, ":", "%3A", 1):         200,
		list + "?limit=0":                            400,
		list + "?limit=1001":                         400,
		list + "?limit=x":                            400,
		list + "?after=-1":                           400,
		list + "?after=x":                            400,
		list + "?predicatetype=x":                    400,
		list + "?limit=1&limit=2":                    400,
		"/v1/nothing":                                404,
		"/":                                          404,
		"/v1/decisions":                              405,
	} {
		if got, p := f.ask(http.MethodGet, path, nil); got != want {
			t.Errorf("GET %.80s: %d %q; want %d", path, got, p.Detail, want)
		}
	}
	if got, _ := f.ask(http.MethodDelete, "/v1/attestations/x", nil); got != 405 {
		t.Errorf("DELETE: %d; want 405", got)
	}
}

func TestOpenIntents(t *testing.T) {
	f := newFixture(t)
	f.ca.set(func(ca *testCA) { ca.failSign = fmt.Errorf("%w: the backend is away", attest.ErrUnavailable) })
	if got, p := f.post("/v1/attestations/provenance", `{"subjects":[{"name":"a","digest":{"sha256":"`+artifact.Hex()+`"}}]}`); got != 503 || strings.Contains(p.Detail, "backend") {
		t.Fatalf("%d %q; want 503 without the detail", got, p.Detail)
	}
	open, err := f.client(gate).Intents(t.Context())
	if err != nil || len(open.Intents) != 1 {
		t.Fatalf("%+v, %v; want the one intent", open, err)
	}
	if i := open.Intents[0]; i.Signer != attest.PowerProvenance || i.PredicateType != attest.ProvenanceType || i.Subjects[0].Digest["sha256"] != artifact.Hex() {
		t.Errorf("intent %+v", i)
	}
}
