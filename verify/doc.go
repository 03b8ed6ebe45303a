// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package verify is what Provost believes: trust, bundles, policy, and the
// life of a decision.
//
// It does no I/O and has no clock. [Trust.Verify] is the only maker of a
// [Verified], so a believed fact and unverified bytes are different types.
// [Gate.Decide] is the only maker of a verdict that passes, and every way in
// which it can fail is a no.
package verify
