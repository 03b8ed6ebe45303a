// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify

// ParseCheckpoint and ResourceURI are for tests of what no caller can reach
// directly.
var (
	ParseCheckpoint = parseCheckpoint
	ResourceURI     = resourceURI
)
