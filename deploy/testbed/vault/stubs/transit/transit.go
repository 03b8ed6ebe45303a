// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package transit stands in for the auto-unseal wrapper (not the secrets engine) of the same name: the test server
// unseals by Shamir shares only, so the real one and its SDK are never built.
// Configuring this seal is an error.
package transit

import (
	"context"
	"errors"

	wrapping "github.com/hashicorp/go-kms-wrapping/v2"
)

const (
	EnvTransitWrapperMountPath        = "TRANSIT_WRAPPER_MOUNT_PATH"
	EnvVaultTransitSealMountPath      = "VAULT_TRANSIT_SEAL_MOUNT_PATH"
	EnvTransitWrapperKeyName          = "TRANSIT_WRAPPER_KEY_NAME"
	EnvVaultTransitSealKeyName        = "VAULT_TRANSIT_SEAL_KEY_NAME"
	EnvTransitWrapperDisableRenewal   = "TRANSIT_WRAPPER_DISABLE_RENEWAL"
	EnvVaultTransitSealDisableRenewal = "VAULT_TRANSIT_SEAL_DISABLE_RENEWAL"
)

// Wrapper refuses its configuration, which the server does first.
type Wrapper struct{ wrapping.Wrapper }

func NewWrapper() *Wrapper { return &Wrapper{} }

func (*Wrapper) SetConfig(context.Context, ...wrapping.Option) (*wrapping.WrapperConfig, error) {
	return nil, errors.New("transit seals are not part of this test build")
}

// WithKeyIdPrefix is an option without effect.
func WithKeyIdPrefix(string) wrapping.Option { return wrapping.WithConfigMap(nil) }
