// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

const tektonType = "https://tekton.dev/chains/v2/slsa"

// controlPlane is a registered one with everything a caller can hold.
func controlPlane() Caller {
	return Caller{
		Issuer: "https://k8s.example", Subject: "system:serviceaccount:tekton-chains:controller", Grants: Grants, Tenant: "k8s.example/1",
		Control: &Control{
			Registration: Registration{Name: "tekton", PredicateTypes: []string{ProvenanceType}},
			BuilderID:    "https://provost.example/builders/tekton", BuildType: tektonType, Level: 2,
		},
	}
}

// tekton is what it submits, with changes by path; nil takes a member away.
func tekton(t *testing.T, changes map[string]any) []byte {
	t.Helper()
	var p map[string]any
	const text = `{
		"buildDefinition": {
			"buildType": "https://tekton.dev/chains/v2/slsa",
			"externalParameters": {"runSpec": {"params": [{"name": "n", "value": 9007199254740993}]}},
			"internalParameters": {"tekton-pipelines-feature-flags": {}},
			"resolvedDependencies": [{"uri": "git+https://git.example/app", "digest": {"sha1": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}, "name": "inputs/result", "annotations": {"a": 1}}]
		},
		"runDetails": {
			"builder": {"id": "https://provost.example/builders/tekton", "version": {"tekton": "1"}},
			"metadata": {"invocationId": "uid", "startedOn": "2026-03-01T12:00:00Z", "finishedOn": "2026-03-01T12:00:05Z"},
			"byproducts": [{"name": "log", "mediaType": "text/plain", "content": "aGVsbG8="}]
		}
	}`
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&p); err != nil {
		t.Fatal(err)
	}
	for path, value := range changes {
		at := p
		names := strings.Split(path, ".")
		for _, name := range names[:len(names)-1] {
			at = at[name].(map[string]any)
		}
		if at[names[len(names)-1]] = value; value == nil {
			delete(at, names[len(names)-1])
		}
	}
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func submit(c Caller, predicateType string, predicate []byte) (claim, error) {
	return Submitted{Service: "https://provost.example", Type: predicateType, Predicate: predicate}.claim(c)
}

