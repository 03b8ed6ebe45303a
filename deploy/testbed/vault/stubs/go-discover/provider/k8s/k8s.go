// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package k8s stands in for go-discover's Kubernetes provider.
package k8s

// Provider does nothing.
type Provider struct{}
