// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"provost/attest"
)

// kubernetesClaim begins the names of what stands in the claim kubernetes.io.
const kubernetesClaim = "kubernetes.io."

// Shapes of claims (kubernetes.io: Object Names and IDs).
var (
	kubernetesLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	kubernetesName  = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
)

// noSource is why a workload's provenance is of level 1.
const noSource = "the token says nothing of a source"

// kubernetes is a cluster, whose service account tokens are projected into pods
// (kubernetes.io: Managing Service Accounts, "Schema for service account
// private claims").
type kubernetes struct{}

// Rules: a namespace can be made again by others, and every one has a service
// account that is called default.
func (kubernetes) Rules() Rules {
	return Rules{
		MaxLevel: 1,
		MaxAge:   10 * time.Minute, Workload: true,
		Immutable: []string{kubernetesClaim + "serviceaccount.uid"},
		Owners:    []string{kubernetesClaim + "namespace"},
		BuildType: attest.WorkloadJob,
		Fields:    kubernetesFields,
	}
}

// CheckIssuer accepts the URL of any cluster: each has its own, some with a
// slash at the end.
func (kubernetes) CheckIssuer(u *url.URL) error {
	if u.Scheme == "http" || u.Host == strings.ToLower(u.Host) {
		return nil
	}
	return errors.New("want the cluster's issuer URL, its host in lower case")
}

// Tenant is the service account, by its namespace and uid. A token that is not
// bound to a pod is nobody's that could be told: it may have been copied from
// anywhere, and those in secrets never end.
func (kubernetes) Tenant(c Claims) (string, error) {
	r := reader{Claims: c}
	namespace, account := r.match(kubernetesClaim+"namespace", kubernetesLabel), r.match(kubernetesClaim+"serviceaccount.uid", shapeUUID)
	if r.err == nil && !r.Has(kubernetesClaim+"pod.uid") {
		return "", notABuild("the token is bound to no pod: want one that is projected into a volume")
	}
	r.match(kubernetesClaim+"pod.uid", shapeUUID)
	return namespace + "/" + account, r.err
}

// Build is at level 1: who runs is known, and nothing of what is built.
func (k kubernetes) Build(c Claims, reg Registered) (*attest.Build, error) {
	if _, err := k.Tenant(c); err != nil {
		return nil, err
	}
	r := reader{Claims: c}
	var (
		issuer    = r.match("iss", shapeLong)
		namespace = r.match(kubernetesClaim+"namespace", kubernetesLabel)
		account   = r.match(kubernetesClaim+"serviceaccount.name", kubernetesName)
		pod       = r.match(kubernetesClaim+"pod.uid", shapeUUID)
	)
	r.match(kubernetesClaim+"pod.name", kubernetesName)
	d := workload(reg)
	d.external("workload.namespace", namespace, attest.FromToken(kubernetesClaim+"namespace"))
	d.external("workload.serviceAccount", account, attest.FromToken(kubernetesClaim+"serviceaccount.name"))
	d.keep(&r, "kubernetes", kubernetesClaim, "node.name", "node.uid", "pod.name", "pod.uid", "serviceaccount.uid")
	invocation := strings.TrimSuffix(issuer, "/") + "/namespaces/" + namespace + "/pods/" + pod
	claims := []string{"iss", kubernetesClaim + "namespace", kubernetesClaim + "pod.uid"}
	if r.Has("jti") {
		invocation += "#" + r.match("jti", shapeToken)
		claims = append(claims, "jti")
	}
	d.invocation(invocation, claims...)
	if r.err != nil {
		return nil, r.err
	}
	return d.Build, nil
}

// workload begins the build of a workload. What it builds is the word of the
// builder's row, if anybody's.
func workload(reg Registered) draft {
	d := newDraft(reg.Service, attest.WorkloadJob)
	if reg.Builder.Repository != "" {
		d.external(attest.ParameterRepository, reg.Builder.Repository, attest.FromRegistry())
	}
	d.atMost(1, noSource)
	return d
}

// whereRegistered is when a workload's provenance names a repository.
const whereRegistered = "where the builder's row names a repository"

var kubernetesFields = slices.Concat([]Field{
	{externalParameters + "source/repository", attest.FromRegistry(), whereRegistered},
	{externalParameters + "workload/namespace", attest.FromToken(kubernetesClaim + "namespace"), ""},
	{externalParameters + "workload/serviceAccount", attest.FromToken(kubernetesClaim + "serviceaccount.name"), ""},
},
	kept("kubernetes", kubernetesClaim, "", "pod.name", "pod.uid", "serviceaccount.uid"),
	kept("kubernetes", kubernetesClaim, whereSaid, "node.name", "node.uid"),
	[]Field{
		{invocationID, attest.FromToken("iss", kubernetesClaim+"namespace", kubernetesClaim+"pod.uid", "jti"), ""},
		{invocationID, attest.FromToken("iss", kubernetesClaim+"namespace", kubernetesClaim+"pod.uid"), "for a token without jti"},
	})