func TestControlPlane(t *testing.T) {
	got, err := submit(controlPlane(), ProvenanceType, tekton(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	if got.predicateType != ProvenanceType || got.tenant != "k8s.example/1" || !strings.Contains(string(got.predicate), "9007199254740993") ||
		!strings.Contains(string(got.predicate), `"byproducts":[{"name":"log","content":"aGVsbG8=","mediaType":"text/plain"}]`) {
		t.Errorf("%+v %s", got, got.predicate)
	}
	b, err := ParseProvenance(got.predicate)
	if err != nil {
		t.Fatal(err)
	}
	if b.Level != 2 || b.Origins.Of("/runDetails/builder/id").From != SourceRegistry || b.Origins.Of("/buildDefinition/externalParameters/runSpec").From != SourceControl {
		t.Errorf("%+v", b)
	}
	for name, c := range map[string]struct {
		changes map[string]any
		kind    error
		says    string
	}{
		"another builder":             {map[string]any{"runDetails.builder.id": "https://provost.example/builders/other"}, ErrDenied, "builder.id"},
		"the builder and a suffix":    {map[string]any{"runDetails.builder.id": "https://provost.example/builders/tekton/level/3"}, ErrDenied, "builder.id"},
		"no builder":                  {map[string]any{"runDetails.builder": nil}, ErrDenied, "builder.id"},
		"another build type":          {map[string]any{"buildDefinition.buildType": GitHubWorkflowType}, ErrDenied, "buildType"},
		"no external parameters":      {map[string]any{"buildDefinition.externalParameters": nil}, ErrInvalid, "externalParameters"},
		"parameters that are a list":  {map[string]any{"buildDefinition.externalParameters": []any{}}, ErrInvalid, "externalParameters"},
		"a member of its own":         {map[string]any{"buildDefinition.more": 1}, ErrInvalid, "more"},
		"origins of its own":          {map[string]any{"runDetails.metadata.provost_origins": map[string]any{"": map[string]any{"from": "token"}}}, ErrInvalid, "service's own"},
		"a level of its own":          {map[string]any{"runDetails.metadata.provost_level": 3}, ErrInvalid, "service's own"},
		"a reason of its own":         {map[string]any{"runDetails.metadata.provost_levelReason": "x"}, ErrInvalid, "levelReason"},
		"an end before its beginning": {map[string]any{"runDetails.metadata.finishedOn": "2026-03-01T11:00:00Z"}, ErrInvalid, "finishedOn"},
		"a time with an offset":       {map[string]any{"runDetails.metadata.finishedOn": "2026-03-01T14:00:00+01:00"}, ErrInvalid, "UTC"},
		"a dependency by name alone":  {map[string]any{"buildDefinition.resolvedDependencies": []any{map[string]any{"name": "x"}}}, ErrInvalid, "dependency"},
		"a digest in capitals":        {map[string]any{"buildDefinition.resolvedDependencies": []any{map[string]any{"uri": "x:y", "digest": map[string]any{"sha256": strings.Repeat("A", 64)}}}}, ErrInvalid, "hex"},
		"annotations that are none":   {map[string]any{"runDetails.byproducts": []any{map[string]any{"uri": "x:y", "annotations": 1}}}, ErrInvalid, "annotations"},
	} {
		got, err := submit(controlPlane(), ProvenanceType, tekton(t, c.changes))
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) || got.predicate != nil {
			t.Errorf("%s: %s, %v; want %v about %s", name, got.predicate, err, c.kind, c.says)
		}
	}
	if _, err := submit(controlPlane(), ProvenanceType, []byte(`{"runDetails":{},"runDetails":{}}`)); !errors.Is(err, ErrInvalid) {
		t.Errorf("a member twice: %v", err)
	}
}

// Provenance is nobody's to write who is no control plane.
func TestWhoMaySubmit(t *testing.T) {
	everything := controlPlane()
	everything.Control = nil
	job := builder()
	job.Grants = Grants
	job.Build.Registration = &Registration{Name: "b", PredicateTypes: []string{ProvenanceType, "https://t.example/result/v1", "https://cyclonedx.org/bom"}}
	weak := controlPlane()
	weak.Grants = []Grant{GrantStatement}
	for name, c := range map[string]Caller{"a person with every grant": everything, "a job": job, "nobody": {}, "a control plane without the grant": weak} {
		if got, err := submit(c, ProvenanceType, tekton(t, nil)); !errors.Is(err, ErrDenied) || got.predicate != nil {
			t.Errorf("provenance of %s: %v; want it denied", name, err)
		}
	}
	ok := []byte(`{"result":"PASSED"}`)
	if got, err := submit(job, "https://t.example/result/v1", ok); err != nil || string(got.predicate) != string(ok) {
		t.Errorf("a type that the builder is registered for: %v", err)
	}
	for name, c := range map[string]struct {
		caller Caller
		uri    string
	}{
		"a type that it is not registered for": {job, "https://t.example/result/v2"},
		"one who speaks for no builder":        {everything, "https://t.example/result/v1"},
		"a verdict":                            {everything, VSAType},
		"a verdict of a job":                   {job, VSAType},
		"a revocation":                         {job, RevocationType("https://provost.example")},
		"a revocation of another service":      {job, RevocationType("https://other.example")},
		"an audit head":                        {job, AuditHeadType("https://provost.example")},
		"a type of the service":                {job, "https://provost.example/attestation/x/v1"},
		"the service itself":                   {job, "https://provost.example"},
		"older provenance":                     {job, "https://slsa.dev/provenance/v0.2"},
		"an older verdict":                     {job, "https://slsa.dev/verification_summary/v0.2"},
		"provenance with a slash":              {job, ProvenanceType + "/"},
	} {
		c.caller.Build = nil
		if c.caller.Issuer == job.Issuer {
			b := *job.Build
			b.Registration = &Registration{Name: "b", PredicateTypes: []string{"https://t.example/result/v1", VSAType, RevocationType("https://provost.example"),
				RevocationType("https://other.example"), AuditHeadType("https://provost.example"), "https://provost.example/attestation/x/v1", "https://provost.example", "https://slsa.dev/provenance/v0.2", "https://slsa.dev/verification_summary/v0.2", ProvenanceType + "/"}}
			if name == "a type that it is not registered for" {
				b.Registration = job.Build.Registration
			}
			c.caller.Build = &b
		}
		if got, err := submit(c.caller, c.uri, ok); !errors.Is(err, ErrDenied) || got.predicate != nil {
			t.Errorf("%s: %v; want it denied", name, err)
		}
	}
	if _, err := submit(job, "https://cyclonedx.org/bom", []byte(`{"spdxVersion":"SPDX-2.3"}`)); !errors.Is(err, ErrInvalid) {
		t.Errorf("an SBOM that is another: %v", err)
	}
}

func TestParseSubmitted(t *testing.T) {
	good := `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha256":"` + hexA + `"}}],"predicateType":"https://t.example/1","predicate":{}}`
	if _, err := ParseSubmitted([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"a member too many":  strings.Replace(good, `"_type"`, `"extra":1,"_type"`, 1),
		"another version":    strings.Replace(good, "Statement/v1", "Statement/v0.1", 1),
		"another algorithm":  strings.Replace(good, `"sha256":"`, `"md5":"x","sha256":"`, 1),
		"a subject's member": strings.Replace(good, `"name":"a"`, `"name":"a","uri":"x"`, 1),
		"no predicate":       strings.Replace(good, `,"predicate":{}`, "", 1),
		"a member twice":     strings.Replace(good, `"predicate":{}`, `"predicate":{},"predicate":{}`, 1),
		"more after it":      good + "{}",
	} {
		if s, err := ParseSubmitted([]byte(bad)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}
