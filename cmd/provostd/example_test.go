// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"provost/api"
	"provost/verify/policy"
)

// The example that ships is a whole, valid configuration.
func TestExampleConfiguration(t *testing.T) {
	c, err := loadConfig("../../deploy/provost.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.NewAuthenticator(c.Issuers, c.Access, api.AuthOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := policy.New(c.Environments); err != nil {
		t.Error(err)
	}
}
