// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

func TestTheEndOfARowIsCut(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "",
		strings.Repeat("é", 60):  strings.Repeat("é", 60),
		strings.Repeat("é", 61):  strings.Repeat("é", 59) + "…",
		strings.Repeat("é", 600): strings.Repeat("é", 59) + "…",
	} {
		if got := short(in); got != want {
			t.Errorf("short(%q) = %q; want %q", in, got, want)
		}
	}
}
