// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/attest"
)

// kubernetesSample has the claims of a token that is projected into a pod, as
// Kubernetes 1.33 spells them.
func kubernetesSample(t testing.TB) sample {
	s := sample{kubernetes{}, Kubernetes, map[string]any{
		"iss": "https://kubernetes.default.svc.cluster.local", "sub": "system:serviceaccount:ci:builder", "aud": []string{service},
		"iat": 1717671355, "nbf": 1717671355, "exp": 1717674962, "jti": "e51f1fbc-4733-4b85-a59f-ba80c0523874",
		"kubernetes.io": map[string]any{
			"namespace":      "ci",
			"node":           map[string]any{"name": "worker-1.example", "uid": "517eb86e-b863-451b-bf70-86cb61439a3a"},
			"pod":            map[string]any{"name": "build-x7k2p", "uid": "0d8b260e-ef0e-45fb-be8e-ff44f97722e8"},
			"serviceaccount": map[string]any{"name": "builder", "uid": "a087d5a0-e1dd-43ec-93ac-f13d89cd13af"},
			"warnafter":      1717674962,
		},
	}, row(t, kubernetes{}, "", `claims["kubernetes.io.serviceaccount.uid"] == "a087d5a0-e1dd-43ec-93ac-f13d89cd13af"`)}
	s.row.Builder.Repository = "https://git.example/acme/app"
	return s
}

// spiffeSample has the claims of a JWT-SVID.
func spiffeSample(t testing.TB) sample {
	s := sample{spiffe{}, SPIFFE, map[string]any{
		"iss": "https://oidc-discovery.example.org", "sub": "spiffe://example.org/ci/build", "aud": []string{service}, "iat": 1717671355, "exp": 1717671655,
	}, row(t, spiffe{}, "", `claims.sub == "spiffe://example.org/ci/build"`)}
	s.row.Builder.Repository = "https://git.example/acme/app"
	return s
}

func TestKubernetesBuild(t *testing.T) {
	claim := func(names ...string) attest.Origin {
		for i := range names {
			names[i] = "kubernetes.io." + names[i]
		}
		return attest.FromToken(names...)
	}
	want := &attest.Build{
		BuilderID: service + "/builders/acme/level/1",
		BuildType: service + "/buildtypes/workload/v1",
		ExternalParameters: map[string]any{
			"source":   map[string]any{"repository": "https://git.example/acme/app"},
			"workload": map[string]any{"namespace": "ci", "serviceAccount": "builder"},
		},
		InternalParameters: map[string]any{"kubernetes": map[string]any{
			"node.name": "worker-1.example", "node.uid": "517eb86e-b863-451b-bf70-86cb61439a3a", "pod.name": "build-x7k2p",
			"pod.uid": "0d8b260e-ef0e-45fb-be8e-ff44f97722e8", "serviceaccount.uid": "a087d5a0-e1dd-43ec-93ac-f13d89cd13af",
		}},
		InvocationID: "https://kubernetes.default.svc.cluster.local/namespaces/ci/pods/0d8b260e-ef0e-45fb-be8e-ff44f97722e8#e51f1fbc-4733-4b85-a59f-ba80c0523874",
		Level:        1, LevelReason: "the token says nothing of a source",
		Origins: attest.Origins{
			"/buildDefinition/buildType":                                        attest.FromRegistry(),
			"/buildDefinition/externalParameters/source/repository":             attest.FromRegistry(),
			"/buildDefinition/externalParameters/workload/namespace":            claim("namespace"),
			"/buildDefinition/externalParameters/workload/serviceAccount":       claim("serviceaccount.name"),
			"/buildDefinition/internalParameters/kubernetes/node.name":          claim("node.name"),
			"/buildDefinition/internalParameters/kubernetes/node.uid":           claim("node.uid"),
			"/buildDefinition/internalParameters/kubernetes/pod.name":           claim("pod.name"),
			"/buildDefinition/internalParameters/kubernetes/pod.uid":            claim("pod.uid"),
			"/buildDefinition/internalParameters/kubernetes/serviceaccount.uid": claim("serviceaccount.uid"),
			"/runDetails/builder/id":                                            attest.FromRegistry(),
			"/runDetails/metadata/invocationId":                                 attest.FromToken("iss", "jti", "kubernetes.io.namespace", "kubernetes.io.pod.uid"),
		},
		Registration: &attest.Registration{Name: "acme", PredicateTypes: []string{attest.ProvenanceType}},
	}
	s := kubernetesSample(t)
	if diff := cmp.Diff(want, s.mustBuild(t, nil)); diff != "" {
		t.Error(diff)
	}

	// Before 1.30 a token had no node, and before 1.29 no jti.
	s.row.Builder.Repository = ""
	got := s.mustBuild(t, map[string]any{"kubernetes.io.node": nil, "jti": nil, "iss": "https://cluster.example/"})
	if diff := cmp.Diff(map[string]string{"workload.namespace": "ci", "workload.serviceAccount": "builder"}, leaves("", got.ExternalParameters)); diff != "" {
		t.Error(diff)
	}
	if want := "https://cluster.example/namespaces/ci/pods/0d8b260e-ef0e-45fb-be8e-ff44f97722e8"; got.InvocationID != want || len(got.InternalParameters["kubernetes"].(map[string]any)) != 3 {
		t.Errorf("%s, %v; want %s", got.InvocationID, got.InternalParameters, want)
	}
}

