// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package cmd

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// arrows are all imports of our own packages that shipped code may have, from
// the importing package to the imported. A new one is a decision to write
// down in docs/decisions.
var arrows = map[string][]string{
	"attest":          {"attest/rfc3161", "attest/sbom"},
	"attest/gather":   {"attest"},
	"attest/rfc3161":  {},
	"attest/sbom":     {},
	"verify":          {"attest", "attest/sbom"},
	"verify/policy":   {"attest", "verify"},
	"keys":            {"attest", "attest/gather", "attest/rfc3161", "keys/tile"},
	"keys/tile":       {"attest", "attest/gather"},
	"keys/tuf":        {"attest"},
	"keys/keystest":   {"attest", "keys"},
	"store":           {"attest", "attest/gather"},
	"store/storetest": {"attest", "store"},
	"api":             {"attest", "verify", "api/client", "api/identity"},
	"api/client":      {"attest"},
	"api/identity":    {"attest"},
	"cmd/provost":     {"attest", "verify", "api/client"},
	"cmd/provostd":    {"attest", "verify", "verify/policy", "keys", "keys/tuf", "store", "api", "api/client", "api/identity"},
	"cmd":             {},
}

// pure packages decide and touch nothing outside.
var (
	pure      = []string{"attest", "attest/rfc3161", "attest/sbom", "verify", "verify/policy", "api/identity"}
	touching  = []string{"os", "os/exec", "net", "net/http", "database/sql", "log", "log/slog", "io/ioutil", "syscall"}
	topLevel  = []string{"cmd", "attest", "verify", "keys", "store", "api", "deploy", "docs", "bin"}
	forbidden = []string{"internal", "pkg", "util", "utils", "common", "types"}
)

// The imports are parsed, not asked of the build, so that no build tag hides
// an arrow.
func TestArrowsRunDownward(t *testing.T) {
	root := ".."
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, file)
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), ".") && rel != "." || rel == "bin" || rel == "deploy/testbed" || d.Name() == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		checkFile(t, root, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkFile(t *testing.T, root, rel string) {
	t.Helper()
	pkg := path.Dir(rel)
	allowed, known := arrows[pkg]
	if !known {
		t.Errorf("%s: package %s is not in the picture", rel, pkg)
		return
	}
	if top, _, _ := strings.Cut(pkg, "/"); !slices.Contains(topLevel, top) {
		t.Errorf("%s: %s may not stand at the top level", rel, top)
	}
	for _, part := range strings.Split(pkg, "/") {
		if slices.Contains(forbidden, part) {
			t.Errorf("%s: no package is called %s here", rel, part)
		}
	}
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, filepath.FromSlash(rel)), nil, parser.ImportsOnly)
	if err != nil {
		t.Errorf("%s: %v", rel, err)
		return
	}
	for _, imp := range f.Imports {
		name, _ := strconv.Unquote(imp.Path.Value)
		if ours, ok := strings.CutPrefix(name, "provost/"); ok && !slices.Contains(allowed, ours) {
			t.Errorf("%s imports %s: no such arrow", rel, ours)
		}
		if slices.Contains(pure, pkg) && slices.Contains(touching, name) {
			t.Errorf("%s imports %s: %s touches nothing", rel, name, pkg)
		}
	}
}
