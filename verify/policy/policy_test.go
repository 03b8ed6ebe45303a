// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"

	"provost/attest"
	"provost/verify"
	"provost/verify/policy"
)

// The tests beside the rules, in their own language, compiled as in production;
// and no line of the rules goes untested.
func TestRules(t *testing.T) {
	tests, err := os.ReadFile("gate_test.rego")
	if err != nil {
		t.Fatal(err)
	}
	options := ast.ParserOptions{Capabilities: policy.Capabilities(), RegoVersion: ast.RegoV1}
	modules := map[string]*ast.Module{}
	for name, text := range map[string]string{"gate.rego": policy.GateRules, "gate_test.rego": string(tests)} {
		if modules[name], err = ast.ParseModuleWithOpts(name, text, options); err != nil {
			t.Fatal(err)
		}
	}
	coverage, store := cover.New(), inmem.New()
	txn := storage.NewTransactionOrDie(t.Context(), store)
	defer store.Abort(t.Context(), txn)
	results, err := tester.NewRunner().
		SetCompiler(ast.NewCompiler().WithCapabilities(policy.Capabilities()).WithStrict(true)).
		SetStore(store).SetModules(modules).SetCoverageQueryTracer(coverage).RaiseBuiltinErrors(true).SetTimeout(30*time.Second).
		RunTests(t.Context(), txn)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for r := range results {
		ran++
		for name, sub := range r.SubResults.Iter {
			ran++
			if sub.Fail {
				t.Errorf("%s: %s", r.Name, strings.Join(name, " "))
			}
		}
		if !r.Pass() {
			t.Errorf("%s: %v", r, r.Error)
		}
	}
	if want := strings.Count(string(tests), "\ntest_"); ran < want+100 {
		t.Errorf("%d tests ran; want the %d of the file and each of their cases", ran, want)
	}
	report := coverage.Report(modules)
	for _, r := range report.Files["gate.rego"].NotCovered {
		t.Errorf("gate.rego:%d to %d: no test comes here", r.Start.Row, r.End.Row)
	}
}

const (
	builder    = "https://provost.example/builders/github-hosted"
	repository = "https://github.com/acme/app"
)

func prod() policy.Environment {
	return policy.Environment{
		Builders: []policy.Builder{{ID: builder, Level: 3}},
		Sources:  []policy.Source{{Repository: repository, Refs: []string{"refs/heads/main"}}},
	}
}

