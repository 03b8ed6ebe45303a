// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package verify

// For tests of what no caller can reach directly.
var (
	ResourceURI    = resourceURI
	CheckIssuedFor = checkIssuedFor
)
