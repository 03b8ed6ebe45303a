// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestForeignTUFClients runs testdata/interop: cosign and sigstore-js, which
// this project did not write, follow the repository.
func TestForeignTUFClients(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED by -short: TestForeignTUFClients runs cosign and sigstore-js, see make testbed")
	}
	testbed, err := filepath.Abs("../../bin/testbed")
	if err != nil {
		t.Fatal(err)
	}
	cosign := os.Getenv("COSIGN_BIN")
	if cosign == "" {
		cosign = filepath.Join(testbed, "cosign")
	}
	modules := filepath.Join(testbed, "node", "node_modules")
	node, err := exec.LookPath("node")
	for _, path := range []string{cosign, filepath.Join(modules, "@sigstore", "tuf")} {
		if err == nil {
			_, err = os.Stat(path)
		}
	}
	if err != nil {
		const next = "TestForeignTUFClients needs cosign, node and sigstore-js: run make testbed: %v"
		if os.Getenv("CI") == "true" {
			t.Fatalf(next, err)
		}
		t.Skipf("SKIPPED: "+next, err)
	}
	foreign := func(ts *testscript.TestScript, neg bool, args ...string) {
		err := ts.Exec(args[0], args[1:]...)
		if err != nil && !neg {
			ts.Fatalf("%v", err)
		}
		if err == nil && neg {
			ts.Fatalf("it must fail")
		}
	}
	p := scripts(t, "testdata/interop")
	p.Cmds["cosign"] = func(ts *testscript.TestScript, neg bool, args []string) {
		foreign(ts, neg, append([]string{cosign}, args...)...)
	}
	// sigstore-js URL ROOT CACHE: writes the trusted root that it finds to
	// standard output.
	p.Cmds["sigstore-js"] = func(ts *testscript.TestScript, neg bool, args []string) {
		if len(args) != 3 {
			ts.Fatalf("usage: sigstore-js URL ROOT CACHE")
		}
		foreign(ts, neg, node, "-e", sigstoreJS, modules, args[0], ts.MkAbs(args[1]), ts.MkAbs(args[2]))
	}
	testscript.Run(t, p)
}

const sigstoreJS = `
const [modules, mirrorURL, rootPath, cachePath] = process.argv.slice(1);
const { initTUF, getTrustedRoot } = require(modules + '/@sigstore/tuf');
const options = { mirrorURL, rootPath, cachePath, force: true, retry: 0 };
(async () => {
  await getTrustedRoot(options);
  const client = await initTUF(options);
  await client.getTarget('signing_config.v0.2.json');
  await client.getTarget('provenance-v1.pem');
  process.stdout.write(await client.getTarget('trusted_root.json'));
})().catch(e => { console.error(e); process.exit(1); });
`
