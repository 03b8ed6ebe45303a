// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"provost/attest"
)

// An artifact is what a command is about.
type artifact struct {
	Name   string // a label: the file's base name or the repository
	Digest attest.Digest
	Path   string // of the file, if it is one
}

// resolveArtifact reads ARTIFACT. A file is hashed here; nobody's claim about
// it is believed.
func resolveArtifact(arg string) (artifact, error) {
	switch {
	case strings.HasPrefix(arg, "sha256:"):
		d, err := attest.ParseDigest(arg)
		if err != nil {
			return artifact{}, usageError{hint(fmt.Errorf("artifact %s: %w", arg, err), "sha256sum FILE prints the digest; sha256:<64 hex digits> names it")}
		}
		return artifact{Digest: d}, nil
	case strings.HasPrefix(arg, "oci://"):
		name, value, ok := strings.Cut(strings.TrimPrefix(arg, "oci://"), "@")
		if !ok {
			return artifact{}, usageError{hint(fmt.Errorf("artifact %s names no digest", arg),
				"tags are not resolved yet: name the image as oci://registry/repository@sha256:<hex>")}
		}
		d, err := attest.ParseDigest(value)
		if err != nil || d.Algorithm() != attest.AlgSHA256 {
			return artifact{}, usageError{fmt.Errorf("artifact %s: want @sha256:<64 lower-case hex digits>", arg)}
		}
		return artifact{Name: name, Digest: d}, nil
	}
	d, err := hashFile(arg)
	if err != nil {
		return artifact{}, hint(fmt.Errorf("read artifact: %w", err), "ARTIFACT is a file, sha256:<hex>, or oci://registry/repository@sha256:<hex>")
	}
	return artifact{Name: filepath.Base(arg), Digest: d, Path: arg}, nil
}

func hashFile(path string) (attest.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return attest.Digest{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return attest.Digest{}, err
	}
	if info.IsDir() {
		return attest.Digest{}, errors.New(path + " is a directory")
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return attest.Digest{}, err
	}
	return attest.NewDigest(attest.AlgSHA256, hex.EncodeToString(h.Sum(nil)))
}

// readBounded reads a file of at most limit bytes; "-" is standard input.
func readBounded(path string, limit int64) ([]byte, error) {
	in := os.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: %w", path, &attest.LimitError{What: "file", Limit: limit, Unit: "bytes"})
	}
	return data, nil
}
