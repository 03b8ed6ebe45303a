// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"provost/attest"
)

func TestSplitBundles(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		want       []string
	}{
		{"an empty file has none", "", nil},
		{"white space has none", " \n\t\r\n", nil},
		{"one document", `{"a":1}`, []string{`{"a":1}`}},
		{"one document with an end of line", "{\"a\":1}\n", []string{`{"a":1}`}},
		{"one document over several lines", "{\n \"a\": 1\n}\n", []string{"{\n \"a\": 1\n}"}},
		{"one a line", "{\"a\":1}\n{\"a\":2}\n", []string{`{"a":1}`, `{"a":2}`}},
		{"one a line, with blank lines and carriage returns", "\r\n{\"a\":1}\r\n\r\n  {\"a\":2}", []string{`{"a":1}`, `{"a":2}`}},
		{"a broken line stands alone, so that it is refused", "{\"a\":1}\n{\"a\":\n{\"a\":3}", []string{`{"a":1}`, `{"a":`, `{"a":3}`}},
		{"a broken first line spoils the file", "{\"a\":\n{\"a\":2}", []string{"{\"a\":\n{\"a\":2}"}},
		{"two documents over several lines are one that is broken", "{\n}\n{\n}", []string{"{\n}\n{\n}"}},
		{"two on one line are one that is broken", `{"a":1} {"a":2}`, []string{`{"a":1} {"a":2}`}},
		{"what is no JSON is one that is broken", "garbage", []string{"garbage"}},
		{"as many as may be", strings.Repeat("{}\n", maxBundles), repeat("{}", maxBundles)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := splitBundles([]byte(tt.file))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, texts(got)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
	if _, err := splitBundles([]byte(strings.Repeat("{}\n", maxBundles+1))); !errors.As(err, new(*attest.LimitError)) {
		t.Errorf("one too many: %v, want a limit error", err)
	}
}

// FuzzSplitBundles: whatever the file, nothing in it is dropped or invented,
// so that what does not verify cannot hide between what does.
func FuzzSplitBundles(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "{}\n{}", "{\"a\":1}\n\n{\"a\":2}\r\n", "{\n}\n{\n}", "garbage\n{}", "{}\ngarbage", "\xff\n\x00",
		"{\"a\":1}\u2028{}", "{}\v{}", "{}\f\n{}", "{}\u0085{}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		before := bytes.Clone(file)
		bundles, err := splitBundles(file)
		if !bytes.Equal(before, file) {
			t.Fatal("the file was changed")
		}
		if err != nil {
			if len(bundles) > 0 || bytes.Count(file, []byte("\n")) < maxBundles {
				t.Fatalf("refused with %d bundles: %v", len(bundles), err)
			}
			return
		}
		if len(bundles) > maxBundles {
			t.Fatalf("%d bundles", len(bundles))
		}
		for _, b := range bundles {
			if len(bytes.TrimSpace(b)) == 0 {
				t.Fatal("a bundle of nothing")
			}
		}
		kept := bytes.Join(bundles, []byte("\n"))
		if got, want := bytes.Join(bytes.Fields(kept), nil), bytes.Join(bytes.Fields(file), nil); !bytes.Equal(got, want) {
			t.Fatalf("kept %q of %q", got, want)
		}
	})
}

func texts(bundles [][]byte) (all []string) {
	for _, b := range bundles {
		all = append(all, string(b))
	}
	return all
}

func repeat(s string, n int) (all []string) {
	for range n {
		all = append(all, s)
	}
	return all
}
