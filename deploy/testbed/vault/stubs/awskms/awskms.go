// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package awskms stands in for the seal wrapper of the same name: the test server
// unseals by Shamir shares only, so the real one and its SDK are never built.
// Configuring this seal is an error.
package awskms

import (
	"context"
	"errors"

	wrapping "github.com/hashicorp/go-kms-wrapping/v2"
)

const (
	EnvAwsKmsWrapperKeyId   = "AWSKMS_WRAPPER_KEY_ID"
	EnvVaultAwsKmsSealKeyId = "VAULT_AWSKMS_SEAL_KEY_ID"
)

// Wrapper refuses its configuration, which the server does first.
type Wrapper struct{ wrapping.Wrapper }

func NewWrapper() *Wrapper { return &Wrapper{} }

func (*Wrapper) SetConfig(context.Context, ...wrapping.Option) (*wrapping.WrapperConfig, error) {
	return nil, errors.New("awskms seals are not part of this test build")
}

// WithDisallowEnvVars is an option without effect.
func WithDisallowEnvVars(bool) wrapping.Option { return wrapping.WithConfigMap(nil) }

// WithLogger is an option without effect; the server gives it to its Shamir wrapper.
func WithLogger(any) wrapping.Option { return wrapping.WithConfigMap(nil) }