func TestKubernetesRefused(t *testing.T) {
	s := kubernetesSample(t)
	s.requires(t, "iss", "kubernetes.io.namespace", "kubernetes.io.serviceaccount.name", "kubernetes.io.serviceaccount.uid", "kubernetes.io.pod.name", "kubernetes.io.pod.uid")
	s.refuses(t, []refusal{
		{"kubernetes.io.pod", nil, "bound to no pod"},
		{"kubernetes.io.pod", null, "bound to no pod"},
		{"kubernetes.io.pod", "build-x7k2p", "bound to no pod"},
		{"kubernetes.io.pod.uid", nil, "bound to no pod"},
		{"kubernetes.io", nil, "kubernetes.io.namespace"},
		{"kubernetes.io", "x", "kubernetes.io.namespace"},
		{"kubernetes.io.namespace", "CI", "namespace"},
		{"kubernetes.io.namespace", "ci/../x", "namespace"},
		{"kubernetes.io.serviceaccount.name", "a/b", "serviceaccount.name"},
		{"kubernetes.io.serviceaccount.uid", "x", "serviceaccount.uid"},
		{"kubernetes.io.node.name", []string{"x"}, "node.name"},
		{"jti", "a b", "jti"},
	})
}

// Tokens that are bound to something else than a pod, to nothing, or are kept in
// a secret, are nobody's.
func TestKubernetesUnbound(t *testing.T) {
	s := kubernetesSample(t)
	account := map[string]any{"name": "builder", "uid": "a087d5a0-e1dd-43ec-93ac-f13d89cd13af"}
	for name, claims := range map[string]map[string]any{
		"bound to nothing": {"iss": "https://kubernetes.default.svc", "kubernetes.io": map[string]any{"namespace": "ci", "serviceaccount": account}},
		"to a node":        {"iss": "https://kubernetes.default.svc", "kubernetes.io": map[string]any{"namespace": "ci", "serviceaccount": account, "node": map[string]any{"name": "n", "uid": "517eb86e-b863-451b-bf70-86cb61439a3a"}}},
		"to a secret":      {"iss": "https://kubernetes.default.svc", "kubernetes.io": map[string]any{"namespace": "ci", "serviceaccount": account, "secret": map[string]any{"name": "s", "uid": "517eb86e-b863-451b-bf70-86cb61439a3a"}}},
		"legacy": {"iss": "kubernetes/serviceaccount", "kubernetes.io/serviceaccount/namespace": "ci", "kubernetes.io/serviceaccount/secret.name": "builder-token-pnj77",
			"kubernetes.io/serviceaccount/service-account.name": "builder", "kubernetes.io/serviceaccount/service-account.uid": "a087d5a0-e1dd-43ec-93ac-f13d89cd13af"},
	} {
		s.claims = claims
		if got, err := s.tenant(t, nil); !errors.Is(err, attest.ErrDenied) {
			t.Errorf("%s: tenant %q, %v", name, got, err)
		}
		if got, err := s.build(t, nil); !errors.Is(err, attest.ErrDenied) || got != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, bound := range []string{"kubernetes.io.namespace"} { // the same words, spelled as one name
		if _, err := ParseClaims([]byte(`{"kubernetes.io":{"namespace":"ci"},"` + bound + `":"kube-system"}`)); !errors.Is(err, attest.ErrInvalid) {
			t.Errorf("%s twice: %v", bound, err)
		}
	}
}

func TestSPIFFEBuild(t *testing.T) {
	s := spiffeSample(t)
	want := &attest.Build{
		BuilderID: service + "/builders/acme/level/1",
		BuildType: service + "/buildtypes/workload/v1",
		ExternalParameters: map[string]any{
			"source":   map[string]any{"repository": "https://git.example/acme/app"},
			"workload": map[string]any{"spiffeId": "spiffe://example.org/ci/build"},
		},
		InvocationID: "spiffe://example.org/ci/build#1717671355",
		Level:        1, LevelReason: "the token says nothing of a source",
		Origins: attest.Origins{
			"/buildDefinition/buildType":                            attest.FromRegistry(),
			"/buildDefinition/externalParameters/source/repository": attest.FromRegistry(),
			"/buildDefinition/externalParameters/workload/spiffeId": attest.FromToken("sub"),
			"/runDetails/builder/id":                                attest.FromRegistry(),
			"/runDetails/metadata/invocationId":                     attest.FromToken("iat", "sub"),
		},
		Registration: &attest.Registration{Name: "acme", PredicateTypes: []string{attest.ProvenanceType}},
	}
	if diff := cmp.Diff(want, s.mustBuild(t, nil)); diff != "" {
		t.Error(diff)
	}
	if got := s.mustBuild(t, map[string]any{"jti": "77"}); got.InvocationID != "spiffe://example.org/ci/build#77" {
		t.Errorf("invocation %s", got.InvocationID)
	}
}

func TestSPIFFERefused(t *testing.T) {
	s := spiffeSample(t)
	s.requires(t, "sub", "iat")
	for _, sub := range []any{
		"spiffe://example.org", "spiffe://example.org/", "spiffe://example.org/ci/", "spiffe://example.org//ci", "spiffe://example.org/ci//build",
		"spiffe://example.org/../ci", "spiffe://example.org/ci/.", "spiffe:///ci", "spiffe://", "spiffe:/example.org/ci", "SPIFFE://example.org/ci", "spiffe://Example.org/ci",
		"https://example.org/ci", "example.org/ci", "spiffe://example.org:443/ci", "spiffe://user@example.org/ci", "spiffe://example.org/ci?x", "spiffe://example.org/ci#x",
		"spiffe://example.org/ci%2Fbuild", "spiffe://example.org/ü", "spiffe://exämple.org/ci", " spiffe://example.org/ci", "spiffe://example.org/ci ", "spiffe://example.org/ci\n",
		"spiffe://example.org/" + strings.Repeat("a", 2048), "spiffe://" + strings.Repeat("a", 256) + "/ci", 7, true,
	} {
		got, err := s.build(t, map[string]any{"sub": sub})
		if !errors.Is(err, attest.ErrDenied) || got != nil {
			t.Errorf("%.80v: %+v, %v", sub, got, err)
		}
		if got, err := s.tenant(t, map[string]any{"sub": sub}); !errors.Is(err, attest.ErrDenied) || got != "" {
			t.Errorf("%.80v: tenant %q, %v", sub, got, err)
		}
	}
}

// FuzzSPIFFETenant holds that no two SPIFFE IDs are one tenant, and that a tenant
// has two names.
func FuzzSPIFFETenant(f *testing.F) {
	f.Add("spiffe://a/b/c", "spiffe://a/b%2Fc")
	f.Add("spiffe://a.b/c", "spiffe://a/b/c")
	f.Add("spiffe://a/b", "spiffe://a/b/")
	f.Fuzz(func(t *testing.T, one, other string) {
		tenant := func(sub string) (string, error) {
			raw, err := json.Marshal(map[string]string{"sub": sub})
			if err != nil {
				t.Skip()
			}
			c, err := ParseClaims(raw)
			if err != nil {
				t.Skip()
			}
			if read, _ := c.Text("sub"); read != sub {
				t.Skip() // no UTF-8
			}
			domain, _, _ := strings.Cut(strings.TrimPrefix(sub, "spiffe://"), "/") // is the issuer's, which comes before the tenant
			name, err := spiffe{}.Tenant(c)
			return domain + "/" + name, err
		}
		a, errA := tenant(one)
		b, errB := tenant(other)
		if errA == nil && errB == nil && (a == b) != (one == other) {
			t.Errorf("%q is %q, and %q is %q", one, a, other, b)
		}
		if errA == nil && "spiffe://"+a != one {
			t.Errorf("%q is %q", one, a)
		}
	})
}
