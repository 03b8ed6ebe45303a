// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package cmd holds the two programs, and the test that holds the picture of
// which package may import which.
package cmd
