// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package discover stands in for go-discover, which finds raft peers with the
// SDKs of a dozen clouds. The test server stands alone: there is nothing to find.
package discover

import (
	"errors"
	"log"
)

var errNone = errors.New("auto_join is not part of this test build")

// Config would hold the parsed key=value pairs of auto_join.
type Config map[string]string

func (Config) String() string { return "" }

// Parse refuses every auto_join.
func Parse(string) (Config, error) { return nil, errNone }

// Provider would be one cloud.
type Provider any

// Providers is empty.
var Providers map[string]Provider

// Discover finds nothing, and says so.
type Discover struct{}

// Option is without effect.
type Option func()

func WithProviders(map[string]Provider) Option { return nil }

func New(...Option) (*Discover, error) { return &Discover{}, nil }

func (*Discover) Addrs(string, *log.Logger) ([]string, error) { return nil, errNone }