func compile(t testing.TB, e policy.Environment) *policy.Policy {
	t.Helper()
	p, err := policy.New(map[string]policy.Environment{"prod": e})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func perfect() verify.Facts {
	believed := verify.Believed{Attestation: "a", SignedAt: now.Add(-time.Minute), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	return verify.Facts{
		Now: now, Artifact: attest.SHA256([]byte("app")),
		Provenance: []verify.ProvenanceFact{{
			Believed: believed, BuilderID: builder, BuildType: attest.GitHubWorkflowType, InvocationID: "i",
			Source: verify.Source{Repository: repository, Ref: "refs/heads/main", Commit: strings.Repeat("c", 40)}, UnknownParameters: []string{}, TenantSupplied: []string{},
		}},
		SBOMs: []verify.SBOMFact{{Believed: believed, PredicateType: "https://cyclonedx.org/bom"}},
	}
}

func rules(reasons []attest.Reason, severity string) []string {
	var names []string
	for _, r := range reasons {
		if r.Severity == severity {
			names = append(names, r.Rule)
		}
	}
	slices.Sort(names)
	return names
}

var allRules = []string{
	"sbom.present", "slsa.builder_allowed", "slsa.no_unknown_parameters", "slsa.provenance_accepted",
	"slsa.provenance_present", "slsa.source_matches_expectation", "time.sound",
}

// Every rule that is required is evaluated, says why, and holds of facts that
// are perfect.
func TestJudge(t *testing.T) {
	j, err := compile(t, prod()).Judge(t.Context(), "prod", perfect())
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(j.Required)
	slices.Sort(j.Evaluated)
	for name, got := range map[string][]string{"required": j.Required, "evaluated": j.Evaluated, "holding": rules(j.Reasons, attest.SeverityInfo)} {
		if diff := cmp.Diff(allRules, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if j.Level != 3 || j.Policy.IsZero() {
		t.Errorf("level %d, policy %s", j.Level, j.Policy)
	}

	// What denies comes first, and says what was expected.
	f := perfect()
	f.Provenance[0].BuilderID = "https://evil.example/b"
	if j, err = compile(t, prod()).Judge(t.Context(), "prod", f); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"slsa.builder_allowed", "slsa.provenance_accepted"}, rules(j.Reasons, attest.SeverityDeny)); diff != "" {
		t.Errorf("denies (-want +got):\n%s", diff)
	}
	if j.Level != 0 || j.Reasons[0].Severity != attest.SeverityDeny || j.Reasons[1].Severity != attest.SeverityDeny ||
		!strings.Contains(j.Reasons[0].Message, "https://evil.example/b") || !strings.Contains(j.Reasons[0].Message, builder) {
		t.Errorf("%+v", j)
	}
}

func TestJudgeUnknownEnvironment(t *testing.T) {
	for name, p := range map[string]*policy.Policy{"one": compile(t, prod()), "none": must(policy.New(nil))} {
		for _, environment := range []string{"", "Prod", "production", "pro", "prod ", "*"} {
			if j, err := p.Judge(t.Context(), environment, perfect()); !errors.Is(err, attest.ErrNotFound) || j.Required != nil {
				t.Errorf("%s, %q: %+v, %v; want ErrNotFound", name, environment, j, err)
			}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestNewRefuses(t *testing.T) {
	if _, err := policy.New(map[string]policy.Environment{"prod": prod(), "eu-west_1.staging": prod()}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*policy.Environment){
		"no builder":                  func(e *policy.Environment) { e.Builders = nil },
		"no source":                   func(e *policy.Environment) { e.Sources = nil },
		"nothing":                     func(e *policy.Environment) { *e = policy.Environment{} },
		"an SBOM perhaps":             func(e *policy.Environment) { e.SBOM = "maybe" },
		"an SBOM in capitals":         func(e *policy.Environment) { e.SBOM = "Optional" },
		"a builder without an ID":     func(e *policy.Environment) { e.Builders[0].ID = "" },
		"a builder twice":             func(e *policy.Environment) { e.Builders = append(e.Builders, policy.Builder{ID: builder, Level: 1}) },
		"a level above 3":             func(e *policy.Environment) { e.Builders[0].Level = 4 },
		"a level below 0":             func(e *policy.Environment) { e.Builders[0].Level = -1 },
		"a source without repository": func(e *policy.Environment) { e.Sources[0].Repository = "" },
		"a source without refs":       func(e *policy.Environment) { e.Sources[0].Refs = nil },
		"an empty ref":                func(e *policy.Environment) { e.Sources[0].Refs = []string{"refs/heads/main", ""} },
		"a ref with ?":                func(e *policy.Environment) { e.Sources[0].Refs = []string{"refs/heads/mai?"} },
		"a ref with alternatives":     func(e *policy.Environment) { e.Sources[0].Refs = []string{"refs/{heads,tags}/main"} },
		"a ref with a class":          func(e *policy.Environment) { e.Sources[0].Refs = []string{"refs/heads/[a-z]"} },
		"a ref with an open class":    func(e *policy.Environment) { e.Sources[0].Refs = []string{"refs/heads/["} },
		"a ref with an escape":        func(e *policy.Environment) { e.Sources[0].Refs = []string{`refs/heads/\*`} },
		"a repository with a class":   func(e *policy.Environment) { e.Sources[0].Repository = "https://github.com/[!x]/app" },
	} {
		e := prod()
		change(&e)
		if p, err := policy.New(map[string]policy.Environment{"good": prod(), "bad": e}); !errors.Is(err, attest.ErrInvalid) || p != nil {
			t.Errorf("%s: New = %v, %v; want ErrInvalid", name, p, err)
		}
	}
	for _, name := range []string{"", "Prod", "prod ", "a/b", "..", "prod-", strings.Repeat("a", 65)} {
		if p, err := policy.New(map[string]policy.Environment{name: prod()}); !errors.Is(err, attest.ErrInvalid) || p != nil {
			t.Errorf("name %q: New = %v, %v; want ErrInvalid", name, p, err)
		}
	}
}

func TestEnvironments(t *testing.T) {
	p := must(policy.New(map[string]policy.Environment{"prod": prod(), "dev": prod(), "edge": prod()}))
	if diff := cmp.Diff([]string{"dev", "edge", "prod"}, p.Environments()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The policy's digest names the rules and the environment, and nothing else:
// not the facts, not other environments, not the process.
func TestDigest(t *testing.T) {
	digest := func(name string, e policy.Environment, f verify.Facts) attest.Digest {
		p := must(policy.New(map[string]policy.Environment{name: e, "other": prod()}))
		return must(p.Judge(t.Context(), name, f)).Policy
	}
	base := digest("prod", prod(), perfect())
	nothing := verify.Facts{Now: now, Provenance: []verify.ProvenanceFact{}, SBOMs: []verify.SBOMFact{}}
	same := prod()
	same.SBOM = policy.SBOMRequired
	for name, got := range map[string]attest.Digest{
		"compiled again":     digest("prod", prod(), perfect()),
		"of other facts":     digest("prod", prod(), nothing),
		"the default spelt":  digest("prod", same, perfect()),
		"without the others": must(compile(t, prod()).Judge(t.Context(), "prod", perfect())).Policy,
		"of the very document": attest.SHA256([]byte(policy.GateRules + "\x00" +
			`{"name":"prod","builders":[{"id":"` + builder + `","level":3}],"sources":[{"repository":"` + repository + `","refs":["refs/heads/main"]}],"sbom":"required"}`)),
	} {
		if got != base {
			t.Errorf("%s: %s; want %s", name, got, base)
		}
	}
	seen := map[attest.Digest]string{base: "as it was"}
	for name, change := range map[string]func(*policy.Environment){
		"a level":      func(e *policy.Environment) { e.Builders[0].Level = 2 },
		"a builder":    func(e *policy.Environment) { e.Builders = append(e.Builders, policy.Builder{ID: "b"}) },
		"a ref":        func(e *policy.Environment) { e.Sources[0].Refs = append(e.Sources[0].Refs, "refs/tags/*") },
		"a repository": func(e *policy.Environment) { e.Sources[0].Repository = "https://github.com/acme/*" },
		"no SBOM":      func(e *policy.Environment) { e.SBOM = policy.SBOMOptional },
	} {
		e := prod()
		change(&e)
		seen[digest("prod", e, perfect())] = name
	}
	seen[digest("staging", prod(), perfect())] = "another name"
	other := must(policy.Compile(policy.GateRules+"# as good as the same\n", map[string]policy.Environment{"prod": prod()}))
	seen[must(other.Judge(t.Context(), "prod", perfect())).Policy] = "other rules"
	if len(seen) != 8 {
		t.Errorf("some changes do not change the digest: %v", slices.Collect(maps.Values(seen)))
	}
}

// Rules that say too little, or something else, are no judgement: what is not
// evaluated is not among what was.
func TestJudgeOtherRules(t *testing.T) {
	const whole = `package provost.gate

judgement := {"required": {"a", "b"}, "holds": {"a", "b"}, "because": {"a": "x", "b": "y"}, "level": 2}
`
	for _, c := range []struct {
		name, old, new string
		evaluated      []string // nil for an error
		denies         []string
	}{
		{"all there", "", "", []string{"a", "b"}, nil},
		{"a rule that does not say why", `, "b": "y"`, ``, []string{"a"}, nil},
		{"a rule that does not hold", `{"a", "b"}, "because"`, `{"a"}, "because"`, []string{"a", "b"}, []string{"b"}},
		{"a rule that holds in another case", `{"a", "b"}, "because"`, `{"a", "B"}, "because"`, []string{"a", "b"}, []string{"b"}},
		{"nothing holds", `"holds": {"a", "b"}, `, ``, []string{"a", "b"}, []string{"a", "b"}},
		{"nothing is said", `judgement`, `verdict`, nil, nil},
		{"it is said only sometimes", `}
`, `} if input.facts.nothing
`, nil, nil},
		{"an error on the way", `"y"`, `sprintf("%d", [time.parse_rfc3339_ns("never")])`, nil, nil},
		{"a level that is no number", `2`, `"2"`, nil, nil},
		{"a level between two", `2`, `2.5`, nil, nil},
		{"rules that are no list", `{"a", "b"}, "holds"`, `"a", "holds"`, nil, nil},
		{"a reason that is no text", `"y"`, `1`, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(whole, c.old) {
				t.Fatalf("%q is not in the rules", c.old)
			}
			p := must(policy.Compile(strings.Replace(whole, c.old, c.new, 1), map[string]policy.Environment{"prod": prod()}))
			j, err := p.Judge(t.Context(), "prod", perfect())
			if c.evaluated == nil {
				if err == nil || j.Required != nil {
					t.Errorf("%+v, %v; want an error", j, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for what, diff := range map[string]string{
				"required":  cmp.Diff([]string{"a", "b"}, j.Required),
				"evaluated": cmp.Diff(c.evaluated, j.Evaluated),
				"denying":   cmp.Diff(c.denies, rules(j.Reasons, attest.SeverityDeny)),
			} {
				if diff != "" {
					t.Errorf("%s (-want +got):\n%s", what, diff)
				}
			}
		})
	}
	for name, text := range map[string]string{
		"not Rego":           "permit all",
		"old Rego":           "package provost.gate\n\njudgement = x { x := 1 }\n",
		"another built-in":   "package provost.gate\n\njudgement := time.now_ns()\n",
		"an unsafe variable": "package provost.gate\n\njudgement := x\n",
	} {
		if p, err := policy.Compile(text, map[string]policy.Environment{"prod": prod()}); err == nil || p != nil {
			t.Errorf("%s: compiles", name)
		}
	}
}

// Rules can reach nothing but their input: not the network, not the clock, not
// chance.
func TestCapabilities(t *testing.T) {
	for _, call := range []string{
		`http.send({"method": "get", "url": "https://example.com"})`,
		`net.lookup_ip_addr("example.com")`,
		`opa.runtime()`,
		`rand.intn("x", 2)`,
		`uuid.rfc4122("x")`,
		`time.now_ns()`,
		`io.jwt.decode_verify("x", {})`,
		`io.jwt.encode_sign({}, {}, {})`,
		`io.jwt.encode_sign_raw("{}", "{}", "{}")`,
		`json.match_schema({}, {})`,
		`json.verify_schema({})`,
		`crypto.x509.parse_and_verify_certificates("x")`,
		`crypto.x509.parse_and_verify_certificates_with_options("x", {})`,
	} {
		compileWith := func(c *ast.Capabilities) error {
			m, err := ast.ParseModuleWithOpts("x.rego", "package x\n\ny := "+call, ast.ParserOptions{RegoVersion: ast.RegoV1})
			if err != nil {
				return err
			}
			compiler := ast.NewCompiler().WithCapabilities(c)
			if compiler.Compile(map[string]*ast.Module{"x.rego": m}); compiler.Failed() {
				return compiler.Errors
			}
			return nil
		}
		if err := compileWith(policy.Capabilities()); err == nil || !strings.Contains(err.Error(), "undefined function") {
			t.Errorf("%s: %v; want it not to compile", call, err)
		}
		if err := compileWith(ast.CapabilitiesForThisVersion()); err != nil {
			t.Errorf("%s: is not what it is called: %v", call, err)
		}
	}
	c := policy.Capabilities()
	if c.AllowNet == nil || len(c.AllowNet) != 0 { // nil would be every host
		t.Errorf("hosts that may be reached: %v", c.AllowNet)
	}
	if diff := cmp.Diff([]string{"rego_v1", "rule_head_ref_string_prefixes", "rule_head_refs"}, slices.Sorted(slices.Values(c.Features))); diff != "" {
		t.Errorf("features (-want +got):\n%s", diff)
	}
}

// Facts that are not such as the gate makes cannot be judged.
func TestJudgeMalformedFacts(t *testing.T) {
	p := compile(t, prod())
	for name, change := range map[string]func(*verify.Facts){
		"no lists":                     func(f *verify.Facts) { f.Provenance, f.SBOMs = nil, nil },
		"no list of SBOMs":             func(f *verify.Facts) { f.SBOMs = nil },
		"a time that never was":        func(f *verify.Facts) { f.Provenance[0].SignedAt = time.Time{} },
		"a time after all time":        func(f *verify.Facts) { f.Provenance[0].NotAfter = time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC) },
		"no clock":                     func(f *verify.Facts) { f.Now = time.Time{} },
		"a year that JSON cannot have": func(f *verify.Facts) { f.Now = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		f := perfect()
		change(&f)
		if j, err := p.Judge(t.Context(), "prod", f); err == nil || errors.Is(err, attest.ErrInvalid) || errors.Is(err, attest.ErrNotFound) || j.Required != nil {
			t.Errorf("%s: %+v, %v; want an error that is not the caller's", name, j, err)
		}
	}
}

// A list of parameters that is not there is no empty one.
func TestJudgeParametersNotKnown(t *testing.T) {
	f := perfect()
	f.Provenance[0].UnknownParameters = nil
	j := must(compile(t, prod()).Judge(t.Context(), "prod", f))
	if diff := cmp.Diff([]string{"slsa.no_unknown_parameters", "slsa.provenance_accepted"}, rules(j.Reasons, attest.SeverityDeny)); diff != "" {
		t.Errorf("denies (-want +got):\n%s", diff)
	}
}

// idle are the parts of the input that decide nothing, once there is an SBOM.
var idle = []string{
	"facts.artifact", "facts.provenance.0.attestation", "facts.provenance.0.buildType", "facts.provenance.0.invocationId",
	"facts.provenance.0.level", "facts.provenance.0.tenantSupplied",
	"facts.sboms.0.attestation", "facts.sboms.0.predicateType", "facts.imported",
	"environment.name", "environment.sbom", "environment.builders.0.level",
}

// Whatever else is missing from the input, or is something else than it should
// be, is an error or a no: undefined is never a yes.
func TestNothingUndefinedPasses(t *testing.T) {
	p := compile(t, prod())
	input := func() (in map[string]any) {
		raw := must(json.Marshal(map[string]any{"facts": perfect(), "environment": map[string]any{
			"name": "prod", "builders": []any{map[string]any{"id": builder, "level": 3}},
			"sources": []any{map[string]any{"repository": repository, "refs": []any{"refs/heads/main"}}}, "sbom": "required",
		}}))
		if err := json.Unmarshal(raw, &in); err != nil {
			t.Fatal(err)
		}
		return in
	}
	passes := func(in any) bool {
		results, err := p.Eval(t.Context(), in)
		if err != nil || len(results) != 1 {
			return false
		}
		var says struct {
			Required, Holds []string
			Because         map[string]string
			Level           int
		}
		if json.Unmarshal(must(json.Marshal(results[0].Expressions[0].Value)), &says) != nil || len(says.Required) < len(allRules) {
			return false
		}
		for _, rule := range says.Required {
			if _, ok := says.Because[rule]; !ok || !slices.Contains(says.Holds, rule) {
				return false
			}
		}
		return true
	}
	if !passes(input()) {
		t.Fatal("the good one does not pass")
	}
	tried := 0
	walk(input(), "", func(path string) {
		if slices.Contains(idle, path) || path == "" {
			return
		}
		in := input()
		remove(in, path)
		tried++
		if passes(in) {
			t.Errorf("passes without %s", path)
		}
		for _, value := range []any{nil, true, json.Number("1"), json.Number("1e400"), "", "NaN", []any{}, map[string]any{}} {
			in := input()
			set(in, path, value)
			tried++
			if passes(in) != cmp.Equal(in, input()) {
				t.Errorf("passes with %s = %#v", path, value)
			}
		}
	})
	if tried < 200 {
		t.Errorf("only %d changes were tried", tried)
	}
	for _, in := range []any{nil, true, "x", []any{}, map[string]any{}, map[string]any{"facts": perfect()}, perfect()} {
		if passes(in) {
			t.Errorf("passes with the input %#v", in)
		}
	}
}

// walk visits the paths of a document.
func walk(v any, path string, visit func(string)) {
	visit(path)
	join := func(k string) string { return strings.TrimPrefix(path+"."+k, ".") }
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			walk(v[k], join(k), visit)
		}
	case []any:
		for i, e := range v {
			walk(e, join(fmt.Sprint(i)), visit)
		}
	}
}

func set(in any, path string, value any) {
	k, rest, more := strings.Cut(path, ".")
	switch v := in.(type) {
	case map[string]any:
		if !more {
			v[k] = value
			return
		}
		set(v[k], rest, value)
	case []any: // all lists of the document have one element
		if !more {
			v[0] = value
			return
		}
		set(v[0], rest, value)
	}
}

func remove(in any, path string) {
	at, k := in, path
	for {
		head, rest, more := strings.Cut(k, ".")
		m, isMap := at.(map[string]any)
		if !more {
			if isMap {
				delete(m, head)
			} else {
				at.([]any)[0] = nil
			}
			return
		}
		if isMap {
			at = m[head]
		} else {
			at = at.([]any)[0]
		}
		k = rest
	}
}

// Cancelled at any time, a judgement is whole or there is none.
func TestJudgeCancelled(t *testing.T) {
	p := compile(t, prod())
	whole := must(p.Judge(t.Context(), "prod", perfect()))
	cancelled := 0
	for i := range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*20*time.Microsecond)
		j, err := p.Judge(ctx, "prod", perfect())
		cancel()
		if err != nil {
			cancelled++
			if !cmp.Equal(verify.Judgement{}, j, cmp.Comparer(sameDigest)) {
				t.Errorf("%v came with %+v", err, j)
			}
			continue
		}
		if !cmp.Equal(whole, j, cmp.Comparer(sameDigest)) {
			t.Errorf("half a judgement: %+v", j)
		}
	}
	t.Logf("%d of 50 cancelled", cancelled)
}

func sameDigest(a, b attest.Digest) bool { return a == b }

// An evaluation that would take for ever ends by itself, in an error.
func TestJudgeTimesOut(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the timeout")
	}
	e := prod()
	for i := range 200 {
		s := policy.Source{Repository: "https://github.com/**"}
		for j := range 200 {
			s.Refs = append(s.Refs, fmt.Sprintf("refs/heads/x%d-%d", i, j))
		}
		e.Sources = append(e.Sources, s)
	}
	f := perfect()
	for len(f.Provenance) < 1000 {
		p := f.Provenance[0]
		p.Source.Ref = "refs/heads/feature"
		f.Provenance = append(f.Provenance, p)
	}
	p, start := compile(t, e), time.Now()
	j, err := p.Judge(t.Context(), "prod", f)
	if err == nil || j.Required != nil {
		t.Errorf("%+v, %v", j, err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}
