// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The smallest configurations, and what they become with every default.
func TestMinimalConfig(t *testing.T) {
	for _, name := range []string{"minimal-file", "minimal-vault"} {
		t.Run(name, func(t *testing.T) {
			c, err := parseConfig(readFile(t, name+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			e := yaml.NewEncoder(&got)
			e.SetIndent(2)
			if err := e.Encode(c); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", "config", name+".golden")
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want := readFile(t, name+".golden")
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("-want +got (go test -update writes it anew)\n%s", diff)
			}
		})
	}
}

// Every line of a minimal configuration is needed: without it the rest is
// refused.
func TestMinimalConfigIsMinimal(t *testing.T) {
	for _, name := range []string{"minimal-file", "minimal-vault"} {
		lines := strings.SplitAfter(string(readFile(t, name+".yaml")), "\n")
		for i, line := range lines {
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			without := strings.Join(lines[:i], "") + strings.Join(lines[i+1:], "")
			if _, err := parseConfig([]byte(without)); err == nil {
				t.Errorf("%s is accepted without %q", name, strings.TrimSpace(line))
			}
		}
	}
}

// Each case replaces a line of a good configuration.
func TestParseConfigRefuses(t *testing.T) {
	file, vault := string(readFile(t, "minimal-file.yaml")), string(readFile(t, "minimal-vault.yaml"))
	for _, tt := range []struct {
		name, good, line, instead, want string
	}{
		{"a key that is misspelt", file, "database: provost.db", "databse: provost.db", "field databse not found"},
		{"a key within keys", file, "    directory: keys", "    directory: keys\n    identity: AGE-SECRET-KEY-1", "field identity not found"},
		{"a token in the file", vault, "    token_env: VAULT_TOKEN", "    token: hvs.x", "field token not found"},
		{"a key that is there twice", file, "database: provost.db", "database: a\ndatabase: b", "already defined"},

		{"a service without https", file, "service: https://provost.example.com", "service: http://provost.example.com", "want an https URL"},
		{"a service with a slash at its end", file, "service: https://provost.example.com", "service: https://provost.example.com/", "without a slash"},
		{"a service with a query", file, "service: https://provost.example.com", "service: https://provost.example.com?a=b", "want an https URL"},
		{"a service without a host", file, "service: https://provost.example.com", "service: https:///path", "want an https URL"},
		{"a service that is a name", file, "service: https://provost.example.com", "service: provost", "want an https URL"},

		{"an address without a port", file, "listen: 127.0.0.1:8080", "listen: 127.0.0.1", "listen: "},
		{"every address, without TLS", file, "listen: 127.0.0.1:8080", "listen: :8080", "needs tls"},
		{"every address of IPv6, without TLS", file, "listen: 127.0.0.1:8080", `listen: "[::]:8080"`, "needs tls"},
		{"another address, without TLS", file, "listen: 127.0.0.1:8080", "listen: 192.0.2.1:8080", "needs tls"},
		{"a name that may be anywhere, without TLS", file, "listen: 127.0.0.1:8080", "listen: localhost.example.com:8080", "needs tls"},
		{"a certificate without its key", file, "listen: 127.0.0.1:8080", "listen: :8080\ntls: {certificate_file: tls.crt}", "certificate_file and key_file"},
		{"TLS with nothing", file, "listen: 127.0.0.1:8080", "listen: :8080\ntls: {}", "certificate_file and key_file"},

		{"a login with a secret in the file", file, "keys:", "login: {issuer: a, client_id: b, client_secret: c}\nkeys:", "field client_secret not found"},
		{"a TUF repository without a directory", file, "keys:", "tuf: {lead: 1h}\nkeys:", "tuf.directory"},
		{"a lead below 0", file, "keys:", "tuf: {directory: tuf, lead: -1h}\nkeys:", "tuf.lead"},
		{"a timestamp that nothing can keep fresh", file, "keys:", "tuf: {directory: tuf, timestamp_expiry: 1m}\nkeys:", "timestamp_expiry"},
		{"a snapshot that ends before the timestamp", file, "keys:", "tuf: {directory: tuf, snapshot_expiry: 2h}\nkeys:", "snapshot_expiry"},

		{"an audit head every second", file, "keys:", "audit: {head_every: 1s}\nkeys:", "audit.head_every"},
		{"an audit log that is never signed", file, "keys:", "audit: {head_every: -1h}\nkeys:", "audit.head_every"},

		{"a foreign root that believes nobody", file, "keys:", "foreign: [{name: github, trusted_root_file: a, predicate_types: [b]}]\nkeys:", "0 identities"},
		{"a foreign root without a file", file, "keys:", "foreign: [{name: github, identities: [{issuer: a, san: b}], predicate_types: [b]}]\nkeys:", "trusted_root_file"},
		{"a foreign root of no types", file, "keys:", "foreign: [{name: github, trusted_root_file: a, identities: [{issuer: a, san: b}]}]\nkeys:", "0 predicate types"},
		{"two foreign roots of one name", file, "keys:", "foreign: [&a {name: github, trusted_root_file: a, identities: [{issuer: a, san: b}], predicate_types: [b]}, *a]\nkeys:", "two roots are called github"},
		{"a foreign root that is this service", file, "keys:", "foreign: [{name: a, trusted_root_file: a, identities: [{issuer: 'https://provost.example.com', san: b}], predicate_types: [b]}]\nkeys:", "this service"},
		{"a foreign identity that is everybody", file, "keys:", "foreign: [{name: a, trusted_root_file: a, identities: [{issuer: a, san_pattern: .*}], predicate_types: [b]}]\nkeys:", "literal text"},
		{"a foreign identity by both ways", file, "keys:", "foreign: [{name: a, trusted_root_file: a, identities: [{issuer: a, san: b, san_pattern: b}], predicate_types: [b]}]\nkeys:", "one of SAN and SAN pattern"},

		{"a duration in words", file, "database: provost.db", "database: a\nshutdown_grace: soon", "into time.Duration"},
		{"a duration without a unit", file, "database: provost.db", "database: a\nshutdown_grace: 30", "into time.Duration"},
		{"a grace below 0", file, "database: provost.db", "database: a\nshutdown_grace: -1s", "shutdown_grace"},
		{"a request timeout that nothing can meet", file, "database: provost.db", "database: a\nrequest_timeout: 10ms", "request_timeout"},
		{"a signing window below an hour", file, "keys:", "keys:\n  signing_window: 59m59s", "want at least 1h"},
		{"a signing window below 0", file, "keys:", "keys:\n  signing_window: -1h", "want at least 1h"},

		{"no environment", file, "  prod: {}", "", "at least one"},
		{"keys in two places", file, "    identity_file: keyring.key", "    identity_file: a\n  vault: {address: a, token_env: T}", "exactly one of vault and file"},
		{"an identity in two places", file, "    identity_file: keyring.key", "    identity_file: a\n    identity_env: B", "exactly one of identity_file and identity_env"},
		{"two ways to log in", vault, "    token_env: VAULT_TOKEN", "    token_env: A\n    token_file: b", "exactly one of token_file"},
		{"an AppRole without a secret", vault, "    token_env: VAULT_TOKEN", "    approle: {role_id: a}", "secret_id_file"},
		{"an AppRole without a role", vault, "    token_env: VAULT_TOKEN", "    approle: {secret_id_file: a}", "role_id"},
		{"a JWT login without a token", vault, "    token_env: VAULT_TOKEN", "    jwt: {role: a}", "token_file"},
		{"a JWT login without a role", vault, "    token_env: VAULT_TOKEN", "    jwt: {token_file: a}", "role"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parseConfig([]byte(tt.good)); err != nil {
				t.Fatalf("the good one: %v", err)
			}
			if strings.Count(tt.good, tt.line+"\n") != 1 {
				t.Fatalf("%q is not a line of the good one", tt.line)
			}
			_, err := parseConfig([]byte(strings.Replace(tt.good, tt.line+"\n", tt.instead+"\n", 1)))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want an error with %q", err, tt.want)
			}
		})
	}
	for name, raw := range map[string][]byte{
		"nothing":              nil,
		"a comment":            []byte("# nothing\n"),
		"null":                 []byte("null\n"),
		"a list":               []byte("- a\n"),
		"two documents":        []byte(file + "---\n" + file),
		"an empty second one":  []byte(file + "---\n"),
		"what is too large":    append([]byte(file), bytes.Repeat([]byte("# more\n"), maxConfig/7)...),
		"what is no YAML":      []byte("service: [\n"),
		"an alias to itself":   []byte("a: &a [*a]\n"),
		"a million references": []byte("a: &a [1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nenvironments: {x: {builders: [*c,*c,*c]}}\n"),
	} {
		if _, err := parseConfig(raw); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// Relative paths are relative to the file, absolute ones stay.
func TestLoadConfigAnchorsPaths(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "provost.yaml")
	raw := strings.Replace(string(readFile(t, "minimal-file.yaml")), "directory: keys", "directory: /var/lib/provost/keys", 1)
	raw += "\nissuers: [{url: https://gitlab.example, cross_check: {url: https://gitlab.example/api/v4, token_file: api.token}}]\n"
	raw += "foreign: [{name: github, trusted_root_file: github.json, identities: [{issuer: a, san: b}], predicate_types: [b]}]\n"
	if err := os.WriteFile(path, []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{c.Database, c.Keys.File.IdentityFile, c.Keys.File.Directory, c.Keys.OfflineRoot, c.Issuers[0].CrossCheck.TokenFile, c.Foreign[0].TrustedRootFile}
	want := []string{filepath.Join(dir, "provost.db"), filepath.Join(dir, "keyring.key"), "/var/lib/provost/keys", "", filepath.Join(dir, "api.token"), filepath.Join(dir, "github.json")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// FuzzConfig: nothing that stands in a file makes the service panic, and what
// is accepted is valid.
func FuzzConfig(f *testing.F) {
	names, err := filepath.Glob("testdata/config/*")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range append(names, "../../deploy/provost.example.yaml") {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte("tls: {}\nkeys: {vault: {approle: , jwt: }}"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := parseConfig(raw)
		if err != nil {
			return
		}
		if err := c.validate(); err != nil {
			t.Errorf("accepted, and not valid: %v", err)
		}
		defaulted := c
		defaulted.defaults()
		if diff := cmp.Diff(c, defaulted); diff != "" {
			t.Errorf("accepted without its defaults\n%s", diff)
		}
		c.anchor("/etc/provost")
		if !filepath.IsAbs(c.Database) {
			t.Errorf("the database %q has no place", c.Database)
		}
	})
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "config", name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
