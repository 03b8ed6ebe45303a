// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestCosign runs testdata/interop: cosign, which this project did not write,
// judges what the service signed.
func TestCosign(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED by -short: TestCosign runs cosign, see make testbed")
	}
	binary, err := cosignBinary()
	if err != nil {
		const next = "TestCosign needs cosign: run make testbed, or set COSIGN_BIN: %v"
		if os.Getenv("CI") == "true" {
			t.Fatalf(next, err)
		}
		t.Skipf("SKIPPED: "+next, err)
	}
	if err := networkNamespace(); err != nil {
		t.Logf("NOT OFFLINE: cosign runs with the network, because this machine allows no network namespace: %v", err)
	}
	p := scripts(t, "testdata/interop")
	p.Cmds["cosign"] = func(ts *testscript.TestScript, neg bool, args []string) {
		cosign(ts, neg, binary, args)
	}
	p.Cmds["cosign-version"] = func(ts *testscript.TestScript, neg bool, _ []string) {
		must(ts, neg, []string{binary, "version"})
	}
	testscript.Run(t, p)
}

// cosign FLAGS... FILE: runs cosign verify-blob-attestation without a network,
// in a home of its own, and with no flag but those given.
func cosign(ts *testscript.TestScript, neg bool, binary string, args []string) {
	ts.Setenv("HOME", ts.MkAbs("home"))
	offline(ts, neg, append([]string{binary, "verify-blob-attestation"}, args...))
}

// cosignBinary is $COSIGN_BIN, or the one that make testbed builds.
func cosignBinary() (string, error) {
	path := os.Getenv("COSIGN_BIN")
	if path == "" {
		root, err := moduleRoot()
		if err != nil {
			return "", err
		}
		path = filepath.Join(root, "bin", "testbed", "cosign")
	}
	if !filepath.IsAbs(path) {
		return "", errors.New("COSIGN_BIN is not an absolute path")
	}
	_, err := os.Stat(path)
	return path, err
}

// moduleRoot is the nearest directory above that has a go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = parent
	}
}
