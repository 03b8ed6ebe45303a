// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package identity says who a verified token speaks for. It reads claims that
// somebody else has verified, and touches nothing.
//
// Each provider stands in one file and says three things of its tokens: how
// long they are good, which claims name a tenant for good, and which build
// they are of. A provider never reads sub, whose format is anybody's choice
// (but for SPIFFE, where it is the SPIFFE ID), and never guesses: what is
// missing, malformed or contradictory is an [attest.ErrDenied]. Every field of the build it returns has an origin.
//
// A [Condition] says which tokens a row of the builder registry or of the
// access table is about. It compares claims exactly; there is no way in it to
// look at a part of one.
package identity
